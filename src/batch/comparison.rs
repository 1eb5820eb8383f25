//! Comparison of two batches of logits, row by row.

use super::cross_entropy::check_labels;
use super::divergence::{check_same_shape, check_side};
use crate::divergence::Kind;
use crate::error::Error;
use crate::memory;
use crate::reduction::RowOptions;
use crate::row::comparison::{RowComparison, more};
use crate::row::distribution::{Distribution, Space};
use crate::rows::Rows;
use crate::threads::Execution;
use smallvec::SmallVec;

/// What two batches have to do with each other: one number a row in every field, in nats. Rows not kept hold 0.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Comparison {
    /// KL(p‖q).
    pub kl: Vec<f64>,
    /// KL(q‖p).
    pub reverse_kl: Vec<f64>,
    /// Jensen–Shannon divergence with β = ½.
    pub jensen_shannon: Vec<f64>,
    /// ½ Σ |p − q|.
    pub total_variation: Vec<f64>,
    /// Entropy of p.
    pub entropy_p: Vec<f64>,
    /// Entropy of q.
    pub entropy_q: Vec<f64>,
    /// First of p's most probable classes; −1 for rows not kept or not comparable.
    pub top1_p: Vec<i64>,
    /// First of q's most probable classes.
    pub top1_q: Vec<i64>,
    /// Probability of p's most probable class.
    pub confidence_p: Vec<f64>,
    /// Probability of q's most probable class.
    pub confidence_q: Vec<f64>,
    /// −ln p of the labels, where there are any; NaN for rows labelled `ignore_index`.
    pub nll_p: Vec<f64>,
    /// −ln q of the labels.
    pub nll_q: Vec<f64>,
    /// The divergences asked for beside these, in their order.
    pub extra: Vec<Vec<f64>>,
}

/// Compares two batches of logits, each row read from memory once, and takes more divergences of them. Rows labelled
/// `ignore_index` have no label.
///
/// # Errors
/// Any [`Error`] but those of reductions.
#[expect(clippy::too_many_arguments, reason = "each of them belongs to another part of a comparison")]
pub fn compare(
    p: &Rows<'_>,
    q: &Rows<'_>,
    labels: Option<&[i64]>,
    extra: &[Kind],
    temperature: f64,
    ignore_index: Option<i64>,
    keep: Option<&[bool]>,
    execution: &Execution<'_>,
) -> Result<Comparison, Error> {
    execution.run(|driver| {
        check_same_shape(("p", "q"), (p, q))?;
        check_side("p", p, Space::Logits, temperature)?;
        let options = RowOptions { keep, ..RowOptions::default() };
        options.check(p.count())?;
        if let Some(labels) = labels {
            check_labels(labels, p, ignore_index, |row| options.keeps(row))?;
        }
        for kind in extra {
            kind.infinite_where()?;
        }
        let rows = driver.for_rows(p.count(), p.classes(), &|index, blocks| {
            if !options.keeps(index) {
                return (RowComparison::default(), SmallVec::from_elem(0.0, extra.len()));
            }
            let p = Distribution::new(p.row(index), Space::Logits, temperature);
            let q = Distribution::new(q.row(index), Space::Logits, temperature);
            let label = labels.map(|labels| labels[index]).filter(|&label| Some(label) != ignore_index);
            let row = crate::row::comparison::compare(p, q, label.map(|label| label as usize), driver.isa, blocks);
            let row = if label.is_some() { row } else { RowComparison { nll_p: f64::NAN, nll_q: f64::NAN, ..row } };
            let more = more::divergences(extra, p, q, driver.isa, blocks);
            (row, more.unwrap_or_default())
        })?;
        let column = |field: fn(&RowComparison) -> f64| memory::collected(rows.iter().map(|row| field(&row.0)));
        let more =
            |index: usize| memory::collected(rows.iter().map(|row| row.1.get(index).copied().unwrap_or(f64::NAN)));
        let of_labels = |field| if labels.is_some() { column(field) } else { Ok(Vec::new()) };
        Ok(Comparison {
            kl: column(|row| row.kl)?,
            reverse_kl: column(|row| row.reverse_kl)?,
            jensen_shannon: column(|row| row.jensen_shannon)?,
            total_variation: column(|row| row.total_variation)?,
            entropy_p: column(|row| row.entropy_p)?,
            entropy_q: column(|row| row.entropy_q)?,
            top1_p: memory::collected(rows.iter().map(|row| row.0.top1_p))?,
            top1_q: memory::collected(rows.iter().map(|row| row.0.top1_q))?,
            confidence_p: column(|row| row.confidence_p)?,
            confidence_q: column(|row| row.confidence_q)?,
            nll_p: of_labels(|row| row.nll_p)?,
            nll_q: of_labels(|row| row.nll_q)?,
            extra: (0..extra.len()).map(more).collect::<Result<_, _>>()?,
        })
    })
}
