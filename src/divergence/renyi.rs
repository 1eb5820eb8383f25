//! Rényi's divergence of order α, ln(S) / (α − 1) with S = Σ p^α q^(1−α).
//!
//! What is summed is the alpha-divergence (S − 1)/(α(α − 1)) ([`Powers`]). Its terms cancel in S where rows have little in
//! common (S below ½), and S leaves the range of floats while its logarithm stays a plain number: such rows are summed again,
//! p^α q^(1−α) relative to the largest.

use super::alpha_divergence::{AlphaDivergence, DisjointAlpha};
use super::pair::Pair;
use super::powers::{DisjointPowers, DisjointPowersView, Powers};
use super::{Class, Disjoint, DisjointFacts, Divergence, Infinite, Outer};
use crate::simd::Lanes;

#[derive(Clone, Copy)]
pub(crate) struct Renyi {
    powers: Powers,
}

impl Renyi {
    pub(crate) fn new(alpha: f64) -> Self {
        Renyi { powers: Powers::new(alpha) }
    }
}

impl Divergence for Renyi {
    const HAS_OUTER: bool = true;
    const CANCELS: bool = true;
    const HAS_LONE_SLOPES: bool = true;

    #[cfg(test)]
    fn definition(self, ln_p: f64, ln_q: f64) -> (f64, f64, f64) {
        let alpha = self.powers.alpha;
        let power = super::powers::definition(alpha, ln_p, ln_q);
        (power, alpha * power, (1.0 - alpha) * power)
    }

    #[cfg(test)]
    fn outer_definition(self, sum: f64) -> Outer {
        let rest = self.powers.alpha - 1.0;
        Outer { value: sum.ln() / rest, slope: 1.0 / (rest * sum) }
    }

    /// Whose slopes are infinite where a class makes the value so: there Rényi's gradient is NaN, whatever its slopes.
    fn terms(self) -> impl Divergence {
        AlphaDivergence::of(self.powers)
    }

    #[inline(always)]
    fn class<V: Lanes>(self, pair: &Pair<V>) -> Class<V> {
        self.powers.class(pair)
    }

    fn linear(self) -> (f64, f64) {
        self.powers.linear()
    }

    fn linear_sum(self) -> f64 {
        self.powers.linear_sum()
    }

    #[inline(always)]
    fn given_slopes<V: Lanes>(self, pair: &Pair<V>, class: &Class<V>) -> (V, V) {
        self.powers.given_slopes(pair, class)
    }

    #[inline(always)]
    fn slopes_per_probability<V: Lanes>(self, pair: &Pair<V>) -> (V, V) {
        self.powers.slopes_per_probability(pair)
    }

    fn lone_slopes(self) -> (f64, f64) {
        self.powers.lone_slopes()
    }

    #[inline(always)]
    fn slopes_beyond_lone<V: Lanes>(self, pair: &Pair<V>, class: &Class<V>) -> (V, V) {
        self.powers.given_slopes(pair, class)
    }

    fn infinite_where(self) -> Infinite {
        self.powers.infinite_where()
    }

    fn slopes_at_zero(self) -> (f64, f64) {
        self.powers.slopes_at_zero()
    }

    fn needs_wide_lanes(self) -> bool {
        self.powers.needs_wide_lanes()
    }

    #[inline(always)]
    fn score<V: Lanes>(self, pair: &Pair<V>) -> V {
        self.powers.score(pair)
    }

    fn cancels_of_given_rows(self, near: f64, excess: f64, above_one: f64) -> bool {
        self.powers.cancels_of_given_rows(near, excess, above_one)
    }

    fn rescaled(self, largest: f64) -> Self {
        Renyi { powers: self.powers.rescaled(largest) }
    }

    fn finish(self, near: f64) -> Outer {
        let Powers { alpha, largest, .. } = self.powers;
        let order = alpha - 1.0;
        if let Some(largest) = largest {
            return Outer { value: largest * (self.powers.unit() / order) + near.ln() / order, slope: 1.0 / near };
        }
        // S − 1; products in this order stay in range.
        let above = alpha * (order * near);
        // S cancels for nearly disjoint rows, and so do the slopes: to be summed again.
        if above <= -0.5 {
            return Outer { value: f64::INFINITY, slope: f64::NAN };
        }
        Outer { value: above.ln_1p() / order, slope: alpha / (1.0 + above) }
    }

    fn at_sum(self, near: f64) -> (Self, f64) {
        let Powers { alpha, largest, .. } = self.powers;
        if largest.is_some() {
            return (self, 1.0);
        }
        let above = alpha * ((alpha - 1.0) * near);
        let at = |ln_sum| Renyi { powers: Powers { ln_sum, ..self.powers } };
        if alpha < 1.0 {
            let small = self.powers.ln_inverse_order();
            return (at(above.ln_1p() + small), (1.0 + above) * small.exp());
        }
        if above <= 0.0 {
            return (self, 1.0);
        }
        (at(above.ln_1p()), 1.0 + above)
    }

    fn for_disjoint_rows(self) -> Option<impl Disjoint> {
        // Larger orders make more of the errors of f32 lanes.
        let alpha = self.powers.alpha;
        (alpha <= 4.0).then_some(DisjointRenyi(DisjointPowers { alpha }))
    }
}

#[derive(Clone, Copy)]
pub(crate) struct DisjointRenyi(DisjointPowers);

impl Disjoint for DisjointRenyi {
    type View<V: Lanes> = DisjointPowersView<V>;

    fn terms(self) -> impl Disjoint {
        DisjointAlpha::of(self.0)
    }

    #[inline(always)]
    fn view<V: Lanes>(self, token: V::Token, rows: DisjointFacts) -> DisjointPowersView<V> {
        self.0.view(token, rows)
    }

    fn finish(self, sum: f64) -> Option<Outer> {
        let order = self.0.alpha - 1.0;
        // Near 1 its logarithm cancels.
        let accurate = sum.ln().abs() >= 0.35 && DisjointPowers::holds(sum);
        accurate.then(|| Outer { value: sum.ln() / order, slope: 1.0 / (order * sum) })
    }
}
