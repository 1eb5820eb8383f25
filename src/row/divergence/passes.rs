//! Sums and gradients of two rows whose statistics are known.

use crate::divergence::Divergence;
use crate::element::Dtype;
use crate::row::distribution::scan::first_at;
use crate::row::distribution::{Distribution, LogSumExp, Space};
use crate::row::divergence::Outcome;
use crate::row::divergence::first_pass::Statistics;
use crate::row::divergence::gradient_writer::{Rule, SideRule};
use crate::row::divergence::kept_slopes::{Places, Sides};
use crate::row::divergence::near::NearBlock;
use crate::row::divergence::second_pass::{
    Gauge, InMode, LARGEST_PARTS, LargestClass, Mode, SecondPass, SlopesAt, Sums,
};
use crate::row::divergence::series::Series;
use crate::row::gradients::RowGradients;
use crate::rows::{BLOCK, RowMut};
use crate::simd::{Isa, Narrow, Wide};
use crate::threads::Blocks;
use smallvec::SmallVec;

/// A divergence of two rows whose statistics are known.
pub(crate) struct Call<'a, D> {
    pub(crate) divergence: D,
    pub(crate) p: Distribution<'a>,
    pub(crate) q: Distribution<'a>,
    pub(crate) isa: Isa,
    pub(crate) blocks: &'a Blocks,
    pub(crate) wide: bool,
    pub(crate) statistics: Statistics,
    pub(crate) near: Option<Near<'a>>,
}

/// What f32 lanes do by polynomials, of rows that have much in common.
#[derive(Clone, Copy)]
pub(crate) struct Near<'a> {
    pub(crate) series: &'a Series,
    pub(crate) blocks: NearBlocks<'a>,
    /// Of which sides gradients are wanted.
    pub(crate) wanted: Sides<bool>,
    /// Where their slopes are kept; without, gradients are written class by class.
    pub(crate) slopes: Places<'a>,
}

/// In which blocks all log-ratios are within reach.
#[derive(Clone, Copy)]
pub(crate) enum NearBlocks<'a> {
    /// Not in those whose largest is known to be beyond it; the others are looked at.
    Spans(&'a [f64]),
    /// As it was found when they were summed.
    Known(&'a [bool]),
}

impl Near<'_> {
    fn keeps_slopes(&self) -> bool {
        self.slopes.0.is_some() || self.slopes.1.is_some()
    }

    fn slopes(&self, start: usize, len: usize) -> Places<'_> {
        (self.slopes.0.map(|side| side.block(start, len)), self.slopes.1.map(|side| side.block(start, len)))
    }

    /// Whether it may be so in the block that starts there.
    fn may_be(&self, start: usize) -> bool {
        let index = start / BLOCK;
        match self.blocks {
            NearBlocks::Spans(spans) => spans.get(index).is_some_and(|&span| span <= self.series.reach),
            NearBlocks::Known(known) => known.get(index).is_some_and(|&known| known),
        }
    }
}

/// What a pass came to.
struct Passed {
    sums: Sums,
    /// Whether each block was done by polynomials.
    near: SmallVec<[bool; 64]>,
}

