//! Teachers of which only some classes are known, called without the GIL.
#![expect(clippy::needless_pass_by_value, reason = "PyO3 hands over what it extracts")]

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::arrays::{Numbers, Operand, Reducer, slice};
use super::calls::detached;
use super::descriptions::{named_tuple, parameter_tuple};
use crate::{Dtype, Error, Kind, Rule, SparseLoss, SparseTeacher};

/// Rows of some classes, one after the other.
#[derive(FromPyObject)]
pub(super) struct FlatTopK<'py> {
    ids: Numbers<'py, i64>,
    log_probs: Numbers<'py, f64>,
    weights: Option<Numbers<'py, f64>>,
    offsets: Numbers<'py, i64>,
    normalized: bool,
    classes: usize,
}

/// What the loss is to be, beside teacher and student.
#[derive(FromPyObject)]
pub(super) struct SparseOptions {
    /// The name of a divergence, or `cross_entropy`.
    loss: String,
    parameter: f64,
    rule: String,
    floor: f64,
    temperatures: (f64, f64),
    temper_after: bool,
}

impl SparseOptions {
    fn loss(&self) -> Result<SparseLoss, Error> {
        let kind = match self.loss.as_str() {
            "cross_entropy" => None,
            name => Some(Kind::new(name, self.parameter)?),
        };
        let &SparseOptions { floor, temperatures, temper_after, .. } = self;
        Ok(SparseLoss { kind, rule: Rule::new(&self.rule, floor)?, temperatures, temper_after, wide: false })
    }
}

/// Refuses a loss that its rule gives no meaning, for those that are not computed here.
#[pyfunction]
pub(super) fn check_rule(options: SparseOptions, normalized: bool, drawn: bool, knows_all: bool) -> PyResult<()> {
    Ok(options.loss()?.check(normalized, drawn, knows_all)?)
}

#[pyfunction]
#[pyo3(signature = (teacher, student, options, reducer, grad_output=None, gradient=None, isa=None))]
#[expect(clippy::too_many_arguments, reason = "one call per batch: everything crosses the boundary at once")]
pub(super) fn sparse_loss<'py>(
    py: Python<'py>,
    teacher: FlatTopK<'py>,
    student: Operand<'py>,
    options: SparseOptions,
    reducer: Reducer<'py>,
    grad_output: Option<Numbers<'py, f64>>,
    gradient: Option<Operand<'py>>,
    isa: Option<&str>,
) -> PyResult<Bound<'py, PyAny>> {
    let loss = SparseLoss { wide: reducer.dtype() == Dtype::F64, ..options.loss()? };
    let flat = SparseTeacher {
        ids: teacher.ids.slice()?,
        log_probs: teacher.log_probs.slice()?,
        weights: slice(teacher.weights.as_ref())?,
        offsets: teacher.offsets.slice()?,
        normalized: teacher.normalized,
        classes: teacher.classes,
    };
    let rows = student.rows()?;
    let gradient = gradient.as_ref().map(Operand::rows_mut).transpose()?;
    let keep = reducer.keep()?;
    let row_options = reducer.options(&student, keep.as_deref(), grad_output.as_ref())?;
    let reduced = detached(py, isa, &rows, |execution| {
        crate::sparse_loss(&loss, &flat, &rows, row_options, gradient, execution)
    })?;
    reducer.wrap(py, &student, &reduced)
}

/// Adds `RULES` to the module, and the type of its values, `Rule`.
pub(super) fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    let rule_type = named_tuple(module, "Rule", &["name", "parameter", "needs_normalizer", "samples"])?;
    let rules = PyDict::new(py);
    for one in Rule::descriptions() {
        let parameter = one.parameter.map(|parameter| parameter_tuple(module, parameter)).transpose()?;
        let record = rule_type.call1((one.name, parameter, one.needs_normalizer, one.samples))?;
        rules.set_item(one.name, record)?;
    }
    module.add("RULES", rules)
}
