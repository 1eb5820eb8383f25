//! Cross-entropy of batches, with gradients.

use super::divergence::{check_output, check_same_shape, check_side};
use super::kept_rows::for_kept_rows;
use crate::error::Error;
use crate::memory;
use crate::reduction::{Reduced, Reducer, RowOptions};
use crate::row::cross_entropy::{LossGradients, Target, Terms};
use crate::row::distribution::{Distribution, Space};
use crate::rows::{Rows, RowsMut};
use crate::threads::Execution;

/// What every row is compared with.
#[derive(Clone, Debug)]
pub enum Targets<'a> {
    /// One class index a row.
    Classes(&'a [i64]),
    /// One distribution a row, taken as given.
    Distributions(Rows<'a>),
}

/// The loss; [`CrossEntropy::default`] is −ln q of the target of logits.
#[derive(Clone, Copy, Debug)]
pub struct CrossEntropy<'a> {
    /// What the numbers of the rows are.
    pub space: Space,
    /// Temperature, for logits.
    pub temperature: f64,
    /// Class index of rows to be left out.
    pub ignore_index: Option<i64>,
    /// ε: the target becomes (1 − ε)·target + ε/classes.
    pub label_smoothing: f64,
    /// A factor for each class, finite and non-negative.
    pub class_weights: Option<&'a [f64]>,
    /// Coefficient of the square of the log-sum-exp, for logits.
    pub z_loss: f64,
    /// c: logits z become c·tanh(z/c) first.
    pub softcap: Option<f64>,
}

impl Default for CrossEntropy<'_> {
    fn default() -> Self {
        CrossEntropy {
            space: Space::Logits,
            temperature: 1.0,
            ignore_index: None,
            label_smoothing: 0.0,
            class_weights: None,
            z_loss: 0.0,
            softcap: None,
        }
    }
}

/// Caps for which z/c and c·tanh(z/c) stay far inside the range of f64.
const CAPS: std::ops::RangeInclusive<f64> = 1e-30..=1e30;

impl CrossEntropy<'_> {
    fn check(&self, classes: usize) -> Result<(), Error> {
        if !(0.0..=1.0).contains(&self.label_smoothing) {
            return Err(Error::Parameter {
                name: "label_smoothing",
                value: self.label_smoothing,
                domain: "from 0 to 1",
            });
        }
        if !(self.z_loss.is_finite() && self.z_loss >= 0.0) {
            return Err(Error::Parameter { name: "z_loss", value: self.z_loss, domain: "finite and non-negative" });
        }
        if let Some(softcap) = self.softcap
            && !CAPS.contains(&softcap)
        {
            return Err(Error::Parameter { name: "softcap", value: softcap, domain: "from 1e-30 to 1e30" });
        }
        if self.space == Space::Unnormalized {
            return Err(Error::Option { reason: "cross-entropy is of logits, log-probabilities or probabilities" });
        }
        if self.space != Space::Logits && (self.z_loss != 0.0 || self.softcap.is_some()) {
            return Err(Error::Option { reason: "z_loss and softcap apply to logits only" });
        }
        if let Some(weights) = self.class_weights {
            if weights.len() != classes {
                return Err(Error::ShapeMismatch {
                    first: "class_weights",
                    first_shape: vec![weights.len()],
                    second: "a row",
                    second_shape: vec![classes],
                });
            }
            if let Some(index) = weights.iter().position(|weight| !(weight.is_finite() && *weight >= 0.0)) {
                return Err(Error::Weight { argument: "class_weights", index, value: weights[index] });
            }
        }
        Ok(())
    }
}

/// The first label out of range among the rows `kept`.
pub(crate) fn check_labels(
    labels: &[i64],
    rows: &Rows<'_>,
    ignore_index: Option<i64>,
    kept: impl Fn(usize) -> bool,
) -> Result<(), Error> {
    if labels.len() != rows.count() {
        return Err(Error::ShapeMismatch {
            first: "labels",
            first_shape: vec![labels.len()],
            second: "the batch",
            second_shape: vec![rows.count()],
        });
    }
    let classes = rows.classes();
    let bad = |&(row, &label): &(usize, &i64)| {
        Some(label) != ignore_index && kept(row) && usize::try_from(label).map_or(true, |class| class >= classes)
    };
    match labels.iter().enumerate().find(bad) {
        Some((row, &label)) => Err(Error::Label { row, label, classes, ignore_index }),
        None => Ok(()),
    }
}

