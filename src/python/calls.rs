//! The functions of the crate, called without the GIL.
#![expect(clippy::needless_pass_by_value, reason = "PyO3 hands over what it extracts")]

use std::sync::Mutex;

use numpy::IntoPyArray;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::arrays::{Mask, Numbers, Operand, Reducer, marks, slice};
use super::results::array_of;
use super::settings::default_isa;
use crate::{
    CrossEntropy, Distillation, Dtype, Error, Execution, Gradients, Isa, Kind, PairOfRows, Rows, Side, Space, Stream,
    Targets,
};

/// Rows × classes up to which a call keeps the GIL. Giving it away and looking for signals takes 0.2 µs, a fifth of the
/// fastest of such calls; the slowest take some tens of microseconds, in which nobody misses the GIL.
pub(super) const ATTACHED: usize = 1 << 11;

/// Runs `call` on a batch of the size of `rows`.
pub(super) fn detached<R: Send>(
    py: Python<'_>,
    isa: Option<&str>,
    rows: &Rows<'_>,
    call: impl FnOnce(&Execution<'_>) -> Result<R, Error> + Send,
) -> PyResult<R> {
    detached_for(py, isa, rows.count().saturating_mul(rows.classes()), call)
}

/// Runs `call`, which looks at so many classes: without the GIL and looking for signals (Ctrl-C) now and then, unless they are
/// few.
pub(super) fn detached_for<R: Send>(
    py: Python<'_>,
    isa: Option<&str>,
    elements: usize,
    call: impl FnOnce(&Execution<'_>) -> Result<R, Error> + Send,
) -> PyResult<R> {
    let isa = match isa {
        None => default_isa(),
        Some(name) => Isa::by_name(name).ok_or_else(|| Error::UnknownName {
            kind: "instruction set of this CPU",
            name: name.to_owned(),
            known: Isa::available().map(Isa::name).collect::<Vec<_>>().join(", "),
        })?,
    };
    let threads = crate::num_threads();
    if elements <= ATTACHED {
        return Ok(call(&Execution { isa, threads, interrupted: &|| false })?);
    }
    let raised = Mutex::new(None);
    #[expect(clippy::redundant_closure_for_method_calls, reason = "the method is not general enough in its lifetime")]
    let interrupted = || match Python::attach(|py| py.check_signals()) {
        Ok(()) => false,
        Err(error) => {
            if let Ok(mut slot) = raised.lock() {
                *slot = Some(error);
            }
            true
        }
    };
    let execution = Execution { isa, threads, interrupted: &interrupted };
    let result = py.detach(|| call(&execution));
    match (result, raised.into_inner()) {
        (Err(Error::Interrupted), Ok(Some(error))) => Err(error),
        (result, _) => Ok(result?),
    }
}

#[pyfunction]
#[pyo3(signature = (
    kind, parameter, p, q, spaces, temperatures, reducer, grad_output=None, p_gradient=None, q_gradient=None, isa=None
))]
#[expect(clippy::too_many_arguments, reason = "one call per batch: everything crosses the boundary at once")]
pub(super) fn divergence<'py>(
    py: Python<'py>,
    kind: &str,
    parameter: f64,
    p: Operand<'py>,
    q: Operand<'py>,
    spaces: (Space, Space),
    temperatures: (f64, f64),
    reducer: Reducer<'py>,
    grad_output: Option<Numbers<'py, f64>>,
    p_gradient: Option<Operand<'py>>,
    q_gradient: Option<Operand<'py>>,
    isa: Option<&str>,
) -> PyResult<Bound<'py, PyAny>> {
    let kind = Kind::new(kind, parameter)?;
    let pair = PairOfRows { rows: (p.rows()?, q.rows()?), spaces, temperatures };
    let gradients = Gradients {
        p: p_gradient.as_ref().map(Operand::rows_mut).transpose()?,
        q: q_gradient.as_ref().map(Operand::rows_mut).transpose()?,
    };
    let keep = reducer.keep()?;
    let row_options = reducer.options(&p, keep.as_deref(), grad_output.as_ref())?;
    let reduced =
        detached(py, isa, &pair.rows.0, |execution| crate::divergence(kind, &pair, row_options, gradients, execution))?;
    reducer.wrap(py, &p, &reduced)
}

