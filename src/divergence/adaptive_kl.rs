//! g·KL(p‖q) + (1 − g)·KL(q‖p), with g the share that the head of p has in Σ |p − q|.
//!
//! For a g that stays as it is, f = g·p·d − (1−g)·q·d with d = ln p − ln q. Both KL have their own f̃ ≥ 0, p·(e^(−d) − 1 + d) and
//! q·(e^d − 1 − d), so that λ = 2g − 1 = −μ.

use super::disjoint_pair::{DisjointPair, LogRatioLess};
use super::pair::Pair;
#[cfg(test)]
use super::times;
use super::{Class, Disjoint, DisjointFacts, DisjointView, Divergence, Infinite, Outer, Statistic};
use crate::simd::Lanes;
use crate::simd::exp::saturating_exp;
use std::f64::consts::LN_2;

#[derive(Clone, Copy)]
pub(crate) struct AdaptiveKl {
    mass: f64,
    /// g and 1 − g.
    weights: (f64, f64),
    /// Their logarithms, of 0 a very low number.
    ln_weights: (f64, f64),
}

impl AdaptiveKl {
    pub(crate) fn new(mu: f64) -> Self {
        AdaptiveKl { mass: mu, weights: (0.5, 0.5), ln_weights: (-LN_2, -LN_2) }
    }

    #[inline(always)]
    fn splat_weights<V: Lanes>(self, token: V::Token) -> (V, V) {
        (V::splat(token, self.weights.0), V::splat(token, self.weights.1))
    }
}

impl Divergence for AdaptiveKl {
    const HAS_STATISTIC: bool = true;
    const FINITE_WHERE_LACKING: bool = true;

    fn statistic(self) -> Option<Statistic> {
        Some(Statistic::HeadOfGap { mass: self.mass })
    }

    fn weighed(self, head_per_tail: f64) -> Self {
        /// e to this is 0, also next to the largest log-ratio.
        const NONE: f64 = -1e300;
        let tail = 1.0 / (1.0 + head_per_tail);
        let head = if head_per_tail < 1.0 { head_per_tail * tail } else { 1.0 - tail };
        // A tail that float64 does not tell from nothing next to the head weighs nothing.
        let weights = if head == 1.0 { (1.0, 0.0) } else { (head, tail) };
        AdaptiveKl { weights, ln_weights: (weights.0.ln().max(NONE), weights.1.ln().max(NONE)), ..self }
    }

    #[cfg(test)]
    fn definition(self, ln_p: f64, ln_q: f64) -> (f64, f64, f64) {
        let (p, q, (g, rest)) = (ln_p.exp(), ln_q.exp(), self.weights);
        let (to_q, to_p) = (times(p, ln_p - ln_q), times(q, ln_q - ln_p));
        (times(g, to_q) + times(rest, to_p), times(g, to_q + p) - rest * q, times(rest, to_p + q) - g * p)
    }

    #[inline(always)]
    fn class<V: Lanes>(self, pair: &Pair<V>) -> Class<V> {
        let (g, rest): (V, V) = self.splat_weights(pair.token);
        let (d, difference) = (pair.log_ratio, pair.difference());
        let of_q: V = g * difference + rest * (pair.q * d);
        Class {
            value: g * pair.kl_term() + rest * pair.reverse_kl_term(),
            d_ln_p: g * (pair.p * d) + rest * difference,
            d_ln_q: -of_q,
        }
    }

    fn linear(self) -> (f64, f64) {
        let (g, rest) = self.weights;
        (g - rest, rest - g)
    }

    fn linear_sum(self) -> f64 {
        0.0
    }

    #[inline(always)]
    fn slopes_per_probability<V: Lanes>(self, pair: &Pair<V>) -> (V, V) {
        // g·(d + 1) − (1−g)·e^(−d) and (1−g)·(1 − d) − g·e^d; of close classes by e^(−d) − 1 and e^d − 1, of which one is
        // e^(−u) − 1.
        let (token, d) = (pair.token, pair.log_ratio);
        let one = V::splat(token, 1.0);
        let (g, rest): (V, V) = self.splat_weights(token);
        let (lambda, mu) = self.linear();
        let close = pair.u.lt(one);
        let falling = -pair.decay.expm1;
        let rising = falling / V::select(close, pair.decay.exp, one);
        let close_p = g * d + rest * pair.where_p_larger(falling, -rising) + V::splat(token, lambda);
        let close_q = g * pair.where_p_larger(-rising, falling) - rest * d + V::splat(token, mu);
        // Products of weights and exponentials, each of which may be out of range.
        let (ln_g, ln_rest) = (V::splat(token, self.ln_weights.0), V::splat(token, self.ln_weights.1));
        let far_p = g * (d + one) - saturating_exp(token, ln_rest - d);
        let far_q = rest * (one - d) - saturating_exp(token, ln_g + d);
        (V::select(close, close_p, far_p), V::select(close, close_q, far_q))
    }

    fn for_disjoint_rows(self) -> Option<impl Disjoint> {
        Some(self)
    }

    fn infinite_where(self) -> Infinite {
        Infinite { q_zero: self.weights.0 > 0.0, p_zero: self.weights.1 > 0.0 }
    }

    fn slopes_at_zero(self) -> (f64, f64) {
        // g·(ln(p/q) + 1) − (1−g)·q/p and the same exchanged.
        (f64::NEG_INFINITY, f64::NEG_INFINITY)
    }
}

impl Disjoint for AdaptiveKl {
    type View<V: Lanes> = AdaptiveKlView<V>;

    #[inline(always)]
    fn view<V: Lanes>(self, token: V::Token, rows: DisjointFacts) -> AdaptiveKlView<V> {
        AdaptiveKlView {
            weights: self.splat_weights(token),
            plus_kl: LogRatioLess::new(token, rows, -rows.kl),
            less_kl: LogRatioLess::new(token, rows, rows.kl),
        }
    }

    fn finish(self, sum: f64) -> Option<Outer> {
        sum.is_finite().then_some(Outer { value: sum, slope: 1.0 })
    }
}

/// g and 1 − g.
#[derive(Clone, Copy)]
pub(crate) struct AdaptiveKlView<V> {
    weights: (V, V),
    plus_kl: LogRatioLess<V>,
    less_kl: LogRatioLess<V>,
}

/// Slopes without their multiples of p and q: g·p·(d − KL) − (1−g)·q and −(1−g)·q·(d + KL) − g·p. The mean of d over q is −KL(q‖p),
/// of which KL(p‖q) is what is known.
impl<V: Lanes> DisjointView<V> for AdaptiveKlView<V> {
    #[inline(always)]
    fn class(&self, pair: &DisjointPair<V>) -> Class<V> {
        let DisjointPair { p, q, log_ratio: d, .. } = *pair;
        let (g, rest) = self.weights;
        let (to_q, to_p) = (p * d, q * d);
        let difference = p - q;
        let of_q: V = rest * (q * self.plus_kl.of(pair)) + g * p;
        Class {
            value: g * (to_q - difference) + rest * (difference - to_p),
            d_ln_p: g * (p * self.less_kl.of(pair)) - rest * q,
            d_ln_q: -of_q,
        }
    }
}
