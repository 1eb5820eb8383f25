//! Value and gradients of a divergence of two rows.
//!
//! Rows go one of several [`Way`]s, the first that can take them. The general one takes two or three passes over the rows: the
//! first finds the statistics, the second the sums, a third writes the gradients; where the gradients need no sum of their
//! own, the second and the third are one.
//!
//! * [`passes`]: the general way; [`first_pass`]: the statistics of two rows; [`second_pass`]: the loops over their classes.
//! * [`statistic`]: what of two rows the weights of a divergence depend on, found before it; [`head`]: the most probable classes of one.
//! * [`disjoint`]: rows that have little in common.
//! * [`near`]: rows that have much in common; [`series`]: what is computed of their classes.
//! * [`slope_sums`]: what both sum; [`kept_slopes`]: their gradients; [`dominant`]: those of rows that few classes dominate.
//! * [`gradient_writer`]: the gradient in the space of what was passed.
//! * [`any`]: a divergence whose type those who call it do not know.

mod any;
mod disjoint;
mod dominant;
pub(crate) mod first_pass;
mod gradient_writer;
pub(crate) mod head;
mod kept_slopes;
mod near;
mod passes;
pub(crate) mod second_pass;
mod series;
mod slope_sums;
mod statistic;

pub(crate) use any::AnyDivergence;

use crate::divergence::{Disjoint, Divergence, Outer};
use crate::row::distribution::{Distribution, Space};
use crate::row::divergence::disjoint::DisjointRows;
use crate::row::divergence::dominant::{with_slope_sums, write_apart};
use crate::row::divergence::first_pass::{NoStatistics, Statistics};
use crate::row::divergence::kept_slopes::{Centering, has_slopes, with_slopes};
use crate::row::divergence::passes::{Call, Near};
use crate::row::divergence::second_pass::Sums;
use crate::row::divergence::series::Series;
use crate::row::gradients::RowGradients;
use crate::row::kl::close::Close;
use crate::row::kl::far::Far;
use crate::row::kl::probabilities;
use crate::simd::Isa;
use crate::threads::Blocks;
use std::cell::OnceCell;

/// Classes of a row that f64 lanes take: roundings of f32 are independent, and of so few do not average out. In rows of two to
/// seventeen classes they came to 1.1e-6 of `skew_kl`. It costs up to a tenth more time at 10
/// classes, and up to twice the time at 32.
pub(crate) const FEW: usize = 32;

/// Classes of a row for which polynomials are fitted, which costs as much as some hundreds of classes.
const FEW_FOR_SERIES: usize = 512;

/// What ways find out about two rows of which another divergence may be asked next.
#[derive(Default)]
pub(crate) struct Known {
    /// Of rows that have little in common.
    far: OnceCell<Option<Far>>,
    /// Of rows that have much in common.
    close: OnceCell<Option<Close>>,
}

/// The value of `divergence` between `p` and `q`; writes the gradients asked for.
pub(crate) fn divergence<D: Divergence>(
    divergence: D,
    p: Distribution<'_>,
    q: Distribution<'_>,
    isa: Isa,
    blocks: &Blocks,
    gradients: RowGradients<'_>,
) -> f64 {
    divergence_of_known(divergence, p, q, isa, blocks, gradients, &Known::default())
}

/// The same, with what is known of the two rows.
pub(crate) fn divergence_of_known<D: Divergence>(
    divergence: D,
    p: Distribution<'_>,
    q: Distribution<'_>,
    isa: Isa,
    blocks: &Blocks,
    gradients: RowGradients<'_>,
    known: &Known,
) -> f64 {
    let one_rate =
        p.space == Space::Logits && q.space == Space::Logits && p.inverse_temperature == q.inverse_temperature;
    let many = D::IS_KL || p.row.classes() > FEW;
    let narrow = one_rate
        && many
        && p.allows_narrow_lanes()
        && q.allows_narrow_lanes()
        && !p.is_smoothed(isa, blocks)
        && !q.is_smoothed(isa, blocks);
    let plain_wide = one_rate && many && !narrow;
    let mut task = Task { divergence, p, q, isa, blocks, gradients, one_rate, narrow, plain_wide, known };
    if D::HAS_STATISTIC
        && let Some(statistic) = divergence.statistic()
    {
        task.divergence = divergence.weighed(task.measure(statistic));
    }
    if narrow && gradients.leave_narrow_lanes(p.inverse_temperature) {
        task.gradients.scale = 1.0;
        let value = task.run();
        gradients.multiply();
        return value;
    }
    task.run()
}

