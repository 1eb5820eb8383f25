//! A row of some of its classes: those that a sampler keeps, or some that are named.
//!
//! The logits of the classes kept are brought together, and are a row of their own from there on, in f64 lanes.

use std::cell::Cell;

use crate::row::distribution::{Distribution, LogSumExp, Space};
use crate::row::divergence::head::Head;
use crate::row::entropy::entropy;
use crate::row::top_k::{Class, at_least, kth_logit};
use crate::rows::{Row, RowMut};
use crate::simd::Isa;
use crate::threads::Blocks;

/// Which classes of a row a sampler keeps: of all classes, those with at least `min_p` of the largest probability; of these,
/// those with a logit no lower than the `top_k`-th largest; of these, from the most probable one on, until they hold `top_p`
/// of what these hold.
///
/// Classes of equal logits are kept or left out together: what is kept are all classes from some logit on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Truncation {
    /// Classes, at least 1.
    pub top_k: Option<usize>,
    /// A share of the probability, above 0 and at most 1.
    pub top_p: Option<f64>,
    /// A share of the largest probability, from 0 to 1.
    pub min_p: Option<f64>,
}

/// What is kept of a row.
#[derive(Clone, Copy)]
pub(crate) enum Kept<'a> {
    /// What a sampler keeps.
    Truncated(Truncation),
    /// Classes in rising order.
    Classes(&'a [i64]),
}

/// ln p of a class among those kept, −∞ if it is none of them; and, where it is asked for, the share that these have of the
/// probability of the row. NaN of rows that cannot be computed with.
pub(crate) fn log_prob(
    z: Distribution<'_>,
    kept: Kept<'_>,
    label: usize,
    mass: bool,
    isa: Isa,
    blocks: &Blocks,
) -> [f64; 2] {
    let of_kept = |own: Distribution<'_>, classes: &[Class], sum: LogSumExp| {
        let found = classes.binary_search_by_key(&label, |class| class.id);
        found.map_or(f64::NEG_INFINITY, |place| -sum.surprise(classes[place].logit, own.inverse_temperature) + 0.0)
    };
    with_kept(z, kept, mass, isa, blocks, of_kept)
}

/// The entropy of the classes kept, and their share of the probability as in [`log_prob`]; writes the gradient times `scale`
/// to `out`, 0 for the others.
pub(crate) fn entropy_of_kept(
    z: Distribution<'_>,
    kept: Kept<'_>,
    mass: bool,
    isa: Isa,
    blocks: &Blocks,
    gradient: Option<(f64, RowMut<'_>)>,
) -> [f64; 2] {
    let of_kept = |own: Distribution<'_>, classes: &[Class], _: LogSumExp| {
        let Some((scale, out)) = gradient else { return entropy(own, isa, blocks, None) };
        let mut slopes = SLOPES.take();
        slopes.clear();
        slopes.resize(classes.len(), 0.0);
        let value = entropy(own, isa, blocks, Some((scale, RowMut::from(&mut slopes[..]))));
        out.fill(0.0);
        for (class, &slope) in classes.iter().zip(&slopes) {
            out.set(class.id, slope);
        }
        SLOPES.set(slopes);
        value
    };
    let found = with_kept(z, kept, mass, isa, blocks, of_kept);
    if let (true, Some((_, out))) = (found[0].is_nan(), gradient) {
        match kept {
            Kept::Truncated(_) => out.fill(f64::NAN),
            Kept::Classes(ids) => {
                out.fill(0.0);
                for &id in ids {
                    out.set(id as usize, f64::NAN);
                }
            }
        }
    }
    found
}

/// The lowest logit that a sampler keeps; NaN of a row that cannot be computed with.
pub(crate) fn lowest_kept(z: Distribution<'_>, truncation: Truncation, isa: Isa, blocks: &Blocks) -> f64 {
    let mut wide = !z.allows_narrow_lanes();
    let sum = z.statistics(isa, blocks, &mut wide);
    if sum.is_nan() || sum.is_empty() {
        return f64::NAN;
    }
    let mut classes = CLASSES.take();
    let bound = truncation.bound(z, sum, wide, isa, blocks, &mut classes);
    classes.clear();
    at_least(z.row, bound, isa, &mut classes);
    let lowest = classes.iter().map(|class| class.logit).fold(f64::INFINITY, f64::min);
    CLASSES.set(classes);
    lowest
}

thread_local! {
    /// Memory for the classes kept, their logits, and the gradients with respect to these, kept for the next row. Taken while
    /// it is used: where the blocks of a row are shared out, a thread of the caller's own pool may begin another call before
    /// this one ends.
    static CLASSES: Cell<Vec<Class>> = const { Cell::new(Vec::new()) };
    static LOGITS: Cell<Vec<f64>> = const { Cell::new(Vec::new()) };
    static SLOPES: Cell<Vec<f64>> = const { Cell::new(Vec::new()) };
}

