//! KL(p‖q) + KL(q‖p) = Σ (p − q)(ln p − ln q).
//!
//! f is of second order by itself, with slopes p·d + (p − q) and −q·d − (p − q) for d = ln p − ln q, in which nothing cancels:
//! f̃ = f.

use super::disjoint_pair::{DisjointPair, LogRatioLess};
use super::pair::Pair;
#[cfg(test)]
use super::times;
use super::{Class, Disjoint, DisjointFacts, DisjointView, Divergence, Infinite, Outer};
use crate::simd::Lanes;
use crate::simd::exp::saturating_exp;

#[derive(Clone, Copy)]
pub(crate) struct Jeffreys;

impl Divergence for Jeffreys {
    const FINITE_WHERE_LACKING: bool = true;

    #[cfg(test)]
    fn definition(self, ln_p: f64, ln_q: f64) -> (f64, f64, f64) {
        let (p, q) = (ln_p.exp(), ln_q.exp());
        let (to_q, to_p) = (times(p, ln_p - ln_q), times(q, ln_q - ln_p));
        (to_q + to_p, to_q + (p - q), to_p + (q - p))
    }

    #[inline(always)]
    fn class<V: Lanes>(self, pair: &Pair<V>) -> Class<V> {
        let (d, difference) = (pair.log_ratio, pair.difference());
        Class { value: difference * d, d_ln_p: pair.p * d + difference, d_ln_q: -(pair.q * d + difference) }
    }

    #[inline(always)]
    fn slopes_per_probability<V: Lanes>(self, pair: &Pair<V>) -> (V, V) {
        // d + 1 − e^(−d) and −d − (e^d − 1): of the two differences of exponentials one is e^(−u) − 1.
        let one = V::splat(pair.token, 1.0);
        let close = pair.u.lt(one);
        let falling = -pair.decay.expm1;
        let rising =
            V::select(close, falling / V::select(close, pair.decay.exp, one), saturating_exp(pair.token, pair.u) - one);
        let (of_larger, of_smaller) = (pair.u + falling, -(pair.u + rising));
        (pair.where_p_larger(of_larger, of_smaller), pair.where_p_larger(of_smaller, of_larger))
    }

    fn for_disjoint_rows(self) -> Option<impl Disjoint> {
        Some(self)
    }

    fn infinite_where(self) -> Infinite {
        Infinite { q_zero: true, p_zero: true }
    }

    fn slopes_at_zero(self) -> (f64, f64) {
        // ln(p/q) + 1 − q/p and the same exchanged.
        (f64::NEG_INFINITY, f64::NEG_INFINITY)
    }
}

impl Disjoint for Jeffreys {
    type View<V: Lanes> = JeffreysView<V>;

    #[inline(always)]
    fn view<V: Lanes>(self, token: V::Token, rows: DisjointFacts) -> JeffreysView<V> {
        JeffreysView {
            plus_kl: LogRatioLess::new(token, rows, -rows.kl),
            less_kl: LogRatioLess::new(token, rows, rows.kl),
        }
    }

    fn finish(self, sum: f64) -> Option<Outer> {
        sum.is_finite().then_some(Outer { value: sum, slope: 1.0 })
    }
}

#[derive(Clone, Copy)]
pub(crate) struct JeffreysView<V> {
    plus_kl: LogRatioLess<V>,
    less_kl: LogRatioLess<V>,
}

/// Slopes without their multiples of p and q: p·(d − KL) − q and −q·(d + KL) − p. The mean of d over q is −KL(q‖p), of which
/// KL(p‖q) is what is known.
impl<V: Lanes> DisjointView<V> for JeffreysView<V> {
    #[inline(always)]
    fn class(&self, pair: &DisjointPair<V>) -> Class<V> {
        let DisjointPair { p, q, log_ratio: d, .. } = *pair;
        let of_q: V = q * self.plus_kl.of(pair) + p;
        Class { value: (p - q) * d, d_ln_p: p * self.less_kl.of(pair) - q, d_ln_q: -of_q }
    }
}
