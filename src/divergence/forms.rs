//! What a divergence says of itself: a class of two rows, of rows that have little in common, and of probabilities.

use super::{DisjointPair, Pair, Probabilities, Statistic};
use crate::simd::Lanes;
use std::convert::Infallible;

/// A divergence Σ f(pᵢ, qᵢ) over the classes of two rows, or an outer function φ of that sum.
///
/// The sum is kept as f = f̃ + λ·p + μ·q, where f̃ ≥ 0 is of second order where p and q agree. For rows that sum to
/// one, λΣp + μΣq is the constant λ + μ, so that nothing cancels however close the rows are.
pub(crate) trait Divergence: Copy + Send + Sync {
    /// Whether Σ ∂f̃/∂ln p = 0 and Σ ∂f̃/∂ln q = 0 for rows that sum to one (each known in advance, not measured).
    /// A gradient with respect to the logits of such a side needs no pass for the sum before it.
    const SLOPE_SUM_IS_ZERO: (bool, bool) = (false, false);
    /// Whether this is KL(p‖q), which has a way of its own for rows that are far apart.
    const IS_KL: bool = false;
    /// Whether a class that makes the value infinite has a finite slope on the side that lacks it, as kl's −p.
    const FINITE_WHERE_LACKING: bool = false;
    /// Whether [`Divergence::finish`] is other than the identity, so that gradients need the value first.
    const HAS_OUTER: bool = false;
    /// Whether [`cancels_of_given_rows`](Divergence::cancels_of_given_rows) is to be asked.
    const CANCELS: bool = false;
    /// Whether its weights depend on a [`statistic`](Divergence::statistic) of the rows.
    const HAS_STATISTIC: bool = false;
    /// Whether f32 lanes ever take it, but for rows that have little in common.
    const NARROW: bool = true;
    /// Whether the value is of first order in the log-ratios of rows that are close, as total variation is.
    const FIRST_ORDER: bool = false;
    /// Whether a class that the other row lacks has a finite slope, [`lone_slopes`](Divergence::lone_slopes).
    const HAS_LONE_SLOPES: bool = false;

    /// c, where f̃ − c·|p − q| is smooth: of those of first order, which have a kink where p = q.
    fn kink(self) -> f64 {
        0.0
    }

    /// What of the two rows its weights depend on. It is measured before anything else.
    fn statistic(self) -> Option<Statistic> {
        None
    }

    /// The same divergence with the weights that belong to a statistic. Slopes are those for weights that stay as they are.
    fn weighed(self, statistic: f64) -> Self {
        let _ = statistic;
        self
    }

    /// The divergence that kernels are compiled for instead, where there is another one with the same classes: of which kernels take
    /// [`class`](Divergence::class), slopes in every form, [`score`](Divergence::score), [`kink`](Divergence::kink) and the constants
    /// about these. All of them are then those of the other; its sum, and everything made of it, remains its own.
    fn terms(self) -> impl Divergence {
        self
    }

    /// f̃ and its derivatives for one class of each lane.
    fn class<V: Lanes>(self, pair: &Pair<V>) -> Class<V>;

    /// f, ∂f/∂ln p and ∂f/∂ln q of one class as the definition has them, digits lost and all: what tests hold the rest to.
    #[cfg(test)]
    fn definition(self, ln_p: f64, ln_q: f64) -> (f64, f64, f64);

    /// φ and φ′ of Σf, in the same way.
    #[cfg(test)]
    fn outer_definition(self, sum: f64) -> Outer {
        Outer { value: sum, slope: 1.0 }
    }

    /// ∂f/∂ln p and ∂f/∂ln q, for rows taken as given: of a side that has the class. To be overridden where adding λp and
    /// μq cancels.
    #[inline(always)]
    fn given_slopes<V: Lanes>(self, pair: &Pair<V>, class: &Class<V>) -> (V, V) {
        let (lambda, mu) = self.linear();
        let splat = |value| V::splat(pair.token, value);
        (pair.p.mul_add(splat(lambda), class.d_ln_p), pair.q.mul_add(splat(mu), class.d_ln_q))
    }

