//! Gradients of rows that few classes dominate, in f32 lanes.
//!
//! The gradient a − p·Σa of such a row is far smaller than its slopes a, which the dominant classes have nearly alone, and whose roundings
//! it would drown in. Apart from the others, and in f64, these are
//!
//! Σⱼ (aᵢpⱼ − pᵢaⱼ) + aᵢ·P − pᵢ·A,
//!
//! j over the dominant classes, with A and P what the others sum to of a and p: small numbers that f32 lanes find with all their
//! digits, as they do aᵢ − pᵢ·Σa of the others, where aᵢ is no larger than that. But the roundings of logits that are nearly equal
//! are, too, and do not average out in A and P: where the others are so, or the last two terms cancel, both are summed in f64 lanes.

use crate::row::distribution::{Distribution, LogSumExp};
use crate::row::divergence::kept_slopes::Sides;
use crate::row::divergence::second_pass::{Norms, Sums};
use crate::row::gradients::RowGradients;
use crate::row::top_k::most_probable;
use crate::rows::BLOCK;
use crate::simd::Isa;
use crate::threads::Blocks;
use smallvec::SmallVec;

/// How many there are at most.
const MOST: usize = 8;

/// Probability from which a class is one of them.
const SMALLEST_SHARE: f64 = 1.0 / 64.0;

/// The square of what the gradients of the other classes may be the difference of, over that of the whole gradient.
const LARGEST_PARTS: f64 = 4.0;

/// The square of the terms of dominant classes that have A and P of f32 lanes in them, over that of the whole gradient.
const LARGEST_NARROW_PARTS: f64 = 1.5;

/// What Σp may differ from 1 by, with p as the lanes find it.
const LARGEST_LOSS: f64 = 2e-7;

/// What of the largest of the other probabilities their mean, each as often as it is probable, is at most where they differ enough: of
/// 3,000 logits N(0, ½²) it is a quarter.
const LARGEST_MEAN: f64 = 0.25;

/// One side of two rows whose slopes were summed in f32 lanes.
#[derive(Clone, Copy)]
pub(crate) struct Side<'a> {
    pub(crate) row: Distribution<'a>,
    pub(crate) sum: LogSumExp,
    /// What multiplies its probabilities in norms.
    pub(crate) weight: f64,
    /// Its sum of slopes, with the norms.
    pub(crate) slopes: fn(&Sums) -> (f64, Norms),
    /// The sums of a block.
    pub(crate) of_block: &'a (dyn Fn(usize) -> Sums + Sync),
    /// Of classes of one block, so many from one on: in its lanes, or in f64 lanes; `None` where these do not take them.
    pub(crate) sums: &'a (dyn Fn(usize, usize, bool) -> Option<Sums> + Sync),
}

/// The gradients of the dominant classes.
pub(crate) struct Apart {
    classes: SmallVec<[usize; MOST]>,
    /// Before they are multiplied.
    gradients: SmallVec<[f64; MOST]>,
    /// Σa of all classes.
    slope_sum: f64,
}

