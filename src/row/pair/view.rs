//! Two vectors of numbers as [`Pair`]s.
//!
//! d is (x − y)/T less the difference of the two log-sum-exp: the first difference is taken with its rounding error, and the
//! second is found to far better than either log-sum-exp (see [`Statistics`](crate::row::divergence::first_pass::Statistics)).
//! Which row has a class is found from the numbers as they are loaded.
//!
//! What only numbers that are no logits need is done apart from the kernels, in which it would be most of the code.

use super::log_ratio::LogRatioOfTwoRates;
use crate::divergence::Pair;
use crate::row::distribution::{Distribution, Space};
use crate::row::pair::{Frame, LogRatio};
use crate::simd::exp::{Decay, ScaledExp, exp};
use crate::simd::ln::{self, ln};
use crate::simd::{Lanes, Part, Scalar, Simd};

/// Makes a [`Pair`] from two vectors of numbers.
#[derive(Clone, Copy)]
pub(crate) struct PairView<V: Lanes> {
    token: V::Token,
    spaces: (Space, Space),
    relation: Relation,
    inverse_temperature: (V, V),
    reference: (V, V),
    ln_sum: (V, V),
    /// For f32 lanes.
    exp: (ScaledExp<V>, ScaledExp<V>),
    decay: ScaledExp<V>,
    log_ratio: LogRatio<V>,
    log_ratio_of_two_rates: LogRatioOfTwoRates<V>,
    scales: Scales<V>,
}

/// Of [`Relation::ScaledRatio`]: about 1/Σw of both sides, the difference of their logarithms, and what is left of δ.
#[derive(Clone, Copy)]
struct Scales<V: Lanes> {
    of: (V, V),
    ln_difference: V,
    delta: [V; 3],
}

/// How the numbers of two rows give ln p − ln q.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Relation {
    /// Logarithms with one temperature: (x − y)/T − delta.
    OneRate,
    /// Logarithms with two, or so far apart that nothing of the log-ratio would be left next to delta.
    TwoRates,
    /// A probability and a logarithm: the difference of two logarithms.
    Logarithms,
    /// Two probabilities: the logarithm of their ratio.
    Ratio,
    /// Two probabilities of which at least one is to be normalised: the same less delta.
    ScaledRatio,
}

impl Relation {
    fn of(p: Distribution<'_>, q: Distribution<'_>, frame: &Frame) -> Self {
        /// Up to here two f64 hold the difference of the log-sum-exp to far below what the log-ratio is rounded by.
        const LARGEST_DELTA: f64 = 1e5;
        match (p.space.is_logarithmic(), q.space.is_logarithmic()) {
            (false, false) if p.space == Space::Probs && q.space == Space::Probs => Relation::Ratio,
            (false, false) => Relation::ScaledRatio,
            (true, true) if p.rate() == q.rate() && frame.delta.high.abs() <= LARGEST_DELTA => Relation::OneRate,
            (true, true) => Relation::TwoRates,
            _ => Relation::Logarithms,
        }
    }
}

impl<V: Lanes> PairView<V> {
    #[inline(always)]
    pub(crate) fn new(token: V::Token, p: Distribution<'_>, q: Distribution<'_>, frame: &Frame) -> Self {
        let splat = |value| V::splat(token, value);
        PairView {
            token,
            spaces: (p.space, q.space),
            relation: Relation::of(p, q, frame),
            inverse_temperature: (splat(p.inverse_temperature), splat(q.inverse_temperature)),
            reference: (splat(frame.p.reference), splat(frame.q.reference)),
            ln_sum: (splat(frame.p.ln_sum), splat(frame.q.ln_sum)),
            exp: (frame.p.exp(token, p.inverse_temperature), frame.q.exp(token, q.inverse_temperature)),
            decay: ScaledExp::new(token, -1.0, 0.0, 1.0),
            log_ratio: LogRatio::new(token, p.inverse_temperature, frame.delta),
            scales: Scales {
                of: (splat(frame.p.scale()), splat(frame.q.scale())),
                ln_difference: splat(frame.p.ln_total() - frame.q.ln_total()),
                delta: frame.delta_of_scales.split(token),
            },
            log_ratio_of_two_rates: LogRatioOfTwoRates::new(
                token,
                (splat(frame.p.reference), splat(frame.q.reference)),
                (p.rate(), q.rate()),
                frame.delta_of_sums,
            ),
        }
    }

