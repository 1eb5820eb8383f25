//! 1 − Σ √(pq).
//!
//! f = −√(pq) and f̃ = ½(√p − √q)² = f + p/2 + q/2. With e the larger of p and q, u = |ln p − ln q| and
//! h = e^(−u/2) − 1: f̃ = ½e·h², and ½√p(√p − √q) is −½e·h where p is the larger, ½e·e^(−u/2)·h where q is.

#[cfg(test)]
use super::Outer;
use super::alpha_divergence::DisjointAlpha;
use super::pair::Pair;
use super::{Class, Disjoint, Divergence, Infinite};
use crate::simd::Lanes;
use crate::simd::exp::saturating_exp;

#[derive(Clone, Copy)]
pub(crate) struct SquaredHellinger;

impl SquaredHellinger {
    /// −½√(pq), which is ∂f/∂ln p and ∂f/∂ln q.
    #[inline(always)]
    fn slope<V: Lanes>(pair: &Pair<V>) -> V {
        V::splat(pair.token, -0.5) * pair.larger * pair.decay.exp.sqrt()
    }

    /// −½e^exponent for classes that both rows have, else 0.
    #[inline(always)]
    fn slope_per_probability<V: Lanes>(pair: &Pair<V>, exponent: V) -> V {
        let slope = V::splat(pair.token, -0.5) * saturating_exp(pair.token, exponent);
        V::select(pair.shared(), slope, V::splat(pair.token, 0.0))
    }
}

impl Divergence for SquaredHellinger {
    const HAS_LONE_SLOPES: bool = true;

    #[cfg(test)]
    fn definition(self, ln_p: f64, ln_q: f64) -> (f64, f64, f64) {
        let root = (0.5 * (ln_p + ln_q)).exp();
        (-root, -0.5 * root, -0.5 * root)
    }

    #[cfg(test)]
    fn outer_definition(self, sum: f64) -> Outer {
        Outer { value: 1.0 + sum, slope: 1.0 }
    }

    #[inline(always)]
    fn class<V: Lanes>(self, pair: &Pair<V>) -> Class<V> {
        let token = pair.token;
        let root = pair.decay.exp.sqrt();
        // e^(−u/2) − 1 = (e^(−u) − 1) / (1 + e^(−u/2)) keeps its relative accuracy for small u.
        let h = pair.decay.expm1 / (V::splat(token, 1.0) + root);
        let first_order = V::splat(token, 0.5) * pair.larger * h;
        let value = first_order * h;
        let (larger, smaller) = (-first_order, first_order * root);
        Class { value, d_ln_p: pair.where_p_larger(larger, smaller), d_ln_q: pair.where_p_larger(smaller, larger) }
    }

    #[inline(always)]
    fn given_slopes<V: Lanes>(self, pair: &Pair<V>, _: &Class<V>) -> (V, V) {
        let slope = Self::slope(pair);
        (slope, slope)
    }

    #[inline(always)]
    fn slopes_per_probability<V: Lanes>(self, pair: &Pair<V>) -> (V, V) {
        // −½√(q/p) and −½√(p/q), as exponentials of the log-ratio.
        let d = pair.log_ratio * V::splat(pair.token, 0.5);
        (Self::slope_per_probability(pair, -d), Self::slope_per_probability(pair, d))
    }

    fn linear(self) -> (f64, f64) {
        (-0.5, -0.5)
    }

    fn lone_slopes(self) -> (f64, f64) {
        (0.5, 0.5)
    }

    #[inline(always)]
    fn slopes_beyond_lone<V: Lanes>(self, pair: &Pair<V>, _: &Class<V>) -> (V, V) {
        let slope = Self::slope(pair);
        (slope, slope)
    }

    fn for_disjoint_rows(self) -> Option<impl Disjoint> {
        // A quarter of the alpha-divergence of order ½.
        DisjointAlpha::new(0.5, 0.25)
    }

    fn infinite_where(self) -> Infinite {
        Infinite { q_zero: false, p_zero: false }
    }

    fn slopes_at_zero(self) -> (f64, f64) {
        // −½√(q/p) and −½√(p/q).
        (f64::NEG_INFINITY, f64::NEG_INFINITY)
    }
}
