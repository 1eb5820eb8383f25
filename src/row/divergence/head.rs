//! The head of a row: of its most probable classes as few as hold a part of it.
//!
//! The numbers of the classes that may belong to it are brought together, in one pass over the row. What they hold from each of
//! some bounds on tells between which of them the last class of the head is, and those outside are left out, until a few are left
//! to be put in order.

use crate::element::Element;
use crate::row::distribution::softmax::DistributionView;
use crate::row::distribution::{Distribution, LogSumExp, Space};
use crate::row::runs::{Step, pass, sums};
use crate::rows::{Block, Row};
use crate::simd::{Isa, LaneKernel, Lanes, MAX_LANES};
use crate::threads::Blocks;
use std::cell::Cell;

/// A row of which the head is wanted.
#[derive(Clone, Copy)]
pub(crate) struct Head<'a> {
    pub(crate) p: Distribution<'a>,
    pub(crate) sum: LogSumExp,
    /// What it holds.
    pub(crate) mass: f64,
    /// Whether p is found in f64 lanes.
    pub(crate) wide: bool,
}

/// Numbers that are put in order.
const FEW: usize = 512;

/// Bounds that are tried at once.
const BOUNDS: usize = 8;

/// How often.
const ROUNDS: usize = 6;

/// What f32 lanes may be wrong by in the sum of some p.
const NARROW_ERROR: f64 = 5e-7;

impl Head<'_> {
    /// The number of its least probable class; +∞ where it has none, −∞ where it has all. `None` where f32 lanes do not tell.
    pub(crate) fn smallest(self, isa: Isa, blocks: &Blocks) -> Option<f64> {
        if self.mass <= 0.0 {
            return Some(f64::INFINITY);
        }
        if self.mass >= 1.0 {
            return Some(f64::NEG_INFINITY);
        }
        let classes = self.p.row.classes();
        let lowest = self.lowest(classes);
        let parts = blocks.map(classes, |start, len| {
            let mut found = spare();
            let count = self.numbers(self.p.block(start, len), (lowest, f64::INFINITY), &mut found, isa);
            Cell::new((found, count))
        });
        let mut lists = LISTS.take();
        lists.0.clear();
        for part in parts.iter() {
            let (found, count) = part.take();
            lists.0.extend_from_slice(&found[..count]);
            keep(found);
        }
        let smallest = self.smallest_of(&mut lists, lowest, isa);
        LISTS.set(lists);
        smallest
    }

    /// Puts the numbers of a row that are in a range, from its lower end on, to the front of `found`; how many.
    fn numbers(self, p: Distribution<'_>, range: (f64, f64), found: &mut Vec<f64>, isa: Isa) -> usize {
        let room = p.row.classes() + MAX_LANES;
        if found.len() < room {
            found.resize(room, 0.0);
        }
        isa.run_lanes(self.wide, Numbers { p, range, found })
    }

    /// A number below which no class belongs to the head: of rows that sum to one, all that are less probable hold less than what
    /// the head leaves.
    fn lowest(self, classes: usize) -> f64 {
        /// For roundings of p and of the number.
        const MARGIN: f64 = 0.01;
        let ln_least = ((1.0 - self.mass) / classes as f64).ln() - MARGIN;
        match self.p.space {
            Space::Logits => {
                let below = (self.sum.ln_sum() + ln_least) / self.p.inverse_temperature;
                (self.sum.largest + below) - 1e-6 * (self.sum.largest.abs() + below.abs())
            }
            Space::Unnormalized => (self.sum.value(1.0) + ln_least).exp(),
            Space::LogProbs => f64::MIN,
            // The smallest number above 0.
            Space::Probs => f64::from_bits(1),
        }
    }

    /// The same, among the numbers of the first list, of which the head has no lower ones.
    fn smallest_of(self, lists: &mut (Vec<f64>, Vec<f64>), lowest: f64, isa: Isa) -> Option<f64> {
        let (list, other) = (&mut lists.0, &mut lists.1);
        let (mut bottom, mut top, mut above) = (lowest, f64::INFINITY, 0.0);
        let mut count = list.len();
        for _ in 0..ROUNDS {
            if count <= FEW {
                break;
            }
            let highest = if top < f64::INFINITY {
                top
            } else if self.p.space == Space::Logits {
                self.sum.largest
            } else {
                list[..count].iter().copied().fold(bottom, f64::max)
            };
            let step = (highest - bottom) / (BOUNDS + 1) as f64;
            let bounds: [f64; BOUNDS] = std::array::from_fn(|k| {
                let bound = bottom + step * (k + 1) as f64;
                // As lanes see it.
                if self.wide { bound } else { f64::from(bound as f32) }
            });
            let p = Distribution { row: Row::from(&list[..count]), ..self.p };
            let held = isa.run_lanes(self.wide, Held { p, sum: self.sum, bounds });
            let reached = held.iter().rposition(|held| above + held >= self.mass);
            let next = reached.map_or(0, |k| k + 1);
            (bottom, top) = (reached.map_or(bottom, |k| bounds[k]), *bounds.get(next).unwrap_or(&top));
            above += held.get(next).unwrap_or(&0.0);
            count = self.numbers(p, (bottom, top), other, isa);
            std::mem::swap(list, other);
        }
        self.last_of(&mut list[..count], above)
    }

    /// The last class of a list, from the most probable on, that those above it leave something to, where all above the list hold
    /// `above`.
    fn last_of(self, list: &mut [f64], mut above: f64) -> Option<f64> {
        list.sort_unstable_by(f64::total_cmp);
        list.reverse();
        let unclear = |held: f64| !self.wide && (held - self.mass).abs() <= NARROW_ERROR;
        let mut last = f64::NEG_INFINITY;
        for same in list.chunk_by(|a, b| a == b) {
            let held = above + self.probability(same[0]) * same.len() as f64;
            last = same[0];
            if held >= self.mass {
                return (!unclear(above) && !unclear(held)).then_some(last);
            }
            above = held;
        }
        // Rows that hold less in all, and roundings.
        self.wide.then_some(last)
    }

    fn probability(self, number: f64) -> f64 {
        match self.p.space {
            Space::Logits => (-self.sum.surprise(number, self.p.inverse_temperature)).exp(),
            Space::LogProbs => number.exp(),
            Space::Probs => number,
            Space::Unnormalized => (number.ln() - self.sum.value(1.0)).exp(),
        }
    }
}

