//! Classes drawn from a row with replacement, with weights that stand for p.
//!
//! k draws with probabilities π ∝ p^power, n of a class, give it the weight n/k · p/π: Σ w f is then an unbiased estimate of
//! Σ p f (sparse logit sampling, arXiv 2503.16870).
//!
//! Which classes are drawn depends on no instruction set either: e^(power·(z − max z)/T) of a class is the same in all f64
//! lanes, and is added up in an order of its own.

use std::cell::Cell;

use crate::row::distribution::{Distribution, LogSumExp};
use crate::row::entropy::WriteSoftmax;
use crate::row::random::fill_uniform;
use crate::row::top_k::Class;
use crate::rows::{BLOCK, RowMut};
use crate::simd::{Isa, Wide};
use crate::threads::Blocks;

/// How a row is sampled.
#[derive(Clone, Copy)]
pub(crate) struct Draws {
    pub(crate) count: usize,
    pub(crate) power: f64,
    pub(crate) seed: u64,
    /// The number of the row.
    pub(crate) row: u64,
}

/// A class that was drawn.
#[derive(Clone, Copy)]
pub(crate) struct Drawn {
    pub(crate) class: Class,
    pub(crate) weight: f64,
}

/// The classes drawn from a row whose log-sum-exp is known, from the most probable one on.
pub(crate) fn sample(z: Distribution<'_>, sum: LogSumExp, draws: Draws, isa: Isa, blocks: &Blocks) -> Vec<Drawn> {
    let classes = z.row.classes();
    let rate = draws.power * z.inverse_temperature;
    let chances = Chances {
        z: Distribution { inverse_temperature: rate, inverse_temperature_error: 0.0, ..z },
        reference: LogSumExp { largest: sum.largest, rest: 0.0 },
        isa,
    };
    let of_groups = |chances: &[f64]| {
        let mut masses = [0.0; BLOCK / GROUP];
        for (mass, group) in masses.iter_mut().zip(chances.chunks(GROUP)) {
            *mass = total(group);
        }
        masses
    };
    let of_blocks = blocks.map(classes, |start, len| chances.with_some(start, len, of_groups));
    let masses = of_blocks.as_flattened();
    let total: f64 = masses.iter().sum();
    let mut targets = vec![0.0; draws.count];
    fill_uniform(&mut targets, draws.seed, draws.row);
    targets.sort_unstable_by(f64::total_cmp);
    let mut found = Vec::new();
    let (mut left, mut below) = (&targets[..], 0.0);
    // Beyond the last one with a class there may be targets by rounding.
    let last = masses.iter().rposition(|&mass| mass > 0.0).unwrap_or(0);
    for (group, mass) in masses[..=last].iter().enumerate() {
        let end = below + mass;
        let inside = if group == last { left.len() } else { left.partition_point(|target| target * total < end) };
        if inside > 0 {
            let start = group * GROUP;
            let share = (draws.count as f64).recip();
            let drawn = |offset, times, chance| {
                let class = Class { id: start + offset, logit: z.row.get(start + offset) };
                let ratio = if draws.power == 1.0 {
                    1.0
                } else {
                    (-sum.surprise(class.logit, z.inverse_temperature)).exp() / (chance / total)
                };
                found.push(Drawn { class, weight: times as f64 * share * ratio });
            };
            let len = GROUP.min(classes - start);
            chances.with_some(start, len, |chances| pick(chances, below, &left[..inside], total, drawn));
        }
        left = &left[inside..];
        below = end;
    }
    found.sort_unstable_by(|a, b| a.class.falling(&b.class));
    found
}

/// Classes that are computed again where one of them is drawn. Of a row of 128,256, some tens of draws fall on a tenth.
const GROUP: usize = 256;

/// What classes are drawn in proportion to.
#[derive(Clone, Copy)]
struct Chances<'a> {
    z: Distribution<'a>,
    reference: LogSumExp,
    isa: Isa,
}

impl Chances<'_> {
    /// What `run` makes of those of some classes.
    fn with_some<R>(self, start: usize, len: usize, run: impl FnOnce(&[f64]) -> R) -> R {
        let mut memory = CHANCES.take();
        memory.resize(len, 0.0);
        let (logits, out) = (self.z.block(start, len), RowMut::from(&mut memory[..]));
        self.isa.run(Wide(WriteSoftmax { logits, sum: self.reference, scale: 1.0, less: 0.0, out }));
        let result = run(&memory);
        CHANCES.set(memory);
        result
    }
}

thread_local! {
    /// Memory for some classes, kept for the next ones.
    static CHANCES: Cell<Vec<f64>> = const { Cell::new(Vec::new()) };
}

/// The sum, in an order that does not depend on lanes.
fn total(numbers: &[f64]) -> f64 {
    let mut partial = [0.0; 16];
    let (chunks, rest) = numbers.as_chunks::<16>();
    for chunk in chunks {
        for (partial, number) in partial.iter_mut().zip(chunk) {
            *partial += number;
        }
    }
    partial.iter().chain(rest).sum()
}

/// `drawn(class, times, chance)` for every class of a group that some of the targets, shares of `total` in order, fall on.
fn pick(chances: &[f64], below: f64, targets: &[f64], total: f64, mut drawn: impl FnMut(usize, usize, f64)) {
    let last = chances.iter().rposition(|&chance| chance > 0.0).unwrap_or(0);
    let (mut left, mut reached) = (targets, below);
    for (class, &chance) in chances[..=last].iter().enumerate() {
        reached += chance;
        if chance == 0.0 {
            continue;
        }
        // The last class takes those that the sum of the group, added in another order, has beyond it.
        let times = if class == last {
            left.len()
        } else {
            left.iter().take_while(|&&target| target * total < reached).count()
        };
        if times > 0 {
            drawn(class, times, chance);
            left = &left[times..];
            if left.is_empty() {
                return;
            }
        }
    }
}
