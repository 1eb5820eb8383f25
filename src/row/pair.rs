//! Two rows seen class by class.
//!
//! With d = ln p − ln q, u = |d| and e = max(p, q), everything is built from e, e^(−u) − 1 and e^(−u) − 1 + u, each of
//! which keeps its relative accuracy however small u is. d itself is (x − y)/T less the difference of the two
//! log-sum-exp: the first difference is taken with its rounding error, and the second is found to far better than either log-sum-exp (see [`Statistics`]).

use super::scan::{FindSupport, Scan, Support, scan};
use super::softmax::{Distribution, LogSumExp};
use super::space::Space;
use crate::batch::{BLOCK, Blocks};
use crate::simd::exp::{Decay, Rate, exp, exp_scaled};
use crate::simd::ln::{LogRatio, ln};
use crate::simd::{Isa, Kernel, Lanes, RUN, Scalar, Simd, Total};

/// How the numbers of one side become probabilities: p = e^((x − reference)/T − `ln_sum`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct SideFrame {
    pub(crate) reference: f64,
    pub(crate) ln_sum: f64,
}

impl From<LogSumExp> for SideFrame {
    fn from(sum: LogSumExp) -> Self {
        SideFrame { reference: sum.largest, ln_sum: sum.ln_sum() }
    }
}

/// A number as the unevaluated sum of two f64, with twice their precision.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TwoFloats {
    high: f64,
    low: f64,
}

impl TwoFloats {
    /// (a − b)·rate, exactly but for the rounding of products of rounding errors.
    fn scaled_difference(a: f64, b: f64, rate: f64) -> Self {
        let difference = a - b;
        let shadow = difference - a;
        let error = (a - (difference - shadow)) - (b + shadow);
        let high = difference * rate;
        TwoFloats { high, low: difference.mul_add(rate, -high) + error * rate }
    }

    fn plus(self, addend: f64) -> Self {
        let high = self.high + addend;
        let shadow = high - self.high;
        TwoFloats { high, low: self.low + ((self.high - (high - shadow)) + (addend - shadow)) }
    }

    fn minus(self, other: Self) -> f64 {
        (self.high - other.high) + (self.low - other.low)
    }

    /// The number as the sum of three lane values.
    #[inline(always)]
    fn split<V: Lanes>(self, token: V::Token) -> [V; 3] {
        let high = V::Scalar::from_f64(self.high + self.low).to_f64();
        let rest = self.high - high;
        let middle = V::Scalar::from_f64(rest + self.low).to_f64();
        [high, middle, (rest - middle) + self.low].map(|part| V::splat(token, part))
    }
}

/// How two rows become probabilities.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame {
    pub(crate) p: SideFrame,
    pub(crate) q: SideFrame,
    /// The log-sum-exp of p less that of q, so that d = (x − y)/T − delta. In f64 lanes the logits of close rows are as precise as a
    /// single f64 of it, hence two.
    pub(crate) delta: TwoFloats,
}

/// The two log-ratios and probabilities of one class of each lane.
#[derive(Clone, Copy)]
pub(crate) struct Pair<V: Lanes> {
    token: V::Token,
    p_larger: V::Mask,
    /// max(p, q).
    pub(crate) larger: V,
    /// ln max(p, q); only in f64 lanes.
    pub(crate) ln_larger: V,
    /// |ln p − ln q|, or −|ln p − ln q| where that is the size of a rounding error; a very large number where one of
    /// them is 0.
    pub(crate) u: V,
    d: V,
    pub(crate) decay: Decay<V>,
}

impl<V: Lanes> Pair<V> {
    #[inline(always)]
    pub(crate) fn token(&self) -> V::Token {
        self.token
    }

    /// ln p − ln q; a very large number of either sign where one of them is 0.
    #[inline(always)]
    pub(crate) fn log_ratio(&self) -> V {
        self.d
    }

    /// `yes` where p ≥ q, `no` where q > p.
    #[inline(always)]
    pub(crate) fn where_p_larger(&self, yes: V, no: V) -> V {
        V::select(self.p_larger, yes, no)
    }

    #[inline(always)]
    pub(crate) fn smaller(&self) -> V {
        self.larger * self.decay.exp
    }

    #[inline(always)]
    pub(crate) fn p(&self) -> V {
        self.where_p_larger(self.larger, self.smaller())
    }

    #[inline(always)]
    pub(crate) fn q(&self) -> V {
        self.where_p_larger(self.smaller(), self.larger)
    }

