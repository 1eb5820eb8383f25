//! Universal logit distillation: rows of two vocabularies, compared by the ranks of their probabilities.
//!
//! Σ |p_(i) − q_(i)| is twice the total variation of both rows in falling order, the shorter one padded with classes that do not
//! exist: what total variation knows of close rows, spaces and invalid numbers holds here too. Sorted rows are f64, so that they
//! take f64 lanes: classes of one rank are close far more often than those of one name, and only a sign tells which way they go.
//!
//! Where some classes are known to stand for the same, these are compared as they are, and only the others by rank
//! ([`Correspondence`]).

use super::divergence::AnyDivergence;
use crate::divergence::TotalVariation;
use crate::element::Dtype;
use crate::row::distribution::softmax::WriteLogSoftmax;
use crate::row::distribution::{Distribution, LogSumExp, Space};
use crate::row::gradients::RowGradients;
use crate::rows::{Row, RowMut};
use crate::simd::Isa;
use crate::threads::Blocks;

/// The classes of two vocabularies, those of p first.
#[derive(Debug)]
pub(crate) struct Correspondence {
    /// Classes that stand for the same, in one order.
    pub(crate) shared: [Vec<usize>; 2],
    /// All others, which rise.
    pub(crate) others: [Vec<usize>; 2],
}

/// What is computed of shared classes, and of how much of the loss each part is.
#[derive(Clone, Copy)]
pub(crate) struct Mixture<'a> {
    pub(crate) divergence: AnyDivergence<'a>,
    pub(crate) shared_weight: f64,
    pub(crate) others_weight: f64,
}

/// Σ |p_(i) − q_(i)| of two rows; writes the gradients asked for.
pub(crate) fn ranked(
    p: Distribution<'_>,
    q: Distribution<'_>,
    classes: [&[usize]; 2],
    isa: Isa,
    blocks: &Blocks,
    gradients: RowGradients<'_>,
) -> f64 {
    let orders = [falling(p.row, classes[0]), falling(q.row, classes[1])];
    let rows = aligned([&|class| p.row.get(class), &|class| q.row.get(class)], &orders, [p.space, q.space]);
    let wanted = [gradients.p.is_some(), gradients.q.is_some()];
    let pair = [Distribution { row: Row::from(&rows[0][..]), ..p }, Distribution { row: Row::from(&rows[1][..]), ..q }];
    let (value, slopes) = with_slopes(AnyDivergence::from(&TotalVariation), pair, wanted, gradients.scale, isa, blocks);
    for ((out, order), slopes) in [gradients.p, gradients.q].into_iter().zip(&orders).zip(&slopes) {
        if let Some(out) = out {
            for (&class, slope) in order.iter().zip(slopes) {
                out.set(class, 2.0 * slope);
            }
        }
    }
    2.0 * value
}

/// The same of the classes that are not shared, and a divergence of those that are; writes the gradients asked for.
pub(crate) fn mixed(
    mixture: Mixture<'_>,
    p: Distribution<'_>,
    q: Distribution<'_>,
    classes: &Correspondence,
    isa: Isa,
    blocks: &Blocks,
    gradients: RowGradients<'_>,
) -> f64 {
    let (Some(p), Some(q)) = (Side::new(p, isa, blocks), Side::new(q, isa, blocks)) else {
        gradients.fill(f64::NAN);
        return f64::NAN;
    };
    let sides = [&p, &q];
    let wanted = [gradients.p.is_some(), gradients.q.is_some()];
    let mut slopes = [0, 1].map(|side| if wanted[side] { vec![0.0; sides[side].numbers.len()] } else { Vec::new() });
    let mut value = 0.0;
    let numbers: [&dyn Fn(usize) -> f64; 2] = [&|class| p.numbers[class], &|class| q.numbers[class]];
    let spaces = [p.space(), q.space()];
    let mut add = |orders: &[Vec<usize>; 2], weight: f64, part: (f64, [Vec<f64>; 2])| {
        value += weight * part.0;
        for side in 0..2 {
            for (&class, slope) in orders[side].iter().zip(&part.1[side]) {
                slopes[side][class] = weight * slope;
            }
        }
    };
    if mixture.shared_weight != 0.0 && !classes.shared[0].is_empty() {
        let rows = aligned(numbers, &classes.shared, spaces);
        let part = with_slopes(mixture.divergence, distributions(&rows, spaces), wanted, 1.0, isa, blocks);
        add(&classes.shared, mixture.shared_weight, part);
    }
    if mixture.others_weight != 0.0 && classes.others.iter().any(|others| !others.is_empty()) {
        let orders = [0, 1].map(|side| falling(sides[side].given.row, &classes.others[side]));
        let rows = aligned(numbers, &orders, spaces);
        let part =
            with_slopes(AnyDivergence::from(&TotalVariation), distributions(&rows, spaces), wanted, 1.0, isa, blocks);
        add(&orders, 2.0 * mixture.others_weight, part);
    }
    for ((side, out), slopes) in sides.into_iter().zip([gradients.p, gradients.q]).zip(&slopes) {
        if let Some(out) = out {
            side.write(slopes, value, gradients.scale, out);
        }
    }
    // Adding 0 makes a zero positive.
    value + 0.0
}

