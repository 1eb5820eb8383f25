//! Two rows seen class by class.
//!
//! With d = ln p − ln q, u = |d| and e = max(p, q), everything is built from e, e^(−u) − 1 and e^(−u) − 1 + u, each of
//! which keeps its relative accuracy however small u is. d itself is (x − y)/T less the difference of the two
//! log-sum-exp: the first difference is taken with its rounding error, and the second is found to far better than either
//! log-sum-exp (see [`Statistics`](super::first_pass::Statistics)).
//!
//! Which of the two rows has a class is a mask of lanes, found from the numbers as they are loaded. A lane without the
//! class takes part in all arithmetic with some finite number, and is put right by the mask at the end: what a parameter
//! does to that number does not matter.

use super::softmax::{Distribution, LogSumExp};
use super::space::Space;
use crate::simd::exp::{Decay, ScaledExp, excess_near_zero, exp};
use crate::simd::ln::{self, ln};
use crate::simd::{Lanes, Scalar};

/// How the numbers of one side become probabilities: p = e^((x − reference)/T − `ln_sum`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct SideFrame {
    pub(crate) reference: f64,
    pub(crate) ln_sum: f64,
}

impl SideFrame {
    /// ln Σ of a row's weights.
    fn ln_total(self) -> f64 {
        self.reference + self.ln_sum
    }

    /// 1/Σ of a row's weights, a number in range.
    fn scale(self) -> f64 {
        (-self.ln_total()).exp().clamp(f64::MIN_POSITIVE, f64::MAX)
    }

    /// Makes probabilities of numbers, in f32 lanes.
    #[inline(always)]
    pub(super) fn exp<V: Lanes>(self, token: V::Token, inverse_temperature: f64) -> ScaledExp<V> {
        ScaledExp::new(token, inverse_temperature, self.reference * inverse_temperature + self.ln_sum, 1.0)
    }
}

impl From<LogSumExp> for SideFrame {
    fn from(sum: LogSumExp) -> Self {
        SideFrame { reference: sum.largest, ln_sum: sum.ln_sum() }
    }
}

/// A number as the unevaluated sum of two f64, with twice their precision.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TwoFloats {
    pub(super) high: f64,
    pub(super) low: f64,
}

/// 1/T as the unevaluated sum of two f64.
///
/// One f64 is off by 1e-16 of it, and by 1e-16 of a logit's quotient: the same for two rows with one temperature, but not for
/// two.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rate {
    pub(crate) high: f64,
    pub(crate) low: f64,
}

impl Rate {
    pub(crate) fn of_temperature(temperature: f64) -> Self {
        let high = 1.0 / temperature;
        Rate { high, low: (-temperature).mul_add(high, 1.0) / temperature }
    }
}

impl TwoFloats {
    /// (a − b)·rate, exactly but for the rounding of products of rounding errors.
    pub(super) fn scaled_difference(a: f64, b: f64, rate: f64) -> Self {
        let difference = a - b;
        let shadow = difference - a;
        let error = (a - (difference - shadow)) - (b + shadow);
        let high = difference * rate;
        TwoFloats { high, low: difference.mul_add(rate, -high) + error * rate }
    }

    fn times(self, factor: f64) -> Self {
        let high = self.high * factor;
        TwoFloats { high, low: self.high.mul_add(factor, -high) + self.low * factor }
    }

    pub(super) fn plus(self, addend: f64) -> Self {
        let high = self.high + addend;
        let shadow = high - self.high;
        TwoFloats { high, low: self.low + ((self.high - (high - shadow)) + (addend - shadow)) }
    }

    pub(super) const ZERO: Self = TwoFloats { high: 0.0, low: 0.0 };

    pub(super) fn minus(self, other: Self) -> f64 {
        (self.high - other.high) + (self.low - other.low)
    }

    /// As one f64.
    pub(super) fn value(self) -> f64 {
        self.high + self.low
    }

    /// The number as the sum of three lane values.
    #[inline(always)]
    fn split<V: Lanes>(self, token: V::Token) -> [V; 3] {
        let high = V::Scalar::from_f64(self.high + self.low).to_f64();
        let rest = self.high - high;
        let middle = V::Scalar::from_f64(rest + self.low).to_f64();
        [V::splat(token, high), V::splat(token, middle), V::splat(token, (rest - middle) + self.low)]
    }
}

/// (x − y)/T − delta of two rows with one temperature.
#[derive(Clone, Copy)]
pub(super) struct LogRatio<V> {
    rate: V,
    delta: [V; 3],
}