impl<D: Divergence> Call<'_, D> {
    pub(crate) fn finish(&self, gradients: RowGradients<'_>) -> Outcome {
        let wanted = (gradients.p.is_some(), gradients.q.is_some());
        let at_once = |wanted: bool, side: Distribution<'_>, slope_sum_is_zero: bool| {
            !wanted || !side.space.is_normalized() || slope_sum_is_zero
        };
        let fused = self.wide
            && !D::HAS_OUTER
            // A gradient may be written over its row.
            && !D::CANCELS
            && at_once(wanted.0, self.p, self.slope_sum_is_zero().0)
            && at_once(wanted.1, self.q, self.slope_sum_is_zero().1);
        if fused && (wanted.0 || wanted.1) {
            let rule = self.gradient_rule(&gradients, &Sums::default(), (1.0, 1.0));
            let Passed { sums, .. } = self.pass(Some((&gradients, rule)), Mode::Gradients, (Gauge::NONE, Gauge::NONE));
            let value = self.value(&sums).0;
            self.mend_infinite(value, &gradients);
            return Outcome::Done(value);
        }
        let mode = if wanted == (false, false) { Mode::Sums } else { Mode::SumsAndSlopes };
        let gauge = self.gauge(wanted);
        let Passed { sums, near } = self.pass(None, mode, gauge);
        let (mut value, slope) = self.value(&sums);
        if D::FIRST_ORDER && !self.wide && self.statistics.frame.hides(value) {
            return Outcome::NeedsWideLanes;
        }
        let cancels = D::CANCELS
            && !self.is_infinite()
            && !self.both_normalized()
            && self.divergence.cancels_of_given_rows(sums.value, sums.excess, sums.q - 1.0);
        if D::HAS_OUTER && (cancels || !value.is_finite()) && !self.is_infinite() {
            return if self.wide { Outcome::Done(self.rescaled(gradients)) } else { Outcome::NeedsWideLanes };
        }
        if cancels {
            // Slopes of rows taken as given, and those beyond a lone class, cancel nowhere.
            value = self.rescaled(RowGradients { p: None, q: None, ..gradients });
        }
        if wanted.0 || wanted.1 {
            if !self.wide && sums.cancel(wanted, LARGEST_PARTS) {
                return Outcome::Value { value, needs_wide_lanes: true };
            }
            let near = self.near.map(|all| Near { blocks: NearBlocks::Known(&near), ..all });
            Call { near, ..*self }.write_gradients(&gradients, &sums, gauge, value, slope);
        }
        Outcome::Done(value)
    }

    /// The slopes again where they are nearly those of classes that the other row lacks.
    fn beyond_lone(&self, wanted: (bool, bool), sums: Sums, gauge: (Gauge, Gauge)) -> (Sums, (Gauge, Gauge)) {
        /// Where the mean slope of a side is off by less than this part of it.
        const NEAR: f64 = 0.25;
        let lone = self.divergence.lone_slopes();
        let near = |wanted: bool, side: Distribution<'_>, gauge: Gauge, sum: f64, lone: f64| match gauge {
            Gauge::Number(number) if wanted && side.space == Space::Logits => {
                (number + sum - lone).abs() < NEAR * lone.abs()
            }
            _ => false,
        };
        let p = near(wanted.0, self.p, gauge.0, sums.d_ln_p, lone.0);
        let q = near(wanted.1, self.q, gauge.1, sums.d_ln_q, lone.1);
        if !(D::HAS_LONE_SLOPES && self.wide && (p || q)) {
            return (sums, gauge);
        }
        let gauge = (if p { Gauge::Lone } else { gauge.0 }, if q { Gauge::Lone } else { gauge.1 });
        (self.pass(None, Mode::SumsAndSlopes, gauge).sums, gauge)
    }

    fn write_gradients(
        &self,
        gradients: &RowGradients<'_>,
        sums: &Sums,
        gauge: (Gauge, Gauge),
        value: f64,
        slope: f64,
    ) {
        let (sums, gauge) = self.beyond_lone((gradients.p.is_some(), gradients.q.is_some()), *sums, gauge);
        let sums = &sums;
        // Weights to be normalised take their slopes from f̃, which has no such form.
        let (divergence, divisor) = if self.p.space == Space::Unnormalized || self.q.space == Space::Unnormalized {
            (self.divergence, 1.0)
        } else {
            self.divergence.at_sum(self.near(sums))
        };
        let call = Call { divergence, blocks: self.blocks, ..*self };
        call.write(gradients, sums, gauge, value, (slope, divisor));
    }

    /// φ′, and what slopes per probability were divided by.
    fn write(&self, gradients: &RowGradients<'_>, sums: &Sums, gauge: (Gauge, Gauge), value: f64, slope: (f64, f64)) {
        let rule = self.gradient_rule(gradients, sums, slope);
        let dominant = self.dominant(gradients);
        let left = self.pass(Some((gradients, rule)), Mode::Gradients, gauge).sums;
        for (top, left) in dominant.into_iter().zip([left.d_ln_p, left.d_ln_q]) {
            if let Some((out, class)) = top {
                out.set(class, out.get(class) - left);
            }
        }
        self.mend_infinite(value, gradients);
    }

    /// The slope per probability of the most probable class of each side, for gradients of logits in f64 lanes.
    ///
    /// A multiple of p added to the slopes drops out of a − p·Σa. Taking off the leading class's own leaves Σa to the
    /// others, and classes that share its slope (those of one sign in total variation) with exactly nothing.
    fn gauge(&self, wanted: (bool, bool)) -> (Gauge, Gauge) {
        /// Up to this sum of the others, a probability of 1/300. The slope of a rarer class may be so far from the row's
        /// that relative to it, the others lose digits.
        const LEADING: f64 = 299.0;
        // Where Σa is known to be 0 it is for the slopes as they are.
        let known = self.slope_sum_is_zero();
        let slopes = |wanted: bool, known: bool, side: Distribution<'_>, sum: LogSumExp| {
            if !(wanted && !known && self.wide && side.space == Space::Logits && sum.rest < LEADING) {
                return (0.0, 0.0);
            }
            first_at(side.row, sum.largest, self.isa).map_or((0.0, 0.0), |class| {
                let numbers = (self.p.row.get(class), self.q.row.get(class));
                let Call { divergence, p, q, .. } = *self;
                self.isa.run(SlopesAt { divergence, p, q, frame: self.statistics.frame, numbers })
            })
        };
        let p = slopes(wanted.0, known.0, self.p, self.statistics.p).0;
        let q = slopes(wanted.1, known.1, self.q, self.statistics.q).1;
        (Gauge::Number(p), Gauge::Number(q))
    }

    /// The class that dominates each side whose gradient is written in f64, if one does.
    ///
    /// The gradient of logits sums to zero, and such a row loses digits in that class only, which is mended by what is
    /// left of the sum. In narrower outputs the loss does not show.
    fn dominant<'a>(&self, gradients: &RowGradients<'a>) -> [Option<(RowMut<'a>, usize)>; 2] {
        let sides = [(gradients.p, self.p, self.statistics.p), (gradients.q, self.q, self.statistics.q)];
        sides.map(|(out, side, sum)| {
            let out = out.filter(|out| out.dtype() == Dtype::F64 && side.space == Space::Logits && sum.rest < 1.0)?;
            Some((out, first_at(side.row, sum.largest, self.isa)?))
        })
    }

    /// Again, relative to the largest class, where the sum of an outer function leaves the range of f64, or cancels.
    fn rescaled(&self, gradients: RowGradients<'_>) -> f64 {
        let kernel = |start, len| LargestClass {
            divergence: self.divergence,
            p: self.p.block(start, len),
            q: self.q.block(start, len),
            frame: self.statistics.frame,
        };
        let parts = self.blocks.map(self.p.row.classes(), |start, len| self.isa.run(kernel(start, len)));
        let largest = parts.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        // No class has both p and q, and the sum is 0.
        if largest == f64::NEG_INFINITY {
            gradients.fill(f64::NAN);
            return self.divergence.rescaled(0.0).finish(0.0).value;
        }
        let divergence = self.divergence.rescaled(largest);
        let call = Call { divergence, blocks: self.blocks, ..*self };
        let wanted = (gradients.p.is_some(), gradients.q.is_some());
        let gauge = call.gauge(wanted);
        let sums = call.pass(None, Mode::SumsAndSlopes, gauge).sums;
        let (value, slope) = call.value(&sums);
        if wanted.0 || wanted.1 {
            call.write_gradients(&gradients, &sums, gauge, value, slope);
        }
        value
    }

    /// Known for rows that sum to one; measured for rows taken as given.
    fn slope_sum_is_zero(&self) -> (bool, bool) {
        let known = D::SLOPE_SUM_IS_ZERO;
        (known.0 && self.both_normalized(), known.1 && self.both_normalized())
    }

    fn both_normalized(&self) -> bool {
        self.p.space.is_normalized() && self.q.space.is_normalized()
    }

    fn is_infinite(&self) -> bool {
        let (of_p, of_q) = self.infinite_slopes();
        of_p || of_q
    }

    /// Whether some class makes the value infinite, and so its slope on the side that has it: p's, and q's.
    fn infinite_slopes(&self) -> (bool, bool) {
        let infinite = self.divergence.infinite_where();
        let support = self.statistics.support;
        (infinite.q_zero && support.q_zero, infinite.p_zero && support.p_zero)
    }

    /// Σf − (λ + μ).
    fn near(&self, sums: &Sums) -> f64 {
        let mut near = sums.value;
        if !self.both_normalized() {
            near += self.divergence.linear().0 * sums.excess + self.divergence.linear_sum() * (sums.q - 1.0);
        }
        near
    }

    /// φ and φ′.
    fn value(&self, sums: &Sums) -> (f64, f64) {
        if self.is_infinite() {
            return (f64::INFINITY, 1.0);
        }
        let outer = self.divergence.finish(self.near(sums));
        // Not `max`, which takes a NaN for 0. Adding 0 makes a zero positive.
        let value = if self.both_normalized() && outer.value < 0.0 { 0.0 } else { outer.value };
        (value + 0.0, outer.slope)
    }

    /// Where the value is infinite, so is the slope of a class that the other side lacks, and of logits nothing is left of
    /// the gradient; but that of the other side may be finite (kl's q − p).
    fn mend_infinite(&self, value: f64, gradients: &RowGradients<'_>) {
        if value != f64::INFINITY {
            return;
        }
        let infinite = self.infinite_slopes();
        let finite = |own: bool, other: bool| D::FINITE_WHERE_LACKING && !own && other;
        let sides = [
            (gradients.p, self.p.space, finite(infinite.0, infinite.1)),
            (gradients.q, self.q.space, finite(infinite.1, infinite.0)),
        ];
        for (out, space, finite) in sides {
            if let Some(out) = out
                && (D::HAS_OUTER || (space.is_normalized() && !finite))
            {
                out.fill(f64::NAN);
            }
        }
    }

    fn gradient_rule(&self, gradients: &RowGradients<'_>, sums: &Sums, (slope, divisor): (f64, f64)) -> Rule {
        let (limits, linear) = (self.divergence.slopes_at_zero(), self.divergence.linear());
        // Weights to be normalised are written from the slopes of f̃.
        let limit = |distribution: Distribution<'_>, limit: f64, linear: f64| {
            if distribution.space == Space::Unnormalized { limit - linear } else { limit }
        };
        let limits = (limit(self.p, limits.0, linear.0), limit(self.q, limits.1, linear.1));
        let infinite = self.infinite_slopes();
        let known = self.slope_sum_is_zero();
        let weights = |distribution: Distribution<'_>, sum: LogSumExp| match distribution.space {
            Space::Unnormalized => (-sum.value(1.0)).exp(),
            Space::Probs => divisor,
            Space::Logits | Space::LogProbs => 1.0,
        };
        let (of_p, of_q) = (weights(self.p, self.statistics.p), weights(self.q, self.statistics.q));
        let side = |distribution: Distribution<'_>,
                    per_weight: f64,
                    slope_sum,
                    known: bool,
                    infinite: bool,
                    limits: (f64, f64)| {
            SideRule {
                space: distribution.space,
                // Not infinite, so that nothing times it is nothing.
                scale: (gradients.scale * slope * distribution.inverse_temperature * per_weight)
                    .clamp(-f64::MAX, f64::MAX),
                slope_sum: if known { 0.0 } else { slope_sum },
                limit: limits.0,
                linear: limits.1,
                infinite,
            }
        };
        Rule {
            p: side(self.p, of_p, sums.d_ln_p, known.0, infinite.0, (limits.0, linear.0)),
            q: side(self.q, of_q, sums.d_ln_q, known.1, infinite.1, (limits.1, linear.1)),
        }
    }

    fn pass(&self, gradients: Option<(&RowGradients<'_>, Rule)>, mode: Mode, gauge: (Gauge, Gauge)) -> Passed {
        let parts = self.blocks.map(self.p.row.classes(), |start, len| {
            let gradients = gradients.map(|(outputs, rule)| (outputs.block(start, len), rule));
            let (p, q, frame) = (self.p.block(start, len), self.q.block(start, len), self.statistics.frame);
            if let Some(near) = self.near.filter(|near| near.may_be(start)) {
                let block = NearBlock { p, q, frame, series: near.series };
                let slopes = near.slopes(start, len);
                match gradients {
                    Some((outputs, rule)) if near.keeps_slopes() => {
                        block.write(self.isa, slopes, outputs, rule);
                        return (Sums::default(), true);
                    }
                    Some(_) => {}
                    None => {
                        if let Some(sums) = block.sums(self.isa, near.wanted, slopes) {
                            return (sums, true);
                        }
                    }
                }
            }
            (self.pass_over(SecondPass { divergence: self.divergence, p, q, frame, gauge, gradients }, mode), false)
        });
        let sums = parts.iter().fold(Sums::default(), |all, part| all.merge(part.0));
        Passed { sums, near: parts.iter().map(|part| part.1).collect() }
    }

    /// A block, class by class.
    fn pass_over(&self, block: SecondPass<'_, D>, mode: Mode) -> Sums {
        // Known to the compiler where there are none in f32 lanes.
        if D::NARROW && !self.wide && !self.divergence.needs_wide_lanes() {
            return match mode {
                Mode::Sums => self.isa.run(Narrow(InMode::<D, { Mode::SUMS }>(block))),
                Mode::SumsAndSlopes => self.isa.run(Narrow(InMode::<D, { Mode::SUMS_AND_SLOPES }>(block))),
                Mode::Gradients => self.isa.run(Narrow(InMode::<D, { Mode::GRADIENTS }>(block))),
            };
        }
        // Values of f64 lanes come with their slopes, which cost little there.
        match mode {
            Mode::Sums | Mode::SumsAndSlopes => self.isa.run(Wide(InMode::<D, { Mode::SUMS_AND_SLOPES }>(block))),
            Mode::Gradients => self.isa.run(Wide(InMode::<D, { Mode::GRADIENTS }>(block))),
        }
    }
}
