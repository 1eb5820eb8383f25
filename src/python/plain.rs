//! Plain calls: few rows in whole arrays or tensors, and options that are numbers or names.
//!
//! What is around the rows takes such a call longer than the rows. Python makes objects of all arguments, so that what they
//! may be is checked in one place; here they are only recognised. A call that is not plain for any reason is declined, and so
//! is one that fails: Python makes it then, with its conversions, warnings and errors.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyFloat, PyInt, PyString, PyTuple};

use super::arrays::wrap;
use super::calls::ATTACHED;
use super::lent::{Lender, Lent};
use super::results::empty;
use super::settings::default_isa;
use crate::{
    CrossEntropy, Description, Dtype, Error, Execution, Gradients, Kind, PairOfRows, Reduced, Reduction, RowOptions,
    Rows, RowsMut, Space, Targets,
};

/// Rows × classes of the first argument up to which a call is plain, unless it is float64: it keeps the GIL, so that
/// nobody resizes what is lent. A free-threaded Python makes no plain calls (`python/kldiv/_requests/gradients.py`).
const ATTACHED_NARROW: usize = 1 << 13;

/// The plain calls of a function of rows.
#[pyclass(frozen, module = "kldiv._kldiv")]
pub(super) struct PlainCalls {
    loss: Loss,
    /// The options of the function, with what each is unless it is given.
    defaults: Py<PyDict>,
    options: Options,
}

#[derive(Clone, Copy)]
enum Loss {
    CrossEntropy,
    Divergence(&'static Description),
    Entropy,
    LogSumExp,
}

/// What an option of a plain call can be beside its default.
#[derive(Clone, Copy)]
struct Options {
    temperature: f64,
    reduction: Reduction,
    ignore_index: Option<i64>,
    /// That of the divergence; `None` where one must be given.
    parameter: Option<f64>,
}

impl Options {
    /// Takes an option; `None` of one that has to be looked at by Python.
    fn take(&mut self, loss: Loss, name: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> Option<()> {
        let float = || value.cast_exact::<PyFloat>().ok().map(PyFloatMethods::value);
        let parameter = match loss {
            Loss::Divergence(described) => described.parameter.map(|parameter| parameter.name),
            _ => None,
        };
        match name.cast_exact::<PyString>().ok()?.to_str().ok()? {
            "temperature" => self.temperature = float()?,
            "reduction" => {
                let name = value.cast_exact::<PyString>().ok()?;
                self.reduction = Reduction::from_name(name.to_str().ok()?).ok()?;
            }
            "ignore_index" if value.is_none() => self.ignore_index = None,
            "ignore_index" => self.ignore_index = Some(value.cast_exact::<PyInt>().ok()?.extract().ok()?),
            name if parameter == Some(name) => self.parameter = Some(float()?),
            _ => return None,
        }
        Some(())
    }
}

/// The plain calls of the function of a name, whose keywords have these defaults; `None` for one that has none.
#[pyfunction]
pub(super) fn plain_calls(name: &str, defaults: &Bound<'_, PyDict>) -> Option<PlainCalls> {
    let loss = match name {
        "cross_entropy" => Loss::CrossEntropy,
        "entropy" => Loss::Entropy,
        "logsumexp" => Loss::LogSumExp,
        _ => Loss::Divergence(Kind::DESCRIPTIONS.iter().find(|one| one.name == name)?),
    };
    let parameter = match loss {
        Loss::Divergence(described) if described.parameter.is_some() => None,
        _ => Some(0.0),
    };
    let mut options = Options { temperature: 1.0, reduction: Reduction::None, ignore_index: None, parameter };
    for (name, value) in defaults {
        // What is not taken is plain as it is.
        let _ = options.take(loss, &name, &value);
    }
    Some(PlainCalls { loss, defaults: defaults.clone().unbind(), options })
}

#[pymethods]
impl PlainCalls {
    /// The value; `None` of a call that is not plain.
    fn value<'py>(
        &self,
        py: Python<'py>,
        arguments: &Bound<'py, PyTuple>,
        options: &Bound<'py, PyDict>,
    ) -> Option<Bound<'py, PyAny>> {
        self.call(py, arguments, options, Lender::Any, false).map(|(value, _)| value)
    }

    /// The same, which declines arrays.
    fn value_of_tensors<'py>(
        &self,
        py: Python<'py>,
        arguments: &Bound<'py, PyTuple>,
        options: &Bound<'py, PyDict>,
    ) -> Option<Bound<'py, PyAny>> {
        self.call(py, arguments, options, Lender::Tensor, false).map(|(value, _)| value)
    }

    /// The value, and the gradient in new memory; `None` of a call that is not plain.
    fn value_and_grad<'py>(
        &self,
        py: Python<'py>,
        arguments: &Bound<'py, PyTuple>,
        options: &Bound<'py, PyDict>,
    ) -> Option<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
        let (value, gradient) = self.call(py, arguments, options, Lender::Any, true)?;
        Some((value, gradient?))
    }
}