/// The classes in falling order of their numbers; of equal ones the lower class comes first.
fn falling(row: Row<'_>, classes: &[usize]) -> Vec<usize> {
    if row.dtype() == Dtype::F64 || row.classes() > u32::MAX as usize {
        let key = |class: usize| {
            let bits = (row.get(class) + 0.0).to_bits();
            let rank = if bits >> 63 == 0 { !(bits | (1 << 63)) } else { bits };
            u128::from(rank) << 64 | class as u128
        };
        let mut keys: Vec<u128> = classes.iter().map(|&class| key(class)).collect();
        keys.sort_unstable();
        return keys.into_iter().map(|key| key as u64 as usize).collect();
    }
    // In one word, whose order is found in half the time.
    let key = |class: usize| {
        // Exact; adding 0 makes one of two zeros.
        let bits = (row.get(class) as f32 + 0.0).to_bits();
        let rank = if bits >> 31 == 0 { !(bits | (1 << 31)) } else { bits };
        u64::from(rank) << 32 | class as u64
    };
    let mut keys: Vec<u64> = classes.iter().map(|&class| key(class)).collect();
    keys.sort_unstable();
    keys.into_iter().map(|key| key as u32 as usize).collect()
}

/// The numbers of both sides in the orders given, the shorter row padded with classes of probability 0.
fn aligned(numbers: [&dyn Fn(usize) -> f64; 2], orders: &[Vec<usize>; 2], spaces: [Space; 2]) -> [Vec<f64>; 2] {
    let width = orders[0].len().max(orders[1].len());
    [0, 1].map(|side| {
        let mut row = Vec::with_capacity(width);
        row.extend(orders[side].iter().map(|&class| numbers[side](class)));
        row.resize(width, spaces[side].absent());
        row
    })
}

/// Rows that are taken as they are.
fn distributions(rows: &[Vec<f64>; 2], spaces: [Space; 2]) -> [Distribution<'_>; 2] {
    [0, 1].map(|side| Distribution::new(Row::from(&rows[side][..]), spaces[side], 1.0))
}

/// A divergence and `scale` times its derivatives, of the sides wanted.
fn with_slopes(
    divergence: AnyDivergence<'_>,
    [p, q]: [Distribution<'_>; 2],
    wanted: [bool; 2],
    scale: f64,
    isa: Isa,
    blocks: &Blocks,
) -> (f64, [Vec<f64>; 2]) {
    let mut slopes = wanted.map(|wanted| if wanted { vec![0.0; p.row.classes()] } else { Vec::new() });
    let [p_slopes, q_slopes] = &mut slopes;
    let p_out = wanted[0].then(|| RowMut::from(&mut p_slopes[..]));
    let q_out = wanted[1].then(|| RowMut::from(&mut q_slopes[..]));
    let gradients = RowGradients { scale, p: p_out, q: q_out };
    (divergence.of(p, q, isa, blocks, gradients), slopes)
}

/// A row, and what its classes have of the whole of it.
struct Side<'a> {
    given: Distribution<'a>,
    sum: LogSumExp,
    /// ln p of rows of logarithms, p of all others.
    numbers: Vec<f64>,
}

impl<'a> Side<'a> {
    /// `None` for a row that cannot be computed with.
    fn new(given: Distribution<'a>, isa: Isa, blocks: &Blocks) -> Option<Self> {
        let sum = given.statistics(isa, blocks, &mut true);
        if sum.is_nan() || sum.is_empty() {
            return None;
        }
        let classes = given.row.classes();
        let mut numbers = vec![0.0; classes];
        if given.space.is_logarithmic() {
            let out = RowMut::from(&mut numbers[..]);
            blocks.map(classes, |start, len| {
                let (distribution, out) = (given.block(start, len), out.block(start, len));
                isa.run_lanes(true, WriteLogSoftmax { distribution, sum, out });
            });
        } else {
            for (class, number) in numbers.iter_mut().enumerate() {
                *number = given.row.get(class);
                if given.space == Space::Unnormalized {
                    *number = (number.ln() - sum.largest).exp() / (1.0 + sum.rest);
                }
            }
        }
        Some(Side { given, sum, numbers })
    }

    /// What `numbers` are.
    fn space(&self) -> Space {
        if self.given.space.is_logarithmic() { Space::LogProbs } else { Space::Probs }
    }

    /// Writes the gradient in the space of the row, of which `slopes` are the derivatives with respect to `numbers`.
    fn write(&self, slopes: &[f64], value: f64, scale: f64, out: RowMut<'_>) {
        if self.given.space.is_normalized() && !value.is_finite() {
            out.fill(f64::NAN);
            return;
        }
        match self.given.space {
            Space::LogProbs | Space::Probs => {
                for (class, slope) in slopes.iter().enumerate() {
                    out.set(class, scale * slope);
                }
            }
            Space::Logits => {
                let sum: f64 = slopes.iter().sum();
                let scale = scale * self.given.inverse_temperature;
                for (class, (slope, ln_p)) in slopes.iter().zip(&self.numbers).enumerate() {
                    out.set(class, scale * (slope - ln_p.exp() * sum));
                }
            }
            Space::Unnormalized => {
                // A class without a probability may have an infinite slope.
                let with_p = slopes.iter().zip(&self.numbers).filter(|(_, p)| **p != 0.0);
                let mean: f64 = with_p.map(|(slope, p)| slope * p).sum();
                let total = self.sum.largest.exp() * (1.0 + self.sum.rest);
                for (class, slope) in slopes.iter().enumerate() {
                    out.set(class, scale * (slope - mean) / total);
                }
            }
        }
    }
}
