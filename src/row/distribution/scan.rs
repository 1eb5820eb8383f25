//! The first look at a block: its largest and smallest element, and whether it can be computed with at all.

use super::Space;
use crate::element::Dtype;
use crate::row::runs::{Step, sums};
use crate::rows::{Block, Chunk, Row};
use crate::simd::{Isa, LaneKernel, Lanes, Narrow, RUN, exp};
use crate::threads::Blocks;

/// Classes that tell first whether two rows are far apart: rows that are close are mostly close in these already.
pub(crate) const PROBE: usize = 512;

/// What the first look finds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scan {
    pub(crate) largest: f64,
    pub(crate) smallest: f64,
    /// Whether an element is NaN or +∞, or a probability is negative, or the exponential of a log-probability infinite.
    pub(crate) invalid: bool,
}

/// Scans a block; `#[inline(always)]`, for use inside a kernel.
#[inline(always)]
pub(crate) fn scan<V: Lanes>(token: V::Token, row: Row<'_>, space: Space) -> Scan {
    let (zero, infinite) = (V::splat(token, 0.0), V::splat(token, f64::INFINITY));
    let mut step =
        ScanStep::<V> { infinite, largest: [-infinite; 2], smallest: [infinite; 2], valid: [zero.le(zero); 2] };
    // The first class of the row pads it: it changes neither extreme.
    sums(token, row.classes(), [Block::new(row, row.get(0))], &mut step);
    let ScanStep { largest, smallest, valid, .. } = step;
    let valid = V::and(valid[0], valid[1]);
    let largest = largest[0].max(largest[1]).largest();
    let smallest = -((-smallest[0].min(smallest[1])).largest());
    let out_of_range = match space {
        Space::Logits => false,
        Space::LogProbs => largest > f64::MAX.ln(),
        Space::Probs | Space::Unnormalized => smallest < 0.0,
    };
    Scan { largest, smallest, invalid: !V::all(valid) || out_of_range }
}

struct ScanStep<V: Lanes> {
    infinite: V,
    largest: [V; 2],
    smallest: [V; 2],
    valid: [V::Mask; 2],
}

impl<V: Lanes> Step<V, 1, 0, 0> for ScanStep<V> {
    // Of rows that take the general way, and blocks that one class dominates.
    const CONVERTS_APART: bool = true;
    const CHAINS: usize = 2;

    #[inline(always)]
    fn step<const WHOLE: bool>(&mut self, chain: usize, [x]: [V; 1], _: &mut [V; 0]) -> [V; 0] {
        // The comparison fails for +∞ and for NaN.
        self.valid[chain] = V::and(self.valid[chain], x.lt(self.infinite));
        self.largest[chain] = self.largest[chain].max(x);
        self.smallest[chain] = self.smallest[chain].min(x);
        []
    }
}

impl Scan {
    /// Whether f32 lanes can take logits of this range: exponents stay exact, and differences finite.
    pub(crate) fn fits_narrow_lanes(self, inverse_temperature: f64) -> bool {
        let largest_fits = self.largest == f64::NEG_INFINITY || fits_narrow_lanes(self.largest, inverse_temperature);
        let lowest = lowest_narrow_logit(inverse_temperature);
        largest_fits && (self.smallest == f64::NEG_INFINITY || self.smallest >= MARGIN * lowest)
    }
}

/// How far finite logits of f32 lanes stay from the lowest one, which stands for −∞.
pub(crate) const MARGIN: f64 = 0.99;

/// Whether f32 lanes can take rows with this largest logit.
pub(crate) fn fits_narrow_lanes(largest: f64, inverse_temperature: f64) -> bool {
    largest.abs() <= -0.5 * lowest_narrow_logit(inverse_temperature)
}

/// The largest element; anything if one is NaN.
#[inline(always)]
pub(crate) fn largest<V: Lanes>(token: V::Token, row: Row<'_>) -> f64 {
    let mut step = LargestStep([V::splat(token, f64::NEG_INFINITY); CHAINS]);
    sums(token, row.classes(), [Block::new(row, f64::NEG_INFINITY)], &mut step);
    let [a, b, c, d] = step.0;
    a.max(b).max(c.max(d)).largest()
}

