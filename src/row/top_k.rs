//! The most probable classes of a row.
//!
//! The largest logits of as many groups of classes are found in one pass: that of the k-th group from the top is one that k
//! classes reach, and few more. A second pass brings together the classes that reach it. Both find in the caches what the
//! log-sum-exp has read.

use std::cell::Cell;
use std::cmp::Ordering;

use crate::element::{Dtype, Element};
use crate::row::runs::{Step, sums};
use crate::rows::{Block, Row};
use crate::simd::{Isa, LaneKernel, Lanes, Scalar};
use smallvec::SmallVec;

/// A class of a row, with its logit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Class {
    pub(crate) id: usize,
    pub(crate) logit: f64,
}

impl Class {
    /// From the most probable one on, and of equal ones from the first on.
    pub(super) fn falling(&self, other: &Self) -> Ordering {
        // Zeros of both signs are equal.
        other.logit.partial_cmp(&self.logit).unwrap_or(Ordering::Equal).then(self.id.cmp(&other.id))
    }
}

/// The `k` most probable classes of a row without NaN and +∞, in order; fewer where it has fewer than `k` finite logits.
pub(crate) fn top_k(row: Row<'_>, k: usize, isa: Isa, found: &mut Vec<Class>) {
    found.clear();
    at_least(row, reached_by(row, k, isa), isa, found);
    if k < found.len() {
        found.select_nth_unstable_by(k, Class::falling);
        found.truncate(k);
    }
    found.sort_unstable_by(Class::falling);
}

/// The logit of the `k`-th class of a row without NaN and +∞, from the most probable one on; −∞ where there is none.
pub(super) fn kth_logit(row: Row<'_>, k: usize, isa: Isa) -> f64 {
    let mut found = CLASSES.take();
    found.clear();
    at_least(row, reached_by(row, k, isa), isa, &mut found);
    let logit = match found.len().checked_sub(k) {
        None => f64::NEG_INFINITY,
        Some(_) => found.select_nth_unstable_by(k - 1, Class::falling).1.logit,
    };
    CLASSES.set(found);
    logit
}

/// Appends the classes with a finite logit of at least `lowest`, in their order.
pub(super) fn at_least(row: Row<'_>, lowest: f64, isa: Isa, found: &mut Vec<Class>) {
    let wide = row.dtype() == Dtype::F64;
    isa.run_lanes(wide, AtLeast { row, lowest, found });
}

/// At most so many of the most probable classes with a finite logit of at least `lowest`, in the order of classes.
pub(super) fn most_probable(row: Row<'_>, lowest: f64, most: usize, isa: Isa) -> SmallVec<[usize; 8]> {
    let mut found = CLASSES.take();
    found.clear();
    at_least(row, lowest, isa, &mut found);
    if most < found.len() {
        found.select_nth_unstable_by(most, Class::falling);
        found.truncate(most);
    }
    let mut classes: SmallVec<_> = found.iter().map(|class| class.id).collect();
    classes.sort_unstable();
    CLASSES.set(found);
    classes
}

thread_local! {
    /// Memory for the largest logits of groups, and for classes, kept for the next row.
    static LARGEST: Cell<Vec<f64>> = const { Cell::new(Vec::new()) };
    static CLASSES: Cell<Vec<Class>> = const { Cell::new(Vec::new()) };
}

/// Groups for each of the classes that are looked for: of the `k` most probable ones about k/16 share a group, and as many
/// others are brought together.
const GROUPS: usize = 8;

/// A number that at least `k` logits reach, or −∞.
fn reached_by(row: Row<'_>, k: usize, isa: Isa) -> f64 {
    let len = row.classes() / k.saturating_mul(GROUPS).max(1);
    if len < 2 {
        return f64::NEG_INFINITY;
    }
    let mut largest = LARGEST.take();
    largest.clear();
    let wide = row.dtype() == Dtype::F64;
    isa.run_lanes(wide, LargestOfGroups { row, len, found: &mut largest });
    let reached = match largest.len().checked_sub(k) {
        None => f64::NEG_INFINITY,
        Some(_) => *largest.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a)).1,
    };
    LARGEST.set(largest);
    reached
}

/// The largest logits of groups of `len` classes: those of one lane in as many vectors.
struct LargestOfGroups<'a, 'b> {
    row: Row<'a>,
    len: usize,
    found: &'b mut Vec<f64>,
}

impl LaneKernel for LargestOfGroups<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Lanes>(self, token: V::Token) {
        let LargestOfGroups { row, len, found } = self;
        let lowest = V::splat(token, f64::NEG_INFINITY);
        let mut step = GroupsStep::<V> { lowest, largest: [lowest; CHAINS], left: len, len, found };
        sums(token, row.classes(), [Block::new(row, f64::NEG_INFINITY)], &mut step);
        step.finish();
    }
}

/// Groups at once, whose comparisons hide each other's latency.
const CHAINS: usize = 4;

struct GroupsStep<'a, V> {
    lowest: V,
    largest: [V; CHAINS],
    /// Vectors of the last chain until the groups are whole.
    left: usize,
    len: usize,
    found: &'a mut Vec<f64>,
}

impl<V: Lanes> GroupsStep<'_, V> {
    #[inline(always)]
    fn finish(&mut self) {
        for largest in &mut self.largest {
            let lanes = largest.to_array();
            append(self.found, &lanes[..V::N]);
            *largest = self.lowest;
        }
        self.left = self.len;
    }
}

