//! λ·KL(p‖q) + (1 − λ)·½ Σ |p − q|, with λ = e^(−η·Σ min(p, q)).
//!
//! For a λ that stays as it is, f̃ is λ·p·(e^(−d) − 1 + d) + (1−λ)·½|p − q| with d = ln p − ln q.

use super::disjoint_pair::{DisjointPair, LogRatioLess};
use super::kl::Kl;
use super::pair::Pair;
use super::total_variation::TotalVariation;
use super::{Class, Disjoint, DisjointFacts, DisjointView, Divergence, Infinite, Outer, Statistic};
use crate::simd::Lanes;
use crate::simd::exp::saturating_exp;
use std::f64::consts::LN_2;

#[derive(Clone, Copy)]
pub(crate) struct LkHybrid {
    eta: f64,
    /// λ and 1 − λ.
    weights: (f64, f64),
    ln_lambda: f64,
}

impl LkHybrid {
    pub(crate) fn new(eta: f64) -> Self {
        LkHybrid { eta, weights: (0.5, 0.5), ln_lambda: -LN_2 }
    }

    /// λ·a + (1−λ)·b.
    #[inline(always)]
    fn mix<V: Lanes>(self, token: V::Token, a: V, b: V) -> V {
        V::splat(token, self.weights.0) * a + V::splat(token, self.weights.1) * b
    }
}

impl Divergence for LkHybrid {
    const HAS_STATISTIC: bool = true;
    const FIRST_ORDER: bool = true;
    const FINITE_WHERE_LACKING: bool = true;
    const HAS_LONE_SLOPES: bool = true;

    fn statistic(self) -> Option<Statistic> {
        /// λ is rounded by this times the rounding of Σ min(p, q), 10⁻⁷ of it.
        const LARGEST_EXPONENT: f64 = 4.0;
        Some(Statistic::Acceptance { narrow_up_to: LARGEST_EXPONENT / self.eta })
    }

    fn weighed(self, acceptance: f64) -> Self {
        let exponent = -self.eta * acceptance;
        LkHybrid { weights: (exponent.exp(), -exponent.exp_m1()), ln_lambda: exponent, ..self }
    }

    #[cfg(test)]
    fn definition(self, ln_p: f64, ln_q: f64) -> (f64, f64, f64) {
        let (kl, variation) = (Kl.definition(ln_p, ln_q), TotalVariation.definition(ln_p, ln_q));
        let mix = |a: f64, b: f64| self.weights.0 * a + self.weights.1 * b;
        (mix(kl.0, variation.0), mix(kl.1, variation.1), mix(kl.2, variation.2))
    }

    fn kink(self) -> f64 {
        0.5 * self.weights.1
    }

    #[inline(always)]
    fn class<V: Lanes>(self, pair: &Pair<V>) -> Class<V> {
        let (token, kl, variation) = (pair.token, Kl.class(pair), TotalVariation.class(pair));
        Class {
            value: self.mix(token, kl.value, variation.value),
            d_ln_p: self.mix(token, kl.d_ln_p, variation.d_ln_p),
            d_ln_q: self.mix(token, kl.d_ln_q, variation.d_ln_q),
        }
    }

    fn linear(self) -> (f64, f64) {
        (self.weights.0, -self.weights.0)
    }

    #[inline(always)]
    fn given_slopes<V: Lanes>(self, pair: &Pair<V>, class: &Class<V>) -> (V, V) {
        // −λ·p of q, and not λ·(q − p) − λ·q.
        let lambda = V::splat(pair.token, self.weights.0);
        let variation = TotalVariation.class(pair);
        (pair.p.mul_add(lambda, class.d_ln_p), self.mix(pair.token, -pair.p, variation.d_ln_q))
    }

    #[inline(always)]
    fn slopes_per_probability<V: Lanes>(self, pair: &Pair<V>) -> (V, V) {
        let token = pair.token;
        let variation = TotalVariation.slopes_per_probability(pair);
        let of_p = self.mix(token, pair.log_ratio + V::splat(token, 1.0), variation.0);
        // λ·p/q, each of which may be out of range.
        let ratio = saturating_exp(token, pair.log_ratio + V::splat(token, self.ln_lambda));
        let ratio = V::select(pair.has.0, ratio, V::splat(token, 0.0));
        (of_p, V::splat(token, self.weights.1) * variation.1 - ratio)
    }

    fn lone_slopes(self) -> (f64, f64) {
        // Of p only where the value is infinite.
        (0.0, self.weights.0 + 0.5 * self.weights.1)
    }

    #[inline(always)]
    fn slopes_beyond_lone<V: Lanes>(self, pair: &Pair<V>, class: &Class<V>) -> (V, V) {
        let variation = TotalVariation.class(pair);
        let (_, of_q) = TotalVariation.slopes_beyond_lone(pair, &variation);
        (class.d_ln_p, self.mix(pair.token, -pair.p, of_q))
    }

    fn for_disjoint_rows(self) -> Option<impl Disjoint> {
        Some(self)
    }

    fn infinite_where(self) -> Infinite {
        Infinite { q_zero: true, p_zero: false }
    }

    fn slopes_at_zero(self) -> (f64, f64) {
        // λ·(ln(p/q) + 1) − ½(1−λ) and −λ·p/q − ½(1−λ).
        (f64::NEG_INFINITY, f64::NEG_INFINITY)
    }
}

impl Disjoint for LkHybrid {
    type View<V: Lanes> = LkHybridView<V>;

    #[inline(always)]
    fn view<V: Lanes>(self, token: V::Token, rows: DisjointFacts) -> LkHybridView<V> {
        let splat = |value| V::splat(token, value);
        LkHybridView {
            lambda: splat(self.weights.0),
            rest: splat(self.weights.1),
            less_kl: LogRatioLess::new(token, rows, rows.kl),
        }
    }

    fn finish(self, sum: f64) -> Option<Outer> {
        // Of total variation a quarter of what it is at most.
        let enough = sum.is_finite() && sum >= 0.25;
        enough.then_some(Outer { value: sum, slope: 1.0 })
    }
}

/// λ and 1 − λ.
#[derive(Clone, Copy)]
pub(crate) struct LkHybridView<V> {
    lambda: V,
    rest: V,
    less_kl: LogRatioLess<V>,
}

/// Slopes without their multiples of p and q: p·(d − KL) and −p of KL, and those of total variation.
impl<V: Lanes> DisjointView<V> for LkHybridView<V> {
    #[inline(always)]
    fn class(&self, pair: &DisjointPair<V>) -> Class<V> {
        let variation = DisjointView::<V>::class(&TotalVariation, pair);
        let to_q = pair.p * pair.log_ratio;
        Class {
            value: self.lambda * (to_q - (pair.p - pair.q)) + self.rest * variation.value,
            d_ln_p: self.lambda * (pair.p * self.less_kl.of(pair)) + self.rest * variation.d_ln_p,
            d_ln_q: self.rest * variation.d_ln_q - self.lambda * pair.p,
        }
    }
}
