//! One row as a distribution: its log-sum-exp, its probabilities, and what is written from them.

use super::{Distribution, LogSumExp};
use crate::element::Element;
use crate::row::distribution::Space;
use crate::row::distribution::scan::{fits_narrow_lanes, largest, scan};
use crate::row::runs::{self, Holes, Step, Without};
use crate::rows::{BLOCK, Block, BlockMut, Patched, Row, RowMut};
use crate::simd::exp::{Decay, ScaledExp, exp};
use crate::simd::ln::ln;
use crate::simd::{Isa, Kernel, LaneKernel, Lanes, Narrow, Scalar, Simd};
use crate::threads::Blocks;

impl Distribution<'_> {
    /// The number of one class, capped, and the derivative of the cap: the same bits as where the row is summed.
    pub(crate) fn capped(self, class: usize, isa: Isa) -> (f64, f64) {
        let z = self.row.get(class);
        if self.softcap.is_none() { (z, 1.0) } else { isa.run(Capped { distribution: self, z }) }
    }

    /// −ln p of one class, given the log-sum-exp of the row.
    pub(crate) fn surprise(self, class: usize, sum: LogSumExp, isa: Isa) -> f64 {
        match self.space {
            Space::Probs | Space::Unnormalized => sum.surprise(self.row.get(class).ln(), 1.0),
            Space::Logits | Space::LogProbs => sum.surprise(self.capped(class, isa).0, self.inverse_temperature),
        }
    }

    /// Log-sum-exp of the whole row; whether f64 lanes were needed is written to `wide`.
    pub(crate) fn statistics(self, isa: Isa, blocks: &Blocks, wide: &mut bool) -> LogSumExp {
        self.statistics_without(&[], isa, blocks, wide)
    }

    /// The same of logits without the classes `left_out`, which rise.
    pub(crate) fn statistics_without(
        self,
        left_out: &[usize],
        isa: Isa,
        blocks: &Blocks,
        wide: &mut bool,
    ) -> LogSumExp {
        loop {
            let lanes = *wide;
            let parts = blocks.map(self.row.classes(), |start, len| {
                let block = self.block(start, len);
                let from = left_out.partition_point(|&class| class < start);
                let to = from + left_out[from..].partition_point(|&class| class < start + len);
                if from == to {
                    return block.log_sum_exp(isa, lanes);
                }
                block.log_sum_exp_without(Holes { classes: &left_out[from..to], start }, isa, lanes)
            });
            if parts.iter().all(Option::is_some) {
                let sums = parts.iter().flatten().copied();
                return match self.space {
                    Space::Logits | Space::Unnormalized => LogSumExp::merge(sums, self.inverse_temperature),
                    _ if sums.clone().any(LogSumExp::is_nan) => LogSumExp::INVALID,
                    _ => LogSumExp::GIVEN,
                };
            }
            *wide = true;
        }
    }

    /// Log-sum-exp of this block without some classes, or `None` where f32 lanes cannot take its range.
    fn log_sum_exp_without(self, holes: Holes<'_>, isa: Isa, wide: bool) -> Option<LogSumExp> {
        if !wide && let Some(found) = isa.run(Narrow(PlainSumWithout { distribution: self, holes })) {
            return Some(found);
        }
        let mut patched = Patched::new();
        let row = patched.patch(self.row, holes.offsets(), f64::NEG_INFINITY);
        Distribution { row, ..self }.log_sum_exp(isa, wide)
    }

    /// Log-sum-exp of this block, or `None` where f32 lanes cannot take its range.
    fn log_sum_exp(self, isa: Isa, wide: bool) -> Option<LogSumExp> {
        isa.run_lanes(wide, SumKernel(self))
    }
}

/// Reads the numbers of a distribution and makes them probabilities.
#[derive(Clone, Copy)]
pub(crate) struct DistributionView<V: Lanes> {
    token: V::Token,
    space: Space,
    inverse_temperature: V,
    reference: (V, V),
    ln_sum: V,
    /// For f32 lanes.
    exp: ScaledExp<V>,
    cap: Option<(V, V)>,
}

/// |z/c| up to which c·tanh(z/c) is z to f64: a third of its square is below half a unit in the last place.
const FREE: f64 = 1e-8;

