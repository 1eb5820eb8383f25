//! Losses of batches from teachers of which only some classes are known, with the gradient of the student.

use super::divergence::{TEMPERATURE, check_output, check_side};
use super::kept_rows::for_kept_rows;
use crate::divergence::{Divergence, Kind, Visitor};
use crate::element::Dtype;
use crate::error::Error;
use crate::reduction::{Reduced, Reducer, RowOptions};
use crate::row::distribution::{Distribution, Space};
use crate::row::divergence::AnyDivergence;
use crate::row::sparse::{Known, Objective, Rule, StudentGradient, loss as row_loss};
use crate::rows::{Rows, RowsMut};
use crate::threads::Execution;

/// Rows of which some classes are known: those of row `i` are `offsets[i]..offsets[i + 1]` of the other fields.
#[derive(Clone, Copy, Debug)]
pub struct SparseTeacher<'a> {
    /// Classes; no row has one twice.
    pub ids: &'a [i64],
    /// Their log-probabilities, or logits.
    pub log_probs: &'a [f64],
    /// What classes that were drawn stand for: numbers whose expectation is p.
    pub weights: Option<&'a [f64]>,
    /// One more than rows, rising from 0.
    pub offsets: &'a [i64],
    /// Whether these are log-probabilities of all classes, and not only in proportion to each other.
    pub normalized: bool,
    /// Classes in a row.
    pub classes: usize,
}

/// The loss of a student from such a teacher.
#[derive(Clone, Copy, Debug)]
pub struct SparseLoss {
    /// The divergence from the teacher; `None` for cross-entropy.
    pub kind: Option<Kind>,
    /// What the classes that are not known are taken for.
    pub rule: Rule,
    /// Temperatures of teacher and student. What the teacher has outside of the classes known is not known at another
    /// temperature than 1: rules that ask for it need `temper_after`.
    pub temperatures: (f64, f64),
    /// A teacher at temperature T is p^(1/T) of the classes known, divided by its sum, and nothing elsewhere.
    pub temper_after: bool,
    /// Whether results are f64 whatever the dtype of the student.
    pub wide: bool,
}

impl SparseTeacher<'_> {
    fn check(&self, student: &Rows<'_>) -> Result<(), Error> {
        let rows = self.offsets.len().saturating_sub(1);
        if (rows, self.classes) != (student.count(), student.classes()) {
            return Err(Error::ShapeMismatch {
                first: "the teacher",
                first_shape: vec![rows, self.classes],
                second: "the student",
                second_shape: vec![student.count(), student.classes()],
            });
        }
        let len = self.ids.len();
        for (what, length) in [("log_probs", Some(self.log_probs.len())), ("weights", self.weights.map(<[f64]>::len))] {
            if let Some(length) = length
                && length != len
            {
                return Err(Error::ShapeMismatch {
                    first: what,
                    first_shape: vec![length],
                    second: "ids",
                    second_shape: vec![len],
                });
            }
        }
        let mut end = 0;
        for (row, pair) in self.offsets.windows(2).enumerate() {
            if pair[0] != end || pair[1] < end || pair[1] as usize > len {
                return Err(Error::Offsets { row });
            }
            end = pair[1];
        }
        if end as usize != len {
            return Err(Error::Offsets { row: rows.saturating_sub(1) });
        }
        let classes = self.classes;
        let in_range = |id: i64| usize::try_from(id).is_ok_and(|class| class < classes);
        match self.ids.iter().position(|&id| !in_range(id)) {
            Some(at) => {
                let row = self.offsets.partition_point(|&start| start as usize <= at) - 1;
                Err(Error::ClassOfRow {
                    argument: "the teacher",
                    row,
                    class: self.ids[at],
                    reason: "is out of range",
                    classes,
                })
            }
            None => Ok(()),
        }
    }

    fn row(&self, index: usize) -> Known<'_> {
        let range = self.offsets[index] as usize..self.offsets[index + 1] as usize;
        Known {
            ids: &self.ids[range.clone()],
            log_probs: &self.log_probs[range.clone()],
            weights: self.weights.map(|weights| &weights[range]),
        }
    }

    /// Whether every row that is kept has all classes.
    fn knows_all(&self, keeps: impl Fn(usize) -> bool) -> bool {
        let all = |pair: &[i64]| (pair[1] - pair[0]) as usize == self.classes;
        self.offsets.windows(2).enumerate().all(|(row, pair)| !keeps(row) || all(pair))
    }
}