    /// p − q, relatively accurate.
    #[inline(always)]
    pub(crate) fn difference(&self) -> V {
        (self.larger * self.decay.expm1).copysign(self.d)
    }

    /// u, or the largest u for which e^(−u) is not 0.
    #[inline(always)]
    pub(crate) fn bounded_u(&self) -> V {
        self.u.min(V::splat(self.token, 2.0 * V::Scalar::EXP_FLOOR))
    }

    /// p·(e^(−d) − 1 + d) = p·d + q − p ≥ 0.
    #[inline(always)]
    pub(crate) fn kl_term(&self) -> V {
        let deficit = self.decay.deficit(self.token, self.u);
        self.larger * self.where_p_larger(self.decay.excess, deficit)
    }

    /// q·(e^d − 1 − d) = p − q − q·d ≥ 0.
    #[inline(always)]
    pub(crate) fn reverse_kl_term(&self) -> V {
        let deficit = self.decay.deficit(self.token, self.u);
        self.larger * self.where_p_larger(deficit, self.decay.excess)
    }
}

/// Makes a [`Pair`] from two vectors of numbers.
#[derive(Clone, Copy)]
pub(crate) struct PairView<V: Lanes> {
    token: V::Token,
    spaces: (Space, Space),
    /// Whether d is (x − y)/T − delta.
    shares_rate: bool,
    rate: Rate<V>,
    inverse_temperature: (V, V),
    reference: (V, V),
    ln_sum: (V, V),
    exponent: (V, V),
    weight: (V, V),
    delta: [V; 3],
}

impl<V: Lanes> PairView<V> {
    #[inline(always)]
    pub(crate) fn new(token: V::Token, p: Distribution<'_>, q: Distribution<'_>, frame: &Frame) -> Self {
        // For f32 lanes: p = 2^(x·log2(e)/T − exponent)·weight with an integral exponent.
        let scaled = |side: &Distribution<'_>, frame: &SideFrame| {
            let log2_sum = (frame.reference * side.inverse_temperature + frame.ln_sum) * std::f64::consts::LOG2_E;
            let exponent = log2_sum.round();
            (V::splat(token, exponent), V::splat(token, (exponent - log2_sum).exp2()))
        };
        let (p_exponent, p_weight) = scaled(&p, &frame.p);
        let (q_exponent, q_weight) = scaled(&q, &frame.q);
        let splat = |value| V::splat(token, value);
        PairView {
            token,
            spaces: (p.space, q.space),
            shares_rate: p.inverse_temperature == q.inverse_temperature
                && p.space != Space::Probs
                && q.space != Space::Probs,
            rate: Rate::new(token, p.inverse_temperature),
            inverse_temperature: (splat(p.inverse_temperature), splat(q.inverse_temperature)),
            reference: (splat(frame.p.reference), splat(frame.q.reference)),
            ln_sum: (splat(frame.p.ln_sum), splat(frame.q.ln_sum)),
            exponent: (p_exponent, q_exponent),
            weight: (p_weight, q_weight),
            delta: frame.delta.split(token),
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
        let (x, y) = (x.max(self.rate.floor), y.max(self.rate.floor));
        let (d, rough) = self.log_ratio(x, y);
        // The sign of the rough difference comes earlier. Where it is the wrong one, the base is the slightly smaller
        // probability and u slightly negative, for which everything built from them holds as well.
        let p_larger = V::splat(token, 0.0).le(rough);
        let z = V::select(p_larger, x, y);
        let exponent = V::select(p_larger, self.exponent.0, self.exponent.1);
        let weight = V::select(p_larger, self.weight.0, self.weight.1);
        let larger = exp_scaled(token, z, self.rate, exponent) * weight;
        let u = V::select(p_larger, d, -d);
        // No divergence that needs ln max(p, q) runs in f32 lanes.
        Pair { token, p_larger, larger, ln_larger: u, u, d, decay: Decay::of_magnitude(token, u) }
    }

    /// (x − y)/T − delta. The subtraction is exact as the sum of two numbers, so that a constant added to one of two
    /// close rows (a large delta) costs nothing. Second, the same without the error of the subtraction.
    #[inline(always)]
    fn log_ratio(&self, x: V, y: V) -> (V, V) {
        let difference = x - y;
        let shadow = difference - x;
        let error = (x - (difference - shadow)) - (y + shadow);
        let rate = self.inverse_temperature.0;
        let [high, middle, low] = self.delta;
        let rough = difference.mul_add(rate, -high);
        (rough + (error.mul_add(rate, -middle) - low), rough)
    }

