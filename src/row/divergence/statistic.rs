//! Statistics of two rows that weights of a divergence depend on.

use crate::divergence::{Divergence, NegLogAcceptance, Statistic};
use crate::row::distribution::Distribution;
use crate::row::distribution::LogSumExp;
use crate::row::divergence::Task;
use crate::row::divergence::first_pass::Statistics;
use crate::row::divergence::head::Head;
use crate::row::gradients::RowGradients;
use crate::row::pair::{Frame, PairView};
use crate::row::runs::{Step, sums};
use crate::rows::Block;
use crate::simd::{LaneKernel, Lanes, Narrow, Wide};

impl<D: Divergence> Task<'_, D> {
    /// The statistic of the two rows, NaN where one is invalid.
    pub(super) fn measure(&self, statistic: Statistic) -> f64 {
        match statistic {
            Statistic::Acceptance { narrow_up_to } => {
                let narrowly = self.narrow.then(|| self.acceptance(true));
                let enough = narrowly.filter(|&acceptance| acceptance <= narrow_up_to);
                enough.unwrap_or_else(|| self.acceptance(false))
            }
            Statistic::HeadOfGap { mass } => self.head_of_gap(mass),
        }
    }

    /// Σ min(p, q).
    fn acceptance(&self, narrow: bool) -> f64 {
        let Task { p, q, isa, blocks, known, plain_wide, .. } = *self;
        let gradients = RowGradients { scale: 1.0, p: None, q: None };
        // In f64 lanes, close rows have no way of their own to it.
        let one_rate = narrow && self.one_rate;
        let divergence = NegLogAcceptance::NEW;
        let task = Task { divergence, p, q, isa, blocks, gradients, one_rate, narrow, plain_wide, known };
        (-task.run()).exp()
    }

    fn head_of_gap(&self, mass: f64) -> f64 {
        /// Σ |p − q| of the head and of the tail from which on the differences of p and q themselves will do.
        const LARGE: f64 = 0.25;
        let Task { p, q, isa, blocks, plain_wide: wide, .. } = *self;
        if (self.narrow || wide)
            && let Some(far) = self.far_if_disjoint()
        {
            let smallest = self.smallest_of_head(mass, far.p(), wide);
            let frame = far.frame(p.inverse_temperature);
            let gap = self.gap(|p, q| {
                if wide {
                    isa.run(Wide(GapKernel::<true> { p, q, frame, smallest }))
                } else {
                    isa.run(Narrow(GapKernel::<false> { p, q, frame, smallest }))
                }
            });
            if gap.head.min(gap.tail) >= LARGE {
                return gap.head_per_tail();
            }
        }
        if self.narrow {
            let found = match self.rows_in_common() {
                Some(close) => Some((close.frame(p.inverse_temperature), close.p)),
                None => Statistics::new(p, q, isa, blocks, false, true)
                    .ok()
                    .map(|statistics| (statistics.frame, statistics.p)),
            };
            if let Some((frame, sum)) = found {
                let smallest = self.smallest_of_head(mass, sum, false);
                let gap = self.gap(|p, q| isa.run(Narrow(GapKernel::<true> { p, q, frame, smallest })));
                if !frame.hides(gap.head + gap.tail) {
                    return gap.head_per_tail();
                }
            }
        }
        match Statistics::new(p, q, isa, blocks, true, false) {
            Ok(Statistics { frame, p: sum, .. }) => {
                let smallest = self.smallest_of_head(mass, sum, true);
                self.gap(|p, q| isa.run(Wide(GapKernel::<true> { p, q, frame, smallest }))).head_per_tail()
            }
            Err(_) => f64::NAN,
        }
    }

    /// The number of the least probable class of the head of p.
    fn smallest_of_head(&self, mass: f64, sum: LogSumExp, wide: bool) -> f64 {
        let Task { p, isa, blocks, .. } = *self;
        Head { p, sum, mass, wide }.smallest(isa, blocks).unwrap_or_else(|| {
            let sum = p.statistics(isa, blocks, &mut true);
            Head { p, sum, mass, wide: true }.smallest(isa, blocks).unwrap_or(f64::NAN)
        })
    }

    /// Of all blocks, given that of two.
    fn gap(&self, of_blocks: impl Fn(Distribution<'_>, Distribution<'_>) -> [f64; 2] + Sync) -> Gap {
        let (p, q) = (self.p, self.q);
        let parts = self.blocks.map(p.row.classes(), |start, len| of_blocks(p.block(start, len), q.block(start, len)));
        let nothing = Gap { head: 0.0, tail: 0.0 };
        parts.iter().fold(nothing, |all, part| Gap { head: all.head + part[0], tail: all.tail + part[1] })
    }
}

/// Σ |p − q| of the head of p and of its tail.
#[derive(Clone, Copy)]
struct Gap {
    head: f64,
    tail: f64,
}

impl Gap {
    fn head_per_tail(self) -> f64 {
        if self.head + self.tail == 0.0 { 1.0 } else { self.head / self.tail }
    }
}

/// Σ |p − q| of the head and of the tail of a block; if `CLOSE`, relatively accurate however close the rows are.
struct GapKernel<'a, const CLOSE: bool> {
    p: Distribution<'a>,
    q: Distribution<'a>,
    frame: Frame,
    smallest: f64,
}

impl<const CLOSE: bool> LaneKernel for GapKernel<'_, CLOSE> {
    type Output = [f64; 2];

    #[inline(always)]
    fn run<V: Lanes>(self, token: V::Token) -> [f64; 2] {
        let GapKernel { p, q, frame, smallest } = self;
        let mut step = GapStep::<V, CLOSE> {
            view: PairView::new(token, p, q, &frame),
            smallest: V::splat(token, smallest),
            zero: V::splat(token, 0.0),
        };
        let blocks = [Block::new(p.row, p.space.absent()), Block::new(q.row, q.space.absent())];
        sums(token, p.row.classes(), blocks, &mut step)
    }
}

struct GapStep<V: Lanes, const CLOSE: bool> {
    view: PairView<V>,
    smallest: V,
    zero: V,
}

impl<V: Lanes, const CLOSE: bool> Step<V, 2, 0, 2> for GapStep<V, CLOSE> {
    const CONVERTS_APART: bool = true;

    #[inline(always)]
    fn step<const WHOLE: bool>(&mut self, _: usize, [x, y]: [V; 2], [head, tail]: &mut [V; 2]) -> [V; 0] {
        let pair = self.view.pair(x, y);
        let gap = if CLOSE { pair.difference() } else { pair.p - pair.q }.abs();
        let in_head = V::and(pair.has.0, self.smallest.le(x));
        *head = *head + V::select(in_head, gap, self.zero);
        *tail = *tail + V::select(in_head, self.zero, gap);
        []
    }
}
