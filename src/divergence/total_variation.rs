//! ½ Σ |p − q|. Where p = q the function has a kink, and the derivative used is 0.

use super::disjoint_pair::DisjointPair;
use super::pair::Pair;
use super::{Class, Disjoint, DisjointFacts, DisjointView, Divergence, Infinite, Outer};
use crate::simd::Lanes;

#[derive(Clone, Copy)]
pub(crate) struct TotalVariation;

impl TotalVariation {
    /// ½ sign(p − q).
    #[inline(always)]
    fn half_sign<V: Lanes>(pair: &Pair<V>) -> V {
        let half = V::splat(pair.token, 0.5);
        let zero = V::splat(pair.token, 0.0);
        // The sign of the log-ratio is right where p and q are too small to be told apart.
        let d = pair.log_ratio;
        V::select(zero.lt(d), half, V::select(d.lt(zero), -half, zero))
    }
}

impl Divergence for TotalVariation {
    const FIRST_ORDER: bool = true;
    const HAS_LONE_SLOPES: bool = true;

    #[cfg(test)]
    fn definition(self, ln_p: f64, ln_q: f64) -> (f64, f64, f64) {
        let (p, q) = (ln_p.exp(), ln_q.exp());
        let half_sign = if p == q { 0.0 } else { 0.5_f64.copysign(p - q) };
        (0.5 * (p - q).abs(), half_sign * p, -half_sign * q)
    }

    fn kink(self) -> f64 {
        0.5
    }

    #[inline(always)]
    fn class<V: Lanes>(self, pair: &Pair<V>) -> Class<V> {
        let half_sign = Self::half_sign(pair);
        let value = V::splat(pair.token, 0.5) * pair.difference().abs();
        Class { value, d_ln_p: half_sign * pair.p, d_ln_q: -(half_sign * pair.q) }
    }

    #[inline(always)]
    fn slopes_per_probability<V: Lanes>(self, pair: &Pair<V>) -> (V, V) {
        let half_sign = Self::half_sign(pair);
        (half_sign, -half_sign)
    }

    fn lone_slopes(self) -> (f64, f64) {
        (0.5, 0.5)
    }

    #[inline(always)]
    fn slopes_beyond_lone<V: Lanes>(self, pair: &Pair<V>, _: &Class<V>) -> (V, V) {
        let half = V::splat(pair.token, 0.5);
        let half_sign = Self::half_sign(pair);
        ((half_sign - half) * pair.p, -((half_sign + half) * pair.q))
    }

    fn for_disjoint_rows(self) -> Option<impl Disjoint> {
        Some(self)
    }

    fn infinite_where(self) -> Infinite {
        Infinite { q_zero: false, p_zero: false }
    }

    fn slopes_at_zero(self) -> (f64, f64) {
        (-0.5, -0.5)
    }
}

impl Disjoint for TotalVariation {
    type View<V: Lanes> = Self;

    fn view<V: Lanes>(self, _: V::Token, _: DisjointFacts) -> Self {
        self
    }

    fn finish(self, sum: f64) -> Option<Outer> {
        /// Below, p and q of the row's largest class may be close.
        const SMALLEST: f64 = 0.25;
        (sum >= SMALLEST).then_some(Outer { value: sum, slope: 1.0 })
    }
}

/// Slopes are relative to ½, that of a class which the other row lacks: −p where q is larger, −q where p is.
impl<V: Lanes> DisjointView<V> for TotalVariation {
    #[inline(always)]
    fn class(&self, pair: &DisjointPair<V>) -> Class<V> {
        let zero = V::splat(pair.token, 0.0);
        let half = V::splat(pair.token, 0.5);
        // The signs of the log-ratio are right where p and q round to the same number.
        let d = pair.log_ratio;
        let (p_larger, q_larger) = (zero.lt(d), d.lt(zero));
        let minus_one = V::splat(pair.token, -1.0);
        let p_factor = V::select(p_larger, zero, V::select(q_larger, minus_one, -half));
        let q_factor = V::select(q_larger, zero, V::select(p_larger, minus_one, -half));
        let value = half * (pair.p - pair.q).abs();
        Class { value, d_ln_p: p_factor * pair.p, d_ln_q: q_factor * pair.q }
    }
}