/// Chains of comparisons that hide each other's latency.
const CHAINS: usize = 4;

struct LargestStep<V>([V; CHAINS]);

impl<V: Lanes> Step<V, 1, 0, 0> for LargestStep<V> {
    const CHAINS: usize = CHAINS;

    #[inline(always)]
    fn step<const WHOLE: bool>(&mut self, chain: usize, [x]: [V; 1], _: &mut [V; 0]) -> [V; 0] {
        self.0[chain] = self.0[chain].max(x);
        []
    }
}

/// The lowest finite logit that f32 lanes take; −∞ is raised to it, and its probability is still 0.
pub(crate) fn lowest_narrow_logit(inverse_temperature: f64) -> f64 {
    -2.0 * exp::LARGEST_EXPONENT / (inverse_temperature * std::f64::consts::LOG2_E)
}

/// Whether a row has a finite element below `lowest`.
#[inline(always)]
pub(crate) fn holds_finite_below<V: Lanes>(token: V::Token, row: Row<'_>, lowest: f64) -> bool {
    let zero = V::splat(token, 0.0);
    let infinite = V::splat(token, f64::NEG_INFINITY);
    let mut step = BelowStep::<V> { lowest: V::splat(token, lowest), infinite, found: zero.lt(zero) };
    sums(token, row.classes(), [Block::new(row, f64::NEG_INFINITY)], &mut step);
    V::any(step.found)
}

struct BelowStep<V: Lanes> {
    lowest: V,
    infinite: V,
    found: V::Mask,
}

impl<V: Lanes> Step<V, 1, 0, 0> for BelowStep<V> {
    const CONVERTS_APART: bool = true;

    #[inline(always)]
    fn step<const WHOLE: bool>(&mut self, _: usize, [x]: [V; 1], _: &mut [V; 0]) -> [V; 0] {
        self.found = V::or(self.found, V::and(x.lt(self.lowest), self.infinite.lt(x)));
        []
    }
}

/// The largest element of a row, as f32 has it; anything if one is NaN.
pub(crate) fn largest_of_row(row: Row<'_>, isa: Isa, blocks: &Blocks) -> f64 {
    let parts = blocks.map(row.classes(), |start, len| isa.run(Narrow(Largest(row.block(start, len)))));
    parts.iter().copied().fold(f64::NEG_INFINITY, f64::max)
}

struct Largest<'a>(Row<'a>);

impl LaneKernel for Largest<'_> {
    type Output = f64;

    #[inline(always)]
    fn run<V: Lanes>(self, token: V::Token) -> f64 {
        largest::<V>(token, self.0)
    }
}

/// Index of the first element equal to `value`, which is the largest.
pub(crate) fn first_at(row: Row<'_>, value: f64, isa: Isa) -> Option<usize> {
    let from = isa.run_lanes(row.dtype() == Dtype::F64, FirstVector { row, value });
    (from..row.classes()).find(|&index| row.get(index) == value)
}

/// The class that the first vector with an element from `value` on begins with, or the last vector does.
struct FirstVector<'a> {
    row: Row<'a>,
    value: f64,
}

impl LaneKernel for FirstVector<'_> {
    type Output = usize;

    #[inline(always)]
    fn run<V: Lanes>(self, token: V::Token) -> usize {
        let (row, value) = (self.row, V::splat(token, self.value));
        let (block, mut chunk) = (Block::new(row, f64::NEG_INFINITY), Chunk::new());
        let whole = row.classes() / V::N * V::N;
        for start in (0..whole).step_by(RUN * V::N) {
            let len = (whole - start).min(RUN * V::N);
            let vectors = block.read::<V>(token, start, len, &mut chunk, true);
            for at in (0..len).step_by(V::N) {
                if V::any(value.le(vectors.get::<V>(token, at))) {
                    return start + at;
                }
            }
        }
        whole
    }
}
