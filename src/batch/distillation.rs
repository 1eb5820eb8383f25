//! A divergence from a teacher mixed with cross-entropy on labels, in one call.

use super::cross_entropy::{check_labels, rows_with_labels};
use super::divergence::{Gradients, check_output, check_same_shape, check_side};
use super::kept_rows::for_kept_rows;
use crate::divergence::Kind;
use crate::element::Dtype;
use crate::error::Error;
use crate::reduction::{Reduced, Reducer, RowOptions};
use crate::row::distillation::{Lesson, Shares, distillation as row_distillation};
use crate::row::distribution::{Distribution, Space};
use crate::row::divergence::AnyDivergence;
use crate::row::gradients::RowGradients;
use crate::rows::{Row, RowMut, Rows, RowsMut};
use crate::threads::Execution;
use std::cell::Cell;

/// The loss of a student with a teacher: divergence·D(teacher, student) + `cross_entropy`·CE(student, label).
#[derive(Clone, Copy, Debug)]
pub struct Distillation<'a> {
    /// D, of the two rows of logits at `temperature`.
    pub kind: Kind,
    /// Temperature of the divergence; cross-entropy has none.
    pub temperature: f64,
    /// What the divergence is multiplied by.
    pub divergence_weight: f64,
    /// What cross-entropy is multiplied by.
    pub cross_entropy_weight: f64,
    /// One class index a row; needed unless the weight of cross-entropy is 0.
    pub labels: Option<&'a [i64]>,
    /// Class index of rows that neither loss has.
    pub ignore_index: Option<i64>,
    /// ε: the label becomes (1 − ε)·label + ε/classes.
    pub label_smoothing: f64,
}

/// The loss of every row of a batch, reduced as `options` say; writes the gradients asked for, where p is the teacher
/// and q the student.
///
/// # Errors
/// Any [`Error`]. After one nothing has been written, except after [`Error::Interrupted`].
pub fn distillation(
    loss: &Distillation<'_>,
    teacher: &Rows<'_>,
    student: &Rows<'_>,
    options: RowOptions<'_>,
    gradients: Gradients<'_>,
    execution: &Execution<'_>,
) -> Result<Reduced, Error> {
    execution.run(|driver| {
        check_same_shape(("teacher", "student"), (teacher, student))?;
        check_side("teacher", teacher, Space::Logits, loss.temperature)?;
        check_side("student", student, Space::Logits, loss.temperature)?;
        check_output("the gradient of the teacher", gradients.p.as_ref(), teacher)?;
        check_output("the gradient of the student", gradients.q.as_ref(), student)?;
        for (name, value) in
            [("divergence_weight", loss.divergence_weight), ("cross_entropy_weight", loss.cross_entropy_weight)]
        {
            if !(value.is_finite() && value >= 0.0) {
                return Err(Error::Parameter { name, value, domain: "finite and non-negative" });
            }
        }
        if !(0.0..=1.0).contains(&loss.label_smoothing) {
            return Err(Error::Parameter {
                name: "label_smoothing",
                value: loss.label_smoothing,
                domain: "from 0 to 1",
            });
        }
        options.check(student.count())?;
        match loss.labels {
            // Rows that are not kept may hold any label.
            Some(labels) => check_labels(labels, student, loss.ignore_index, |row| options.keeps(row))?,
            None if loss.cross_entropy_weight != 0.0 => {
                return Err(Error::Option { reason: "cross-entropy needs labels" });
            }
            None => {}
        }
        let keep = rows_with_labels(loss.labels, loss.ignore_index, &options)?;
        let options = RowOptions { keep: keep.as_deref().or(options.keep), ..options };
        let reducer = Reducer::new(options, student.count(), None)?;
        let mut gradients = gradients;
        for out in [&mut gradients.p, &mut gradients.q].into_iter().flatten() {
            out.prefer_past_caches(&[teacher, student]);
        }
        let (isa, classes) = (driver.isa, student.classes());
        let shares = Shares { divergence: loss.divergence_weight, cross_entropy: loss.cross_entropy_weight };
        let labels = loss.labels.filter(|_| loss.cross_entropy_weight != 0.0);
        let both = labels.is_some() && loss.divergence_weight != 0.0 && gradients.q.is_some();
        let wide = student.dtype() == Dtype::F64 || teacher.dtype() == Dtype::F64;
        let outputs = [gradients.p.as_ref(), gradients.q.as_ref()];
        let values = AnyDivergence::with(loss.kind, |divergence| {
            for_kept_rows(driver, student, &reducer, outputs, |row| {
                let [p_out, q_out] = row.outputs;
                let outputs = RowGradients { scale: row.scale, p: p_out, q: q_out };
                let lesson = Lesson {
                    teacher: Distribution::new(teacher.row(row.index), Space::Logits, loss.temperature),
                    student: Distribution::new(student.row(row.index), Space::Logits, loss.temperature),
                    label: labels.map(|labels| labels[row.index] as usize),
                    label_smoothing: loss.label_smoothing,
                    wide,
                };
                if both {
                    with_scratch(wide, classes, |scratch| {
                        row_distillation(divergence, lesson, shares, isa, row.blocks, outputs, Some(scratch))
                    })
                } else {
                    row_distillation(divergence, lesson, shares, isa, row.blocks, outputs, None)
                }
            })
        })??;
        Ok(reducer.finish(values))
    })
}

thread_local! {
    /// Memory for a row of gradients, kept for the next row: to ask for it costs as much as a row.
    static SCRATCH: Cell<Vec<f64>> = const { Cell::new(Vec::new()) };
}

/// Calls `run` with a row of f64 or f32 to write, and the same row to read afterwards.
fn with_scratch<R>(wide: bool, classes: usize, run: impl FnOnce((RowMut<'_>, Row<'_>)) -> R) -> R {
    let dtype = if wide { Dtype::F64 } else { Dtype::F32 };
    let words = (classes * dtype.size()).div_ceil(size_of::<f64>());
    // Taken while it is used: where the blocks of a row are shared out, a thread of the caller's own pool may begin
    // another call before this one ends.
    let mut memory = SCRATCH.take();
    if memory.len() < words {
        memory.resize(words, 0.0);
    }
    let data: *mut u8 = memory.as_mut_ptr().cast();
    // SAFETY: the memory holds one row of this size, and is this call's alone. It is read when it has been written.
    let rows = unsafe {
        (
            RowsMut::from_raw_parts(data, dtype, classes, &[], &[], "scratch"),
            Rows::from_raw_parts(data, dtype, classes, &[], &[]),
        )
    };
    let result = match rows {
        // SAFETY: the only one.
        (Ok(write), read) => run((unsafe { write.row(0) }, read.row(0))),
        (Err(_), _) => unreachable!("one row does not overlap with itself"),
    };
    SCRATCH.set(memory);
    result
}
