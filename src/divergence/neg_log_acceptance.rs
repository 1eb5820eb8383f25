//! −ln Σ min(p, q), the negative logarithm of the acceptance rate of speculative sampling.
//!
//! f = −min(p, q) = ½|p − q| − ½p − ½q, so that f̃ is that of total variation and λ = μ = −½; φ(Σf) = −ln(−Σf). Where little is
//! shared, Σ min(p, q) is what is left of 1 − Σf̃, and is summed by itself, relative to its largest term.

use super::disjoint_pair::DisjointPair;
use super::pair::Pair;
use super::total_variation::TotalVariation;
use super::{Class, Disjoint, DisjointFacts, DisjointView, Divergence, Infinite, Outer};
use crate::simd::Lanes;
use crate::simd::exp::exp;

/// Shares of this size and more are accurate as what is left of 1.
const SMALLEST_SHARE: f64 = 0.25;

#[derive(Clone, Copy)]
pub(crate) struct NegLogAcceptance {
    /// The logarithm of the largest min(p, q), once rescaled.
    largest: Option<f64>,
    /// The slope per probability of the smaller of p and q is −1 times this.
    unit: f64,
}

impl NegLogAcceptance {
    pub(crate) const NEW: Self = NegLogAcceptance { largest: None, unit: 1.0 };

    /// Parts of the slope, which belong to p, and to q: all of it to the smaller, half to each where they agree.
    #[inline(always)]
    fn shares<V: Lanes>(token: V::Token, log_ratio: V) -> (V, V) {
        let (zero, half, one) = (V::splat(token, 0.0), V::splat(token, 0.5), V::splat(token, 1.0));
        let of_p = V::select(log_ratio.lt(zero), one, V::select(zero.lt(log_ratio), zero, half));
        (of_p, one - of_p)
    }
}

impl Divergence for NegLogAcceptance {
    const HAS_OUTER: bool = true;
    const FIRST_ORDER: bool = true;
    const HAS_LONE_SLOPES: bool = true;

    #[cfg(test)]
    fn definition(self, ln_p: f64, ln_q: f64) -> (f64, f64, f64) {
        let least = ln_p.min(ln_q).exp();
        let of_p = if ln_p == ln_q { 0.5 } else { f64::from(u8::from(ln_p < ln_q)) };
        (-least, -of_p * least, -(1.0 - of_p) * least)
    }

    #[cfg(test)]
    fn outer_definition(self, sum: f64) -> Outer {
        Outer { value: -(-sum).ln(), slope: -1.0 / sum }
    }

    fn kink(self) -> f64 {
        0.5
    }

    #[inline(always)]
    fn class<V: Lanes>(self, pair: &Pair<V>) -> Class<V> {
        let Some(largest) = self.largest else { return TotalVariation.class(pair) };
        let token = pair.token;
        let above = self.score(pair) - V::splat(token, largest);
        let least = V::select(pair.shared(), exp(token, above), V::splat(token, 0.0));
        let (of_p, of_q) = Self::shares(token, pair.log_ratio);
        Class { value: least, d_ln_p: -(of_p * least), d_ln_q: -(of_q * least) }
    }

    #[inline(always)]
    fn slopes_per_probability<V: Lanes>(self, pair: &Pair<V>) -> (V, V) {
        // Chosen and not multiplied: the unit may be infinite.
        let (unit, half) = (V::splat(pair.token, -self.unit), V::splat(pair.token, -0.5 * self.unit));
        let (zero, d) = (V::splat(pair.token, 0.0), pair.log_ratio);
        let (p_smaller, q_smaller) = (d.lt(zero), zero.lt(d));
        let slope = |smaller, larger| V::select(smaller, unit, V::select(larger, zero, half));
        (slope(p_smaller, q_smaller), slope(q_smaller, p_smaller))
    }

    fn linear(self) -> (f64, f64) {
        if self.largest.is_some() { (0.0, 0.0) } else { (-0.5, -0.5) }
    }

    fn lone_slopes(self) -> (f64, f64) {
        if self.largest.is_some() { (0.0, 0.0) } else { TotalVariation.lone_slopes() }
    }

    #[inline(always)]
    fn slopes_beyond_lone<V: Lanes>(self, pair: &Pair<V>, class: &Class<V>) -> (V, V) {
        TotalVariation.slopes_beyond_lone(pair, class)
    }

    fn for_disjoint_rows(self) -> Option<impl Disjoint> {
        Some(DisjointAcceptance)
    }

    fn infinite_where(self) -> Infinite {
        Infinite { q_zero: false, p_zero: false }
    }

    fn slopes_at_zero(self) -> (f64, f64) {
        (-self.unit, -self.unit)
    }

    fn finish(self, near: f64) -> Outer {
        if let Some(largest) = self.largest {
            return Outer { value: -(largest + near.ln()), slope: 1.0 / near };
        }
        let share = 1.0 - near;
        if share < SMALLEST_SHARE {
            // To be summed by itself.
            return Outer { value: f64::INFINITY, slope: f64::NAN };
        }
        Outer { value: -(-near).ln_1p(), slope: 1.0 / share }
    }

    #[inline(always)]
    fn score<V: Lanes>(self, pair: &Pair<V>) -> V {
        pair.ln_larger - pair.u
    }

    fn at_sum(self, near: f64) -> (Self, f64) {
        match self.largest {
            // φ′ makes 1 of the sum.
            Some(largest) => (NegLogAcceptance { unit: (-(largest + near.ln())).exp(), ..self }, near),
            None => (self, 1.0),
        }
    }

    fn cancels_of_given_rows(self, near: f64, excess: f64, above_one: f64) -> bool {
        /// How many times the share its parts may be.
        const MOST: f64 = 4.0;
        let share = 1.0 - near + 0.5 * excess + above_one;
        let size = 1.0 + near.abs() + 0.5 * excess.abs() + above_one.abs();
        let accurate = size <= MOST * share;
        self.largest.is_none() && !accurate
    }

    fn rescaled(self, largest: f64) -> Self {
        NegLogAcceptance { largest: Some(largest), unit: (-largest).exp() }
    }
}

/// Σ min(p, q) of rows that share little, as it is.
#[derive(Clone, Copy)]
pub(crate) struct DisjointAcceptance;

impl Disjoint for DisjointAcceptance {
    type View<V: Lanes> = Self;

    fn view<V: Lanes>(self, _: V::Token, _: DisjointFacts) -> Self {
        self
    }

    fn finish(self, sum: f64) -> Option<Outer> {
        /// Of a larger share little is left in the logarithm, of a smaller one the classes below f32 may be much.
        const SHARES: std::ops::RangeInclusive<f64> = 1e-20..=0.75;
        SHARES.contains(&sum).then(|| Outer { value: -sum.ln(), slope: 1.0 / sum })
    }
}

impl<V: Lanes> DisjointView<V> for DisjointAcceptance {
    #[inline(always)]
    fn class(&self, pair: &DisjointPair<V>) -> Class<V> {
        let least = pair.p.min(pair.q);
        let (of_p, of_q) = NegLogAcceptance::shares(pair.token, pair.log_ratio);
        Class { value: least, d_ln_p: -(of_p * least), d_ln_q: -(of_q * least) }
    }
}
