//! The alpha-divergence, (Σ p^α q^(1−α) − 1) / (α(α − 1)), for any order but 0 and 1, where it is KL.
//!
//! All of it is in [`Powers`]. No term cancels, however far rows are apart, and each is in range where it is after its division
//! by α(α − 1). Only rows taken as given may have to be summed again, since what makes f of f̃ is larger than their S.

use super::pair::Pair;
use super::powers::{DisjointPowers, DisjointPowersView, Powers};
use super::{Class, Disjoint, DisjointFacts, Divergence, Infinite, Outer};
use crate::simd::Lanes;

#[derive(Clone, Copy)]
pub(crate) struct AlphaDivergence {
    powers: Powers,
}

impl AlphaDivergence {
    pub(crate) fn new(alpha: f64) -> Self {
        Self::of(Powers::new(alpha))
    }

    pub(super) fn of(powers: Powers) -> Self {
        AlphaDivergence { powers }
    }
}

impl Divergence for AlphaDivergence {
    const CANCELS: bool = true;
    const HAS_LONE_SLOPES: bool = true;

    #[cfg(test)]
    fn definition(self, ln_p: f64, ln_q: f64) -> (f64, f64, f64) {
        let alpha = self.powers.alpha;
        let power = super::powers::definition(alpha, ln_p, ln_q);
        (power / (alpha * (alpha - 1.0)), power / (alpha - 1.0), -power / alpha)
    }

    #[cfg(test)]
    fn outer_definition(self, sum: f64) -> Outer {
        let alpha = self.powers.alpha;
        Outer { value: sum - 1.0 / (alpha * (alpha - 1.0)), slope: 1.0 }
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
        self.powers.or_infinite(pair, self.powers.given_slopes(pair, class))
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
        AlphaDivergence { powers: self.powers.rescaled(largest) }
    }

    fn finish(self, near: f64) -> Outer {
        self.powers.alpha_divergence(near)
    }

    fn for_disjoint_rows(self) -> Option<impl Disjoint> {
        DisjointAlpha::new(self.powers.alpha, 1.0)
    }
}

/// The alpha-divergence times a factor, of rows that have little in common.
#[derive(Clone, Copy)]
pub(super) struct DisjointAlpha {
    powers: DisjointPowers,
    factor: f64,
}

impl DisjointAlpha {
    /// Of orders that do not make much of the errors of f32 lanes.
    pub(super) fn new(alpha: f64, factor: f64) -> Option<Self> {
        let holds = (-1.0..=2.0).contains(&alpha) && alpha.abs() >= 1e-3 && (alpha - 1.0).abs() >= 1e-3;
        holds.then_some(DisjointAlpha { factor, ..Self::of(DisjointPowers { alpha }) })
    }

    pub(super) fn of(powers: DisjointPowers) -> Self {
        DisjointAlpha { powers, factor: 1.0 }
    }
}

impl Disjoint for DisjointAlpha {
    type View<V: Lanes> = DisjointPowersView<V>;

    #[inline(always)]
    fn view<V: Lanes>(self, token: V::Token, rows: DisjointFacts) -> DisjointPowersView<V> {
        self.powers.view(token, rows)
    }

    fn finish(self, sum: f64) -> Option<Outer> {
        let alpha = self.powers.alpha;
        let slope = self.factor / (alpha * (alpha - 1.0));
        // In between, S − 1 cancels.
        let accurate = !(0.5..2.0).contains(&sum) && DisjointPowers::holds(sum);
        accurate.then_some(Outer { value: slope * (sum - 1.0), slope })
    }
}