impl SparseLoss {
    /// Refuses a loss that its rule gives no meaning with a teacher, of which `knows_all` says whether all classes are known.
    ///
    /// # Errors
    /// [`Error::Rule`], [`Error::Parameter`].
    pub fn check(&self, normalized: bool, drawn: bool, knows_all: bool) -> Result<(), Error> {
        let described = self.rule.description();
        let loss = self.kind.map_or("cross_entropy", Kind::name);
        let refuse = |reason| Err(Error::Rule { rule: described.name, loss, reason });
        self.rule.check()?;
        TEMPERATURE.check(self.temperatures.0)?;
        if described.samples != drawn {
            return refuse(if described.samples {
                "it is for classes that were drawn, and the teacher has no weights"
            } else {
                "the teacher's classes were drawn, with weights; the rule for them is \"sampled\""
            });
        }
        if described.samples && !matches!(self.kind, None | Some(Kind::Kl)) {
            return refuse("of samples of the teacher only kl and cross_entropy are expectations");
        }
        if described.needs_normalizer && !normalized {
            return refuse(
                "it needs log-probabilities of all classes, and the teacher has logits without a normalizer",
            );
        }
        if described.needs_normalizer && self.temperatures.0 != 1.0 && !self.temper_after && !knows_all {
            return refuse(
                "what a teacher has outside of the classes known is not known at another temperature than 1; \
                 temper_after=True takes it to have nothing there",
            );
        }
        if described.samples && self.temperatures.0 != 1.0 {
            return refuse("classes are drawn at a temperature");
        }
        let Some(kind) = self.kind else { return Ok(()) };
        if self.rule == Rule::Truncate && !kind.visit(SumOfTerms)? {
            return refuse("it is no sum of terms of the classes");
        }
        if self.rule == Rule::RenormalizeP && kind.infinite_where()?.1 && !knows_all {
            return refuse("it is infinite where the student has classes that the teacher lacks");
        }
        Ok(())
    }
}

/// The loss of every row of a batch, reduced as `options` say; writes the gradient of the student if asked for.
///
/// # Errors
/// Any [`Error`] but those of labels. After one nothing has been written, except after [`Error::Interrupted`].
pub fn sparse_loss(
    loss: &SparseLoss,
    teacher: &SparseTeacher<'_>,
    student: &Rows<'_>,
    options: RowOptions<'_>,
    gradient: Option<RowsMut<'_>>,
    execution: &Execution<'_>,
) -> Result<Reduced, Error> {
    execution.run(|driver| {
        check_side("q", student, Space::Logits, loss.temperatures.1)?;
        options.check(student.count())?;
        teacher.check(student)?;
        let knows_all = teacher.knows_all(|row| options.keeps(row));
        loss.check(teacher.normalized, teacher.weights.is_some(), knows_all)?;
        check_output("the gradient of q", gradient.as_ref(), student)?;
        let reducer = Reducer::new(options, student.count(), None)?;
        let mut gradient = gradient;
        if let Some(out) = &mut gradient {
            out.prefer_past_caches(&[student]);
        }
        let values = AnyDivergence::with(loss.kind.unwrap_or(Kind::Kl), |divergence| {
            let objective = Objective {
                divergence,
                cross_entropy: loss.kind.is_none(),
                rule: loss.rule,
                teacher_rate: 1.0 / loss.temperatures.0,
                temper_after: loss.temper_after,
                wide: loss.wide || student.dtype() == Dtype::F64,
            };
            for_kept_rows(driver, student, &reducer, [gradient.as_ref()], |row| {
                let [out] = row.outputs;
                let q = Distribution::new(student.row(row.index), Space::Logits, loss.temperatures.1);
                let gradient = StudentGradient { scale: row.scale, out };
                row_loss(objective, teacher.row(row.index), q, driver.isa, row.blocks, gradient)
            })
        })??;
        Ok(reducer.finish(values))
    })
}

/// Whether a divergence is Σ f(p, q) whatever the rows sum to, so that the terms of some classes mean something.
pub(super) struct SumOfTerms;

impl Visitor for SumOfTerms {
    type Output = bool;

    fn visit<D: Divergence>(self, divergence: D) -> bool {
        !D::HAS_OUTER && !D::HAS_STATISTIC && divergence.linear_sum() == 0.0
    }
}
