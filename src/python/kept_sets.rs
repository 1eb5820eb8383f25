//! Some classes of every row, called without the GIL: the most probable ones, classes drawn, kept sets.
#![expect(clippy::needless_pass_by_value, reason = "PyO3 hands over what it extracts")]

use numpy::IntoPyArray;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::arrays::{Mask, Numbers, Operand, Reducer, marks};
use super::calls::detached;
use super::results::array_of;
use crate::{Dtype, KeptSets, RowClasses, Sampling, Truncation};

/// Which classes of every row are kept: those named, where there are any.
#[derive(FromPyObject)]
pub(super) struct Kept<'py> {
    ids: Option<Numbers<'py, i64>>,
    offsets: Option<Numbers<'py, i64>>,
    top_k: Option<usize>,
    top_p: Option<f64>,
    min_p: Option<f64>,
    return_mass: bool,
}

impl Kept<'_> {
    fn truncation(&self) -> Truncation {
        Truncation { top_k: self.top_k, top_p: self.top_p, min_p: self.min_p }
    }

    fn sets(&self) -> PyResult<KeptSets<'_>> {
        Ok(match (&self.ids, &self.offsets) {
            (Some(ids), Some(offsets)) => KeptSets::Classes { ids: ids.slice()?, offsets: offsets.slice()? },
            _ => KeptSets::Truncated(self.truncation()),
        })
    }
}

/// The classes of all rows with room for as many in each, and how many there are.
fn fields(py: Python<'_>, dtype: Dtype, found: RowClasses) -> PyResult<Bound<'_, PyDict>> {
    let fields = PyDict::new(py);
    fields.set_item("log_probs", array_of(py, dtype, &[found.log_probs.len()], &found.log_probs)?)?;
    fields.set_item("ids", found.ids.into_pyarray(py))?;
    fields.set_item("weights", array_of(py, dtype, &[found.weights.len()], &found.weights)?)?;
    fields.set_item("counts", found.counts.iter().map(|&count| count as i64).collect::<Vec<_>>().into_pyarray(py))?;
    Ok(fields)
}

#[pyfunction]
#[pyo3(signature = (logits, k, temperature, isa=None))]
pub(super) fn top_k<'py>(
    py: Python<'py>,
    logits: Operand<'py>,
    k: usize,
    temperature: f64,
    isa: Option<&str>,
) -> PyResult<Bound<'py, PyDict>> {
    let rows = logits.rows()?;
    let found = detached(py, isa, &rows, |execution| crate::top_k(&rows, k, temperature, execution))?;
    fields(py, logits.dtype(), found)
}

#[pyfunction]
#[pyo3(signature = (logits, k, power, seed, first_row, temperature, isa=None))]
#[expect(clippy::too_many_arguments, reason = "one call per batch: everything crosses the boundary at once")]
pub(super) fn sample_k<'py>(
    py: Python<'py>,
    logits: Operand<'py>,
    k: usize,
    power: f64,
    seed: u64,
    first_row: u64,
    temperature: f64,
    isa: Option<&str>,
) -> PyResult<Bound<'py, PyDict>> {
    let rows = logits.rows()?;
    let sampling = Sampling { k, power, seed, first_row };
    let found = detached(py, isa, &rows, |execution| crate::sample_k(&rows, sampling, temperature, execution))?;
    fields(py, logits.dtype(), found)
}

/// Values, and the mass of the classes kept.
#[pyfunction]
#[pyo3(signature = (z, labels, kept, temperature, ignore_index, r#where, isa=None))]
#[expect(clippy::too_many_arguments, reason = "one call per batch: everything crosses the boundary at once")]
pub(super) fn gather_kept_log_probs<'py>(
    py: Python<'py>,
    z: Operand<'py>,
    labels: Numbers<'py, i64>,
    kept: Kept<'py>,
    temperature: f64,
    ignore_index: Option<i64>,
    r#where: Option<Mask<'py>>,
    isa: Option<&str>,
) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
    let (rows, keep, labels, sets) = (z.rows()?, marks(r#where.as_ref())?, labels.slice()?, kept.sets()?);
    let mass = kept.return_mass;
    let (values, masses) = detached(py, isa, &rows, |execution| {
        crate::gather_kept_log_probs(&rows, labels, &sets, mass, temperature, ignore_index, keep.as_deref(), execution)
    })?;
    let column = |numbers: &[f64]| array_of(py, z.dtype(), &[numbers.len()], numbers);
    Ok((column(&values)?, column(&masses)?))
}

/// Values, and the mass of the classes kept.
#[pyfunction]
#[pyo3(signature = (p, kept, temperature, reducer, grad_output=None, gradient=None, isa=None))]
#[expect(clippy::too_many_arguments, reason = "one call per batch: everything crosses the boundary at once")]
pub(super) fn kept_entropy<'py>(
    py: Python<'py>,
    p: Operand<'py>,
    kept: Kept<'py>,
    temperature: f64,
    reducer: Reducer<'py>,
    grad_output: Option<Numbers<'py, f64>>,
    gradient: Option<Operand<'py>>,
    isa: Option<&str>,
) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
    let (rows, keep, sets) = (p.rows()?, reducer.keep()?, kept.sets()?);
    let mass = kept.return_mass;
    let row_options = reducer.options(&p, keep.as_deref(), grad_output.as_ref())?;
    let gradient = gradient.as_ref().map(Operand::rows_mut).transpose()?;
    let (reduced, masses) = detached(py, isa, &rows, |execution| {
        crate::kept_entropy(&rows, &sets, mass, temperature, row_options, gradient, execution)
    })?;
    Ok((reducer.wrap(py, &p, &reduced)?, array_of(py, p.dtype(), &[masses.len()], &masses)?))
}

/// The lowest logit of every row that a sampler keeps.
#[pyfunction]
#[pyo3(signature = (z, kept, temperature, isa=None))]
pub(super) fn lowest_kept<'py>(
    py: Python<'py>,
    z: Operand<'py>,
    kept: Kept<'py>,
    temperature: f64,
    isa: Option<&str>,
) -> PyResult<Bound<'py, PyAny>> {
    let (rows, truncation) = (z.rows()?, kept.truncation());
    let lowest = detached(py, isa, &rows, |execution| crate::lowest_kept(&rows, truncation, temperature, execution))?;
    array_of(py, Dtype::F64, &[lowest.len()], &lowest)
}
