//! The first pass over two rows: both log-sum-exp, their difference, and the classes that only one row has.

use crate::row::distribution::scan::{Scan, scan};
use crate::row::distribution::{Distribution, LogSumExp, Space};
use crate::row::kl::close::Close;
use crate::row::pair::{FindSupport, Frame, LARGEST_NARROW_DELTA, PairView, SideFrame, Support};
use crate::row::runs::{Step, sums};
use crate::row::two_floats::TwoFloats;
use crate::rows::{BLOCK, Block};
use crate::simd::{Isa, Kernel, LaneKernel, Lanes, Narrow, Scalar, Simd, Wide};
use crate::threads::Blocks;

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
    /// What each side is relative to in the block's own frame.
    references: (f64, f64),
    /// Σ(q′ − p′), where p′ = e^((x − max x)/T), q′ = e^((y − max y)/T).
    excess: f64,
    support: Support,
    problem: Option<NoStatistics>,
}

/// The first pass over a block. If `EXACT`, the sums leave out the largest class, as entropies and losses need it; else they
/// only serve as divisors.
struct FirstPass<'a, const EXACT: bool> {
    p: Distribution<'a>,
    q: Distribution<'a>,
    isa: Isa,
}

impl<const EXACT: bool> LaneKernel for FirstPass<'_, EXACT> {
    type Output = BlockStatistics;

    #[inline(always)]
    fn run<V: Lanes>(self, token: V::Token) -> BlockStatistics {
        first_pass::<V, EXACT>(token, &self)
    }
}

#[inline(always)]
fn first_pass<V: Lanes, const EXACT: bool>(token: V::Token, pass: &FirstPass<'_, EXACT>) -> BlockStatistics {
    let FirstPass { p, q, isa } = *pass;
    let p_scan = scan::<V>(token, p.row, p.space);
    let q_scan = scan::<V>(token, q.row, q.space);
    let mut block = BlockStatistics {
        p: LogSumExp::EMPTY,
        q: LogSumExp::EMPTY,
        references: (0.0, 0.0),
        excess: 0.0,
        support: Support::default(),
        problem: None,
    };
    if p_scan.invalid || q_scan.invalid {
        block.problem = Some(NoStatistics::Invalid);
        return block;
    }
    if p_scan.smallest == p.space.absent() || q_scan.smallest == q.space.absent() {
        block.support = isa.run_lanes(V::Scalar::WIDE, FindSupport { p, q });
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
        delta_of_sums: TwoFloats::ZERO,
        delta_of_scales: TwoFloats::ZERO,
    };
    let view = PairView::<V>::new(token, p, q, &frame);
    let zero = V::splat(token, 0.0);
    let tops = (V::splat(token, p_reference), V::splat(token, q_reference));
    let mut step = FirstStep::<V, EXACT> { token, view, tops, counts: [zero; 2] };
    let blocks = [Block::new(p.row, f64::NEG_INFINITY), Block::new(q.row, f64::NEG_INFINITY)];
    let [p_rest, q_rest, excess] = sums(token, p.row.classes(), blocks, &mut step);
    // No vector goes into the closure, which is not inlined into both places.
    let (p_count, q_count) = (step.counts[0].sum(), step.counts[1].sum());
    let side = |empty: bool, reference: f64, count: f64, rest: f64| {
        if empty { LogSumExp::EMPTY } else { LogSumExp { largest: reference, rest: rest + (count - 1.0) } }
    };
    block.p = side(p_empty, p_reference, p_count, p_rest);
    block.q = side(q_empty, q_reference, q_count, q_rest);
    block.references = (p_reference, q_reference);
    block.excess = excess;
    block
}

/// Adds classes to the sums of p′, q′ (without the largest if `EXACT`) and q′ − p′, and counts the largest.
struct FirstStep<V: Lanes, const EXACT: bool> {
    token: V::Token,
    view: PairView<V>,
    tops: (V, V),
    counts: [V; 2],
}

impl<V: Lanes, const EXACT: bool> Step<V, 2, 0, 3> for FirstStep<V, EXACT> {
    const CONVERTS_APART: bool = true;
    const AHEAD: usize = BLOCK;

    #[inline(always)]
    fn step<const WHOLE: bool>(&mut self, _: usize, [x, y]: [V; 2], runs: &mut [V; 3]) -> [V; 0] {
        let pair = self.view.pair(x, y);
        runs[2] = runs[2] - pair.difference();
        if EXACT {
            let (zero, one) = (V::splat(self.token, 0.0), V::splat(self.token, 1.0));
            let (p_below, q_below) = (x.lt(self.tops.0), y.lt(self.tops.1));
            runs[0] = runs[0] + V::select(p_below, pair.p, zero);
            runs[1] = runs[1] + V::select(q_below, pair.q, zero);
            self.counts[0] = self.counts[0] + V::select(p_below, zero, one);
            self.counts[1] = self.counts[1] + V::select(q_below, zero, one);
        } else {
            runs[0] = runs[0] + pair.p;
            runs[1] = runs[1] + pair.q;
        }
        []
    }
}

/// Σ(q − p) of a block, in f64 lanes.
struct SumOfDifferences<'a> {
    p: Distribution<'a>,
    q: Distribution<'a>,
    frame: Frame,
}

