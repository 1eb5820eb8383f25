//! Log-probabilities and entropy of some classes of every row: those that a sampler keeps, or some that are named.

use super::cross_entropy::{check_labels, rows_with_labels};
use super::divergence::{check_output, check_side};
use super::kept_rows::for_kept_rows;
use crate::error::Error;
use crate::memory;
use crate::reduction::{Reduced, Reducer, RowOptions};
use crate::row::distribution::{Distribution, Space};
use crate::row::kept_set::{self, Kept, Truncation};
use crate::rows::{Rows, RowsMut};
use crate::threads::Execution;

/// Which classes of every row are kept.
#[derive(Clone, Debug)]
pub enum KeptSets<'a> {
    /// Those that a sampler keeps.
    Truncated(Truncation),
    /// Some for each row.
    Classes {
        /// Class indices of all rows, one row after the other.
        ids: &'a [i64],
        /// Where those of each row begin, and where those of the last one end.
        offsets: &'a [i64],
    },
}

/// Kept sets of a batch that they fit.
enum Checked {
    Truncated(Truncation),
    /// Class indices that rise in each row.
    Classes {
        ids: Vec<i64>,
        ends: Vec<usize>,
    },
}

impl Checked {
    fn of(&self, row: usize) -> Kept<'_> {
        match self {
            Checked::Truncated(truncation) => Kept::Truncated(*truncation),
            Checked::Classes { ids, ends } => {
                let start = row.checked_sub(1).map_or(0, |before| ends[before]);
                Kept::Classes(&ids[start..ends[row]])
            }
        }
    }
}

impl Truncation {
    fn check(self, classes: usize) -> Result<(), Error> {
        let error = |name, value, domain| Err(Error::Parameter { name, value, domain });
        match (self.top_k, self.top_p, self.min_p) {
            (Some(k), ..) if !(1..=classes).contains(&k) => error("top_k", k as f64, "from 1 to the number of classes"),
            (_, Some(p), _) if !(p > 0.0 && p <= 1.0) => error("top_p", p, "above 0 and at most 1"),
            (.., Some(p)) if !(0.0..=1.0).contains(&p) => error("min_p", p, "from 0 to 1"),
            _ => Ok(()),
        }
    }
}

impl KeptSets<'_> {
    /// Checks those of the rows that count.
    fn check(&self, rows: &Rows<'_>, counts: impl Fn(usize) -> bool) -> Result<Checked, Error> {
        let classes = rows.classes();
        let (ids, offsets) = match *self {
            KeptSets::Truncated(truncation) => {
                truncation.check(classes)?;
                return Ok(Checked::Truncated(truncation));
            }
            KeptSets::Classes { ids, offsets } => (ids, offsets),
        };
        let fits = offsets.len() == rows.count() + 1
            && offsets.first() == Some(&0)
            && offsets.last() == Some(&(ids.len() as i64))
            && offsets.is_sorted();
        if !fits {
            return Err(Error::Option { reason: "offsets of support rise from 0 to its length, one more than rows" });
        }
        let mut ids = memory::collected(ids.iter().copied())?;
        let ends = memory::collected(offsets[1..].iter().map(|&end| end as usize))?;
        let mut start = 0;
        for (row, &end) in ends.iter().enumerate() {
            let own = &mut ids[start..end];
            start = end;
            if !counts(row) {
                continue;
            }
            let error = |class, reason| Err(Error::ClassOfRow { argument: "support", row, class, reason, classes });
            if own.is_empty() {
                return Err(Error::Row { argument: "support", row, reason: "has no class" });
            }
            let outside = |&&id: &&i64| usize::try_from(id).map_or(true, |class| class >= classes);
            if let Some(&class) = own.iter().find(outside) {
                return error(class, "is out of range");
            }
            own.sort_unstable();
            if let Some(pair) = own.windows(2).find(|pair| pair[0] == pair[1]) {
                return error(pair[0], "is there twice");
            }
        }
        Ok(Checked::Classes { ids, ends })
    }
}

