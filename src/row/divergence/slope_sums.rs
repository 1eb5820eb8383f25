//! What f32 lanes sum of a divergence and of its slopes.

use crate::row::divergence::second_pass::{Norms, Sums};
use crate::simd::Lanes;

/// Σf, or Σf̃; Σa, Σa², Σa·p and Σp² for the slopes a of p; the same of q.
pub(crate) const SUMS: usize = 9;

/// Which of the sums there are.
#[inline(always)]
pub(crate) const fn has_sum<const P: bool, const Q: bool>(at: usize) -> bool {
    [true, P, P, P, P, Q, Q, Q, Q][at]
}

/// What lanes summed of values and slopes in units of their own.
pub(crate) fn in_units(found: [f64; SUMS], of_values: f64, of_p: f64, of_q: f64) -> Sums {
    let norms = |at: usize, unit: f64| Norms {
        slopes: unit * unit * found[at],
        cross: unit * found[at + 1],
        probabilities: found[at + 2],
    };
    Sums {
        value: of_values * found[0],
        d_ln_p: of_p * found[1],
        p_norms: norms(2, of_p),
        d_ln_q: of_q * found[5],
        q_norms: norms(6, of_q),
        ..Sums::default()
    }
}

/// Adds a slope of a side, whose first sum is `at`.
#[inline(always)]
pub(crate) fn add_slope<V: Lanes>(runs: &mut [V; SUMS], at: usize, slope: V, probability: V) {
    runs[at] = runs[at] + slope;
    runs[at + 1] = slope.mul_add_relaxed(slope, runs[at + 1]);
    runs[at + 2] = slope.mul_add_relaxed(probability, runs[at + 2]);
    runs[at + 3] = probability.mul_add_relaxed(probability, runs[at + 3]);
}