impl<V: Lanes> DistributionView<V> {
    #[inline(always)]
    pub(crate) fn new(token: V::Token, distribution: Distribution<'_>, sum: LogSumExp) -> Self {
        let rate = distribution.inverse_temperature;
        let splat = |value| V::splat(token, value);
        let reference_high = V::Scalar::from_f64(sum.largest).to_f64();
        DistributionView {
            token,
            space: distribution.space,
            inverse_temperature: splat(distribution.inverse_temperature),
            reference: (splat(reference_high), splat(sum.largest - reference_high)),
            ln_sum: splat(sum.ln_sum()),
            exp: ScaledExp::new(token, rate, sum.value(rate), 1.0),
            cap: distribution.softcap.map(|cap| (splat(cap), splat(-2.0 / cap))),
        }
    }

    /// The capped numbers, and the derivative of the cap, 1 − tanh².
    #[inline(always)]
    pub(crate) fn capped(&self, z: V) -> (V, V) {
        let one = V::splat(self.token, 1.0);
        let Some((cap, minus_two_over_cap)) = self.cap else { return (z, one) };
        let zero = V::splat(self.token, 0.0);
        let masked = V::splat(self.token, f64::NEG_INFINITY);
        let present = masked.lt(z);
        let finite = V::select(present, z, zero);
        // tanh|y| = −m/(2 + m) with m = e^(−2|y|) − 1; 1 − tanh² = 4(1 + m)/(2 + m)².
        let decay = Decay::new(self.token, (finite * minus_two_over_cap).abs());
        let sum = decay.expm1 + one + one;
        // Where the cap does nothing to them, numbers stay as they are, to the last digit.
        let free = finite.abs().le(cap * V::splat(self.token, FREE));
        let magnitude = V::select(free, finite.abs(), -(cap * decay.expm1 / sum));
        let slope = V::splat(self.token, 4.0) * decay.exp / (sum * sum);
        let capped = V::select(finite.lt(zero), -magnitude, magnitude);
        (V::select(present, capped, z), V::select(present, slope, zero))
    }

    /// Where the row has the class, by its capped number.
    #[inline(always)]
    pub(crate) fn has(&self, z: V) -> V::Mask {
        V::splat(self.token, self.space.absent()).lt(z)
    }

    /// ln p of capped numbers; in f64 lanes some finite number where the row lacks the class, and finite ones are cut off at a
    /// very low one.
    #[inline(always)]
    pub(crate) fn ln_p(&self, z: V) -> V {
        if !V::Scalar::WIDE {
            return ((z - self.reference.0) - self.reference.1).mul_add(self.inverse_temperature, -self.ln_sum);
        }
        let has = self.has(z);
        let z = if self.space.is_logarithmic() {
            V::select(has, z, self.reference.0)
        } else {
            ln(self.token, V::select(has, z, V::splat(self.token, 1.0)))
        };
        if self.space == Space::Probs {
            return z;
        }
        ((z - self.reference.0) - self.reference.1)
            .mul_add(self.inverse_temperature, -self.ln_sum)
            .max(V::splat(self.token, -V::Scalar::HUGE))
    }

    /// ln p − ln max p of the capped numbers of logits; some finite number where the row lacks the class.
    #[inline(always)]
    pub(crate) fn below_largest(&self, z: V) -> V {
        if !V::Scalar::WIDE {
            return (self.exp.bounded(z) - self.reference.0) * self.inverse_temperature;
        }
        let z = V::select(self.has(z), z, self.reference.0);
        ((z - self.reference.0) * self.inverse_temperature).max(V::splat(self.token, -V::Scalar::HUGE))
    }

    /// p of capped numbers.
    #[inline(always)]
    pub(crate) fn p(&self, z: V) -> V {
        if self.space == Space::Probs {
            z
        } else if V::Scalar::WIDE {
            V::select(self.has(z), exp(self.token, self.ln_p(z)), V::splat(self.token, 0.0))
        } else {
            self.exp.of(z)
        }
    }

    /// p ln p of capped numbers, given p; 0 where the row lacks the class.
    #[inline(always)]
    pub(crate) fn p_ln_p(&self, z: V, p: V) -> V {
        // f32 lanes raise −∞ to the floor, whose probability is 0.
        let product = p * self.ln_p(if V::Scalar::WIDE { z } else { self.exp.bounded(z) });
        if V::Scalar::WIDE { V::select(self.has(z), product, V::splat(self.token, 0.0)) } else { product }
    }
}

/// One number capped, and the derivative of the cap.
struct Capped<'a> {
    distribution: Distribution<'a>,
    z: f64,
}

impl Kernel for Capped<'_> {
    type Output = (f64, f64);

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> (f64, f64) {
        let view = DistributionView::<S::F64>::new(simd, self.distribution, LogSumExp::GIVEN);
        let (capped, slope) = view.capped(S::F64::splat(simd, self.z));
        (capped.to_array()[0], slope.to_array()[0])
    }
}