/// `out` has a row for each of p, and a column for each of q, or of p where there is no q.
#[pyfunction]
#[pyo3(signature = (kind, parameter, p, q, spaces, temperatures, out, isa=None))]
#[expect(clippy::too_many_arguments, reason = "one call per batch: everything crosses the boundary at once")]
pub(super) fn pairwise<'py>(
    py: Python<'py>,
    kind: &str,
    parameter: f64,
    p: Operand<'py>,
    q: Option<Operand<'py>>,
    spaces: (Space, Space),
    temperatures: (f64, f64),
    out: Operand<'py>,
    isa: Option<&str>,
) -> PyResult<()> {
    let kind = Kind::new(kind, parameter)?;
    let first = Side { rows: p.rows()?, space: spaces.0, temperature: temperatures.0 };
    let second = match &q {
        Some(q) => Some(Side { rows: q.rows()?, space: spaces.1, temperature: temperatures.1 }),
        None => None,
    };
    let out = out.rows_mut()?;
    let elements = [out.count(), out.classes(), first.rows.classes()].into_iter().fold(1, usize::saturating_mul);
    detached_for(py, isa, elements, |execution| crate::pairwise(kind, &first, second.as_ref(), out, execution))
}

/// What cross-entropy is to be, beside rows and targets.
#[derive(FromPyObject)]
pub(super) struct CrossEntropyLoss<'py> {
    space: Space,
    temperature: f64,
    label_smoothing: f64,
    class_weights: Option<Numbers<'py, f64>>,
    z_loss: f64,
    softcap: Option<f64>,
}

#[pyfunction]
#[pyo3(signature = (
    logits, labels, distributions, ignore_index, loss, reducer, grad_output=None, logits_gradient=None,
    targets_gradient=None, isa=None
))]
#[expect(clippy::too_many_arguments, reason = "one call per batch: everything crosses the boundary at once")]
pub(super) fn cross_entropy<'py>(
    py: Python<'py>,
    logits: Operand<'py>,
    labels: Option<Numbers<'py, i64>>,
    distributions: Option<Operand<'py>>,
    ignore_index: Option<i64>,
    loss: CrossEntropyLoss<'py>,
    reducer: Reducer<'py>,
    grad_output: Option<Numbers<'py, f64>>,
    logits_gradient: Option<Operand<'py>>,
    targets_gradient: Option<Operand<'py>>,
    isa: Option<&str>,
) -> PyResult<Bound<'py, PyAny>> {
    let targets = match (slice(labels.as_ref())?, &distributions) {
        (Some(labels), None) => Targets::Classes(labels),
        (None, Some(rows)) => Targets::Distributions(rows.rows()?),
        _ => return Err(Error::Option { reason: "targets are either class indices or distributions" }.into()),
    };
    let call = CrossEntropy {
        space: loss.space,
        temperature: loss.temperature,
        ignore_index,
        label_smoothing: loss.label_smoothing,
        class_weights: slice(loss.class_weights.as_ref())?,
        z_loss: loss.z_loss,
        softcap: loss.softcap,
    };
    let rows = logits.rows()?;
    let logits_gradient = logits_gradient.as_ref().map(Operand::rows_mut).transpose()?;
    let targets_gradient = targets_gradient.as_ref().map(Operand::rows_mut).transpose()?;
    let keep = reducer.keep()?;
    let row_options = reducer.options(&logits, keep.as_deref(), grad_output.as_ref())?;
    let reduced = detached(py, isa, &rows, |execution| {
        crate::cross_entropy(&call, &rows, &targets, row_options, logits_gradient, targets_gradient, execution)
    })?;
    reducer.wrap(py, &logits, &reduced)
}

/// A divergence from a teacher, and cross-entropy on labels.
#[derive(FromPyObject)]
pub(super) struct DistillationLoss {
    kind: String,
    parameter: f64,
    temperature: f64,
    divergence_weight: f64,
    cross_entropy_weight: f64,
    ignore_index: Option<i64>,
    label_smoothing: f64,
}

#[pyfunction]
#[pyo3(signature = (
    teacher, student, labels, loss, reducer, grad_output=None, teacher_gradient=None, student_gradient=None, isa=None
))]
#[expect(clippy::too_many_arguments, reason = "one call per batch: everything crosses the boundary at once")]
pub(super) fn distillation<'py>(
    py: Python<'py>,
    teacher: Operand<'py>,
    student: Operand<'py>,
    labels: Option<Numbers<'py, i64>>,
    loss: DistillationLoss,
    reducer: Reducer<'py>,
    grad_output: Option<Numbers<'py, f64>>,
    teacher_gradient: Option<Operand<'py>>,
    student_gradient: Option<Operand<'py>>,
    isa: Option<&str>,
) -> PyResult<Bound<'py, PyAny>> {
    let call = Distillation {
        kind: Kind::new(&loss.kind, loss.parameter)?,
        temperature: loss.temperature,
        divergence_weight: loss.divergence_weight,
        cross_entropy_weight: loss.cross_entropy_weight,
        labels: slice(labels.as_ref())?,
        ignore_index: loss.ignore_index,
        label_smoothing: loss.label_smoothing,
    };
    let (teacher_rows, student_rows) = (teacher.rows()?, student.rows()?);
    let gradients = Gradients {
        p: teacher_gradient.as_ref().map(Operand::rows_mut).transpose()?,
        q: student_gradient.as_ref().map(Operand::rows_mut).transpose()?,
    };
    let keep = reducer.keep()?;
    let row_options = reducer.options(&student, keep.as_deref(), grad_output.as_ref())?;
    let reduced = detached(py, isa, &student_rows, |execution| {
        crate::distillation(&call, &teacher_rows, &student_rows, row_options, gradients, execution)
    })?;
    reducer.wrap(py, &student, &reduced)
}

