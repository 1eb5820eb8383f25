//! Everything about two rows of logits at once: divergences, entropies, and the classes they favour.
//!
//! Rows of which f32 lanes tell everything go one of two ways, and all others that of [`general`]:
//!
//! * [`far`]: rows that have little in common;
//! * [`close`]: rows that have much in common.
//!
//! * [`more`]: divergences that are asked for beside these.

mod close;
mod far;
mod general;
pub(crate) mod more;

use crate::row::distribution::Distribution;
use crate::row::distribution::scan::first_at;
use crate::row::divergence::FEW;
use crate::rows::{BLOCK, Row};
use crate::simd::Isa;
use crate::threads::Blocks;

/// What two rows have to do with each other, in nats.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowComparison {
    pub(crate) kl: f64,
    pub(crate) reverse_kl: f64,
    pub(crate) jensen_shannon: f64,
    pub(crate) total_variation: f64,
    pub(crate) entropy_p: f64,
    pub(crate) entropy_q: f64,
    /// First of the most probable classes; −1 where the row cannot be compared.
    pub(crate) top1_p: i64,
    pub(crate) top1_q: i64,
    /// The probability of that class.
    pub(crate) confidence_p: f64,
    pub(crate) confidence_q: f64,
    /// −ln p and −ln q of the label, where there is one.
    pub(crate) nll_p: f64,
    pub(crate) nll_q: f64,
}

impl Default for RowComparison {
    /// Of a row that is not kept.
    fn default() -> Self {
        RowComparison {
            kl: 0.0,
            reverse_kl: 0.0,
            jensen_shannon: 0.0,
            total_variation: 0.0,
            entropy_p: 0.0,
            entropy_q: 0.0,
            top1_p: -1,
            top1_q: -1,
            confidence_p: 0.0,
            confidence_q: 0.0,
            nll_p: 0.0,
            nll_q: 0.0,
        }
    }
}

impl RowComparison {
    const INVALID: Self = RowComparison {
        kl: f64::NAN,
        reverse_kl: f64::NAN,
        jensen_shannon: f64::NAN,
        total_variation: f64::NAN,
        entropy_p: f64::NAN,
        entropy_q: f64::NAN,
        top1_p: -1,
        top1_q: -1,
        confidence_p: f64::NAN,
        confidence_q: f64::NAN,
        nll_p: f64::NAN,
        nll_q: f64::NAN,
    };
}

/// Compares two rows; `label` is in range.
pub(crate) fn compare(
    p: Distribution<'_>,
    q: Distribution<'_>,
    label: Option<usize>,
    isa: Isa,
    blocks: &Blocks,
) -> RowComparison {
    let narrow = p.allows_narrow_lanes()
        && q.allows_narrow_lanes()
        && !p.is_smoothed(isa, blocks)
        && !q.is_smoothed(isa, blocks);
    let found = if narrow && p.row.classes() > FEW {
        far::compare(p, q, label, isa, blocks).or_else(|| close::compare(p, q, label, isa, blocks))
    } else {
        None
    };
    found.unwrap_or_else(|| general::compare(p, q, label, isa, blocks, narrow))
}

/// How many times a result what it is the difference of may be: that has an error of about 1e-7.
const MOST_TERMS: f64 = 8.0;

/// Whether the difference of two numbers, or their sum, is no small part of them.
fn is_accurate(result: f64, parts: [f64; 2]) -> bool {
    parts[0].abs() + parts[1].abs() <= MOST_TERMS * result
}

/// The first class that has the largest logit of a row, whose blocks have these.
fn first_largest(row: Row<'_>, of_blocks: impl Iterator<Item = f64> + Clone, isa: Isa) -> Option<usize> {
    let largest = of_blocks.clone().fold(f64::NEG_INFINITY, f64::max);
    let start = of_blocks.into_iter().position(|block| block == largest)? * BLOCK;
    let block = row.block(start, BLOCK.min(row.classes() - start));
    Some(start + first_at(block, largest, isa)?)
}