struct SumKernel<'a>(Distribution<'a>);

impl LaneKernel for SumKernel<'_> {
    type Output = Option<LogSumExp>;

    #[inline(always)]
    fn run<V: Lanes>(self, token: V::Token) -> Option<LogSumExp> {
        debug_assert!(V::Scalar::WIDE || self.0.allows_narrow_lanes());
        let found = if V::Scalar::WIDE {
            None
        } else {
            plain_sum::<V, false>(token, self.0.row, self.0.inverse_temperature, Holes::NONE)
        };
        match found {
            Some(_) => found,
            None => sum::<V>(token, self.0),
        }
    }
}

/// The same of a block without some classes, for f32 lanes; `None` also where one of the first of them is left out.
struct PlainSumWithout<'a> {
    distribution: Distribution<'a>,
    holes: Holes<'a>,
}

impl LaneKernel for PlainSumWithout<'_> {
    type Output = Option<LogSumExp>;

    #[inline(always)]
    fn run<V: Lanes>(self, token: V::Token) -> Option<LogSumExp> {
        let PlainSumWithout { distribution: Distribution { row, inverse_temperature: rate, .. }, holes } = self;
        if holes.offsets().next()? < 2 * V::N {
            return None;
        }
        plain_sum::<V, true>(token, row, rate, holes)
    }
}

/// The sum of a block of logits in one pass; `None` for one that its largest class dominates, or that needs a closer
/// look.
#[inline(always)]
fn plain_sum<V: Lanes, const HOLES: bool>(
    token: V::Token,
    row: Row<'_>,
    rate: f64,
    holes: Holes<'_>,
) -> Option<LogSumExp> {
    let reference = largest::<V>(token, row.block(0, row.classes().min(2 * V::N)));
    let (mut reference, mut found) = (reference, sum_at::<V, HOLES>(token, row, rate, reference, holes)?);
    if (found.1 - reference) * rate > REACH {
        reference = found.1;
        found = sum_at::<V, HOLES>(token, row, rate, reference, holes)?;
    }
    let (sum, top) = found;
    // Relative to the largest. Where that has more than half of the sum, the others are to be summed without it.
    let relative = sum * ((reference - top) * rate).exp();
    (sum.is_finite() && relative >= 2.0).then_some(LogSumExp { largest: top, rest: relative - 1.0 })
}

/// How far a block may rise above the number its exponentials are taken relative to, in nats.
pub(crate) const REACH: f64 = 20.0; // sums of squares stay far inside the range of f32
/// Classes from a load to the prefetch of the same iteration: 4 KiB of f32, some 200 ns of arithmetic.
pub(crate) const AHEAD: usize = 1024;

/// Σe^((z − reference)/T), and the largest logit. NaN if an element is, and the largest +∞ if one is.
#[inline(always)]
fn sum_at<V: Lanes, const HOLES: bool>(
    token: V::Token,
    row: Row<'_>,
    rate: f64,
    reference: f64,
    holes: Holes<'_>,
) -> Option<(f64, f64)> {
    if !fits_narrow_lanes(reference, rate) {
        return None;
    }
    let largest = V::splat(token, f64::NEG_INFINITY);
    let mut step = SumStep::<V> { exp: ScaledExp::new(token, rate, reference * rate, 1.0), largest };
    let block = [Block::new(row, f64::NEG_INFINITY)];
    let [first, second] = if HOLES {
        let mut without = Without { token, step, holes, at: 0 };
        let sums = runs::sums(token, row.classes(), block, &mut without);
        step = without.step;
        sums
    } else {
        runs::sums(token, row.classes(), block, &mut step)
    };
    Some((first + second, step.largest.largest()))
}

struct SumStep<V: Lanes> {
    exp: ScaledExp<V>,
    largest: V,
}

impl<V: Lanes> Step<V, 1, 0, 2> for SumStep<V> {
    const CHAINS: usize = 2;
    const AHEAD: usize = AHEAD;
    // A loop of its own leaves it the registers it needs: 23 instructions for 8 classes instead of 28 (AVX2).
    const PADDED_APART: bool = true;

    #[inline(always)]
    fn step<const WHOLE: bool>(&mut self, chain: usize, [z]: [V; 1], runs: &mut [V; 2]) -> [V; 0] {
        self.largest = self.largest.max(z);
        runs[chain] = self.exp.add(runs[chain], z);
        []
    }
}

