//! KL of two rows as llama.cpp computes it: in float32, and of the classes whose ln p is above −16 only.
//!
//! The others would be classes that its files clip. Values may be slightly below 0, and are here to be compared with those of
//! llama.cpp; what each number is rounded to, and when, is as there.

use crate::row::distribution::scan::{first_at, largest_of_row};
use crate::row::distribution::{Distribution, Space};
use crate::row::runs::{self, Step};
use crate::rows::{Block, Row};
use crate::simd::exp::ScaledExp;
use crate::simd::{Isa, LaneKernel, Lanes};
use crate::threads::Blocks;

/// Log-probabilities of classes that count are above it.
const LOWEST: f64 = -16.0;

/// ln p of the largest class up to which its exponential is in the range of f32 lanes.
const LARGEST: f64 = 80.0;

/// What is computed of two rows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClippedRow {
    pub(crate) kl: f64,
    /// −ln p and −ln q of the label; NaN where there is none.
    pub(crate) nll_p: f32,
    pub(crate) nll_q: f32,
    /// First of the most probable classes.
    pub(crate) top1_p: i64,
    pub(crate) top1_q: i64,
}

impl Default for ClippedRow {
    /// Of rows that hold NaN or +∞, or no class with a probability.
    fn default() -> Self {
        ClippedRow { kl: f64::NAN, nll_p: f32::NAN, nll_q: f32::NAN, top1_p: -1, top1_q: -1 }
    }
}

/// `log_p` are taken as given, q is the softmax of `logits`; `label` is in range.
pub(crate) fn clipped_kl(
    log_p: Row<'_>,
    logits: Row<'_>,
    label: Option<usize>,
    isa: Isa,
    blocks: &Blocks,
) -> ClippedRow {
    let classes = log_p.classes();
    let distribution = Distribution::new(logits, Space::Logits, 1.0);
    let sum = distribution.statistics(isa, blocks, &mut !distribution.allows_narrow_lanes());
    let largest_p = largest_of_row(log_p, isa, blocks);
    if sum.is_nan() || sum.is_empty() || !(f64::NEG_INFINITY < largest_p && largest_p <= LARGEST) {
        return ClippedRow::default();
    }
    let log_sum = sum.largest as f32 + sum.ln_sum() as f32;
    let parts = blocks.map(classes, |start, len| {
        isa.run_lanes(false, Terms { log_p: log_p.block(start, len), logits: logits.block(start, len), log_sum })
    });
    let kl: f64 = parts.iter().sum();
    if kl.is_nan() {
        return ClippedRow::default();
    }
    let top = |row, largest| first_at(row, largest, isa).map_or(-1, |class| class as i64);
    ClippedRow {
        kl,
        nll_p: label.map_or(f32::NAN, |class| -(log_p.get(class) as f32)),
        nll_q: label.map_or(f32::NAN, |class| log_sum - logits.get(class) as f32),
        top1_p: top(log_p, largest_p),
        top1_q: top(logits, sum.largest),
    }
}

/// Σ p·(ln p − z + log-sum-exp) of a block.
struct Terms<'a> {
    log_p: Row<'a>,
    logits: Row<'a>,
    log_sum: f32,
}

impl LaneKernel for Terms<'_> {
    type Output = f64;

    #[inline(always)]
    fn run<V: Lanes>(self, token: V::Token) -> f64 {
        let mut step = TermStep {
            exp: ScaledExp::new(token, 1.0, 0.0, 1.0),
            lowest: V::splat(token, LOWEST),
            log_sum: V::splat(token, self.log_sum.into()),
            zero: V::splat(token, 0.0),
        };
        let blocks = [Block::new(self.log_p, f64::NEG_INFINITY), Block::new(self.logits, f64::NEG_INFINITY)];
        let [sum] = runs::sums(token, self.log_p.classes(), blocks, &mut step);
        sum
    }
}

struct TermStep<V: Lanes> {
    exp: ScaledExp<V>,
    lowest: V,
    log_sum: V,
    zero: V,
}

impl<V: Lanes> Step<V, 2, 0, 1> for TermStep<V> {
    #[inline(always)]
    fn step<const WHOLE: bool>(&mut self, _: usize, [log_p, z]: [V; 2], [sum]: &mut [V; 1]) -> [V; 0] {
        let term = self.exp.of(log_p) * (log_p - z + self.log_sum);
        // NaN is not below anything.
        *sum = *sum + V::select(log_p.le(self.lowest), self.zero, term);
        []
    }
}