impl<V: Lanes> LogRatio<V> {
    #[inline(always)]
    pub(super) fn new(token: V::Token, inverse_temperature: f64, delta: TwoFloats) -> Self {
        // f32 lanes round 1/T. With delta rounded by the same factor the log-ratio is, too, and loses nothing to cancellation.
        let rate = V::Scalar::from_f64(inverse_temperature).to_f64();
        let delta = if V::Scalar::WIDE { delta } else { delta.times(rate / inverse_temperature) };
        LogRatio { rate: V::splat(token, rate), delta: delta.split(token) }
    }

    /// x − y and its rounding error.
    #[inline(always)]
    pub(super) fn difference(x: V, y: V) -> (V, V) {
        let difference = x - y;
        let shadow = difference - x;
        (difference, (x - (difference - shadow)) - (y + shadow))
    }

    /// The log-ratio, but for the rounding of x − y.
    #[inline(always)]
    pub(super) fn without_error(&self, x: V, y: V) -> V {
        let [high, middle, _] = self.delta;
        (x - y).mul_add(self.rate, -high) - middle
    }

    /// The log-ratio. The subtraction is exact as the sum of two numbers, so that a constant added to one of two close
    /// rows (a large delta) costs nothing.
    #[inline(always)]
    pub(super) fn of(&self, x: V, y: V) -> V {
        let (difference, error) = Self::difference(x, y);
        let [high, middle, low] = self.delta;
        // Small numbers last: rough and middle cancel where the log-ratio is far smaller than either.
        let rough = difference.mul_add(self.rate, -high);
        error.mul_add(self.rate, rough - middle) - low
    }
}

/// (x − r)/T − (y − r′)/T′ − delta of two rows with two temperatures, or far apart, and references r, in f64 lanes.
///
/// Differences and quotients are sums of two numbers each, with twice the precision: rows that two temperatures bring close
/// differ by far less than either quotient is rounded. Relative to the largest logits, since small temperatures make quotients
/// so large that two numbers do not hold the fraction.
#[derive(Clone, Copy)]
struct LogRatioOfTwoRates<V> {
    references: (V, V),
    rates: ((V, V), (V, V)),
    delta: [V; 3],
}

impl<V: Lanes> LogRatioOfTwoRates<V> {
    #[inline(always)]
    fn new(token: V::Token, references: (V, V), rates: (Rate, Rate), delta: TwoFloats) -> Self {
        let splat = |rate: Rate| (V::splat(token, rate.high), V::splat(token, rate.low));
        LogRatioOfTwoRates { references, rates: (splat(rates.0), splat(rates.1)), delta: delta.split(token) }
    }

    /// The difference of two numbers times a rate, and what the product is short of it.
    #[inline(always)]
    fn scaled_difference(number: V, reference: V, (high, low): (V, V)) -> (V, V) {
        let (difference, error) = LogRatio::difference(number, reference);
        let product = difference * high;
        (product, error.mul_add(high, difference.mul_add(low, difference.mul_add(high, -product))))
    }

    #[inline(always)]
    fn of(&self, x: V, y: V) -> V {
        let (a, a_error) = Self::scaled_difference(x, self.references.0, self.rates.0);
        let (b, b_error) = Self::scaled_difference(y, self.references.1, self.rates.1);
        let (difference, error) = LogRatio::difference(a, b);
        let [high, middle, low] = self.delta;
        let (rough, delta_error) = LogRatio::difference(difference, high);
        rough + (delta_error + (error + (a_error - b_error) - middle - low))
    }
}

/// How two rows become probabilities.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame {
    pub(crate) p: SideFrame,
    pub(crate) q: SideFrame,
    /// The log-sum-exp of p less that of q, so that d = (x − y)/T − delta. In f64 lanes the logits of close rows are as
    /// precise as a single f64 of it, hence two.
    pub(crate) delta: TwoFloats,
    /// What Σ(q − p) shows beyond the two `scale`, in the space of weights to be normalised.
    pub(crate) delta_of_scales: TwoFloats,
    /// That of `ln_sum` only, so that d = (x − reference)/T − (y − reference)/T′ − `delta_of_sums`.
    pub(crate) delta_of_sums: TwoFloats,
}