/// What `run` makes of the row of the classes kept, these classes and their log-sum-exp, and their share of the probability.
fn with_kept(
    z: Distribution<'_>,
    kept: Kept<'_>,
    mass: bool,
    isa: Isa,
    blocks: &Blocks,
    run: impl FnOnce(Distribution<'_>, &[Class], LogSumExp) -> f64,
) -> [f64; 2] {
    const INVALID: [f64; 2] = [f64::NAN; 2];
    let mut classes = CLASSES.take();
    classes.clear();
    let (mut whole, mut all) = (LogSumExp::INVALID, false);
    if mass || matches!(kept, Kept::Truncated(_)) {
        let mut wide = !z.allows_narrow_lanes();
        whole = z.statistics(isa, blocks, &mut wide);
        if let Kept::Truncated(truncation) = kept
            && !whole.is_nan()
            && !whole.is_empty()
        {
            let bound = truncation.bound(z, whole, wide, isa, blocks, &mut classes);
            classes.clear();
            at_least(z.row, bound, isa, &mut classes);
            all = bound == f64::NEG_INFINITY;
        }
    }
    if let Kept::Classes(ids) = kept {
        classes.extend(ids.iter().map(|&id| Class { id: id as usize, logit: z.row.get(id as usize) }));
    }
    all |= classes.len() == z.row.classes();
    let found = if classes.is_empty() {
        INVALID
    } else {
        with_row_of(z, &classes, |own| {
            let sum = own.statistics(isa, blocks, &mut true);
            if sum.is_nan() {
                return INVALID;
            }
            if sum.is_empty() {
                // Nothing can be divided by the share, which is known.
                let known = !whole.is_nan() && !whole.is_empty();
                return [f64::NAN, if known { 0.0 } else { f64::NAN }];
            }
            [run(own, &classes, sum), share(sum, whole, all, z)]
        })
    };
    CLASSES.set(classes);
    found
}

/// The share of the probability of a row that some of its classes have, or `all` with a finite logit.
fn share(part: LogSumExp, whole: LogSumExp, all: bool, z: Distribution<'_>) -> f64 {
    if whole.is_nan() {
        f64::NAN
    } else if all {
        1.0
    } else {
        part.relative_to(whole, z.inverse_temperature).min(1.0)
    }
}

/// Calls `run` with the row of the logits of some classes.
fn with_row_of<R>(z: Distribution<'_>, classes: &[Class], run: impl FnOnce(Distribution<'_>) -> R) -> R {
    let mut logits = LOGITS.take();
    logits.clear();
    logits.extend(classes.iter().map(|class| class.logit));
    let result = run(Distribution { row: Row::from(&logits[..]), ..z });
    LOGITS.set(logits);
    result
}

impl Truncation {
    /// A number that the logits kept reach, and no others.
    fn bound(
        self,
        z: Distribution<'_>,
        sum: LogSumExp,
        wide: bool,
        isa: Isa,
        blocks: &Blocks,
        memory: &mut Vec<Class>,
    ) -> f64 {
        debug_assert!(z.space == Space::Logits);
        let mut lowest = f64::NEG_INFINITY;
        if let Some(min_p) = self.min_p {
            lowest = sum.largest + min_p.ln() / z.inverse_temperature;
        }
        if let Some(k) = self.top_k.filter(|&k| k < z.row.classes()) {
            lowest = lowest.max(kth_logit(z.row, k, isa));
        }
        match self.top_p.filter(|&mass| mass < 1.0) {
            None => lowest,
            Some(mass) if lowest == f64::NEG_INFINITY => {
                Head { p: z, sum, mass, wide }.smallest(isa, blocks).unwrap_or_else(|| {
                    let sum = z.statistics(isa, blocks, &mut true);
                    Head { p: z, sum, mass, wide: true }.smallest(isa, blocks).unwrap_or(f64::NAN)
                })
            }
            Some(mass) => {
                memory.clear();
                at_least(z.row, lowest, isa, memory);
                lowest_of_head(z, sum.largest, mass, memory)
            }
        }
    }
}

/// The lowest logit of the most probable ones of some classes that hold `mass` of what all of these hold.
fn lowest_of_head(z: Distribution<'_>, largest: f64, mass: f64, classes: &mut [Class]) -> f64 {
    classes.sort_unstable_by(Class::falling);
    let weight = |class: &Class| ((class.logit - largest) * z.inverse_temperature).exp();
    let enough = mass * classes.iter().map(weight).sum::<f64>();
    let mut held = 0.0;
    for same in classes.chunk_by(|a, b| a.logit == b.logit) {
        held += weight(&same[0]) * same.len() as f64;
        if held >= enough {
            return same[0].logit;
        }
    }
    classes.last().map_or(f64::NAN, |class| class.logit)
}