/// Σ p (ln p − ln q) over all elements, as torch has it; `scale` times the gradients.
#[pyfunction]
#[pyo3(signature = (p, ln_q, log_p, scale, p_gradient=None, q_gradient=None, isa=None))]
#[expect(clippy::too_many_arguments, reason = "one call per batch: everything crosses the boundary at once")]
pub(super) fn pointwise_kl<'py>(
    py: Python<'py>,
    p: Operand<'py>,
    ln_q: Operand<'py>,
    log_p: bool,
    scale: f64,
    p_gradient: Option<Operand<'py>>,
    q_gradient: Option<Operand<'py>>,
    isa: Option<&str>,
) -> PyResult<f64> {
    let (p_rows, q_rows) = (p.rows()?, ln_q.rows()?);
    let gradients = Gradients {
        p: p_gradient.as_ref().map(Operand::rows_mut).transpose()?,
        q: q_gradient.as_ref().map(Operand::rows_mut).transpose()?,
    };
    detached(py, isa, &p_rows, |execution| crate::pointwise_kl(&p_rows, &q_rows, log_p, scale, gradients, execution))
}

#[pyfunction]
#[pyo3(signature = (p, space, temperature, reducer, grad_output=None, gradient=None, isa=None))]
#[expect(clippy::too_many_arguments, reason = "one call per batch: everything crosses the boundary at once")]
pub(super) fn entropy<'py>(
    py: Python<'py>,
    p: Operand<'py>,
    space: Space,
    temperature: f64,
    reducer: Reducer<'py>,
    grad_output: Option<Numbers<'py, f64>>,
    gradient: Option<Operand<'py>>,
    isa: Option<&str>,
) -> PyResult<Bound<'py, PyAny>> {
    let (rows, keep) = (p.rows()?, reducer.keep()?);
    let row_options = reducer.options(&p, keep.as_deref(), grad_output.as_ref())?;
    let gradient = gradient.as_ref().map(Operand::rows_mut).transpose()?;
    let reduced = detached(py, isa, &rows, |execution| {
        crate::entropy(&rows, space, temperature, row_options, gradient, execution)
    })?;
    reducer.wrap(py, &p, &reduced)
}

#[pyfunction]
#[pyo3(signature = (z, temperature, reducer, grad_output=None, gradient=None, isa=None))]
pub(super) fn logsumexp<'py>(
    py: Python<'py>,
    z: Operand<'py>,
    temperature: f64,
    reducer: Reducer<'py>,
    grad_output: Option<Numbers<'py, f64>>,
    gradient: Option<Operand<'py>>,
    isa: Option<&str>,
) -> PyResult<Bound<'py, PyAny>> {
    let (rows, keep) = (z.rows()?, reducer.keep()?);
    let row_options = reducer.options(&z, keep.as_deref(), grad_output.as_ref())?;
    let gradient = gradient.as_ref().map(Operand::rows_mut).transpose()?;
    let reduced =
        detached(py, isa, &rows, |execution| crate::logsumexp(&rows, temperature, row_options, gradient, execution))?;
    reducer.wrap(py, &z, &reduced)
}