impl Frame {
    /// The frame of two log-sum-exp, the first with this temperature.
    pub(super) fn of(p: LogSumExp, q: LogSumExp, inverse_temperature: f64) -> Self {
        let sums = |tops: TwoFloats| tops.plus(p.ln_sum()).plus(-q.ln_sum());
        Frame {
            p: p.into(),
            q: q.into(),
            delta: sums(TwoFloats::scaled_difference(p.largest, q.largest, inverse_temperature)),
            delta_of_sums: sums(TwoFloats::ZERO),
            delta_of_scales: TwoFloats::ZERO,
        }
    }

    /// With the difference of the log-sum-exp for which Σq is 1, where it is 1 + `excess` with the present one.
    pub(super) fn corrected(self, excess: f64) -> Self {
        let correction = -excess.ln_1p();
        Frame {
            delta: self.delta.plus(correction),
            delta_of_sums: self.delta_of_sums.plus(correction),
            delta_of_scales: self.delta_of_scales.plus(correction),
            ..self
        }
    }
}

/// The two log-ratios and probabilities of one class of each lane.
#[derive(Clone, Copy)]
pub(crate) struct Pair<V: Lanes> {
    token: V::Token,
    p_larger: V::Mask,
    /// Where p, and q, has the class.
    has: (V::Mask, V::Mask),
    p: V,
    q: V,
    /// max(p, q).
    pub(crate) larger: V,
    /// ln max(p, q); only in f64 lanes.
    pub(crate) ln_larger: V,
    /// |ln p − ln q|; a very large number where one row lacks the class.
    pub(crate) u: V,
    d: V,
    pub(crate) decay: Decay<V>,
}

impl<V: Lanes> Pair<V> {
    #[inline(always)]
    pub(crate) fn token(&self) -> V::Token {
        self.token
    }

    /// ln p − ln q; a very large number of either sign where one row lacks the class.
    #[inline(always)]
    pub(crate) fn log_ratio(&self) -> V {
        self.d
    }

    /// `yes` where p ≥ q, `no` where q > p.
    #[inline(always)]
    pub(crate) fn where_p_larger(&self, yes: V, no: V) -> V {
        V::select(self.p_larger, yes, no)
    }

    /// Where exactly one row has the class.
    #[inline(always)]
    pub(crate) fn lone(&self) -> V::Mask {
        V::xor(self.has.0, self.has.1)
    }

    /// Where both rows have the class.
    #[inline(always)]
    pub(crate) fn shared(&self) -> V::Mask {
        V::and(self.has.0, self.has.1)
    }

    /// Where p, and q, has the class.
    #[inline(always)]
    pub(crate) fn has(&self) -> (V::Mask, V::Mask) {
        self.has
    }

    #[inline(always)]
    pub(crate) fn p(&self) -> V {
        self.p
    }

    #[inline(always)]
    pub(crate) fn q(&self) -> V {
        self.q
    }

    /// p − q, relatively accurate.
    #[inline(always)]
    pub(crate) fn difference(&self) -> V {
        if V::Scalar::WIDE {
            return (self.larger * self.decay.expm1).copysign(self.d);
        }
        let near = self.p * (self.d - excess_near_zero(self.token, self.d));
        V::select(self.is_near(), near, self.p - self.q)
    }

    /// Whether p and q are within a factor of e, in f32 lanes: there their difference is to be found from d.
    #[inline(always)]
    fn is_near(&self) -> V::Mask {
        self.u.lt(V::splat(self.token, 1.0))
    }

    /// u, or the largest u for which e^(−u) is not 0.
    #[inline(always)]
    pub(crate) fn bounded_u(&self) -> V {
        self.u.min(V::splat(self.token, 2.0 * V::Scalar::EXP_FLOOR))
    }

    /// p·(e^(−d) − 1 + d) = p·d + q − p ≥ 0.
    #[inline(always)]
    pub(crate) fn kl_term(&self) -> V {
        self.excess(self.p, self.q, self.d, self.p_larger, true)
    }

    /// q·(e^d − 1 − d) = p − q − q·d ≥ 0.
    #[inline(always)]
    pub(crate) fn reverse_kl_term(&self) -> V {
        self.excess(self.q, self.p, -self.d, self.p_larger, false)
    }

