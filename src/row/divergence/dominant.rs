//! Gradients of rows that few classes dominate, in f32 lanes.
//!
//! The gradient a − p·Σa of such a row is far smaller than its slopes a, which the dominant classes have nearly alone, and whose roundings
//! it would drown in. Apart from the others, and in f64, these are
//!
//! Σⱼ (aᵢpⱼ − pᵢaⱼ) + aᵢ·P − pᵢ·A,
//!
//! j over the dominant classes, with A and P what the others sum to of a and p: small numbers that f32 lanes find with all their
//! digits, as they do aᵢ − pᵢ·Σa of the others, where aᵢ is no larger than that.

use crate::row::distribution::{Distribution, LogSumExp};
use crate::row::divergence::kept_slopes::Sides;
use crate::row::divergence::second_pass::{Norms, Sums};
use crate::row::gradients::RowGradients;
use crate::row::top_k::{Class, at_least};
use crate::rows::BLOCK;
use crate::simd::Isa;
use crate::threads::Blocks;
use smallvec::SmallVec;

/// How many there are at most.
const MOST: usize = 16;

/// Probability from which a class is one of them.
const SMALLEST_SHARE: f64 = 1.0 / 64.0;

/// What the gradient may be the difference of, relative to itself, squared: some of it has few terms, whose roundings average out less.
const LARGEST_PARTS: f64 = 4.0;

type Each<T> = SmallVec<[T; MOST]>;

/// A row whose gradient is wanted.
#[derive(Clone, Copy)]
pub(crate) struct Side<'a> {
    pub(crate) row: Distribution<'a>,
    pub(crate) sum: LogSumExp,
    /// What multiplies its probabilities in norms.
    pub(crate) weight: f64,
}

/// What is found of the dominant classes, apart from the others.
pub(crate) struct Apart {
    classes: Each<usize>,
    sides: Sides<Option<ApartSide>>,
}

struct ApartSide {
    /// Σa.
    slope_sum: f64,
    /// Gradients, before they are multiplied.
    gradients: Each<f64>,
}

/// Two rows of so many classes, with what is summed of them.
pub(crate) struct Found<'a> {
    pub(crate) sides: Sides<Option<Side<'a>>>,
    pub(crate) classes: usize,
    /// Of each block.
    pub(crate) of_blocks: &'a mut dyn Iterator<Item = Sums>,
    /// Of classes of one block, so many from one on; in the lanes of the blocks, or in f64 lanes; `None` where these do not take them.
    pub(crate) sums: &'a dyn Fn(usize, usize, bool) -> Option<Sums>,
}

impl Apart {
    /// `None` where no class dominates a wanted side, or the others and it still cancel.
    pub(crate) fn of(found: Found<'_>, isa: Isa, blocks: &Blocks) -> Option<Self> {
        let classes = dominant(found.sides, isa, blocks);
        if classes.is_empty() {
            return None;
        }
        let Found { sides, sums, .. } = found;
        let each: Each<Sums> = classes.iter().map(|&class| sums(class, 1, true)).collect::<Option<_>>()?;
        let others = others(&classes, found)?;
        let slopes = |slope: fn(&Sums) -> f64| each.iter().map(slope).collect::<Each<f64>>();
        let side = |side: Option<Side<'_>>, slope: fn(&Sums) -> f64, norms: Norms| match side {
            Some(side) => side.apart(&classes, &slopes(slope), slope(&others), norms, isa, blocks).map(Some),
            None => Some(None),
        };
        let of_p = side(sides.0, |sums| sums.d_ln_p, others.p_norms)?;
        let of_q = side(sides.1, |sums| sums.d_ln_q, others.q_norms)?;
        Some(Apart { classes, sides: (of_p, of_q) })
    }

    /// With these sums of slopes.
    pub(crate) fn slope_sums(&self, sums: Sums) -> Sums {
        let sum = |side: &Option<ApartSide>, sum: f64| side.as_ref().map_or(sum, |side| side.slope_sum);
        Sums { d_ln_p: sum(&self.sides.0, sums.d_ln_p), d_ln_q: sum(&self.sides.1, sums.d_ln_q), ..sums }
    }

    /// Writes the gradients of the dominant classes, times a number.
    pub(crate) fn write(&self, gradients: &RowGradients<'_>, scale: f64) {
        for (side, out) in [(&self.sides.0, gradients.p), (&self.sides.1, gradients.q)] {
            if let (Some(side), Some(out)) = (side, out) {
                for (&class, gradient) in self.classes.iter().zip(&side.gradients) {
                    out.set(class, gradient * scale);
                }
            }
        }
    }
}