/// A way to value and gradients.
#[derive(Clone, Copy)]
enum Way {
    /// KL of probabilities taken as given, in one pass: the value.
    Probabilities,
    /// KL of logits that have little in common: one pass and one for the gradients.
    Far,
    /// Other divergences of such rows, with the statistics of that pass; up to some width.
    Disjoint,
    /// Logits that have much in common: KL in one pass and one for the gradients, others with its statistics, by polynomials.
    Close,
    /// Statistics, sums and gradients, in f32 lanes.
    Passes,
}

/// What is tried before the passes in f64 lanes, which take all rows.
const WAYS: [Way; 5] = [Way::Probabilities, Way::Far, Way::Disjoint, Way::Close, Way::Passes];

/// What a way came to.
enum Outcome {
    /// Value and gradients.
    Done(f64),
    /// The value. The gradients cancel too much for f32 lanes, or for this way, and have others ahead of them.
    Value { value: f64, needs_wide_lanes: bool },
    /// Nothing: these rows, or this divergence, are for others.
    Nothing,
    /// Nothing, and so it will be in f32 lanes.
    NeedsWideLanes,
}

/// A divergence of two rows.
struct Task<'a, D> {
    divergence: D,
    p: Distribution<'a>,
    q: Distribution<'a>,
    isa: Isa,
    blocks: &'a Blocks,
    gradients: RowGradients<'a>,
    /// Whether both are logits with one temperature.
    one_rate: bool,
    /// Whether f32 lanes may take them.
    narrow: bool,
    /// Whether f64 lanes may take them in the ways of rows that have little in common.
    plain_wide: bool,
    known: &'a Known,
}

