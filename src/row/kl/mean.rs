//! The mean of ln p − ln q over p, to all digits that the gradient p·(d − KL) needs of it.
//!
//! Where few classes have most of p, that gradient is far smaller than p·d, and KL as summed of p·d is rounded by too much. About
//! a number that is nearly the mean, what is summed is the gradient itself.

use crate::row::distribution::Distribution;
use crate::row::distribution::scan::lowest_narrow_logit;
use crate::row::pair::{Frame, LARGEST_NARROW_DELTA, LogRatio, NARROW_ROUNDING};
use crate::row::runs::{Step, sums};
use crate::row::two_floats::TwoFloats;
use crate::rows::Block;
use crate::simd::exp::ScaledExp;
use crate::simd::{Isa, LaneKernel, Lanes, Narrow};
use crate::threads::Blocks;

/// How often it is found again, each time about the last.
const TRIES: usize = 3;

/// What p·(d − mean) may be the difference of, relative to itself, squared.
const LARGEST_PARTS: f64 = 16.0;

/// The mean of (x − y)/T over p, given what it nearly is, of rows that f32 lanes take; `None` where that was too far off, and for f64
/// lanes.
pub(crate) fn mean_log_ratio(
    p: Distribution<'_>,
    q: Distribution<'_>,
    frame: Frame,
    nearly: TwoFloats,
    isa: Isa,
    blocks: &Blocks,
    wide: bool,
) -> Option<TwoFloats> {
    let mut mean = nearly;
    if wide || mean.value().abs() > LARGEST_NARROW_DELTA {
        return None;
    }
    for _ in 0..TRIES {
        let parts = blocks.map(p.row.classes(), |start, len| {
            isa.run(Narrow(MeanSums { p: p.block(start, len), q: q.block(start, len), frame, mean }))
        });
        let mut totals = [0.0; SUMS];
        for part in parts.iter() {
            for (total, sum) in totals.iter_mut().zip(part) {
                *total += sum;
            }
        }
        let [moment, squares, cross, pp] = totals;
        mean = mean.plus(moment);
        // Σ(pt)² and the square of what p times the moment is, of which that about the new mean is the difference.
        let parts = squares + moment * moment * pp;
        let square = parts - 2.0 * moment * cross;
        if LARGEST_PARTS * square >= parts {
            // What the log-ratios are rounded by is to be little of the gradient, or of what any gradient is promised to be right to.
            let rounding = mean.value().abs() * NARROW_ROUNDING;
            let little = rounding * rounding * pp <= 1e-14 * square || rounding * p.inverse_temperature <= 5e-13;
            return little.then_some(mean);
        }
    }
    None
}

/// Σpt, Σ(pt)², Σp·pt and Σp², t = d − mean.
const SUMS: usize = 4;

struct MeanSums<'a> {
    p: Distribution<'a>,
    q: Distribution<'a>,
    frame: Frame,
    mean: TwoFloats,
}

impl LaneKernel for MeanSums<'_> {
    type Output = [f64; SUMS];

    #[inline(always)]
    fn run<V: Lanes>(self, token: V::Token) -> [f64; SUMS] {
        let MeanSums { p, q, frame, mean } = self;
        let rate = p.inverse_temperature;
        let mut step = MeanStep {
            exps: (frame.p.exp::<V>(token, rate), frame.q.exp::<V>(token, rate)),
            from_mean: LogRatio::new(token, rate, mean),
        };
        // Pads with a class of probability 0.
        let lowest = lowest_narrow_logit(rate);
        sums(token, p.row.classes(), [Block::new(p.row, lowest), Block::new(q.row, lowest)], &mut step)
    }
}

struct MeanStep<V: Lanes> {
    exps: (ScaledExp<V>, ScaledExp<V>),
    from_mean: LogRatio<V>,
}

impl<V: Lanes> Step<V, 2, 0, SUMS> for MeanStep<V> {
    #[inline(always)]
    fn step<const WHOLE: bool>(&mut self, _: usize, [x, y]: [V; 2], runs: &mut [V; SUMS]) -> [V; 0] {
        let (x, y) = (self.exps.0.bounded(x), self.exps.1.bounded(y));
        let p = self.exps.0.at(x);
        let moment = p * self.from_mean.of(x, y);
        runs[0] = runs[0] + moment;
        runs[1] = moment.mul_add_relaxed(moment, runs[1]);
        runs[2] = moment.mul_add_relaxed(p, runs[2]);
        runs[3] = p.mul_add_relaxed(p, runs[3]);
        []
    }
}
