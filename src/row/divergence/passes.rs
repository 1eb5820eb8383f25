//! Sums and gradients of two rows whose statistics are known.

use crate::divergence::Divergence;
use crate::element::Dtype;
use crate::row::distribution::scan::first_at;
use crate::row::distribution::{Distribution, LogSumExp, Space};
use crate::row::divergence::Outcome;
use crate::row::divergence::dominant::{Apart, OF_P, OF_Q, Side, apart, with_slope_sums, write_apart};
use crate::row::divergence::first_pass::Statistics;
use crate::row::divergence::gradient_writer::{Rule, SideRule};
use crate::row::divergence::kept_slopes::{
    Centering, Places, SideSlopes, Sides, WriteGradients, block_of, has_slopes, with_slopes,
};
use crate::row::divergence::near::NearBlock;
use crate::row::divergence::second_pass::{
    EVERYTHING, Gauge, InMode, LARGEST_PARTS, LargestClass, SLOPES, SUMS_OF_VALUES, SecondPass, Sums,
};
use crate::row::divergence::series::Series;
use crate::row::gradients::RowGradients;
use crate::row::pair::SideFrame;
use crate::rows::{BLOCK, Row, RowMut};
use crate::simd::{Isa, Narrow, Wide};
use crate::threads::{Blocks, Partials};

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
    /// The largest log-ratio of each block, as far as it is known; those within reach are looked at.
    pub(crate) spans: &'a [f64],
}

impl Near<'_> {
    /// Whether all log-ratios of the block that starts there may be within reach.
    fn may_be(&self, start: usize) -> bool {
        self.spans.get(start / BLOCK).is_some_and(|&span| span <= self.series.reach)
    }
}

/// What a pass came to.
struct Passed {
    sums: Sums,
    /// Of each block its sums, and whether it was done by polynomials.
    parts: Partials<(Sums, bool)>,
}