impl<D: Divergence> Task<'_, D> {
    fn run(&self) -> f64 {
        // A value found in f32 lanes stays, so that asking for a gradient does not change its bits.
        let mut found = None;
        // Whether f32 lanes lose what these rows need; and whether it is the parameters that ask for f64 lanes.
        let (mut lost, asked) = (!self.narrow, self.divergence.needs_wide_lanes());
        for way in WAYS {
            match self.attempt(way, lost, asked) {
                Outcome::Done(value) => return found.unwrap_or(value),
                Outcome::Value { value, needs_wide_lanes } => {
                    found = found.or(Some(value));
                    lost |= needs_wide_lanes;
                }
                Outcome::Nothing => {}
                Outcome::NeedsWideLanes => lost = true,
            }
        }
        match self.passes(true) {
            Outcome::Done(value) | Outcome::Value { value, .. } => found.unwrap_or(value),
            Outcome::Nothing | Outcome::NeedsWideLanes => f64::NAN,
        }
    }

    fn attempt(&self, way: Way, lost: bool, asked: bool) -> Outcome {
        let wide = lost || asked;
        match way {
            Way::Probabilities if D::IS_KL => self.probabilities(),
            Way::Far if D::IS_KL && (!wide || self.plain_wide) => self.far(),
            // Also of divergences whose parameters ask for f64 lanes otherwise.
            Way::Disjoint if !D::IS_KL && (self.narrow || self.plain_wide) => self.disjoint(),
            Way::Close if D::IS_KL && self.one_rate => self.close_kl(wide),
            Way::Close if !D::IS_KL && !lost => self.close(asked),
            Way::Passes if !wide => self.passes(false),
            _ => Outcome::Nothing,
        }
    }

    /// The sides whose gradients are wanted.
    fn wanted(&self) -> (bool, bool) {
        (self.gradients.p.is_some(), self.gradients.q.is_some())
    }

    fn probabilities(&self) -> Outcome {
        match probabilities::kl(self.p, self.q, self.isa, self.blocks) {
            Some(value) if self.wanted() == (false, false) => Outcome::Done(value),
            Some(value) => Outcome::Value { value, needs_wide_lanes: false },
            None => Outcome::Nothing,
        }
    }

    fn far(&self) -> Outcome {
        let Task { p, q, isa, blocks, plain_wide: wide, .. } = *self;
        let wanted = self.wanted();
        if let RowGradients { scale, p: None, q: Some(out) } = self.gradients
            && !wide
            && Far::keeps(p.row.classes())
        {
            return match Far::with_gradient_of_q(p, q, isa, blocks, out, scale) {
                Some((far, true)) => Outcome::Done(far.value),
                Some((far, false)) => Outcome::Value { value: far.value, needs_wide_lanes: false },
                None => Outcome::Nothing,
            };
        }
        match Far::new(p, q, isa, blocks, wide, wanted) {
            Some(far) if wanted == (false, false) || far.write(p, q, isa, blocks, wide, &self.gradients) => {
                Outcome::Done(far.value)
            }
            Some(far) => Outcome::Value { value: far.value, needs_wide_lanes: false },
            None => Outcome::Nothing,
        }
    }

    fn far_if_disjoint(&self) -> Option<Far> {
        let Task { p, q, isa, blocks, plain_wide: wide, .. } = *self;
        let found = || Far::new(p, q, isa, blocks, wide, (false, false)).filter(Far::is_disjoint);
        *self.known.far.get_or_init(found)
    }

    fn disjoint(&self) -> Outcome {
        let Task { p, q, isa, blocks, plain_wide: wide, .. } = *self;
        let Some(divergence) = self.divergence.for_disjoint_rows() else {
            return Outcome::Nothing;
        };
        // The value stays that of this way where others write the gradients.
        let keeps = has_slopes(p.row.classes(), self.wanted(), wide);
        let wanted = if keeps { self.wanted() } else { (false, false) };
        let Some(far) = self.far_if_disjoint() else {
            return Outcome::Nothing;
        };
        let frame = far.frame(p.inverse_temperature);
        let rows =
            DisjointRows { divergence: divergence.terms(), p, q, frame, largest: far.largest, kl: far.value, wide };
        with_slopes(p.row.classes(), wanted, wide, |slopes| {
            let parts = rows.sums(isa, blocks, slopes);
            let mut sums = parts.iter().fold(Sums::default(), |all, &part| all.merge(part));
            let Some(Outer { value, slope }) = divergence.finish(sums.value) else {
                return Outcome::Nothing;
            };
            let mut apart = (None, None);
            if rows.over_weights(sums).cancel(wanted, rows.largest_parts()) {
                let found = if wide { None } else { rows.apart(wanted, &sums, &parts, isa, blocks) };
                let Some(found) = found else {
                    return Outcome::Value { value, needs_wide_lanes: true };
                };
                apart = found;
                sums = with_slope_sums(sums, &apart);
            }
            if wanted != (false, false) {
                let sums = rows.over_weights(sums);
                let scale = self.gradients.scale * slope * p.inverse_temperature;
                let centering = |slope_sum| Centering { scale, slope_sum };
                let centering = (centering(sums.d_ln_p), centering(sums.d_ln_q));
                rows.write(isa, blocks, &self.gradients, slopes, centering);
                write_apart(&apart, &self.gradients, scale);
            }
            if keeps { Outcome::Done(value) } else { Outcome::Value { value, needs_wide_lanes: false } }
        })
    }

    fn close_kl(&self, wide: bool) -> Outcome {
        let Task { p, q, isa, blocks, .. } = *self;
        // Without the gradient of q nothing that is kept is of use.
        let (close, written) = if !wide && self.wanted().1 && Close::keeps(p.row.classes()) {
            match Close::with_gradients(p, q, isa, blocks, &self.gradients) {
                Some(found) => found,
                None => return Outcome::Nothing,
            }
        } else {
            let Some(close) = Close::new(p, q, isa, blocks, wide, self.wanted().0) else {
                return Outcome::Nothing;
            };
            let written = close.write(p, q, isa, blocks, wide, &self.gradients);
            (close, written)
        };
        let value = close.value;
        if written { Outcome::Done(value) } else { Outcome::Value { value, needs_wide_lanes: false } }
    }

    /// Of rows that f32 lanes take, both of which have the same classes.
    fn rows_in_common(&self) -> Option<&Close> {
        let Task { p, q, isa, blocks, .. } = *self;
        let found = self.known.close.get_or_init(|| Close::new(p, q, isa, blocks, false, false));
        found.as_ref().filter(|close| !close.p_lacks)
    }

    /// By polynomials in the log-ratio, and where that is too large for them, class by class.
    fn close(&self, asked_for_wide_lanes: bool) -> Outcome {
        let Task { divergence, p, q, isa, blocks, .. } = *self;
        let series = if p.row.classes() < FEW_FOR_SERIES { None } else { Series::new(divergence.terms(), isa) };
        if asked_for_wide_lanes && series.is_none() {
            return Outcome::Nothing;
        }
        let Some(close) = self.rows_in_common() else {
            return Outcome::Nothing;
        };
        let mut statistics = Statistics::of_close_rows(close, p.inverse_temperature);
        // Classes beyond the polynomials are for f64 lanes, where a power multiplies the error of δ.
        let is_beyond = |series: &Series| close.spans.iter().any(|&span| span > series.reach);
        if asked_for_wide_lanes && series.as_ref().is_some_and(is_beyond) {
            statistics = statistics.refined(p, q, isa, blocks);
        }
        let near = series.as_ref().map(|series| Near { series, spans: &close.spans });
        Call { divergence, p, q, isa, blocks, wide: false, statistics, near }.finish(self.gradients)
    }

    fn passes(&self, wide: bool) -> Outcome {
        let Task { divergence, p, q, isa, blocks, .. } = *self;
        match Statistics::new(p, q, isa, blocks, wide, false) {
            Ok(statistics) => {
                Call { divergence, p, q, isa, blocks, wide, statistics, near: None }.finish(self.gradients)
            }
            Err(NoStatistics::NeedsWideLanes) => Outcome::NeedsWideLanes,
            Err(NoStatistics::Invalid) => {
                self.gradients.fill(f64::NAN);
                Outcome::Done(f64::NAN)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::divergence::{Kind, Visitor};
    use crate::rows::{Row, RowMut};

    /// Rows of which few classes have nearly all, the second with another offset and more or less alike.
    fn rows(noise: f32) -> [Vec<f32>; 2] {
        let noise_of = |class: usize| noise * (((class * 7919 + 13) % 1013) as f32 / 253.0 - 2.0);
        let mut p: Vec<f32> = (0..6000).map(|class| ((class * 613) % 1009) as f32 / 126.0 - 4.0).collect();
        (p[4090], p[4099]) = (19.0, 15.0);
        let q = p.iter().enumerate().map(|(class, x)| x + noise_of(class) + 30.0).collect();
        [p, q]
    }

    struct StaysInNarrowLanes<'a> {
        p: &'a [f32],
        q: &'a [f32],
        isa: Isa,
    }

    impl Visitor for StaysInNarrowLanes<'_> {
        type Output = bool;

        fn visit<D: Divergence>(self, divergence: D) -> bool {
            let [p, q] = [self.p, self.q].map(|row| Distribution::new(Row::from(row), Space::Logits, 1.0));
            let mut outputs = [vec![0.0_f32; self.p.len()], vec![0.0_f32; self.p.len()]];
            let [of_p, of_q] = outputs.each_mut().map(|out| Some(RowMut::from(&mut out[..])));
            let task = Task {
                divergence,
                p,
                q,
                isa: self.isa,
                blocks: &Blocks::OF_ONE_THREAD,
                gradients: RowGradients { scale: 1.0, p: of_p, q: of_q },
                one_rate: true,
                narrow: true,
                plain_wide: false,
                known: &Known::default(),
            };
            WAYS.into_iter()
                .map(|way| task.attempt(way, false, divergence.needs_wide_lanes()))
                .take_while(|outcome| {
                    !matches!(outcome, Outcome::NeedsWideLanes | Outcome::Value { needs_wide_lanes: true, .. })
                })
                .any(|outcome| matches!(outcome, Outcome::Done(_)))
        }
    }

    #[test]
    fn rows_that_few_classes_dominate_stay_in_f32_lanes() {
        for isa in Isa::available().filter(|isa| isa.name() != "portable") {
            for noise in [0.2, 0.8, 4.0] {
                let [p, q] = rows(noise);
                for name in ["kl", "jeffreys", "jensen_shannon", "total_variation", "squared_hellinger"] {
                    let stays = StaysInNarrowLanes { p: &p, q: &q, isa };
                    assert!(Kind::new(name, 0.5).unwrap().visit(stays).unwrap(), "{name} {noise} {}", isa.name());
                }
            }
        }
    }
}
