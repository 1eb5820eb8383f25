//! KL and cross-entropy of a teacher that has the same mass on all classes but those known.
//!
//! Σ m (ln p − ln q) over the others needs the sum of the student's logits there, and no teacher's row. Its terms have both
//! signs: where little is left of them, rows are for [`super::filled`].

use super::few::{SENSITIVE, crossed};
use super::{Known, Objective, StudentGradient, ln_elsewhere};
use crate::row::distribution::scan::fits_narrow_lanes;
use crate::row::distribution::{Distribution, LogSumExp};
use crate::row::entropy::WriteSoftmax;
use crate::row::gradients::LARGEST_NARROW_SCALE;
use crate::row::runs::{Holes, Step, Without, sums};
use crate::rows::Block;
use crate::simd::{Isa, LaneKernel, Lanes};
use crate::threads::Blocks;

/// The least value of a teacher's whole mass that f64 lanes are right to: sums of terms of some nats are to 1e-14.
const LEAST: f64 = 1e-6;
/// The same for results of f64.
const LEAST_WIDE: f64 = 0.25;

/// The loss; `None` where its terms cancel, or a class is infinitely improbable. `rising` are the classes known in order.
pub(super) fn loss(
    objective: Objective<'_>,
    teacher: Known<'_>,
    rising: &[usize],
    student: Distribution<'_>,
    isa: Isa,
    blocks: &Blocks,
    gradient: StudentGradient<'_>,
) -> Option<f64> {
    let rate = student.inverse_temperature;
    let count = student.row.classes() - rising.len();
    let ln_mass = ln_elsewhere(objective, teacher.log_probs, count);
    // Of no other class, and of none that the teacher has, the general way.
    if count == 0 || ln_mass == f64::NEG_INFINITY {
        return None;
    }
    let mass = ln_mass.exp();
    let masses: Vec<f64> = teacher.log_probs.iter().map(|ln_p| ln_p.exp()).collect();
    let whole = masses.iter().sum::<f64>() + mass * count as f64;
    let mut wide = objective.wide || !student.allows_narrow_lanes() || student.is_smoothed(isa, blocks);
    let mut found = None;
    loop {
        let others = student.statistics_without(rising, isa, blocks, &mut wide);
        let logits: Vec<f64> = teacher.ids.iter().map(|&id| student.row.get(id as usize)).collect();
        if others.is_nan() || others.is_empty() || !logits.iter().all(|z| z.is_finite()) {
            return None;
        }
        let kept = logits.iter().map(|&z| LogSumExp { largest: z, rest: 0.0 });
        let lse = LogSumExp::merge(kept.chain([others]), rate);
        // That the others fit says nothing of the classes that are kept.
        if !wide && !fits_narrow_lanes(lse.largest, rate) {
            wide = true;
            continue;
        }
        let ln_q = |z: f64| -lse.surprise(z, rate);
        let parts = blocks.map(student.row.classes(), |start, len| {
            let logits = student.block(start, len);
            let from = rising.partition_point(|&class| class < start);
            let to = from + rising[from..].partition_point(|&class| class < start + len);
            isa.run_lanes(wide, SumOfLogits { logits, holes: Holes { classes: &rising[from..to], start }, lse })
        });
        if parts.iter().any(Option::is_none) {
            return None;
        }
        // Σ ln q of the others.
        let of_others = parts.iter().flatten().sum::<f64>() * rate - count as f64 * lse.ln_sum();
        let own = if objective.cross_entropy {
            0.0
        } else {
            -crossed(masses.iter().copied(), teacher.log_probs.iter().copied()) + mass * count as f64 * ln_mass
        };
        let value = own + crossed(masses.iter().copied(), logits.iter().map(|&z| ln_q(z))) - mass * of_others;
        let least = if objective.wide { LEAST_WIDE } else { LEAST };
        if !value.is_finite() || value.abs() < least * whole {
            return None;
        }
        // Whether the gradient's terms are small differences of q and p: ‖q‖ of the others is at least `least`, and what they
        // have of p is of length `even`.
        let (share, largest) = (others.relative_to(lse, rate), ln_q(others.largest).exp());
        let (even, least) = (mass * (count as f64).sqrt(), largest.max(share / (count as f64).sqrt()));
        let cancels = |q: &[f64], p: &[f64]| {
            let apart: f64 = q.iter().zip(p).map(|(q, p)| (whole * q - p).powi(2)).sum();
            let most = q.iter().map(|q| q * q).sum::<f64>() + largest * share;
            whole * least < 2.0 * even && 16.0 * apart < most
        };
        let q: Vec<f64> = logits.iter().map(|&z| ln_q(z).exp()).collect();
        let value = *found.get_or_insert(value);
        if !wide && (whole > SENSITIVE * value.abs() || gradient.out.is_some() && cancels(&q, &masses)) {
            // A gradient does not change the value.
            found = found.filter(|_| whole <= SENSITIVE * value.abs());
            wide = true;
            continue;
        }
        if let Some(out) = gradient.out {
            let scale = gradient.scale * rate;
            let wide = wide || (whole * scale).abs() > LARGEST_NARROW_SCALE;
            blocks.map(student.row.classes(), |start, len| {
                let (logits, out) = (student.block(start, len), out.block(start, len));
                let kernel = WriteSoftmax { logits, sum: lse, scale: whole * scale, less: mass * scale, out };
                isa.run_lanes(wide, kernel);
            });
            for ((&id, q), p) in teacher.ids.iter().zip(&q).zip(&masses) {
                out.set(id as usize, (whole * q - p) * scale);
            }
        }
        return Some(value);
    }
}