    /// a·(e^(−t) − 1 + t) for b = a·e^(−t), where a ≥ b is `p_larger == first`.
    #[inline(always)]
    fn excess(&self, a: V, b: V, t: V, p_larger: V::Mask, first: bool) -> V {
        if V::Scalar::WIDE {
            let deficit = self.decay.deficit(self.token, self.u);
            let (yes, no) = if first { (self.decay.excess, deficit) } else { (deficit, self.decay.excess) };
            return self.larger * V::select(p_larger, yes, no);
        }
        V::select(self.is_near(), a * excess_near_zero(self.token, t), a.mul_add_relaxed(t, b - a))
    }
}

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
    /// Of [`Relation::ScaledRatio`]: about 1/Σw of both sides, the difference of their logarithms, and what is left of δ.
    scales: (V, V),
    ln_scale_difference: V,
    delta_of_sums: [V; 3],
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
            scales: (splat(frame.p.scale()), splat(frame.q.scale())),
            ln_scale_difference: splat(frame.p.ln_total() - frame.q.ln_total()),
            delta_of_sums: frame.delta_of_scales.split(token),
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
        Pair { token, p_larger, has, p, q, larger: V::select(p_larger, p, q), ln_larger: u, u, d, decay }
    }

    #[inline(always)]
    fn wide(&self, x: V, y: V) -> Pair<V> {
        if self.relation == Relation::Ratio { self.probabilities(x, y) } else { self.wide_logarithms(x, y) }
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
                self.scaled_log_ratio(w, v)
            }
            Relation::Logarithms | Relation::Ratio => ln_p - ln_q,
        };
        let d = self.log_ratio_by_presence((has_p, has_q), d);
        let p_larger = V::splat(token, 0.0).le(d);
        let ln_larger = V::select(p_larger, ln_p, ln_q);
        let u = d.abs();
        let decay = Decay::of_magnitude(token, u, &self.decay);
        let larger = V::select(V::or(has_p, has_q), exp(token, ln_larger), V::splat(token, 0.0));
        let smaller = larger * decay.exp;
        let (p, q) = (V::select(p_larger, larger, smaller), V::select(p_larger, smaller, larger));
        Pair { token, p_larger, has: (has_p, has_q), p, q, larger, ln_larger, u, d, decay }
    }

    /// ln(w·a) − ln(v·b) for 1/Σw about a and 1/Σv about b, less what is left of δ. The products are exact as sums of two
    /// numbers, so that the factors between two close rows cost nothing.
    #[inline(always)]
    fn scaled_log_ratio(&self, w: V, v: V) -> V {
        let token = self.token;
        let (a, b) = self.scales;
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
        let apart = ln(token, w) - ln(token, v) - self.ln_scale_difference;
        let [high, middle, low] = self.delta_of_sums;
        let d = V::select(positive, V::select(close, ln::Log1p::new(token, t).ln, far), apart);
        d - high - middle - low
    }

    /// The log-ratio of classes that both rows have, cut off where it is beyond all measure; a very large number where one
    /// row lacks the class, 0 where both do.
    #[inline(always)]
    fn log_ratio_by_presence(&self, (has_p, has_q): (V::Mask, V::Mask), d: V) -> V {
        let zero = V::splat(self.token, 0.0);
        let huge = V::splat(self.token, V::Scalar::HUGE);
        let alone = V::select(has_p, huge, V::select(has_q, -huge, zero));
        V::select(V::and(has_p, has_q), d.min(huge).max(-huge), alone)
    }

    /// Whether the row has the class, and the number itself or the logarithm of a probability; `stand_in` where it has not.
    #[inline(always)]
    fn logarithm(&self, x: V, space: Space, stand_in: V) -> (V::Mask, V) {
        let token = self.token;
        let has = V::splat(token, space.absent()).lt(x);
        let x = if space.is_logarithmic() { x } else { ln(token, V::select(has, x, V::splat(token, 1.0))) };
        (has, V::select(has, x, stand_in))
    }

    #[inline(always)]
    fn probabilities(&self, p: V, q: V) -> Pair<V> {
        let token = self.token;
        let zero = V::splat(token, 0.0);
        let one = V::splat(token, 1.0);
        let has = (zero.lt(p), zero.lt(q));
        // Stand-ins keep the logarithm finite where a probability is 0.
        let ratio = ln::LogRatio::new(token, V::select(has.0, p, one), V::select(has.1, q, one));
        let d = self.log_ratio_by_presence(has, ratio.ln);
        let u = d.abs();
        let p_larger = zero.le(d);
        let larger = p.max(q);
        let exists = V::or(has.0, has.1);
        let divisor = V::select(exists, larger, one);
        let expm1 = (p.min(q) - larger) / divisor;
        let excess = V::select(V::xor(has.0, has.1), expm1 + u, ratio.excess);
        let decay = Decay { exp: p.min(q) / divisor, expm1, excess };
        Pair { token, p_larger, has, p, q, larger, ln_larger: ln(token, divisor), u, d, decay }
    }
}