    #[inline(always)]
    pub(crate) fn pair(&self, x: V, y: V) -> Pair<V> {
        if V::Scalar::WIDE { self.wide(x, y) } else { self.narrow(x, y) }
    }

    /// Two rows of logits with one temperature.
    #[inline(always)]
    fn narrow(&self, x: V, y: V) -> Pair<V> {
        let token = self.token;
        let has = (self.exp.0.is_above_floor(x), self.exp.1.is_above_floor(y));
        let (x, y) = (self.exp.0.bounded(x), self.exp.1.bounded(y));
        let d = self.log_ratio.of(x, y);
        let (p, q) = (self.exp.0.at(x), self.exp.1.at(y));
        let p_larger = V::splat(token, 0.0).le(d);
        let u = d.abs();
        let decay = Decay::of_magnitude(token, u, &self.decay);
        // No divergence that needs ln max(p, q) runs in f32 lanes.
        Pair { token, p_larger, has, p, q, larger: V::select(p_larger, p, q), ln_larger: u, u, log_ratio: d, decay }
    }

    #[inline(always)]
    fn wide(&self, x: V, y: V) -> Pair<V> {
        if self.relation == Relation::Ratio {
            self.token.apart::<V, _>(Probabilities { p: x, q: y })
        } else {
            self.wide_logarithms(x, y)
        }
    }

    #[inline(always)]
    fn wide_logarithms(&self, x: V, y: V) -> Pair<V> {
        let token = self.token;
        let lowest = V::splat(token, -V::Scalar::HUGE);
        let given = (x, y);
        let (has_p, x) = self.logarithm(x, self.spaces.0, self.reference.0);
        let (has_q, y) = self.logarithm(y, self.spaces.1, self.reference.1);
        let ln_p = (x - self.reference.0).mul_add(self.inverse_temperature.0, -self.ln_sum.0).max(lowest);
        let ln_q = (y - self.reference.1).mul_add(self.inverse_temperature.1, -self.ln_sum.1).max(lowest);
        let d = match self.relation {
            Relation::OneRate => self.log_ratio.of(x, y),
            Relation::TwoRates => self.log_ratio_of_two_rates.of(x, y),
            Relation::ScaledRatio => {
                let one = V::splat(token, 1.0);
                let (w, v) = (V::select(has_p, given.0, one), V::select(has_q, given.1, one));
                token.apart::<V, _>(ScaledLogRatio { scales: self.scales, w, v })
            }
            Relation::Logarithms | Relation::Ratio => ln_p - ln_q,
        };
        let d = log_ratio_by_presence::<V>(token, (has_p, has_q), d);
        let p_larger = V::splat(token, 0.0).le(d);
        let ln_larger = V::select(p_larger, ln_p, ln_q);
        let u = d.abs();
        let decay = Decay::of_magnitude(token, u, &self.decay);
        let larger = V::select(V::or(has_p, has_q), exp(token, ln_larger), V::splat(token, 0.0));
        let smaller = larger * decay.exp;
        let (p, q) = (V::select(p_larger, larger, smaller), V::select(p_larger, smaller, larger));
        Pair { token, p_larger, has: (has_p, has_q), p, q, larger, ln_larger, u, log_ratio: d, decay }
    }