#[pyfunction]
#[pyo3(signature = (z, temperature, r#where, out, isa=None))]
pub(super) fn log_softmax<'py>(
    py: Python<'py>,
    z: Operand<'py>,
    temperature: f64,
    r#where: Option<Mask<'py>>,
    out: Operand<'py>,
    isa: Option<&str>,
) -> PyResult<()> {
    let (rows, keep, out) = (z.rows()?, marks(r#where.as_ref())?, out.rows_mut()?);
    detached(py, isa, &rows, |execution| crate::log_softmax(&rows, temperature, keep.as_deref(), out, execution))
}

#[pyfunction]
#[pyo3(signature = (z, labels, temperature, ignore_index, r#where, isa=None))]
pub(super) fn gather_log_probs<'py>(
    py: Python<'py>,
    z: Operand<'py>,
    labels: Numbers<'py, i64>,
    temperature: f64,
    ignore_index: Option<i64>,
    r#where: Option<Mask<'py>>,
    isa: Option<&str>,
) -> PyResult<Bound<'py, PyAny>> {
    let (rows, keep, labels) = (z.rows()?, marks(r#where.as_ref())?, labels.slice()?);
    let values = detached(py, isa, &rows, |execution| {
        crate::gather_log_probs(&rows, labels, temperature, ignore_index, keep.as_deref(), execution)
    })?;
    array_of(py, z.dtype(), &[values.len()], &values)
}

#[pyfunction]
#[pyo3(signature = (p, q, labels, extra, temperature, r#where, ignore_index=None, isa=None))]
#[expect(clippy::too_many_arguments, reason = "one call per batch: everything crosses the boundary at once")]
pub(super) fn compare<'py>(
    py: Python<'py>,
    p: Operand<'py>,
    q: Operand<'py>,
    labels: Option<Numbers<'py, i64>>,
    extra: Vec<(String, f64)>,
    temperature: f64,
    r#where: Option<Mask<'py>>,
    ignore_index: Option<i64>,
    isa: Option<&str>,
) -> PyResult<Bound<'py, PyDict>> {
    let (p_rows, q_rows) = (p.rows()?, q.rows()?);
    let (keep, labels) = (marks(r#where.as_ref())?, slice(labels.as_ref())?);
    let extra: Vec<Kind> =
        extra.iter().map(|(kind, parameter)| Kind::new(kind, *parameter)).collect::<Result<_, _>>()?;
    let comparison = detached(py, isa, &p_rows, |execution| {
        crate::compare(&p_rows, &q_rows, labels, &extra, temperature, ignore_index, keep.as_deref(), execution)
    })?;
    let dtype = if [p.dtype(), q.dtype()].contains(&Dtype::F64) { Dtype::F64 } else { Dtype::F32 };
    let column = |values: &[f64]| array_of(py, dtype, &[values.len()], values);
    let fields = PyDict::new(py);
    fields.set_item("kl", column(&comparison.kl)?)?;
    fields.set_item("reverse_kl", column(&comparison.reverse_kl)?)?;
    fields.set_item("jensen_shannon", column(&comparison.jensen_shannon)?)?;
    fields.set_item("total_variation", column(&comparison.total_variation)?)?;
    fields.set_item("entropy_p", column(&comparison.entropy_p)?)?;
    fields.set_item("entropy_q", column(&comparison.entropy_q)?)?;
    fields.set_item("top1_p", comparison.top1_p.into_pyarray(py))?;
    fields.set_item("top1_q", comparison.top1_q.into_pyarray(py))?;
    fields.set_item("confidence_p", column(&comparison.confidence_p)?)?;
    fields.set_item("confidence_q", column(&comparison.confidence_q)?)?;
    if labels.is_some() {
        fields.set_item("nll_p", column(&comparison.nll_p)?)?;
        fields.set_item("nll_q", column(&comparison.nll_q)?)?;
    }
    fields.set_item("extra", comparison.extra.iter().map(|values| column(values)).collect::<PyResult<Vec<_>>>()?)?;
    Ok(fields)
}

/// `out` has a row for each of `input`, and a column for each row of `weight`.
#[pyfunction]
#[pyo3(signature = (input, weight, out, isa=None))]
pub(super) fn linear<'py>(
    py: Python<'py>,
    input: Operand<'py>,
    weight: Operand<'py>,
    out: Operand<'py>,
    isa: Option<&str>,
) -> PyResult<()> {
    let (input, weight, out) = (input.rows()?, weight.rows()?, out.rows_mut()?);
    let elements = [out.count(), out.classes(), input.classes()].into_iter().fold(1, usize::saturating_mul);
    detached_for(py, isa, elements, |execution| crate::linear(&input, &weight, out, execution))
}

/// Reads one or two arrays, and writes one, without computing anything.
#[pyfunction]
#[pyo3(signature = (p, q=None, out=None, past_caches=false, isa=None))]
pub(super) fn stream<'py>(
    py: Python<'py>,
    p: Operand<'py>,
    q: Option<Operand<'py>>,
    out: Option<Operand<'py>>,
    past_caches: bool,
    isa: Option<&str>,
) -> PyResult<()> {
    let call = Stream {
        inputs: (p.rows()?, q.as_ref().map(Operand::rows).transpose()?),
        output: out.as_ref().map(Operand::rows_mut).transpose()?,
        past_caches,
    };
    let rows = call.inputs.0.clone();
    detached(py, isa, &rows, |execution| crate::stream(call, execution))
}