    #[inline(always)]
    fn wide(&self, x: V, y: V) -> Pair<V> {
        match self.spaces {
            (Space::Probs, Space::Probs) => self.probabilities(x, y),
            _ => self.wide_logarithms(x, y),
        }
    }

    #[inline(always)]
    fn wide_logarithms(&self, x: V, y: V) -> Pair<V> {
        let token = self.token;
        let huge = V::splat(token, V::Scalar::HUGE);
        let x = self.logarithm(x, self.spaces.0);
        let y = self.logarithm(y, self.spaces.1);
        let ln_p = (x - self.reference.0).mul_add(self.inverse_temperature.0, -self.ln_sum.0);
        let ln_q = (y - self.reference.1).mul_add(self.inverse_temperature.1, -self.ln_sum.1);
        let d = if self.shares_rate { self.log_ratio(x, y).0 } else { ln_p - ln_q };
        let d = d.min(huge).max(-huge);
        let p_larger = V::splat(token, 0.0).le(d);
        let ln_larger = V::select(p_larger, ln_p, ln_q);
        let u = d.abs();
        Pair { token, p_larger, larger: exp(token, ln_larger), ln_larger, u, d, decay: Decay::of_magnitude(token, u) }
    }

    /// The number itself, or the logarithm of a probability; a very low number for −∞.
    #[inline(always)]
    fn logarithm(&self, x: V, space: Space) -> V {
        let token = self.token;
        let lowest = V::splat(token, -V::Scalar::HUGE);
        if space == Space::Probs {
            let zero = V::splat(token, 0.0);
            let positive = zero.lt(x);
            V::select(positive, ln(token, V::select(positive, x, V::splat(token, 1.0))), lowest)
        } else {
            x.max(lowest)
        }
    }

    #[inline(always)]
    fn probabilities(&self, p: V, q: V) -> Pair<V> {
        let token = self.token;
        let zero = V::splat(token, 0.0);
        let one = V::splat(token, 1.0);
        let huge = V::splat(token, V::Scalar::HUGE);
        let (has_p, has_q) = (zero.lt(p), zero.lt(q));
        // Stand-ins keep the logarithm finite where a probability is 0.
        let ratio = LogRatio::new(token, V::select(has_p, p, one), V::select(has_q, q, one));
        let d = V::select(has_p, V::select(has_q, ratio.ln, huge), V::select(has_q, -huge, zero));
        let u = d.abs();
        let p_larger = zero.le(d);
        let larger = p.max(q);
        let divisor = V::select(zero.lt(larger), larger, one);
        let expm1 = (p.min(q) - larger) / divisor;
        let both = V::select(has_p, V::select(has_q, one, zero), V::select(has_q, zero, one));
        let excess = V::select(zero.lt(both), ratio.excess, expm1 + u);
        let ln_larger = V::select(zero.lt(larger), ln(token, divisor), -huge);
        let decay = Decay { exp: p.min(q) / divisor, expm1, excess };
        Pair { token, p_larger, larger, ln_larger, u, d, decay }
    }
}

/// What the first pass over a pair of rows finds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Statistics {
    pub(crate) frame: Frame,
    pub(crate) p: LogSumExp,
    pub(crate) q: LogSumExp,
    pub(crate) support: Support,
}

/// Why there are no statistics.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum NoStatistics {
    /// A row holds NaN or +∞, a negative probability, or no class at all.
    Invalid,
    /// Its range is beyond f32 lanes; f64 lanes will do.
    NeedsWideLanes,
}

/// The first pass over one block of a pair.
///
/// Both log-sum-exp carry the errors of their exponentials, about 1e-7 in f32, and so would their difference: for
/// rows that differ by 1e-6 nats that is nothing but noise. The block therefore also sums q′ − p′ for rows scaled to
/// agree in their maxima, class by class and relatively accurate, from which [`Statistics::merge`] corrects the
/// difference of the two log-sum-exp.
#[derive(Clone, Copy, Debug)]
struct BlockStatistics {
    p: LogSumExp,
    q: LogSumExp,
    /// The block's own frame.
    delta: TwoFloats,
    /// Σ(q′ − p′), where p′ = e^((x − max x)/T), q′ = e^((y − max y)/T).
    excess: f64,
    support: Support,
    problem: Option<NoStatistics>,
}

#[derive(Clone, Copy)]
struct FirstPass<'a> {
    p: Distribution<'a>,
    q: Distribution<'a>,
    isa: Isa,
    /// Whether the sums leave out the largest class, as entropies and losses need it, or only serve as divisors.
    exact: bool,
}

