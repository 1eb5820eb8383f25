//! Statistics of two rows that weights of a divergence depend on, in f64 lanes.

use crate::divergence::{NegLogAcceptance, Statistic};
use crate::element::Element;
use crate::row::distribution::softmax::DistributionView;
use crate::row::distribution::{Distribution, LogSumExp};
use crate::row::divergence::first_pass::Statistics;
use crate::row::gradients::RowGradients;
use crate::row::pair::{Frame, PairView};
use crate::row::runs::{Step, pass, sums};
use crate::rows::{BLOCK, Block};
use crate::simd::{Isa, Kernel, Lanes, Simd};
use crate::threads::Blocks;
use std::cell::Cell;

use super::Task;

/// The statistic of two rows, NaN where one is invalid.
pub(super) fn measure(
    statistic: Statistic,
    p: Distribution<'_>,
    q: Distribution<'_>,
    isa: Isa,
    blocks: &Blocks,
) -> f64 {
    match statistic {
        Statistic::Acceptance => {
            let gradients = RowGradients { scale: 1.0, p: None, q: None };
            let divergence = NegLogAcceptance::NEW;
            let task = Task { divergence, p, q, isa, blocks, gradients, one_rate: false, narrow: false };
            (-task.run()).exp()
        }
        Statistic::HeadOfGap { mass } => match Statistics::new(p, q, isa, blocks, true, false) {
            Ok(statistics) => head_of_gap(mass, p, q, statistics, isa, blocks),
            Err(_) => f64::NAN,
        },
    }
}

fn head_of_gap(
    mass: f64,
    p: Distribution<'_>,
    q: Distribution<'_>,
    statistics: Statistics,
    isa: Isa,
    blocks: &Blocks,
) -> f64 {
    let smallest = smallest_of_head(mass, p, statistics.p, isa, blocks);
    let parts = blocks.map(p.row.classes(), |start, len| {
        let gap = Gap { p: p.block(start, len), q: q.block(start, len), frame: statistics.frame, smallest };
        isa.run(gap)
    });
    let (head, tail) = parts.iter().fold((0.0, 0.0), |(head, tail), part| (head + part[0], tail + part[1]));
    if head + tail == 0.0 { 0.5 } else { head / (head + tail) }
}

/// The number of the least probable class of the head of p.
fn smallest_of_head(mass: f64, p: Distribution<'_>, sum: LogSumExp, isa: Isa, blocks: &Blocks) -> f64 {
    /// The smallest number above 0.
    const SMALLEST: f64 = f64::from_bits(1);
    let classes = p.row.classes();
    if mass <= 0.0 {
        return f64::INFINITY;
    }
    if mass >= 1.0 {
        // All that p has.
        return f64::NEG_INFINITY;
    }
    // Of rows that sum to one, all classes that are less probable than this hold less than what the head leaves. The margin is for
    // roundings of p.
    let least = if p.space.is_normalized() { 0.999 * (1.0 - mass) / classes as f64 } else { SMALLEST };
    let parts = blocks.map(classes, |start, len| {
        let candidates = Candidates { p: p.block(start, len), sum, least, found: spare() };
        Cell::new(isa.run(candidates))
    });
    let mut candidates = ROW.take();
    candidates.clear();
    candidates.reserve_exact(classes);
    for part in parts.iter() {
        let part = part.take();
        candidates.extend_from_slice(&part);
        keep(part);
    }
    let last = last_of_mass(&mut candidates, mass);
    ROW.set(candidates);
    last
}

thread_local! {
    /// Memory for the candidates of a row, kept for the next one.
    static ROW: Cell<Vec<Candidate>> = const { Cell::new(Vec::new()) };
    /// That for those of its blocks.
    static SPARE: Cell<Vec<Vec<Candidate>>> = const { Cell::new(Vec::new()) };
}

/// An empty vector with memory for the candidates of a block.
fn spare() -> Vec<Candidate> {
    let mut spare = SPARE.take();
    let mut found = spare.pop().unwrap_or_default();
    SPARE.set(spare);
    found.reserve_exact(BLOCK);
    found
}

fn keep(mut found: Vec<Candidate>) {
    /// Those of a row of 262,144 classes.
    const MOST: usize = 64;
    let mut spare = SPARE.take();
    if spare.len() < MOST {
        found.clear();
        spare.push(found);
    }
    SPARE.set(spare);
}

/// A class that may belong to the head: its number, and p.
#[derive(Clone, Copy)]
struct Candidate {
    number: f64,
    p: f64,
}