type Found<'py> = (Bound<'py, PyAny>, Option<Bound<'py, PyAny>>);

impl PlainCalls {
    fn call<'py>(
        &self,
        py: Python<'py>,
        arguments: &Bound<'py, PyTuple>,
        given: &Bound<'py, PyDict>,
        from: Lender,
        with_gradient: bool,
    ) -> Option<Found<'py>> {
        let options = self.options(py, given)?;
        let count = if matches!(self.loss, Loss::Entropy | Loss::LogSumExp) { 1 } else { 2 };
        if arguments.len() != count {
            return None;
        }
        let first = arguments.get_borrowed_item(0).ok()?;
        let first = Lent::of(&first, from)?;
        let second = if count == 2 { Some(arguments.get_borrowed_item(1).ok()?) } else { None };
        let second = match &second {
            Some(second) => Some(Lent::of(second, from)?),
            None => None,
        };
        let first_rows = first.rows()?;
        let most = if first_rows.dtype() == Dtype::F64 { ATTACHED } else { ATTACHED_NARROW };
        if first_rows.count().checked_mul(first_rows.classes())? > most || may_be_probabilities(&first_rows) {
            return None;
        }
        let (_, batch_shape) = first.shape().split_last()?;
        if options.reduction == Reduction::BatchMean && batch_shape.is_empty() {
            return None;
        }
        let row_options = RowOptions {
            reduction: options.reduction,
            batch: batch_shape.first().copied().unwrap_or(1),
            ..RowOptions::default()
        };
        let execution = Execution { isa: default_isa(), threads: crate::num_threads(), interrupted: &|| false };
        let second_rows = match self.loss {
            Loss::Divergence(_) => {
                let second = second.as_ref()?;
                let rows = second.rows()?;
                if first.shape() != second.shape() || may_be_probabilities(&rows) {
                    return None;
                }
                Some(rows)
            }
            _ => None,
        };
        let wide = |rows: &Rows<'_>| rows.dtype() == Dtype::F64;
        let dtype = if wide(&first_rows) || second_rows.as_ref().is_some_and(wide) { Dtype::F64 } else { Dtype::F32 };
        let gradient = if with_gradient { Some(empty(py, dtype, first.shape()).ok()?) } else { None };
        let out = gradient.as_ref().map(|array| output(array, dtype, &first_rows)).transpose().ok()?;
        let reduced = match self.loss {
            Loss::CrossEntropy => {
                let labels = second.as_ref().filter(|labels| labels.shape() == batch_shape)?.labels()?;
                let loss = CrossEntropy {
                    temperature: options.temperature,
                    ignore_index: options.ignore_index,
                    ..CrossEntropy::default()
                };
                crate::cross_entropy(&loss, &first_rows, &Targets::Classes(labels), row_options, out, None, &execution)
            }
            Loss::Divergence(described) => {
                let kind = Kind::new(described.name, options.parameter?).ok()?;
                let pair = PairOfRows {
                    rows: (first_rows, second_rows?),
                    spaces: (Space::Logits, Space::Logits),
                    temperatures: (options.temperature, options.temperature),
                };
                crate::divergence(kind, &pair, row_options, Gradients { p: None, q: out }, &execution)
            }
            Loss::Entropy => {
                crate::entropy(&first_rows, Space::Logits, options.temperature, row_options, out, &execution)
            }
            Loss::LogSumExp => crate::logsumexp(&first_rows, options.temperature, row_options, out, &execution),
        };
        let reduced: Reduced = reduced.ok()?;
        Some((wrap(py, dtype, batch_shape, &reduced).ok()?, gradient))
    }

    fn options(&self, py: Python<'_>, given: &Bound<'_, PyDict>) -> Option<Options> {
        let mut options = self.options;
        for (name, value) in given {
            if options.take(self.loss, &name, &value).is_none() {
                let default = self.defaults.bind(py).get_item(&name).ok()??;
                if !default.is(&value) {
                    return None;
                }
            }
        }
        Some(options)
    }
}

/// Whether the first numbers of some logits are such as probabilities are, of which Python warns.
fn may_be_probabilities(rows: &Rows<'_>) -> bool {
    let first = rows.row(0);
    (0..first.classes().min(8)).all(|class| (0.0..=1.0).contains(&first.get(class)))
}

/// A new array of the shape of `rows`, to write.
fn output<'a>(array: &'a Bound<'_, PyAny>, dtype: Dtype, rows: &Rows<'_>) -> Result<RowsMut<'a>, Error> {
    let (count, classes) = (rows.count(), rows.classes());
    // SAFETY: NumPy made the array in C order with as many elements of this dtype, and nobody else knows it yet.
    unsafe {
        RowsMut::from_raw_parts(
            super::results::data(array),
            dtype,
            classes,
            &[count],
            &[(classes * dtype.size()) as isize],
            "out",
        )
    }
}