/// The rows that count where those labelled `ignore_index` do not; `None` where the mask of `options` says it all.
pub(crate) fn rows_with_labels(
    labels: Option<&[i64]>,
    ignore_index: Option<i64>,
    options: &RowOptions<'_>,
) -> Result<Option<Vec<bool>>, Error> {
    let Some((labels, ignore_index)) = labels.zip(ignore_index) else {
        return Ok(None);
    };
    if !labels.contains(&ignore_index) {
        return Ok(None);
    }
    let keep = labels.iter().enumerate().map(|(row, &label)| label != ignore_index && options.keeps(row));
    memory::collected(keep).map(Some)
}

/// The cross-entropy of every row of a batch, reduced as `options` say; writes the gradients asked for.
///
/// A mean divides by Σ weight·(class weight of the target) over the rows kept; with distributions as targets, class
/// weights stay out of the divisor.
///
/// # Errors
/// Any [`Error`]. After one nothing has been written, except after [`Error::Interrupted`].
#[expect(clippy::needless_pass_by_value, reason = "an output is handed over: nobody else may hold it meanwhile")]
pub fn cross_entropy(
    loss: &CrossEntropy<'_>,
    logits: &Rows<'_>,
    targets: &Targets<'_>,
    options: RowOptions<'_>,
    logits_gradient: Option<RowsMut<'_>>,
    targets_gradient: Option<RowsMut<'_>>,
    execution: &Execution<'_>,
) -> Result<Reduced, Error> {
    execution.run(|driver| {
        let classes = logits.classes();
        check_side("logits", logits, loss.space, loss.temperature)?;
        loss.check(classes)?;
        options.check(logits.count())?;
        check_output("the gradient of logits", logits_gradient.as_ref(), logits)?;
        let labels = match targets {
            Targets::Classes(labels) => {
                // Rows that are not kept may hold any label.
                check_labels(labels, logits, loss.ignore_index, |row| options.keeps(row))?;
                if targets_gradient.is_some() {
                    return Err(Error::Option { reason: "class indices have no gradient" });
                }
                Some(*labels)
            }
            Targets::Distributions(rows) => {
                check_same_shape(("logits", "targets"), (logits, rows))?;
                check_output("the gradient of targets", targets_gradient.as_ref(), rows)?;
                if loss.ignore_index.is_some() {
                    return Err(Error::Option {
                        reason: "ignore_index applies to class indices only; mask rows with where",
                    });
                }
                None
            }
        };
        let mut logits_gradient = logits_gradient;
        if let Some(out) = &mut logits_gradient {
            out.prefer_past_caches(&[logits]);
        }
        let keep = rows_with_labels(labels, loss.ignore_index, &options)?;
        let options = RowOptions { keep: keep.as_deref().or(options.keep), ..options };
        let class_weight =
            labels.zip(loss.class_weights).map(|(labels, weights)| move |kept: usize| weights[labels[kept] as usize]);
        let share = class_weight.as_ref().map(|weight| weight as &dyn Fn(usize) -> f64);
        let reducer = Reducer::new(options, logits.count(), share)?;
        let weights = loss.class_weights.map(|weights| Rows::new(weights, classes)).transpose()?;
        let terms = Terms {
            label_smoothing: loss.label_smoothing,
            class_weights: weights.as_ref().map(|rows| rows.row(0)),
            z_loss: loss.z_loss,
            wide: false,
        };
        let outputs = [logits_gradient.as_ref(), targets_gradient.as_ref()];
        let values = for_kept_rows(driver, logits, &reducer, outputs, |row| {
            let [logits_out, targets_out] = row.outputs;
            let gradients = LossGradients { scale: row.scale, logits: logits_out, targets: targets_out, added: None };
            let q = Distribution {
                softcap: loss.softcap,
                ..Distribution::new(logits.row(row.index), loss.space, loss.temperature)
            };
            let target = match targets {
                Targets::Classes(labels) => Target::Class(labels[row.index] as usize),
                Targets::Distributions(rows) => Target::Distribution(rows.row(row.index)),
            };
            crate::row::cross_entropy::cross_entropy(q, target, &terms, driver.isa, row.blocks, gradients)
        })?;
        Ok(reducer.finish(values))
    })
}