impl Side<'_> {
    /// The dominant classes with their gradients; `None` where there are none, or the gradients of the others are too small beside what they are the difference of.
    fn apart(self, isa: Isa, blocks: &Blocks) -> Option<Apart> {
        let classes = self.dominant(isa, blocks);
        if classes.is_empty() {
            return None;
        }
        let rate = self.row.inverse_temperature;
        let slope = |&class: &usize| Some((self.slopes)(&(self.sums)(class, 1, true)?).0);
        let a: SmallVec<[f64; MOST]> = classes.iter().map(slope).collect::<Option<_>>()?;
        let p = classes.iter().map(|&class| (-self.sum.surprise(self.row.row.get(class), rate)).exp());
        let p: SmallVec<[f64; MOST]> = p.collect();
        let of_dominant: f64 = a.iter().sum();
        let among = |i: usize| -> f64 { a.iter().zip(&p).map(|(a_j, p_j)| a[i] * p_j - p[i] * a_j).sum() };
        for wide in [false, true] {
            let (of_others, norms) = (self.slopes)(&self.others(&classes, wide, blocks)?);
            let left = self.without(&classes, wide, isa, blocks);
            let share = left.relative_to(self.sum, rate);
            let largest = (-self.sum.surprise(left.largest, rate)).exp();
            let are_alike = norms.probabilities > LARGEST_MEAN * self.weight * self.weight * largest * share;
            // Beside a class that has nearly all of a row, f32 lanes may have lost some of others that are alike.
            let total = p.iter().sum::<f64>() + share;
            if (total - 1.0).abs() > LARGEST_LOSS {
                return None;
            }
            let slope_sum = (of_dominant + of_others) / total;
            let (parts, mut square) = norms.squares(slope_sum / self.weight);
            let mut narrow_parts = 0.0;
            let mut gradients = SmallVec::new();
            for i in 0..classes.len() {
                let (first, second) = (a[i] * share, p[i] * of_others);
                let gradient = (among(i) + (first - second)) / (total * total);
                square += gradient * gradient;
                narrow_parts += (first.abs() + second.abs()).powi(2);
                gradients.push(gradient);
            }
            if wide || (!are_alike && narrow_parts <= LARGEST_NARROW_PARTS * square) {
                let good = LARGEST_PARTS * square >= parts && parts.is_finite();
                return good.then_some(Apart { classes, gradients, slope_sum });
            }
        }
        None
    }

    /// The classes that dominate the row, and, where these have nearly all of it, those that dominate the others: of few classes roundings
    /// do not average out.
    fn dominant(&self, isa: Isa, blocks: &Blocks) -> SmallVec<[usize; MOST]> {
        let rate = self.row.inverse_temperature;
        let from = |least: f64| most_probable(self.row.row, (self.sum.value(rate) + least.ln()) / rate, MOST, isa);
        let classes = from(SMALLEST_SHARE);
        let left = self.without(&classes, false, isa, blocks).relative_to(self.sum, rate);
        if f64::MIN_POSITIVE < left && left < SMALLEST_SHARE { from(left * SMALLEST_SHARE) } else { classes }
    }

    /// The log-sum-exp of all classes but these.
    fn without(&self, classes: &[usize], wide: bool, isa: Isa, blocks: &Blocks) -> LogSumExp {
        let mut wide = wide;
        self.row.statistics_without(classes, isa, blocks, &mut wide)
    }

    /// The sums of all classes but these.
    fn others(&self, without: &[usize], wide: bool, blocks: &Blocks) -> Option<Sums> {
        let parts = blocks.map(self.row.row.classes(), |block_start, len| {
            let end = block_start + len;
            let from = without.partition_point(|&class| class < block_start);
            let to = without.partition_point(|&class| class < end);
            if from == to && !wide {
                return Some((self.of_block)(block_start / BLOCK));
            }
            let mut start = block_start;
            let mut all = Sums::default();
            for &class in without[from..to].iter().chain([&end]) {
                if start < class {
                    all = all.merge((self.sums)(start, class - start, wide)?);
                }
                start = class + 1;
            }
            Some(all)
        });
        parts.iter().try_fold(Sums::default(), |all, &part| Some(all.merge(part?)))
    }
}

/// The slopes of p, and of q.
pub(crate) const OF_P: fn(&Sums) -> (f64, Norms) = |sums| (sums.d_ln_p, sums.p_norms);
pub(crate) const OF_Q: fn(&Sums) -> (f64, Norms) = |sums| (sums.d_ln_q, sums.q_norms);

/// Those of the wanted sides whose gradients are less than what they are the difference of by more than `most`, squared, given the sums
/// of all classes; `None` where one of them cannot be apart.
pub(crate) fn apart(
    wanted: Sides<bool>,
    sides: Sides<Side<'_>>,
    sums: &Sums,
    most: f64,
    isa: Isa,
    blocks: &Blocks,
) -> Option<Sides<Option<Apart>>> {
    let of_side = |wanted: bool, side: Side<'_>| {
        let (slope_sum, norms) = (side.slopes)(sums);
        if wanted && norms.cancel(slope_sum / side.weight, most) {
            side.apart(isa, blocks).map(Some)
        } else {
            Some(None)
        }
    };
    Some((of_side(wanted.0, sides.0)?, of_side(wanted.1, sides.1)?))
}

/// The sums of all classes with these sums of slopes.
pub(crate) fn with_slope_sums(sums: Sums, apart: &Sides<Option<Apart>>) -> Sums {
    let sum = |side: &Option<Apart>, sum: f64| side.as_ref().map_or(sum, |side| side.slope_sum);
    Sums { d_ln_p: sum(&apart.0, sums.d_ln_p), d_ln_q: sum(&apart.1, sums.d_ln_q), ..sums }
}

/// Writes the gradients of the dominant classes, times a number.
pub(crate) fn write_apart(apart: &Sides<Option<Apart>>, gradients: &RowGradients<'_>, scale: f64) {
    for (apart, out) in [(&apart.0, gradients.p), (&apart.1, gradients.q)] {
        if let (Some(apart), Some(out)) = (apart, out) {
            for (&class, gradient) in apart.classes.iter().zip(&apart.gradients) {
                out.set(class, gradient * scale);
            }
        }
    }
}
