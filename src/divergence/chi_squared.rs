//! Pearson's χ², Σ (p − q)²/q.
//!
//! f = f̃ = (p − q)²/q. With e the larger of p and q, u = |ln p − ln q| and h = e^(−u) − 1, it is e·h²·e^u where p is the
//! larger, e·h² where q is; ∂f/∂ln p = 2p(p − q)/q and ∂f/∂ln q = −(p − q)(p + q)/q.

use super::alpha_divergence::DisjointAlpha;
use super::pair::Pair;
use super::{Class, Disjoint, Divergence, Infinite};
use crate::simd::exp::saturating_exp;
use crate::simd::{Lanes, Scalar};

#[derive(Clone, Copy)]
pub(crate) struct ChiSquared;

impl Divergence for ChiSquared {
    const HAS_LONE_SLOPES: bool = true;
    // The weight p²/q of a class is not bounded by the class, and the rounding of f32 lanes in its logarithm would show.
    const NARROW: bool = false;

    #[cfg(test)]
    fn definition(self, ln_p: f64, ln_q: f64) -> (f64, f64, f64) {
        let (p, q) = (ln_p.exp(), ln_q.exp());
        if p == q {
            return (0.0, 0.0, 0.0);
        }
        ((p - q) * (p - q) / q, 2.0 * p * (p - q) / q, -(p - q) * (p + q) / q)
    }

    #[inline(always)]
    fn class<V: Lanes>(self, pair: &Pair<V>) -> Class<V> {
        /// ln p, below which p has few digits or none, and u that makes something of it.
        const SMALL: (f64, f64) = (-700.0, 300.0);
        let token = pair.token;
        let splat = |value| V::splat(token, value);
        let (one, two) = (splat(1.0), splat(2.0));
        let (ratio, h) = (pair.decay.exp, pair.decay.expm1);
        // Nothing but p²/q is left where e^u, or p times it, leaves the range of f64; it comes from its logarithm.
        let beyond = splat(V::Scalar::EXP_FLOOR).lt(pair.u);
        let small = V::and(pair.ln_larger.lt(splat(SMALL.0)), splat(SMALL.1).lt(pair.u));
        let large = V::and(pair.shared(), V::or(beyond, small));
        // There e^(−u) may be 0, and so it is of a class that does not exist.
        let inverse = one / V::select(splat(0.0).lt(ratio), ratio, one);
        let first_order = pair.larger * h;
        let power = saturating_exp(token, pair.ln_larger + pair.u);
        let grown = V::select(large, -power, first_order * inverse);
        Class {
            value: h * pair.where_p_larger(grown, first_order),
            d_ln_p: two * pair.where_p_larger(-grown, first_order * ratio),
            d_ln_q: (one + ratio) * pair.where_p_larger(grown, -first_order),
        }
    }

    #[inline(always)]
    fn given_slopes<V: Lanes>(self, pair: &Pair<V>, class: &Class<V>) -> (V, V) {
        // Of a class that q lacks.
        let infinite = V::and(pair.lone(), pair.has.0);
        let infinity = V::splat(pair.token, f64::INFINITY);
        (V::select(infinite, infinity, class.d_ln_p), V::select(infinite, -infinity, class.d_ln_q))
    }

    #[inline(always)]
    fn slopes_per_probability<V: Lanes>(self, pair: &Pair<V>) -> (V, V) {
        // With r = p/q: 2(r − 1) and 1 − r².
        let (one, two) = (V::splat(pair.token, 1.0), V::splat(pair.token, 2.0));
        let (ratio, h) = (pair.decay.exp, pair.decay.expm1);
        let excess = pair.where_p_larger(-h / ratio, h);
        let sum = one + pair.where_p_larger(one / ratio, ratio);
        (two * excess, -(excess * sum))
    }

    fn lone_slopes(self) -> (f64, f64) {
        // Of f̃ + 2p; for p nothing is to be taken off, where the value is finite.
        (-2.0, 1.0)
    }

    #[inline(always)]
    fn slopes_beyond_lone<V: Lanes>(self, pair: &Pair<V>, class: &Class<V>) -> (V, V) {
        // 2p²/q and −p²/q.
        let token = pair.token;
        let zero = V::splat(token, 0.0);
        let ratio = pair.decay.exp;
        let power = pair.where_p_larger(pair.larger / ratio, pair.larger * ratio * ratio);
        let power = V::select(pair.shared(), power, zero);
        let grown = V::splat(token, 700.0).lt(pair.u);
        let power = V::select(V::and(grown, pair.p_larger), V::splat(token, 0.5) * class.d_ln_p, power);
        (power + power, -power)
    }

    fn for_disjoint_rows(self) -> Option<impl Disjoint> {
        // Twice the alpha-divergence of order 2.
        DisjointAlpha::new(2.0, 2.0)
    }

    fn infinite_where(self) -> Infinite {
        Infinite { q_zero: true, p_zero: false }
    }

    fn slopes_at_zero(self) -> (f64, f64) {
        // 2(p/q − 1) and 1 − p²/q².
        (-2.0, f64::NEG_INFINITY)
    }
}