/// ln p of one class of every row among those kept, −∞ of one that is not; 0 for rows labelled `ignore_index` or not kept. With
/// it, where `mass` asks for it, the probability that the classes kept have in the row.
///
/// # Errors
/// Any [`Error`] but those of reductions.
#[expect(clippy::too_many_arguments, reason = "all that a call has")]
pub fn gather_kept_log_probs(
    logits: &Rows<'_>,
    labels: &[i64],
    kept: &KeptSets<'_>,
    mass: bool,
    temperature: f64,
    ignore_index: Option<i64>,
    keep: Option<&[bool]>,
    execution: &Execution<'_>,
) -> Result<(Vec<f64>, Vec<f64>), Error> {
    execution.run(|driver| {
        check_side("z", logits, Space::Logits, temperature)?;
        let options = RowOptions { keep, ..RowOptions::default() };
        options.check(logits.count())?;
        check_labels(labels, logits, ignore_index, |row| options.keeps(row))?;
        let with_label = rows_with_labels(Some(labels), ignore_index, &options)?;
        let options = RowOptions { keep: with_label.as_deref().or(keep), ..options };
        let kept = kept.check(logits, |row| options.keeps(row))?;
        let reducer = Reducer::new(options, logits.count(), None)?;
        let found = for_kept_rows(driver, logits, &reducer, [], |row| {
            let z = Distribution::new(logits.row(row.index), Space::Logits, temperature);
            let label = labels[row.index] as usize;
            kept_set::log_prob(z, kept.of(row.index), label, mass, driver.isa, row.blocks)
        })?;
        columns(&found)
    })
}

/// −Σ p ln p of the classes kept of every row, whose probabilities add up to 1; writes ∂L/∂logits to `gradient`, 0 for the
/// others. With it, as for [`gather_kept_log_probs`], the probability that the classes kept have in the row.
///
/// # Errors
/// Any [`Error`] but those of labels.
#[expect(clippy::needless_pass_by_value, reason = "an output is handed over: nobody else may hold it meanwhile")]
pub fn kept_entropy(
    logits: &Rows<'_>,
    kept: &KeptSets<'_>,
    mass: bool,
    temperature: f64,
    options: RowOptions<'_>,
    gradient: Option<RowsMut<'_>>,
    execution: &Execution<'_>,
) -> Result<(Reduced, Vec<f64>), Error> {
    execution.run(|driver| {
        check_side("p", logits, Space::Logits, temperature)?;
        check_output("the gradient", gradient.as_ref(), logits)?;
        options.check(logits.count())?;
        let kept = kept.check(logits, |row| options.keeps(row))?;
        let reducer = Reducer::new(options, logits.count(), None)?;
        let found = for_kept_rows(driver, logits, &reducer, [gradient.as_ref()], |row| {
            let [out] = row.outputs;
            let z = Distribution::new(logits.row(row.index), Space::Logits, temperature);
            let gradient = out.map(|out| (row.scale, out));
            kept_set::entropy_of_kept(z, kept.of(row.index), mass, driver.isa, row.blocks, gradient)
        })?;
        let (values, masses) = columns(&found)?;
        Ok((reducer.finish(values), masses))
    })
}

/// The lowest logit of every row that a sampler keeps; NaN of rows that cannot be computed with.
///
/// # Errors
/// Any [`Error`] but those of labels and reductions.
pub fn lowest_kept(
    logits: &Rows<'_>,
    truncation: Truncation,
    temperature: f64,
    execution: &Execution<'_>,
) -> Result<Vec<f64>, Error> {
    execution.run(|driver| {
        check_side("z", logits, Space::Logits, temperature)?;
        truncation.check(logits.classes())?;
        driver.for_rows(logits.count(), logits.classes(), &|index, blocks| {
            let z = Distribution::new(logits.row(index), Space::Logits, temperature);
            kept_set::lowest_kept(z, truncation, driver.isa, blocks)
        })
    })
}

fn columns(found: &[[f64; 2]]) -> Result<(Vec<f64>, Vec<f64>), Error> {
    let column = |at: usize| memory::collected(found.iter().map(|row| row[at]));
    Ok((column(0)?, column(1)?))
}