/// The number of the last class, from the most probable on, that those above it leave less than `mass` to; of no class −∞.
///
/// Each round leaves the classes on one side of a pivot, of whose place in the order nothing else is known.
fn last_of_mass(mut rest: &mut [Candidate], mass: f64) -> f64 {
    let mut above = 0.0;
    loop {
        let Some(pivot) = middle_of_three(rest) else { return f64::NEG_INFINITY };
        let (more, others) = partition(rest, |number| number > pivot);
        let (same, fewer) = partition(others, |number| number == pivot);
        let total = |part: &[Candidate]| part.iter().map(|one| one.p).sum::<f64>();
        let with_more = above + total(more);
        if with_more >= mass && !more.is_empty() {
            rest = more;
            continue;
        }
        above = with_more + total(same);
        if above >= mass || fewer.is_empty() {
            return pivot;
        }
        rest = fewer;
    }
}

fn middle_of_three(candidates: &[Candidate]) -> Option<f64> {
    let [first, middle, last] =
        [candidates.first()?, candidates.get(candidates.len() / 2)?, candidates.last()?].map(|one| one.number);
    Some(first.min(middle).max(first.max(middle).min(last)))
}

/// Those whose number is of a kind, and the others.
fn partition(candidates: &mut [Candidate], is_first: impl Fn(f64) -> bool) -> (&mut [Candidate], &mut [Candidate]) {
    let mut count = 0;
    for index in 0..candidates.len() {
        if is_first(candidates[index].number) {
            candidates.swap(index, count);
            count += 1;
        }
    }
    candidates.split_at_mut(count)
}

/// The classes of a block that are at least this probable.
struct Candidates<'a> {
    p: Distribution<'a>,
    sum: LogSumExp,
    least: f64,
    /// Where they go.
    found: Vec<Candidate>,
}

impl Kernel for Candidates<'_> {
    type Output = Vec<Candidate>;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Vec<Candidate> {
        let Candidates { p, sum, least, found } = self;
        let mut step = CandidatesStep::<S::F64> {
            view: DistributionView::new(simd, p, sum),
            least: S::F64::splat(simd, least),
            found,
        };
        pass(simd, p.row.classes(), [Block::new(p.row, p.space.absent())], [], &mut step);
        step.found
    }
}

struct CandidatesStep<V: Lanes> {
    view: DistributionView<V>,
    least: V,
    found: Vec<Candidate>,
}

impl<V: Lanes> Step<V, 1, 0, 0> for CandidatesStep<V> {
    #[inline(always)]
    fn step<const WHOLE: bool>(&mut self, _: usize, [x]: [V; 1], _: &mut [V; 0]) -> [V; 0] {
        let p = self.view.p(x);
        if V::any(self.least.le(p)) {
            let least = self.least.to_array()[0].to_f64();
            let pairs = x.to_array().into_iter().zip(p.to_array()).take(V::N);
            let pairs = pairs.map(|(number, p)| Candidate { number: number.to_f64(), p: p.to_f64() });
            self.found.extend(pairs.filter(|one| one.p >= least));
        }
        []
    }
}

/// Σ |p − q| of the head and of the tail of a block.
struct Gap<'a> {
    p: Distribution<'a>,
    q: Distribution<'a>,
    frame: Frame,
    smallest: f64,
}

impl Kernel for Gap<'_> {
    type Output = [f64; 2];

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> [f64; 2] {
        let Gap { p, q, frame, smallest } = self;
        let mut step = GapStep {
            view: PairView::new(simd, p, q, &frame),
            smallest: S::F64::splat(simd, smallest),
            zero: S::F64::splat(simd, 0.0),
        };
        let blocks = [Block::new(p.row, p.space.absent()), Block::new(q.row, q.space.absent())];
        sums(simd, p.row.classes(), blocks, &mut step)
    }
}

struct GapStep<V: Lanes> {
    view: PairView<V>,
    smallest: V,
    zero: V,
}

impl<V: Lanes> Step<V, 2, 0, 2> for GapStep<V> {
    #[inline(always)]
    fn step<const WHOLE: bool>(&mut self, _: usize, [x, y]: [V; 2], [head, tail]: &mut [V; 2]) -> [V; 0] {
        let pair = self.view.pair(x, y);
        let gap = pair.difference().abs();
        let in_head = V::and(pair.has.0, self.smallest.le(x));
        *head = *head + V::select(in_head, gap, self.zero);
        *tail = *tail + V::select(in_head, self.zero, gap);
        []
    }
}
