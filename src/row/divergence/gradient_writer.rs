//! From the slopes of a class to the gradient of what was passed, in every space.

use crate::divergence::Pair;
use crate::divergence::{Class, Divergence};
use crate::row::distribution::Space;
use crate::simd::{Lanes, Part, Scalar, Simd};

/// How the slopes of a class become the gradient of what was passed.
#[derive(Clone, Copy)]
pub(crate) struct SideRule {
    pub(crate) space: Space,
    /// Upstream gradient, φ′ and 1/T.
    pub(crate) scale: f64,
    /// Σ of the slopes, for logits.
    pub(crate) slope_sum: f64,
    /// The slope at probability 0, for probabilities.
    pub(crate) limit: f64,
    /// λ or μ.
    pub(crate) linear: f64,
    /// Whether classes that make the value infinite have an infinite slope on this side.
    pub(crate) infinite: bool,
}

#[derive(Clone, Copy)]
pub(crate) struct Rule {
    pub(crate) p: SideRule,
    pub(crate) q: SideRule,
}

/// Makes the gradient of one side of slopes.
#[derive(Clone, Copy)]
pub(crate) struct Writer<V: Lanes> {
    rule: SideRule,
    token: V::Token,
    scale: V,
    slope_sum: V,
    limit: V,
    linear: V,
}

impl<V: Lanes> Writer<V> {
    #[inline(always)]
    pub(crate) fn new(token: V::Token, rule: SideRule) -> Self {
        Writer {
            rule,
            token,
            scale: V::splat(token, rule.scale),
            slope_sum: V::splat(token, rule.slope_sum),
            limit: V::splat(token, rule.limit),
            linear: V::splat(token, rule.linear),
        }
    }

    /// The gradient of q's side if `Q`, else of p's.
    ///
    /// The divergence and not a closure: what is called in several places is only inlined where it says so.
    #[inline(always)]
    pub(crate) fn gradient<D: Divergence, const Q: bool>(&self, divergence: D, pair: &Pair<V>, class: &Class<V>) -> V {
        let (slope, probability) = if Q { (class.d_ln_q, pair.q) } else { (class.d_ln_p, pair.p) };
        // Known to the compiler where lanes are f32, which take nothing else.
        if !V::Scalar::WIDE || self.rule.space == Space::Logits {
            return self.scale * (slope - probability * self.slope_sum);
        }
        pair.token.apart::<V, _>(Given { writer: *self, divergence, pair: *pair, class: *class, of_q: Q })
    }
}

/// What [`Writer::gradient`] writes for numbers that are no logits: done apart from the kernels, of whose code it is a third.
struct Given<V: Lanes, D> {
    writer: Writer<V>,
    divergence: D,
    pair: Pair<V>,
    class: Class<V>,
    of_q: bool,
}

impl<V: Lanes, D: Divergence> Part<V> for Given<V, D> {
    type Output = V;

    #[inline(always)]
    fn run(self, _: V::Token) -> V {
        let Given { writer, divergence, pair, class, of_q } = self;
        let given = match writer.rule.space {
            Space::LogProbs => divergence.given_slopes(&pair, &class),
            _ => divergence.slopes_per_probability(&pair),
        };
        let (side, given) = if of_q {
            (Side { has: pair.has.1, probability: pair.q, slope: class.d_ln_q }, given.1)
        } else {
            (Side { has: pair.has.0, probability: pair.p, slope: class.d_ln_p }, given.0)
        };
        let unnormalized = writer.rule.space == Space::Unnormalized;
        writer.scale
            * if unnormalized { writer.per_weight(&pair, side, given) } else { writer.given(&pair, side.has, given) }
    }
}

impl<V: Lanes> Writer<V> {
    /// ∂f/∂ln p, or ∂f/∂p where the space is probabilities.
    #[inline(always)]
    fn given(&self, pair: &Pair<V>, has: V::Mask, slope: V) -> V {
        let zero = V::splat(self.token, 0.0);
        let mut slope = slope;
        if self.rule.infinite {
            let infinity = V::splat(self.token, f64::INFINITY);
            slope = V::select(V::and(pair.lone(), has), infinity, slope);
        }
        if self.rule.space != Space::Probs {
            return slope;
        }
        // A class that neither row has does not exist.
        V::select(has, slope, V::select(pair.lone(), self.limit, zero))
    }

    /// Σw times ∂D/∂w where p = w/Σw: slope/p − Σ of the slopes; `given` is ∂f/∂p.
    #[inline(always)]
    fn per_weight(&self, pair: &Pair<V>, side: Side<V>, given: V) -> V {
        /// Smaller probabilities have few digits, or none.
        const SMALLEST: f64 = 1e-290;
        let zero = V::splat(self.token, 0.0);
        let divides = V::splat(self.token, SMALLEST).lt(side.probability);
        let quotient = side.slope / V::select(divides, side.probability, V::splat(self.token, 1.0));
        let slope = V::select(divides, quotient, given - self.linear);
        let slope = V::select(side.has, slope, self.limit);
        V::select(V::or(pair.has.0, pair.has.1), slope - self.slope_sum, zero)
    }
}

/// One side of a class of each lane.
#[derive(Clone, Copy)]
struct Side<V: Lanes> {
    /// Whether it has the class.
    has: V::Mask,
    probability: V,
    /// The derivative with respect to its logarithm.
    slope: V,
}
