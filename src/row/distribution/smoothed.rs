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

/// Classes of a row of which a lane holds too few for that.
const FEW: usize = 32;

/// Classes that are looked at, as many of each part of the row.
const SAMPLES: usize = 8;

/// The same where most of these are masked, or as good as that: at most so many, and one of as many.
const MORE_SAMPLES: usize = 128;
const PART_OF_ONE: usize = 32;

/// Differences of logits, over T, of classes that are rounded alike.
const ALIKE: f64 = 0.01;

/// −ln p of classes that are below half a step beside 1, and so are lost, but not too few to show.
const LOST: std::ops::RangeInclusive<f64> = 15.0..=19.0;

/// Differences of such classes.
const ALIKE_IF_LOST: f64 = 0.8;

/// ln of how many classes those may be that have most of a row: −ln p of the largest.
const LARGEST_LN_SUM: f64 = 7.0;

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
        if classes <= FEW {
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
        if found.len() < SAMPLES / 2 {
            of = (classes / PART_OF_ONE).clamp(SAMPLES, MORE_SAMPLES);
            found = depths(of);
        }
        let half = found.len().div_ceil(2);
        let not_masked = (classes * found.len()) as f64 / of as f64;
        found.sort_unstable_by(f64::total_cmp);
        let mut alike = found.windows(half.max(2)).map(|alike| (alike[0], alike[alike.len() - 1]));
        let may_be_lost = |first: f64, last: f64| {
            last - first <= ALIKE_IF_LOST && first >= LOST.start() - LARGEST_LN_SUM && last <= *LOST.end()
        };
        if !alike.clone().any(|(first, last)| last - first <= ALIKE || may_be_lost(first, last)) {
            return false;
        }
        let ln_sum = self.statistics(isa, blocks, &mut false).value(rate) - largest * rate;
        alike.any(|(first, last)| {
            let are_lost = LOST.contains(&(first + ln_sum)) && LOST.contains(&(last + ln_sum));
            last - first <= if are_lost { ALIKE_IF_LOST } else { ALIKE } && not_masked * (-first - ln_sum).exp() <= MOST
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::distribution::Space;
    use crate::rows::Row;

    /// About normal numbers.
    fn noise(class: usize) -> f32 {
        let uniform = |factor: usize| ((class * factor + 13) % 8191) as f32 / 8191.0;
        [7919, 5003, 2357, 6133].map(uniform).into_iter().sum::<f32>() * 1.73 - 3.46
    }

    fn is_smoothed(classes: usize, logit: impl Fn(usize) -> f32) -> bool {
        let row: Vec<f32> = (0..classes).map(logit).collect();
        let row = Distribution::new(Row::from(&row[..]), Space::Logits, 1.0);
        row.is_smoothed(Isa::detect(), &Blocks::OF_ONE_THREAD)
    }

    #[test]
    fn rows_whose_classes_are_alike_are_told_from_others() {
        let top = |class: usize, logit: f32| if class == 77 { 16.7 } else { logit };
        for classes in [40, 1000, 9000] {
            assert!(is_smoothed(classes.max(100), |class| top(class, 0.0)), "{classes}");
            assert!(is_smoothed(classes.max(100), |class| top(class, 0.1 * noise(class))), "{classes}");
            for scale in [0.0, 0.5, 1.0, 3.0] {
                assert!(!is_smoothed(classes, |class| scale * noise(class)), "{classes} {scale}");
            }
            assert!(!is_smoothed(classes, |class| top(class, 2.0 * noise(class))), "{classes}");
        }
        // Masked and not, and so many that one logit is most of a row.
        let masked =
            |class: usize, logit: f32| if class.is_multiple_of(5) { top(class, logit) } else { f32::NEG_INFINITY };
        assert!(is_smoothed(9000, |class| if class == 75 { 16.7 } else { masked(class, 0.0) }));
        assert!(!is_smoothed(9000, |class| masked(class, 3.0 * noise(class))));
        assert!(!is_smoothed(9000, |class| if class == 77 { 5.0 } else { 0.0 }));
        assert!(!is_smoothed(9000, |_| f32::NEG_INFINITY) && !is_smoothed(9000, |_| f32::NAN));
        assert!(!is_smoothed(FEW, |class| top(77 * usize::from(class == 3), 0.0)));
    }
}