    /// Whether the row has the class, and the number itself or the logarithm of a probability; `stand_in` where it has not.
    #[inline(always)]
    fn logarithm(&self, x: V, space: Space, stand_in: V) -> (V::Mask, V) {
        let token = self.token;
        let has = V::splat(token, space.absent()).lt(x);
        let x =
            if space.is_logarithmic() { x } else { token.apart::<V, _>(Ln(V::select(has, x, V::splat(token, 1.0)))) };
        (has, V::select(has, x, stand_in))
    }
}

/// The log-ratio of classes that both rows have, cut off where it is beyond all measure; a very large number where one
/// row lacks the class, 0 where both do.
#[inline(always)]
fn log_ratio_by_presence<V: Lanes>(token: V::Token, (has_p, has_q): (V::Mask, V::Mask), d: V) -> V {
    let (zero, huge) = (V::splat(token, 0.0), V::splat(token, V::Scalar::HUGE));
    let alone = V::select(has_p, huge, V::select(has_q, -huge, zero));
    V::select(V::and(has_p, has_q), d.min(huge).max(-huge), alone)
}

/// Two probabilities of a class.
struct Probabilities<V> {
    p: V,
    q: V,
}

impl<V: Lanes> Part<V> for Probabilities<V> {
    type Output = Pair<V>;

    #[inline(always)]
    fn run(self, token: V::Token) -> Pair<V> {
        let Probabilities { p, q } = self;
        let zero = V::splat(token, 0.0);
        let one = V::splat(token, 1.0);
        let has = (zero.lt(p), zero.lt(q));
        // Stand-ins keep the logarithm finite where a probability is 0.
        let ratio = ln::LogRatio::new(token, V::select(has.0, p, one), V::select(has.1, q, one));
        let d = log_ratio_by_presence::<V>(token, has, ratio.ln);
        let u = d.abs();
        let p_larger = zero.le(d);
        let larger = p.max(q);
        let exists = V::or(has.0, has.1);
        let divisor = V::select(exists, larger, one);
        let expm1 = (p.min(q) - larger) / divisor;
        let excess = V::select(V::xor(has.0, has.1), expm1 + u, ratio.excess);
        let decay = Decay { exp: p.min(q) / divisor, expm1, excess };
        Pair { token, p_larger, has, p, q, larger, ln_larger: ln(token, divisor), u, log_ratio: d, decay }
    }
}

/// ln(w·a) − ln(v·b) for 1/Σw about a and 1/Σv about b, less what is left of δ. The products are exact as sums of two
/// numbers, so that the factors between two close rows cost nothing.
struct ScaledLogRatio<V: Lanes> {
    scales: Scales<V>,
    w: V,
    v: V,
}

impl<V: Lanes> Part<V> for ScaledLogRatio<V> {
    type Output = V;

    #[inline(always)]
    fn run(self, token: V::Token) -> V {
        let ScaledLogRatio { scales: Scales { of: (a, b), ln_difference, delta: [high, middle, low] }, w, v } = self;
        let (x, y) = (w * a, v * b);
        let errors = w.mul_add(a, -x) - v.mul_add(b, -y);
        let (zero, one) = (V::splat(token, 0.0), V::splat(token, 1.0));
        let positive = V::and(zero.lt(x), zero.lt(y));
        let (x, y) = (V::select(positive, x, one), V::select(positive, y, one));
        let difference = x - y;
        let close = difference.abs().lt(V::splat(token, 0.25) * y);
        let t = V::select(V::and(close, positive), difference + errors, zero) / y;
        let far = ln::LogRatio::new(token, x, y).ln;
        // Products below the range of f64 leave the two logarithms.
        let apart = ln(token, w) - ln(token, v) - ln_difference;
        let d = V::select(positive, V::select(close, ln::Log1p::new(token, t).ln, far), apart);
        d - high - middle - low
    }
}

/// The logarithm of positive finite numbers.
struct Ln<V>(V);

impl<V: Lanes> Part<V> for Ln<V> {
    type Output = V;

    #[inline(always)]
    fn run(self, token: V::Token) -> V {
        ln(token, self.0)
    }
}
