//! Rows of 16 bits a class, called without the GIL.
#![expect(clippy::needless_pass_by_value, reason = "PyO3 hands over what it extracts")]

use numpy::IntoPyArray;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::arrays::{Numbers, NumbersMut, Operand, slice};
use super::calls::{detached, detached_for};
use super::results::array_of;
use crate::{Coding, Dtype};

/// The largest log-probability of every row.
#[pyfunction]
#[pyo3(signature = (codes, magic, out, classes, isa=None))]
pub(super) fn decode_log_probs<'py>(
    py: Python<'py>,
    codes: Numbers<'py, u8>,
    magic: &str,
    out: NumbersMut<'py, f32>,
    classes: usize,
    isa: Option<&str>,
) -> PyResult<Bound<'py, PyAny>> {
    let (codes, coding, out) = (codes.slice()?, Coding::from_magic(magic)?, out.slice()?);
    let largest =
        detached_for(py, isa, out.len(), |execution| crate::decode_log_probs(codes, coding, out, classes, execution))?;
    array_of(py, Dtype::F64, &[largest.len()], &largest)
}

/// ln Σ e^z of every row; NaN of one that was not written.
#[pyfunction]
#[pyo3(signature = (logits, classes, magic, clip, out, isa=None))]
pub(super) fn encode_log_probs<'py>(
    py: Python<'py>,
    logits: Numbers<'py, f32>,
    classes: usize,
    magic: &str,
    clip: f32,
    out: NumbersMut<'py, u8>,
    isa: Option<&str>,
) -> PyResult<Bound<'py, PyAny>> {
    let (logits, coding, out) = (logits.slice()?, Coding::from_magic(magic)?, out.slice()?);
    let sums = detached_for(py, isa, logits.len(), |execution| {
        crate::encode_log_probs(logits, classes, coding, clip, out, execution)
    })?;
    array_of(py, Dtype::F64, &[sums.len()], &sums)
}

#[pyfunction]
#[pyo3(signature = (log_p, logits, labels, ignore_index=None, isa=None))]
pub(super) fn clipped_kl<'py>(
    py: Python<'py>,
    log_p: Operand<'py>,
    logits: Operand<'py>,
    labels: Option<Numbers<'py, i64>>,
    ignore_index: Option<i64>,
    isa: Option<&str>,
) -> PyResult<Bound<'py, PyDict>> {
    let (p_rows, q_rows, labels) = (log_p.rows()?, logits.rows()?, slice(labels.as_ref())?);
    let found =
        detached(py, isa, &p_rows, |execution| crate::clipped_kl(&p_rows, &q_rows, labels, ignore_index, execution))?;
    let fields = PyDict::new(py);
    for (name, values) in [("kl", &found.kl), ("nll_p", &found.nll_p), ("nll_q", &found.nll_q)] {
        fields.set_item(name, array_of(py, Dtype::F64, &[values.len()], values)?)?;
    }
    fields.set_item("top1_p", found.top1_p.into_pyarray(py))?;
    fields.set_item("top1_q", found.top1_q.into_pyarray(py))?;
    Ok(fields)
}