/// What is known of slopes when gradients are written.
#[derive(Clone, Copy)]
struct Kept<'a> {
    /// Where they are, if there was room for those of the row.
    slopes: Places<'a>,
    /// [`Passed::parts`].
    parts: &'a [(Sums, bool)],
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
            let sums = self.write_in_wide_lanes(&gradients, rule, (Gauge::NONE, Gauge::NONE));
            let value = self.value(&sums).0;
            self.mend_infinite(value, &gradients);
            return Outcome::Done(value);
        }
        let classes = self.p.row.classes();
        let kept = if !self.wide && has_slopes(classes, wanted, false) { wanted } else { (false, false) };
        with_slopes(classes, kept, false, |slopes| self.finish_keeping(gradients, slopes))
    }

    /// The same where gradients are written after the sums, from slopes that are kept if there is a place for them.
    fn finish_keeping(&self, gradients: RowGradients<'_>, slopes: Places<'_>) -> Outcome {
        let wanted = (gradients.p.is_some(), gradients.q.is_some());
        let gauge = self.gauge(wanted);
        let Passed { mut sums, parts } = self.sums(wanted, gauge, slopes);
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
            let mut apart = (None, None);
            if !self.wide {
                // Of an infinite value nothing is left of gradients that cancel.
                let found = if self.is_infinite() { None } else { self.apart(wanted, &sums, &parts) };
                match found {
                    Some(found) => apart = found,
                    None if sums.cancel(wanted, LARGEST_PARTS) => {
                        return Outcome::Value { value, needs_wide_lanes: true };
                    }
                    None => {}
                }
                sums = with_slope_sums(sums, &apart);
            }
            self.write_gradients(&gradients, &sums, gauge, value, slope, Kept { slopes, parts: &parts });
            let scale = (gradients.scale * slope * self.p.inverse_temperature).clamp(-f64::MAX, f64::MAX);
            write_apart(&apart, &gradients, scale);
        }
        Outcome::Done(value)
    }

    /// The dominant classes of the wanted sides whose gradients cancel; `None` where f32 lanes do not do for the others.
    fn apart(&self, wanted: Sides<bool>, all: &Sums, parts: &[(Sums, bool)]) -> Option<Sides<Option<Apart>>> {
        let of_block = |block: usize| parts.get(block).map_or_else(Sums::default, |part| part.0);
        let sums = |start: usize, len: usize, wide: bool| {
            let (p, q) = (self.p.block(start, len), self.q.block(start, len));
            let near = self.near.filter(|_| !wide && parts.get(start / BLOCK).is_some_and(|part| part.1));
            let near = near.and_then(|near| self.near_block(near, p, q).sums(self.isa, wanted, (None, None)));
            let none = (Gauge::NONE, Gauge::NONE);
            Some(near.unwrap_or_else(|| self.sums_in_lanes(wide, p, q, wanted, none, (None, None))))
        };
        let (of_block, sums) = (&of_block, &sums);
        let side = |row, sum, slopes| Side { row, sum, weight: 1.0, slopes, of_block, sums };
        let sides = (side(self.p, self.statistics.p, OF_P), side(self.q, self.statistics.q, OF_Q));
        apart(wanted, sides, all, LARGEST_PARTS, self.isa, self.blocks)
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
        (self.sums(wanted, gauge, (None, None)).sums, gauge)
    }

    fn write_gradients(
        &self,
        gradients: &RowGradients<'_>,
        sums: &Sums,
        gauge: (Gauge, Gauge),
        value: f64,
        slope: f64,
        kept: Kept<'_>,
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
        let rule = call.gradient_rule(gradients, sums, (slope, divisor));
        if self.wide {
            let leading = call.leading(gradients);
            let left = call.write_in_wide_lanes(gradients, rule, gauge);
            for (top, left) in leading.into_iter().zip([left.d_ln_p, left.d_ln_q]) {
                if let Some((out, class)) = top {
                    out.set(class, out.get(class) - left);
                }
            }
        } else {
            call.write_from_slopes(gradients, rule, kept);
        }
        call.mend_infinite(value, gradients);
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
            first_at(side.row, sum.largest, self.isa).map_or((0.0, 0.0), |class| self.slopes_per_probability(class))
        };
        let p = slopes(wanted.0, known.0, self.p, self.statistics.p).0;
        let q = slopes(wanted.1, known.1, self.q, self.statistics.q).1;
        (Gauge::Number(p), Gauge::Number(q))
    }

    /// ∂f̃/∂ln p per p and ∂f̃/∂ln q per q of one class; 0 where that is no number.
    fn slopes_per_probability(&self, class: usize) -> (f64, f64) {
        let (p, q) = (self.p.block(class, 1), self.q.block(class, 1));
        let sums = self.sums_of_block(p, q, (true, true), (Gauge::NONE, Gauge::NONE), (None, None));
        (sums.p_norms.slope_per_probability(), sums.q_norms.slope_per_probability())
    }

    /// The class that dominates each side whose gradient is written in f64, if one does.
    ///
    /// The gradient of logits sums to zero, and such a row loses digits in that class only, which is mended by what is
    /// left of the sum. In narrower outputs the loss does not show.
    fn leading<'a>(&self, gradients: &RowGradients<'a>) -> [Option<(RowMut<'a>, usize)>; 2] {
        let sides = [(gradients.p, self.p, self.statistics.p), (gradients.q, self.q, self.statistics.q)];
        sides.map(|(out, side, sum)| {
            let out = out.filter(|out| out.dtype() == Dtype::F64 && side.space == Space::Logits && sum.rest < 1.0)?;
            Some((out, first_at(side.row, sum.largest, self.isa)?))
        })
    }

    /// Again, relative to the largest class, where the sum of an outer function leaves the range of f64, or cancels.
    fn rescaled(&self, gradients: RowGradients<'_>) -> f64 {
        let kernel = |start, len| LargestClass {
            divergence: self.divergence.terms(),
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
        let sums = call.sums(wanted, gauge, (None, None)).sums;
        let (value, slope) = call.value(&sums);
        if wanted.0 || wanted.1 {
            let kept = Kept { slopes: (None, None), parts: &[] };
            call.write_gradients(&gradients, &sums, gauge, value, slope, kept);
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

    /// Σf̃ and, of the wanted sides, the sums of the slopes, which are written where there is a place for them.
    fn sums(&self, wanted: Sides<bool>, gauge: (Gauge, Gauge), slopes: Places<'_>) -> Passed {
        let parts = self.blocks.map(self.p.row.classes(), |start, len| {
            let (p, q) = (self.p.block(start, len), self.q.block(start, len));
            let slopes = block_of(slopes, start, len);
            let near = self.near.filter(|near| near.may_be(start));
            match near.and_then(|near| self.near_block(near, p, q).sums(self.isa, wanted, slopes)) {
                Some(sums) => (sums, true),
                None => (self.sums_of_block(p, q, wanted, gauge, slopes), false),
            }
        });
        let sums = parts.iter().fold(Sums::default(), |all, part| all.merge(part.0));
        Passed { sums, parts }
    }

    fn near_block<'b>(&self, near: Near<'b>, p: Distribution<'b>, q: Distribution<'b>) -> NearBlock<'b> {
        NearBlock { p, q, frame: self.statistics.frame, series: near.series }
    }

    /// Of a block, class by class.
    fn sums_of_block(
        &self,
        p: Distribution<'_>,
        q: Distribution<'_>,
        wanted: Sides<bool>,
        gauge: (Gauge, Gauge),
        slopes: Places<'_>,
    ) -> Sums {
        self.sums_in_lanes(self.wide, p, q, wanted, gauge, slopes)
    }

    fn sums_in_lanes(
        &self,
        wide: bool,
        p: Distribution<'_>,
        q: Distribution<'_>,
        wanted: Sides<bool>,
        gauge: (Gauge, Gauge),
        slopes: Places<'_>,
    ) -> Sums {
        let (divergence, frame) = (self.divergence.terms(), self.statistics.frame);
        let norms = wanted != (false, false);
        pass_over(self.isa, wide, SecondPass { divergence, p, q, frame, gauge, outputs: slopes, rule: None, norms })
    }

    /// Writes gradients from slopes, in f32 lanes: of logits, (a − p·Σa) times a number.
    fn write_from_slopes(&self, gradients: &RowGradients<'_>, rule: Rule, kept: Kept<'_>) {
        let wanted = (gradients.p.is_some(), gradients.q.is_some());
        self.blocks.map(self.p.row.classes(), |start, len| {
            let (p, q) = (self.p.block(start, len), self.q.block(start, len));
            let gradients = gradients.block(start, len);
            let near = self.near.filter(|_| kept.parts.get(start / BLOCK).is_some_and(|part| part.1));
            if near.is_none() && self.divergence.needs_wide_lanes() {
                self.write_block_in_wide_lanes(p, q, &gradients, rule, (Gauge::NONE, Gauge::NONE));
                return;
            }
            let units = near.map_or((1.0, 1.0), |near| near.series.units());
            let frame = self.statistics.frame;
            let write = |slopes: Places<'_>| {
                let sides = (
                    slopes.0.map(|slopes| side_slopes(p, frame.p, slopes.written(), rule.p, units.0)),
                    slopes.1.map(|slopes| side_slopes(q, frame.q, slopes.written(), rule.q, units.1)),
                );
                self.isa.run(Narrow(WriteGradients { sides, gradients }));
            };
            if kept.slopes.0.is_some() || kept.slopes.1.is_some() {
                write(block_of(kept.slopes, start, len));
                return;
            }
            // Found again, with room for those of a block.
            with_slopes(len, wanted, false, |slopes| {
                match near {
                    // As they were in the first pass, whose sums there are.
                    Some(near) => drop(self.near_block(near, p, q).sums(self.isa, wanted, slopes)),
                    None => drop(self.sums_of_block(p, q, wanted, (Gauge::NONE, Gauge::NONE), slopes)),
                }
                write(slopes);
            });
        });
    }

    /// Writes gradients class by class, in f64 lanes; their sums, and those of the values.
    fn write_in_wide_lanes(&self, gradients: &RowGradients<'_>, rule: Rule, gauge: (Gauge, Gauge)) -> Sums {
        let parts = self.blocks.map(self.p.row.classes(), |start, len| {
            let (p, q) = (self.p.block(start, len), self.q.block(start, len));
            self.write_block_in_wide_lanes(p, q, &gradients.block(start, len), rule, gauge)
        });
        parts.iter().fold(Sums::default(), |all, &part| all.merge(part))
    }

    fn write_block_in_wide_lanes(
        &self,
        p: Distribution<'_>,
        q: Distribution<'_>,
        gradients: &RowGradients<'_>,
        rule: Rule,
        gauge: (Gauge, Gauge),
    ) -> Sums {
        let (divergence, frame, outputs) = (self.divergence.terms(), self.statistics.frame, (gradients.p, gradients.q));
        let block = SecondPass { divergence, p, q, frame, gauge, outputs, rule: Some(rule), norms: false };
        self.isa.run(Wide(InMode::<_, EVERYTHING>(block)))
    }
}

/// A side of a block, and its slopes in a unit.
fn side_slopes<'a>(
    side: Distribution<'a>,
    frame: SideFrame,
    slopes: Row<'a>,
    rule: SideRule,
    unit: f64,
) -> SideSlopes<'a> {
    let centering = Centering { scale: rule.scale * unit, slope_sum: rule.slope_sum / unit };
    SideSlopes { row: side.row, slopes, frame, weight: 1.0, rate: side.inverse_temperature, centering }
}

/// The sums of a block, class by class.
fn pass_over<D: Divergence>(isa: Isa, wide: bool, block: SecondPass<'_, D>) -> Sums {
    // Known to the compiler where there are none in f32 lanes.
    if !D::NARROW || wide || block.divergence.needs_wide_lanes() {
        return isa.run(Wide(InMode::<D, EVERYTHING>(block)));
    }
    if block.norms {
        isa.run(Narrow(InMode::<D, SLOPES>(block)))
    } else {
        isa.run(Narrow(InMode::<D, SUMS_OF_VALUES>(block)))
    }
}