thread_local! {
    /// Memory for the numbers of a row, and for those of them that are left, kept for the next one.
    static LISTS: Cell<(Vec<f64>, Vec<f64>)> = const { Cell::new((Vec::new(), Vec::new())) };
    /// That for those of its blocks.
    static SPARE: Cell<Vec<Vec<f64>>> = const { Cell::new(Vec::new()) };
}

fn spare() -> Vec<f64> {
    let mut spare = SPARE.take();
    let found = spare.pop().unwrap_or_default();
    SPARE.set(spare);
    found
}

fn keep(found: Vec<f64>) {
    /// Those of a row of 262,144 classes.
    const MOST: usize = 64;
    let mut spare = SPARE.take();
    if spare.len() < MOST {
        spare.push(found);
    }
    SPARE.set(spare);
}

/// Puts the numbers of a row that are in a range together.
struct Numbers<'a, 'b> {
    p: Distribution<'a>,
    range: (f64, f64),
    /// Where they go, with room for a vector more.
    found: &'b mut [f64],
}

impl LaneKernel for Numbers<'_, '_> {
    type Output = usize;

    #[inline(always)]
    fn run<V: Lanes>(self, token: V::Token) -> usize {
        let Numbers { p, range, found } = self;
        let range = (V::splat(token, range.0), V::splat(token, range.1));
        let mut step = NumbersStep::<V> { range, found, count: 0 };
        pass(token, p.row.classes(), [Block::new(p.row, p.space.absent())], [], &mut step);
        step.count
    }
}

struct NumbersStep<'a, V> {
    range: (V, V),
    found: &'a mut [f64],
    count: usize,
}

impl<V: Lanes> Step<V, 1, 0, 0> for NumbersStep<'_, V> {
    #[inline(always)]
    fn step<const WHOLE: bool>(&mut self, _: usize, [x]: [V; 1], _: &mut [V; 0]) -> [V; 0] {
        let (front, count) = x.compress(V::and(self.range.0.le(x), x.lt(self.range.1)));
        let lanes = front.to_array();
        // All lanes, whatever is behind them: a length that is known is one store.
        for (place, lane) in self.found[self.count..self.count + V::N].iter_mut().zip(&lanes[..V::N]) {
            *place = lane.to_f64();
        }
        self.count += count;
        []
    }
}

/// Σp of the classes from each of some bounds on.
struct Held<'a> {
    p: Distribution<'a>,
    sum: LogSumExp,
    bounds: [f64; BOUNDS],
}

impl LaneKernel for Held<'_> {
    type Output = [f64; BOUNDS];

    #[inline(always)]
    fn run<V: Lanes>(self, token: V::Token) -> [f64; BOUNDS] {
        let Held { p, sum, bounds } = self;
        let zero = V::splat(token, 0.0);
        let mut step = HeldStep::<V> { view: DistributionView::new(token, p, sum), zero, bounds: [zero; BOUNDS] };
        for (lanes, bound) in step.bounds.iter_mut().zip(bounds) {
            *lanes = V::splat(token, bound);
        }
        sums(token, p.row.classes(), [Block::new(p.row, p.space.absent())], &mut step)
    }
}

struct HeldStep<V: Lanes> {
    view: DistributionView<V>,
    zero: V,
    bounds: [V; BOUNDS],
}

impl<V: Lanes> Step<V, 1, 0, BOUNDS> for HeldStep<V> {
    #[inline(always)]
    fn step<const WHOLE: bool>(&mut self, _: usize, [x]: [V; 1], held: &mut [V; BOUNDS]) -> [V; 0] {
        let p = self.view.p(x);
        for (held, &bound) in held.iter_mut().zip(&self.bounds) {
            *held = *held + V::select(bound.le(x), p, self.zero);
        }
        []
    }
}