fn append<T: Scalar>(found: &mut Vec<f64>, lanes: &[T]) {
    found.extend(lanes.iter().map(|lane| lane.to_f64()));
}

impl<V: Lanes> Step<V, 1, 0, 0> for GroupsStep<'_, V> {
    const CHAINS: usize = CHAINS;

    #[inline(always)]
    fn step<const WHOLE: bool>(&mut self, chain: usize, [z]: [V; 1], _: &mut [V; 0]) -> [V; 0] {
        self.largest[chain] = self.largest[chain].max(z);
        if chain == CHAINS - 1 {
            self.left -= 1;
            if self.left == 0 {
                self.finish();
            }
        }
        []
    }
}

/// The classes with a finite logit of at least `lowest`.
struct AtLeast<'a, 'b> {
    row: Row<'a>,
    lowest: f64,
    found: &'b mut Vec<Class>,
}

impl LaneKernel for AtLeast<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Lanes>(self, token: V::Token) {
        let AtLeast { row, lowest, found } = self;
        // Lanes are looked at where one may reach it: the number is rounded down to one that lanes have.
        let nearest = V::Scalar::from_f64(lowest).to_f64();
        let below = if nearest <= lowest { nearest } else { f64::from((nearest as f32).next_down()) };
        let mut step = AtLeastStep::<V> { below: V::splat(token, below), lowest, first: 0, found };
        sums(token, row.classes(), [Block::new(row, f64::NEG_INFINITY)], &mut step);
    }
}

struct AtLeastStep<'a, V> {
    below: V,
    lowest: f64,
    /// The class in the first lane of the next vector.
    first: usize,
    found: &'a mut Vec<Class>,
}

impl<V: Lanes> Step<V, 1, 0, 0> for AtLeastStep<'_, V> {
    #[inline(always)]
    fn step<const WHOLE: bool>(&mut self, _: usize, [z]: [V; 1], _: &mut [V; 0]) -> [V; 0] {
        if V::any(self.below.le(z)) {
            let lanes = z.to_array();
            append_reaching(self.found, &lanes[..V::N], self.first, self.lowest);
        }
        self.first += V::N;
        []
    }
}

/// Lanes that are padding hold −∞.
fn append_reaching<T: Scalar>(found: &mut Vec<Class>, lanes: &[T], first: usize, lowest: f64) {
    for (id, lane) in (first..).zip(lanes) {
        let logit = lane.to_f64();
        if logit >= lowest && logit > f64::NEG_INFINITY {
            found.push(Class { id, logit });
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use half::bf16;

    use super::*;
    use crate::rows::Rows;

    fn check<E: Element>(logits: &[E]) {
        let mut classes: Vec<Class> =
            logits.iter().enumerate().map(|(id, logit)| Class { id, logit: logit.to_f64() }).collect();
        classes.retain(|class| class.logit > f64::NEG_INFINITY);
        classes.sort_by(Class::falling);
        let rows = Rows::new(logits, logits.len()).unwrap();
        for isa in Isa::available() {
            for k in [1, 2, 3, 7, 64, 500, logits.len()].into_iter().filter(|&k| k <= logits.len()) {
                let mut found = Vec::new();
                top_k(rows.row(0), k, isa, &mut found);
                assert_eq!(found, classes[..k.min(classes.len())], "{} {k}", isa.name());
                let kth = classes.get(k - 1).map_or(f64::NEG_INFINITY, |class| class.logit);
                assert_eq!(kth_logit(rows.row(0), k, isa), kth);
            }
        }
    }

    #[test]
    fn the_same_classes_as_of_a_sorted_row() {
        for len in [1, 7, 64, 1000, 4097, 20_011] {
            // Ties, rising and falling runs, zeros of both signs.
            let mixed = |i: usize| ((i * 7919) % 1013) as f32 * 0.25 - 100.0;
            check(&(0..len).map(mixed).collect::<Vec<f32>>());
            check(&(0..len).map(|i| f64::from(mixed(i)) * 1.000_000_1).collect::<Vec<f64>>());
            check(&(0..len).map(|i| bf16::from_f32(mixed(i))).collect::<Vec<bf16>>());
            check(&(0..len).map(|i| i as f32).collect::<Vec<f32>>());
            check(&(0..len).map(|i| if i % 2 == 0 { 0.0 } else { -0.0 }).collect::<Vec<f32>>());
            check(&(0..len).map(|i| if i % 5 == 1 { i as f32 } else { f32::NEG_INFINITY }).collect::<Vec<f32>>());
        }
    }

    #[test]
    fn a_bound_between_two_numbers_of_the_lanes() {
        let logits = [1.0_f32, 1.0_f32.next_up(), 1.0_f32.next_down()];
        let between = f64::midpoint(1.0, f64::from(1.0_f32.next_up()));
        for isa in Isa::available() {
            for (lowest, ids) in [(between, &[1][..]), (1.0, &[0, 1]), (1.0 - 1e-9, &[0, 1])] {
                let mut found = Vec::new();
                at_least(Row::from(&logits[..]), lowest, isa, &mut found);
                assert_eq!(found.iter().map(|class| class.id).collect::<Vec<_>>(), ids);
            }
        }
    }
}