/// The classes that dominate one of the sides, in their order.
fn dominant(sides: Sides<Option<Side<'_>>>, isa: Isa, blocks: &Blocks) -> Each<usize> {
    let mut classes = Each::new();
    for side in [sides.0, sides.1].into_iter().flatten() {
        let mut found = side.classes_of(SMALLEST_SHARE, isa);
        let left = side.share_without(&found, isa, blocks);
        if left < SMALLEST_SHARE {
            // Those that dominate what is left, too: its roundings are to average out.
            found = side.classes_of(left * SMALLEST_SHARE, isa);
        }
        classes.extend(found);
    }
    classes.sort_unstable();
    classes.dedup();
    classes
}

/// The sums of all classes but these.
fn others(without: &[usize], Found { classes, of_blocks, sums, .. }: Found<'_>) -> Option<Sums> {
    let mut all = Sums::default();
    for (index, block) in of_blocks.enumerate() {
        let block_start = index * BLOCK;
        let end = classes.min(block_start + BLOCK);
        let from = without.partition_point(|&class| class < block_start);
        let to = without.partition_point(|&class| class < end);
        if from == to {
            all = all.merge(block);
            continue;
        }
        let mut start = block_start;
        for &class in without[from..to].iter().chain([&end]) {
            if start < class {
                all = all.merge(sums(start, class - start, false)?);
            }
            start = class + 1;
        }
    }
    Some(all)
}

impl Side<'_> {
    /// The most probable classes from a probability on, in their order.
    fn classes_of(&self, least: f64, isa: Isa) -> Each<usize> {
        let rate = self.row.inverse_temperature;
        let mut found = Vec::new();
        at_least(self.row.row, (self.sum.value(rate) + least.ln()) / rate, isa, &mut found);
        found.sort_unstable_by(Class::falling);
        let mut classes: Each<usize> = found.into_iter().map(|class| class.id).take(MOST / 2).collect();
        classes.sort_unstable();
        classes
    }

    /// What classes but these have of the row.
    fn share_without(&self, classes: &[usize], isa: Isa, blocks: &Blocks) -> f64 {
        self.row
            .statistics_without(classes, isa, blocks, &mut false)
            .relative_to(self.sum, self.row.inverse_temperature)
    }

    /// The gradients of the classes with slopes `a`, given what the others sum to.
    fn apart(
        &self,
        classes: &[usize],
        a: &[f64],
        of_others: f64,
        norms: Norms,
        isa: Isa,
        blocks: &Blocks,
    ) -> Option<ApartSide> {
        let Side { row, sum, weight } = *self;
        let rate = row.inverse_temperature;
        let p: Each<f64> = classes.iter().map(|&class| (-sum.surprise(row.row.get(class), rate)).exp()).collect();
        let share = self.share_without(classes, isa, blocks);
        let slope_sum = a.iter().sum::<f64>() + of_others;
        // The squares of what the gradient is the difference of, and its own.
        let per_weight = slope_sum / weight;
        let mut parts = norms.slopes + per_weight * per_weight * norms.probabilities;
        let mut square = parts - 2.0 * per_weight * norms.cross;
        let mut gradients = Each::new();
        for (a_i, p_i) in a.iter().zip(&p) {
            let among: f64 = a.iter().zip(&p).map(|(a_j, p_j)| a_i * p_j - p_i * a_j).sum();
            let (first, second) = (a_i * share, p_i * of_others);
            let gradient = among + (first - second);
            parts += first * first + second * second;
            square += gradient * gradient;
            gradients.push(gradient);
        }
        (LARGEST_PARTS * square >= parts && parts.is_finite()).then_some(ApartSide { slope_sum, gradients })
    }
}
