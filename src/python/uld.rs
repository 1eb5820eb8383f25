//! Universal logit distillation, called without the GIL.
#![expect(clippy::needless_pass_by_value, reason = "PyO3 hands over what it extracts")]

use pyo3::prelude::*;

use super::arrays::{Numbers, Operand, Reducer, slice};
use super::calls::detached_for;
use crate::{Error, Gradients, Kind, PairOfRows, SharedClasses, Space};

/// What is computed of two rows.
#[derive(FromPyObject)]
pub(super) struct UldLoss<'py> {
    spaces: (Space, Space),
    temperatures: (f64, f64),
    /// Classes that stand for the same; both or none.
    p_ids: Option<Numbers<'py, i64>>,
    q_ids: Option<Numbers<'py, i64>>,
    /// The divergence of these, and its parameter.
    kind: String,
    parameter: f64,
    matched_weight: f64,
    unmatched_weight: f64,
}

#[pyfunction]
#[pyo3(signature = (p, q, loss, reducer, grad_output=None, p_gradient=None, q_gradient=None, isa=None))]
#[expect(clippy::too_many_arguments, reason = "one call per batch: everything crosses the boundary at once")]
pub(super) fn uld<'py>(
    py: Python<'py>,
    p: Operand<'py>,
    q: Operand<'py>,
    loss: UldLoss<'py>,
    reducer: Reducer<'py>,
    grad_output: Option<Numbers<'py, f64>>,
    p_gradient: Option<Operand<'py>>,
    q_gradient: Option<Operand<'py>>,
    isa: Option<&str>,
) -> PyResult<Bound<'py, PyAny>> {
    let shared = match (slice(loss.p_ids.as_ref())?, slice(loss.q_ids.as_ref())?) {
        (Some(p_ids), Some(q_ids)) => Some(SharedClasses {
            p_ids,
            q_ids,
            kind: Kind::new(&loss.kind, loss.parameter)?,
            shared_weight: loss.matched_weight,
            others_weight: loss.unmatched_weight,
        }),
        (None, None) => None,
        _ => return Err(Error::Option { reason: "shared classes have ids on both sides" }.into()),
    };
    let pair = PairOfRows { rows: (p.rows()?, q.rows()?), spaces: loss.spaces, temperatures: loss.temperatures };
    let gradients = Gradients {
        p: p_gradient.as_ref().map(Operand::rows_mut).transpose()?,
        q: q_gradient.as_ref().map(Operand::rows_mut).transpose()?,
    };
    let keep = reducer.keep()?;
    let row_options = reducer.options(&p, keep.as_deref(), grad_output.as_ref())?;
    let classes = pair.rows.0.classes().saturating_add(pair.rows.1.classes());
    let reduced = detached_for(py, isa, pair.rows.0.count().saturating_mul(classes), |execution| {
        crate::uld(shared.as_ref(), &pair, row_options, gradients, execution)
    })?;
    reducer.wrap(py, &p, &reduced)
}