impl FirstPass<'_> {
    /// Runs in f64 lanes if `wide`, else in f32 lanes.
    fn run(self, wide: bool) -> BlockStatistics {
        let isa = self.isa;
        match (wide, self.exact) {
            (true, _) => isa.run(FirstPassKernel::<true, true>(self)),
            (false, true) => isa.run(FirstPassKernel::<false, true>(self)),
            (false, false) => isa.run(FirstPassKernel::<false, false>(self)),
        }
    }
}

struct FirstPassKernel<'a, const WIDE: bool, const EXACT: bool>(FirstPass<'a>);

impl<const WIDE: bool, const EXACT: bool> Kernel for FirstPassKernel<'_, WIDE, EXACT> {
    type Output = BlockStatistics;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> BlockStatistics {
        let pass = self.0;
        if WIDE {
            return first_pass::<S::F64, EXACT>(simd, &pass);
        }
        match pass.p.row.known_f32().zip(pass.q.row.known_f32()) {
            Some((p, q)) => {
                let p = Distribution { row: p, ..pass.p };
                let q = Distribution { row: q, ..pass.q };
                first_pass::<S::F32, EXACT>(simd, &FirstPass { p, q, ..pass })
            }
            None => first_pass::<S::F32, EXACT>(simd, &pass),
        }
    }
}

#[inline(always)]
fn first_pass<V: Lanes, const EXACT: bool>(token: V::Token, pass: &FirstPass<'_>) -> BlockStatistics {
    let FirstPass { p, q, isa, .. } = *pass;
    let p_scan = scan::<V>(token, p.row, p.space);
    let q_scan = scan::<V>(token, q.row, q.space);
    let mut block = BlockStatistics {
        p: LogSumExp::EMPTY,
        q: LogSumExp::EMPTY,
        delta: TwoFloats { high: 0.0, low: 0.0 },
        excess: 0.0,
        support: Support::default(),
        problem: None,
    };
    if p_scan.invalid || q_scan.invalid {
        block.problem = Some(NoStatistics::Invalid);
        return block;
    }
    if p_scan.smallest == p.space.absent() || q_scan.smallest == q.space.absent() {
        block.support = isa.run(FindSupport { p, q });
    }
    let fits = |scan: Scan| scan.fits_narrow_lanes(p.inverse_temperature);
    if !V::Scalar::WIDE && (block.support.very_low || !fits(p_scan) || !fits(q_scan)) {
        block.problem = Some(NoStatistics::NeedsWideLanes);
        return block;
    }
    let (p_empty, q_empty) = (p_scan.largest == f64::NEG_INFINITY, q_scan.largest == f64::NEG_INFINITY);
    if p_empty && q_empty {
        return block;
    }
    // A side without a class here takes the other's frame; all its terms are 0.
    let p_reference = if p_empty { q_scan.largest } else { p_scan.largest };
    let q_reference = if q_empty { p_scan.largest } else { q_scan.largest };
    let frame = Frame {
        p: SideFrame { reference: p_reference, ln_sum: 0.0 },
        q: SideFrame { reference: q_reference, ln_sum: 0.0 },
        delta: TwoFloats::scaled_difference(p_reference, q_reference, p.inverse_temperature),
    };
    let view = PairView::<V>::new(token, p, q, &frame);
    let zero = V::splat(token, 0.0);
    let one = V::splat(token, 1.0);
    let (p_top, q_top) = (V::splat(token, p_reference), V::splat(token, q_reference));
    let mut totals = [Total::<V>::zero(token); 3];
    let (mut p_count, mut q_count) = (zero, zero);
    let classes = p.row.classes();
    let mut start = 0;
    while start < classes {
        let (mut p_rest, mut q_rest, mut excess) = (zero, zero, zero);
        let stop = classes.min(start + RUN * V::N);
        while start < stop {
            let x = p.row.load::<V>(token, start, f64::NEG_INFINITY);
            let y = q.row.load::<V>(token, start, f64::NEG_INFINITY);
            p.row.prefetch(token, start, BLOCK);
            q.row.prefetch(token, start, BLOCK);
            let pair = view.pair(x, y);
            excess = excess - pair.difference();
            if EXACT {
                let (p_below, q_below) = (x.lt(p_top), y.lt(q_top));
                p_rest = p_rest + V::select(p_below, pair.p(), zero);
                q_rest = q_rest + V::select(q_below, pair.q(), zero);
                p_count = p_count + V::select(p_below, zero, one);
                q_count = q_count + V::select(q_below, zero, one);
            } else {
                p_rest = p_rest + pair.p();
                q_rest = q_rest + pair.q();
            }
            start += V::N;
        }
        for (total, run) in totals.iter_mut().zip([p_rest, q_rest, excess]) {
            total.add(token, run);
        }
    }
    let [p_rest, q_rest, excess] = totals.map(Total::sum);
    let side = |empty: bool, reference: f64, count: V, rest: f64| {
        if empty { LogSumExp::EMPTY } else { LogSumExp { largest: reference, rest: rest + (count.sum() - 1.0) } }
    };
    block.p = side(p_empty, p_reference, p_count, p_rest);
    block.q = side(q_empty, q_reference, q_count, q_rest);
    block.delta = frame.delta;
    block.excess = excess;
    block
}

