//! The first look at a block: its largest and smallest element, and whether it can be computed with at all.

use super::Space;
use crate::rows::Row;
use crate::simd::{Isa, Kernel, Lanes, Simd, exp};

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
    let infinite = V::splat(token, f64::INFINITY);
    // The first class of the row pads it: it changes neither extreme. The first comparison fails for +∞ and for NaN.
    let last = row.load::<V>(token, row.whole::<V>().min(row.classes() - 1), row.get(0));
    let (mut largest, mut smallest) = ([last; 2], [last; 2]);
    let mut valid = [last.lt(infinite); 2];
    let mut start = 0;
    while start < row.whole::<V>() {
        // Two chains of comparisons hide each other's latency; the last class again changes nothing.
        for chain in 0..2 {
            let at = (start + chain * V::N).min(row.whole::<V>() - V::N);
            let x = row.vector::<V>(token, at);
            valid[chain] = V::and(valid[chain], x.lt(infinite));
            largest[chain] = largest[chain].max(x);
            smallest[chain] = smallest[chain].min(x);
        }
        start += 2 * V::N;
    }
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
    // The first class of the row pads it.
    let last = row.load::<V>(token, row.whole::<V>().min(row.classes() - 1), row.get(0));
    let mut largest = [last; CHAINS];
    let mut start = 0;
    while start + CHAINS * V::N <= row.classes() {
        for (chain, largest) in largest.iter_mut().enumerate() {
            *largest = largest.max(row.vector(token, start + chain * V::N));
        }
        start += CHAINS * V::N;
    }
    while start < row.whole::<V>() {
        largest[0] = largest[0].max(row.vector(token, start));
        start += V::N;
    }
    largest[0].max(largest[1]).max(largest[2].max(largest[3])).largest()
}

/// Chains of comparisons that hide each other's latency.
const CHAINS: usize = 4;

/// The lowest finite logit that f32 lanes take; −∞ is raised to it, and its probability is still 0.
pub(crate) fn lowest_narrow_logit(inverse_temperature: f64) -> f64 {
    -2.0 * exp::LARGEST_EXPONENT / (inverse_temperature * std::f64::consts::LOG2_E)
}

/// Whether a row has a finite element below `lowest`.
#[inline(always)]
pub(crate) fn holds_finite_below<V: Lanes>(token: V::Token, row: Row<'_>, lowest: f64) -> bool {
    let (lowest, infinite) = (V::splat(token, lowest), V::splat(token, f64::NEG_INFINITY));
    // The first class of the row pads it.
    let last = row.load::<V>(token, row.whole::<V>().min(row.classes() - 1), row.get(0));
    let mut found = V::and(last.lt(lowest), infinite.lt(last));
    let mut start = 0;
    while start < row.whole::<V>() {
        let x = row.vector::<V>(token, start);
        found = V::or(found, V::and(x.lt(lowest), infinite.lt(x)));
        start += V::N;
    }
    V::any(found)
}

/// Index of the first element equal to `value`.
pub(crate) fn first_at(row: Row<'_>, value: f64, isa: Isa) -> Option<usize> {
    isa.run(FirstAt { row, value })
}

struct FirstAt<'a> {
    row: Row<'a>,
    value: f64,
}

impl Kernel for FirstAt<'_> {
    type Output = Option<usize>;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Option<usize> {
        let value = S::F64::splat(simd, self.value);
        let mut start = 0;
        while start < self.row.classes() {
            let x = self.row.load::<S::F64>(simd, start, f64::NEG_INFINITY);
            if S::F64::any(value.le(x)) {
                let lanes = start..(start + S::F64::N).min(self.row.classes());
                return lanes.into_iter().find(|&index| self.row.get(index) == self.value);
            }
            start += S::F64::N;
        }
        None
    }
}