impl Kernel for SumOfDifferences<'_> {
    type Output = f64;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> f64 {
        let SumOfDifferences { p, q, frame } = self;
        let mut step = DifferenceStep::<S::F64>(PairView::new(simd, p, q, &frame));
        let blocks = [Block::new(p.row, p.space.absent()), Block::new(q.row, q.space.absent())];
        let [sum] = sums(simd, p.row.classes(), blocks, &mut step);
        sum
    }
}

struct DifferenceStep<V: Lanes>(PairView<V>);

impl<V: Lanes> Step<V, 2, 0, 1> for DifferenceStep<V> {
    #[inline(always)]
    fn step<const WHOLE: bool>(&mut self, _: usize, [x, y]: [V; 2], [sum]: &mut [V; 1]) -> [V; 0] {
        *sum = *sum - self.0.pair(x, y).difference();
        []
    }
}

/// As in [`Statistics::merge`]: Σ(q − p) seen with a rough difference of the log-sum-exp shows what that is off by.
fn refined(frame: Frame, p: Distribution<'_>, q: Distribution<'_>, isa: Isa, blocks: &Blocks) -> Frame {
    let parts = blocks.map(p.row.classes(), |start, len| {
        isa.run(SumOfDifferences { p: p.block(start, len), q: q.block(start, len), frame })
    });
    let excess: f64 = parts.iter().sum();
    if excess.abs() < 0.5 { frame.corrected(excess) } else { frame }
}

impl Statistics {
    /// Those that [`Close`] found, for f32 lanes; where p lacks nothing that q has.
    pub(crate) fn of_close_rows(close: &Close, inverse_temperature: f64) -> Self {
        let frame = close.frame(inverse_temperature);
        let q = LogSumExp { largest: frame.q.reference, rest: close.p.rest };
        Statistics { frame, p: close.p, q, support: Support::default() }
    }

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
                let (p, q) = (p.block(start, len), q.block(start, len));
                // A single class has probability 1 whatever its logit, exactly.
                match (wide, exact || classes == 1) {
                    (true, _) => isa.run(Wide(FirstPass::<true> { p, q, isa })),
                    (false, true) => isa.run(Narrow(FirstPass::<true> { p, q, isa })),
                    (false, false) => isa.run(Narrow(FirstPass::<false> { p, q, isa })),
                }
            });
            let found = Self::merge(&parts, p.inverse_temperature)?;
            let fits = wide || found.frame.delta.value().abs() <= LARGEST_NARROW_DELTA;
            return if fits { Ok(found) } else { Err(NoStatistics::NeedsWideLanes) };
        }
        debug_assert!(wide, "only two rows of logits with one temperature may run in f32 lanes");
        let mut wide = true;
        let p_sum = p.statistics(isa, blocks, &mut wide);
        let q_sum = q.statistics(isa, blocks, &mut wide);
        if p_sum.is_nan() || q_sum.is_nan() || p_sum.is_empty() || q_sum.is_empty() {
            return Err(NoStatistics::Invalid);
        }
        let parts = blocks
            .map(classes, |start, len| isa.run(Wide(FindSupport { p: p.block(start, len), q: q.block(start, len) })));
        let support = parts.iter().fold(Support::default(), |all, &part| all.merge(part));
        let mut frame = Frame::of(p_sum, q_sum, p.inverse_temperature);
        if p.space.is_normalized() && q.space.is_normalized() {
            frame = refined(frame, p, q, isa, blocks);
        }
        Ok(Statistics { frame, p: p_sum, q: q_sum, support })
    }

    /// With the difference of the two log-sum-exp as f64 lanes find it.
    pub(crate) fn refined(self, p: Distribution<'_>, q: Distribution<'_>, isa: Isa, blocks: &Blocks) -> Self {
        Statistics { frame: refined(self.frame, p, q, isa, blocks), ..self }
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
        let rough = Frame::of(p, q, inverse_temperature);
        // Σ(q″ − p) with q″ = p·e^(−d″), d″ from the rough difference; its true value for q is 0.
        let mut excess = 0.0;
        for block in blocks {
            let p_part = block.p.relative_to(p, inverse_temperature);
            let q_part = block.q.relative_to(q, inverse_temperature);
            // The rough difference less the block's own, without what the largest logits of the two rows differ by.
            let (p_reference, q_reference) = block.references;
            let p_below = TwoFloats::scaled_difference(p.largest, p_reference, inverse_temperature);
            let q_below = TwoFloats::scaled_difference(q.largest, q_reference, inverse_temperature);
            let shift = p_below.minus(q_below) + rough.delta_of_sums.value();
            excess += if shift.abs() < 1.0 && !block.p.is_empty() && !block.q.is_empty() {
                let scale = ((block.p.largest - p.largest) * inverse_temperature - p.ln_sum()).exp();
                scale * (block.excess + shift.exp_m1() * (1.0 + block.q.rest))
            } else {
                q_part - p_part
            };
        }
        let frame = if excess.abs() < 0.5 { rough.corrected(excess) } else { rough };
        let support = blocks.iter().fold(Support::default(), |all, block| all.merge(block.support));
        Ok(Statistics { frame, p, q, support })
    }
}
