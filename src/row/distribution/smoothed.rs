//! Rows most of whose classes are alike, and have little of them: teachers with label smoothing, or with one number outside of their top k.
//!
//! A lane of f32 that holds a number of about 1 rounds every one that is added after it, [`RUN`](crate::simd::RUN) at most, by up to half a
//! step of 1.2·10⁻⁷. Where these differ, that averages out, and so do the roundings of their exponentials. Where they are alike, neither
//! does: sums are off by up to 9·10⁻⁷, values and gradients by three times that.

use super::Distribution;
use super::scan::{PROBE, largest_of_row};
use crate::simd::Isa;
use crate::threads::Blocks;
use smallvec::SmallVec;

/// Classes that are looked at, as many of each part of the row; more where some of them are masked, or as good as that.
const SAMPLES: usize = 8;
const MORE_SAMPLES: usize = 128;

/// Differences of logits, over T, of classes that are rounded alike.
const ALIKE: f64 = 0.01;

/// −ln p of classes that are below half a step beside 1, and so are lost, but not too few to show.
const LOST: std::ops::RangeInclusive<f64> = 15.0..=19.0;

/// Differences of such classes.
const ALIKE_IF_LOST: f64 = 0.8;

/// How far below the largest, over T, classes are nothing, however many.
const NOTHING: f64 = 42.0;

/// What all classes are together if they are as those that are alike, where these have little of the row.
const MOST: f64 = 0.5;

/// How far below the largest they are at least, over T, where there are more than a few of them.
const LEAST_DEPTH: f64 = 3.0;

impl Distribution<'_> {
    /// Whether sums over this row of logits are better not found in f32 lanes.
    pub(crate) fn is_smoothed(self, isa: Isa, blocks: &Blocks) -> bool {
        let (classes, rate) = (self.row.classes(), self.inverse_temperature);
        if classes < SAMPLES {
            return false;
        }
        // Of the first classes, which are read next: of others the row would wait for memory.
        let first = classes.min(PROBE);
        let mut few = [1, 5, 11, 15].map(|sixteenth| self.row.get(sixteenth * first / 16));
        few.sort_unstable_by(f64::total_cmp);
        // One of them may be a class that the others are next to nothing beside.
        let [a, b, c, d] = few;
        let nearest = (b - a).min(c - b).min(d - c);
        let near = nearest * rate <= ALIKE || (c - a) * rate <= ALIKE_IF_LOST;
        let is_masked = a == f64::NEG_INFINITY;
        // Of most rows no more is looked at.
        (near || is_masked) && {
            let largest = largest_of_row(self.row, isa, blocks);
            (largest - b) * rate >= LEAST_DEPTH && self.is_mostly_alike(largest, isa, blocks)
        }
    }

    fn is_mostly_alike(self, largest: f64, isa: Isa, blocks: &Blocks) -> bool {
        let (classes, rate) = (self.row.classes(), self.inverse_temperature);
        let depths = |of: usize| -> SmallVec<[f64; MORE_SAMPLES]> {
            let logits = (0..of).map(|index| self.row.get((2 * index + 1) * classes / (2 * of)));
            logits.map(|z| (largest - z) * rate).filter(|&depth| depth <= NOTHING).collect()
        };
        let (mut of, mut found) = (SAMPLES, depths(SAMPLES));
        if found.len() < of {
            of = MORE_SAMPLES.min(classes);
            found = depths(of);
        }
        let half = found.len().div_ceil(2);
        let not_masked = (classes * found.len()) as f64 / of as f64;
        found.sort_unstable_by(f64::total_cmp);
        let mut alike = found.windows(half.max(2)).map(|alike| (alike[0], alike[alike.len() - 1]));
        if !alike.clone().any(|(first, last)| last - first <= ALIKE_IF_LOST) {
            return false;
        }
        let ln_sum = self.statistics(isa, blocks, &mut false).value(rate) - largest * rate;
        alike.any(|(first, last)| {
            let are_lost = LOST.contains(&(first + ln_sum)) && LOST.contains(&(last + ln_sum));
            last - first <= if are_lost { ALIKE_IF_LOST } else { ALIKE } && not_masked * (-first - ln_sum).exp() <= MOST
        })
    }
}