/// Σ (z − largest) of a block without some classes; `None` where another one is masked.
struct SumOfLogits<'a> {
    logits: Distribution<'a>,
    holes: Holes<'a>,
    lse: LogSumExp,
}

/// Part of the classes of a block up to which those left out are taken off the sum of all: of this one they have no more.
const FEW: usize = 16;

/// From the largest logit to one that is taken off: the sums of lanes are rounded by it, too.
const FAR: f64 = 64.0;

impl LaneKernel for SumOfLogits<'_> {
    type Output = Option<f64>;

    #[inline(always)]
    fn run<V: Lanes>(self, token: V::Token) -> Option<f64> {
        let SumOfLogits { logits: Distribution { row, .. }, holes, lse } = self;
        let splat = |value| V::splat(token, value);
        let mut step = SumStep::<V> {
            largest: splat(lse.largest),
            absent: splat(f64::NEG_INFINITY),
            zero: splat(0.0),
            one: splat(1.0),
        };
        let block = [Block::new(row, f64::NEG_INFINITY)];
        let padding = row.classes().next_multiple_of(V::N) - row.classes();
        let is_near = |at: usize| (row.get(at) - lse.largest).abs() <= FAR;
        if holes.classes.len() * FEW <= row.classes() && holes.offsets().all(is_near) {
            let [first, second, absent, others] = sums(token, row.classes(), block, &mut step);
            let left_out: f64 = holes.offsets().map(|at| row.get(at) - lse.largest).sum();
            return ((absent + others) as usize == padding).then_some(first + second - left_out);
        }
        let mut step = Without { token, step, holes, at: 0 };
        let [first, second, absent, others] = sums(token, row.classes(), block, &mut step);
        ((absent + others) as usize == holes.classes.len() + padding).then_some(first + second)
    }
}

struct SumStep<V: Lanes> {
    largest: V,
    absent: V,
    zero: V,
    one: V,
}

impl<V: Lanes> Step<V, 1, 0, 4> for SumStep<V> {
    const CHAINS: usize = 2;

    #[inline(always)]
    fn step<const WHOLE: bool>(&mut self, chain: usize, [z]: [V; 1], runs: &mut [V; 4]) -> [V; 0] {
        let has = self.absent.lt(z);
        runs[chain] = runs[chain] + V::select(has, z - self.largest, self.zero);
        runs[2 + chain] = runs[2 + chain] + V::select(has, self.zero, self.one);
        []
    }
}
