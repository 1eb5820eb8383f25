//! Any two rows: their statistics, and a pass for all sums.

use super::RowComparison;
use crate::divergence::{Divergence, JensenShannon};
use crate::row::distribution::Distribution;
use crate::row::distribution::scan::first_at;
use crate::row::distribution::softmax::DistributionView;
use crate::row::divergence::first_pass::{NoStatistics, Statistics};
use crate::row::pair::PairView;
use crate::row::runs::{self, Step};
use crate::rows::Block;
use crate::simd::{Isa, LaneKernel, Lanes};
use crate::threads::Blocks;

/// Compares two rows, first in f32 lanes if `narrow`; `label` is in range.
pub(super) fn compare(
    p: Distribution<'_>,
    q: Distribution<'_>,
    label: Option<usize>,
    isa: Isa,
    blocks: &Blocks,
    narrow: bool,
) -> RowComparison {
    if narrow {
        match in_lanes(false, (p, q), label, isa, blocks) {
            Ok(found) => return found,
            Err(NoStatistics::NeedsWideLanes) => {}
            Err(NoStatistics::Invalid) => return RowComparison::INVALID,
        }
    }
    in_lanes(true, (p, q), label, isa, blocks).unwrap_or(RowComparison::INVALID)
}

/// In f64 lanes if `wide`, else in those of f32.
fn in_lanes(
    wide: bool,
    (p, q): (Distribution<'_>, Distribution<'_>),
    label: Option<usize>,
    isa: Isa,
    blocks: &Blocks,
) -> Result<RowComparison, NoStatistics> {
    let statistics = Statistics::new(p, q, isa, blocks, wide, true)?;
    let classes = p.row.classes();
    let sums = |statistics: Statistics| {
        let parts = blocks.map(classes, |start, len| {
            let block = ComparisonSums { p: p.block(start, len), q: q.block(start, len), statistics };
            isa.run_lanes(wide, block)
        });
        let mut sums = [0.0; SUMS];
        for part in parts.iter() {
            for (sum, value) in sums.iter_mut().zip(part) {
                *sum += value;
            }
        }
        sums
    };
    let mut found = sums(statistics);
    // Total variation is of first order in the error of the difference of the two log-sum-exp, which is relative to that of
    // rows that agree in their largest logits.
    if !wide && found[3] < SMALLEST_SHARE * statistics.frame.delta_of_sums.value().abs() {
        found = sums(statistics.refined(p, q, isa, blocks));
    }
    let [kl, reverse_kl, jensen_shannon, total_variation, entropy_p, entropy_q] = found;
    if !wide && statistics.frame.hides(total_variation) {
        return Err(NoStatistics::NeedsWideLanes);
    }
    let support = statistics.support;
    let top = |row, largest| first_at(row, largest, isa).map_or(-1, |class| class as i64);
    Ok(RowComparison {
        kl: if support.q_zero { f64::INFINITY } else { kl },
        reverse_kl: if support.p_zero { f64::INFINITY } else { reverse_kl },
        jensen_shannon,
        total_variation,
        entropy_p,
        entropy_q,
        top1_p: top(p.row, statistics.p.largest),
        top1_q: top(q.row, statistics.q.largest),
        confidence_p: statistics.p.largest_probability(),
        confidence_q: statistics.q.largest_probability(),
        nll_p: label.map_or(0.0, |class| p.surprise(class, statistics.p, isa)),
        nll_q: label.map_or(0.0, |class| q.surprise(class, statistics.q, isa)),
    })
}

/// Total variation, relative to what the two log-sum-exp differ by beside the largest logits, from which on it is accurate.
const SMALLEST_SHARE: f64 = 0.3;

/// The numbers of a comparison that are sums over classes.
const SUMS: usize = 6;

/// Those of a block.
struct ComparisonSums<'a> {
    p: Distribution<'a>,
    q: Distribution<'a>,
    statistics: Statistics,
}

impl LaneKernel for ComparisonSums<'_> {
    type Output = [f64; SUMS];

    #[inline(always)]
    fn run<V: Lanes>(self, token: V::Token) -> [f64; SUMS] {
        let ComparisonSums { p, q, statistics } = self;
        let mut step = ComparisonStep::<V> {
            token,
            view: PairView::new(token, p, q, &statistics.frame),
            p_view: DistributionView::new(token, p, statistics.p),
            q_view: DistributionView::new(token, q, statistics.q),
        };
        let blocks = [Block::new(p.row, f64::NEG_INFINITY), Block::new(q.row, f64::NEG_INFINITY)];
        runs::sums(token, p.row.classes(), blocks, &mut step)
    }
}

/// Adds classes to the numbers of a comparison.
struct ComparisonStep<V: Lanes> {
    token: V::Token,
    view: PairView<V>,
    p_view: DistributionView<V>,
    q_view: DistributionView<V>,
}

impl<V: Lanes> Step<V, 2, 0, SUMS> for ComparisonStep<V> {
    const CONVERTS_APART: bool = true;

    #[inline(always)]
    fn step<const WHOLE: bool>(&mut self, _: usize, [x, y]: [V; 2], runs: &mut [V; SUMS]) -> [V; 0] {
        let pair = self.view.pair(x, y);
        runs[0] = runs[0] + pair.kl_term();
        runs[1] = runs[1] + pair.reverse_kl_term();
        runs[2] = runs[2] + JensenShannon::EVEN.class(&pair).value;
        runs[3] = runs[3] + V::splat(self.token, 0.5) * pair.difference().abs();
        runs[4] = runs[4] - self.p_view.p_ln_p(x, pair.p);
        runs[5] = runs[5] - self.q_view.p_ln_p(y, pair.q);
        []
    }
}