    /// ∂f/∂p and ∂f/∂q, of a side that has the class: from the log-ratio, since a probability below the normal range, and
    /// its product with a slope, have few digits to divide one by the other.
    fn slopes_per_probability<V: Lanes>(self, pair: &Pair<V>) -> (V, V);

    /// (λ, μ).
    fn linear(self) -> (f64, f64) {
        (0.0, 0.0)
    }

    /// λ + μ. To be overridden where the sum cancels.
    fn linear_sum(self) -> f64 {
        let (lambda, mu) = self.linear();
        lambda + mu
    }

    /// ∂f̃/∂ln p per p, and ∂f̃/∂ln q per q, of a class that the other row lacks.
    ///
    /// Where most of a row is improbable in the other, its slopes agree with this number to many digits, and so in the
    /// gradient, which knows no multiple of p, nothing is left of them but their rounding.
    fn lone_slopes(self) -> (f64, f64) {
        (0.0, 0.0)
    }

    /// ∂f̃/∂ln p and ∂f̃/∂ln q less p and q times [`lone_slopes`](Divergence::lone_slopes), without their difference.
    #[inline(always)]
    fn slopes_beyond_lone<V: Lanes>(self, pair: &Pair<V>, class: &Class<V>) -> (V, V) {
        let _ = pair;
        (class.d_ln_p, class.d_ln_q)
    }

    /// Whether a class with p > 0 = q, and one with q > 0 = p, makes the value infinite.
    fn infinite_where(self) -> Infinite;

    /// The limits of ∂f/∂p for p → 0 (q > 0) and of ∂f/∂q for q → 0 (p > 0).
    fn slopes_at_zero(self) -> (f64, f64);

    /// φ and φ′ of a row, given Σf − (λ + μ). With an outer function, an infinite value that [`Divergence::infinite_where`] does
    /// not explain asks for the row to be summed again, [`rescaled`](Divergence::rescaled).
    fn finish(self, near: f64) -> Outer {
        Outer { value: near, slope: 1.0 }
    }

    /// The same divergence as rows that have little in common see it; `None` where there is nothing to gain.
    fn for_disjoint_rows(self) -> Option<impl Disjoint> {
        None::<Infallible>
    }

    /// The same divergence as found from p and q themselves in f64 lanes; `None` where a [`Pair`] is no more work. For rows that
    /// are taken many times, and are not close.
    fn for_many_pairs(self) -> Option<impl OfProbabilities> {
        None::<Infallible>
    }

    /// Whether the parameters ask for f64 lanes throughout.
    fn needs_wide_lanes(self) -> bool {
        !Self::NARROW
    }

    /// The same divergence whose [`slopes_per_probability`](Divergence::slopes_per_probability) are relative to the row's sum,
    /// and what they were divided by: where φ′ makes up for slopes that leave the range of f64.
    fn at_sum(self, near: f64) -> (Self, f64) {
        let _ = near;
        (self, 1.0)
    }

    /// What grows with f, and stays in range where f does not: for a divergence that is
    /// [`rescaled`](Divergence::rescaled). Of classes that both rows have.
    #[inline(always)]
    fn score<V: Lanes>(self, pair: &Pair<V>) -> V {
        pair.ln_larger
    }

    /// Whether rows that are taken as given are to be summed that way, since S cancels in Σf̃ + λΣ(p − q) + (λ + μ)(Σq − 1);
    /// of which these are the first, Σ(p − q), and Σq − 1.
    fn cancels_of_given_rows(self, near: f64, excess: f64, above_one: f64) -> bool {
        let _ = (near, excess, above_one);
        false
    }

    /// The same divergence with f relative to that of the largest score, [`Divergence::finish`] making up for it.
    fn rescaled(self, largest: f64) -> Self {
        let _ = largest;
        self
    }
}