#[inline(always)]
fn sum<V: Lanes>(token: V::Token, distribution: Distribution<'_>) -> Option<LogSumExp> {
    let row = distribution.row;
    let found = scan::<V>(token, row, distribution.space);
    if found.invalid {
        return Some(LogSumExp::INVALID);
    }
    if !distribution.space.is_normalized() {
        return Some(LogSumExp::GIVEN);
    }
    if found.largest == distribution.space.absent() {
        return Some(LogSumExp::EMPTY);
    }
    if distribution.space == Space::Unnormalized {
        return Some(sum_of_weights::<V>(token, row, found.largest));
    }
    if !V::Scalar::WIDE && !found.fits_narrow_lanes(distribution.inverse_temperature) {
        return None;
    }
    // The cap is monotone: the largest stays the largest.
    let uncapped = DistributionView::<V>::new(token, distribution, LogSumExp::GIVEN);
    let largest = uncapped.capped(V::splat(token, found.largest)).0.largest();
    let view = DistributionView::<V>::new(token, distribution, LogSumExp { largest, rest: 0.0 });
    let zero = V::splat(token, 0.0);
    let mut step = RestStep { token, view, top: V::splat(token, largest), count: zero };
    let [rest] = runs::sums(token, row.classes(), [Block::new(row, f64::NEG_INFINITY)], &mut step);
    Some(LogSumExp { largest, rest: rest + (step.count.sum() - 1.0) })
}

/// Adds classes to the sum of all but the largest, which are counted.
struct RestStep<V: Lanes> {
    token: V::Token,
    view: DistributionView<V>,
    top: V,
    count: V,
}

impl<V: Lanes> Step<V, 1, 0, 1> for RestStep<V> {
    // Of the few blocks that one class dominates.
    const CONVERTS_APART: bool = true;
    const AHEAD: usize = BLOCK;

    #[inline(always)]
    fn step<const WHOLE: bool>(&mut self, _: usize, [z]: [V; 1], [rest]: &mut [V; 1]) -> [V; 0] {
        let (zero, one) = (V::splat(self.token, 0.0), V::splat(self.token, 1.0));
        let (z, _) = self.view.capped(z);
        let below = z.lt(self.top);
        *rest = *rest + V::select(below, self.view.p(z), zero);
        self.count = self.count + V::select(below, zero, one);
        []
    }
}

/// ln Σw of a block of which w is the largest, as of logits ln w.
#[inline(always)]
fn sum_of_weights<V: Lanes>(token: V::Token, row: Row<'_>, largest: f64) -> LogSumExp {
    let zero = V::splat(token, 0.0);
    let mut step = WeightsStep::<V> { token, top: V::splat(token, largest), count: zero };
    let [rest] = runs::sums(token, row.classes(), [Block::new(row, 0.0)], &mut step);
    LogSumExp { largest: largest.ln(), rest: rest + (step.count.sum() - 1.0) }
}

/// Adds classes to the sum of all but the largest, relative to it; these are counted.
struct WeightsStep<V: Lanes> {
    token: V::Token,
    top: V,
    count: V,
}

impl<V: Lanes> Step<V, 1, 0, 1> for WeightsStep<V> {
    #[inline(always)]
    fn step<const WHOLE: bool>(&mut self, _: usize, [w]: [V; 1], [rest]: &mut [V; 1]) -> [V; 0] {
        let (zero, one) = (V::splat(self.token, 0.0), V::splat(self.token, 1.0));
        let below = w.lt(self.top);
        *rest = *rest + V::select(below, w / self.top, zero);
        self.count = self.count + V::select(below, zero, one);
        []
    }
}

/// Writes ln p of one block.
pub(crate) struct WriteLogSoftmax<'a> {
    pub(crate) distribution: Distribution<'a>,
    pub(crate) sum: LogSumExp,
    pub(crate) out: RowMut<'a>,
}

impl LaneKernel for WriteLogSoftmax<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Lanes>(self, token: V::Token) {
        let infinite = V::splat(token, f64::NEG_INFINITY);
        let mut step = LogSoftmax { view: DistributionView::<V>::new(token, self.distribution, self.sum), infinite };
        let z = Block::new(self.distribution.row, f64::NEG_INFINITY);
        runs::pass(token, self.out.classes(), [z], [Some(BlockMut::new(self.out))], &mut step);
    }
}

struct LogSoftmax<V: Lanes> {
    view: DistributionView<V>,
    infinite: V,
}

impl<V: Lanes> Step<V, 1, 1, 0> for LogSoftmax<V> {
    #[inline(always)]
    fn step<const WHOLE: bool>(&mut self, _: usize, [z]: [V; 1], _: &mut [V; 0]) -> [V; 1] {
        [V::select(self.infinite.lt(z), self.view.ln_p(z), self.infinite)]
    }
}