impl Statistics {
    /// Statistics of two rows: the first pass. Unless `exact`, the sums only serve as divisors.
    pub(crate) fn new(
        p: Distribution<'_>,
        q: Distribution<'_>,
        isa: Isa,
        blocks: &Blocks,
        wide: bool,
        exact: bool,
    ) -> Result<Self, NoStatistics> {
        let classes = p.row.classes();
        if p.space == Space::Logits && q.space == Space::Logits && p.inverse_temperature == q.inverse_temperature {
            let parts = blocks.map(classes, |start, len| {
                FirstPass { p: p.block(start, len), q: q.block(start, len), isa, exact }.run(wide)
            });
            return Self::merge(&parts, p.inverse_temperature);
        }
        debug_assert!(wide, "only two rows of logits with one temperature may run in f32 lanes");
        let mut wide = true;
        let p_sum = p.statistics(isa, blocks, &mut wide);
        let q_sum = q.statistics(isa, blocks, &mut wide);
        if p_sum.is_nan() || q_sum.is_nan() || p_sum.is_empty() || q_sum.is_empty() {
            return Err(NoStatistics::Invalid);
        }
        let parts =
            blocks.map(classes, |start, len| isa.run(FindSupport { p: p.block(start, len), q: q.block(start, len) }));
        let support = parts.iter().fold(Support::default(), |all, &part| all.merge(part));
        // The pair is seen through each side's own logarithms, so that `delta` only counts where both have one rate.
        let tops = TwoFloats::scaled_difference(p_sum.largest, q_sum.largest, p.inverse_temperature);
        let delta = tops.plus(p_sum.ln_sum()).plus(-q_sum.ln_sum());
        Ok(Statistics { frame: Frame { p: p_sum.into(), q: q_sum.into(), delta }, p: p_sum, q: q_sum, support })
    }

    /// Statistics of two rows of logits with one temperature, from their blocks in order.
    fn merge(blocks: &[BlockStatistics], inverse_temperature: f64) -> Result<Self, NoStatistics> {
        if let Some(problem) = blocks.iter().find_map(|block| block.problem) {
            // An invalid block later in the row decides over one that only needs wide lanes.
            let invalid = blocks.iter().any(|block| block.problem == Some(NoStatistics::Invalid));
            return Err(if invalid { NoStatistics::Invalid } else { problem });
        }
        let p = LogSumExp::merge(blocks.iter().map(|block| block.p), inverse_temperature);
        let q = LogSumExp::merge(blocks.iter().map(|block| block.q), inverse_temperature);
        if p.is_empty() || q.is_empty() {
            return Err(NoStatistics::Invalid);
        }
        let tops = TwoFloats::scaled_difference(p.largest, q.largest, inverse_temperature);
        let rough = tops.plus(p.ln_sum()).plus(-q.ln_sum());
        // Σ(q″ − p) with q″ = p·e^(−d″), d″ from the rough difference; its true value for q is 0.
        let mut excess = 0.0;
        for block in blocks {
            let p_part = block.p.relative_to(p, inverse_temperature);
            let q_part = block.q.relative_to(q, inverse_temperature);
            let shift = rough.minus(block.delta);
            excess += if shift.abs() < 1.0 && !block.p.is_empty() && !block.q.is_empty() {
                let scale = ((block.p.largest - p.largest) * inverse_temperature - p.ln_sum()).exp();
                scale * (block.excess + shift.exp_m1() * (1.0 + block.q.rest))
            } else {
                q_part - p_part
            };
        }
        let delta = if excess.abs() < 0.5 { rough.plus(-excess.ln_1p()) } else { rough };
        let support = blocks.iter().fold(Support::default(), |all, block| all.merge(block.support));
        Ok(Statistics { frame: Frame { p: p.into(), q: q.into(), delta }, p, q, support })
    }
}