/// A divergence of rows of logits that have little in common, as f32 lanes find it from p and q themselves: Σ f(pᵢ, qᵢ),
/// or an outer function φ of that sum.
///
/// Slopes may leave out any multiple of p and of q, which drop out of gradients of logits. They leave out those of a
/// class that the other row lacks, so that little is left.
pub(crate) trait Disjoint: Copy + Send + Sync {
    /// The divergence with what it needs in every lane.
    type View<V: Lanes>: DisjointView<V>;

    /// Whether gradients of p alone are worth kernels of their own: where p is the student, in divergences whose rows are exchanged.
    const P_ALONE: bool = false;

    /// As [`Divergence::terms`].
    fn terms(self) -> impl Disjoint {
        self
    }

    /// How many times the gradient of a side its parts may be, squared: by as much the roundings of slopes grow.
    const LARGEST_PARTS: f64 = 9.0;

    /// What the p and q of a [`DisjointPair`] are to be multiplied by, which costs nothing there.
    fn weights(self) -> (f64, f64) {
        (1.0, 1.0)
    }

    /// The view of rows.
    fn view<V: Lanes>(self, token: V::Token, rows: DisjointFacts) -> Self::View<V>;

    /// φ and φ′, or `None` where f32 lanes do not do: the sum cancels in φ, or left their range.
    fn finish(self, sum: f64) -> Option<Outer>;
}

/// What is known of two rows that have little in common.
#[derive(Clone, Copy)]
pub(crate) struct DisjointFacts {
    pub(crate) inverse_temperature: f64,
    /// ln p − ln q is (x − y)/T less this.
    pub(crate) delta: f64,
    /// And that of logits relative to the largest of their rows less this.
    pub(crate) relative_delta: f64,
    /// KL(p‖q), the mean of ln p − ln q over p.
    pub(crate) kl: f64,
}

/// f̃ of a divergence from p and q themselves.
pub(crate) trait OfProbabilities: Copy + Send + Sync {
    /// f̃ of one class of each lane.
    fn class<V: Lanes>(self, class: &Probabilities<V>) -> V;
}

/// Of divergences that are found from pairs.
impl OfProbabilities for Infallible {
    #[inline(always)]
    fn class<V: Lanes>(self, _: &Probabilities<V>) -> V {
        match self {}
    }
}

/// See [`Disjoint::View`].
pub(crate) trait DisjointView<V: Lanes>: Copy {
    /// f and its derivatives for one class of each lane.
    fn class(&self, pair: &DisjointPair<V>) -> Class<V>;
}

/// Of divergences that disjoint rows see no other way.
impl Disjoint for Infallible {
    type View<V: Lanes> = Infallible;

    fn view<V: Lanes>(self, _: V::Token, _: DisjointFacts) -> Infallible {
        self
    }

    fn finish(self, _: f64) -> Option<Outer> {
        match self {}
    }
}

impl<V: Lanes> DisjointView<V> for Infallible {
    #[inline(always)]
    fn class(&self, _: &DisjointPair<V>) -> Class<V> {
        match *self {}
    }
}

/// One class of each lane.
#[derive(Clone, Copy)]
pub(crate) struct Class<V> {
    /// f̃, or f.
    pub(crate) value: V,
    /// ∂f̃/∂ln p.
    pub(crate) d_ln_p: V,
    /// ∂f̃/∂ln q.
    pub(crate) d_ln_q: V,
}

/// Where a divergence is infinite.
#[derive(Clone, Copy)]
pub(crate) struct Infinite {
    /// For p > 0 = q.
    pub(crate) q_zero: bool,
    /// For q > 0 = p.
    pub(crate) p_zero: bool,
}

/// The outer function of a row's sum.
#[derive(Clone, Copy)]
pub(crate) struct Outer {
    /// φ.
    pub(crate) value: f64,
    /// φ′.
    pub(crate) slope: f64,
}
