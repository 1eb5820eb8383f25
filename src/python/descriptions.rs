//! The table of divergences as Python has it: named tuples, by name.

use pyo3::prelude::*;
use pyo3::types::{IntoPyDict, PyDict, PyTuple};

use crate::{Kind, Parameter, TEMPERATURE};

/// Adds `DIVERGENCES` and `TEMPERATURE` to the module, and their types, `Divergence` and `Parameter`.
pub(super) fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    named_tuple(module, "Parameter", &["name", "default", "low", "high", "smallest", "domain"])?;
    let as_tuple = |parameter| parameter_tuple(module, parameter);
    module.add("TEMPERATURE", as_tuple(TEMPERATURE)?)?;
    let fields = [
        "name",
        "parameter",
        "symmetric",
        "symmetric_at",
        "exchanged",
        "special",
        "f_divergence",
        "bound",
        "kinked",
        "detached",
    ];
    let divergence_type = named_tuple(module, "Divergence", &fields)?;
    let divergences = PyDict::new(py);
    for one in Kind::DESCRIPTIONS {
        let of = one.properties;
        let record = divergence_type.call1((
            one.name,
            one.parameter.map(as_tuple).transpose()?,
            of.symmetric,
            of.symmetric_at,
            of.exchanged,
            PyTuple::new(py, of.special.iter().copied())?,
            of.f_divergence,
            of.bound,
            of.kinked,
            of.detached,
        ))?;
        divergences.set_item(one.name, record)?;
    }
    module.add("DIVERGENCES", divergences)
}

/// A parameter as Python has it, once `Parameter` has been added to the module.
pub(super) fn parameter_tuple<'py>(module: &Bound<'py, PyModule>, parameter: Parameter) -> PyResult<Bound<'py, PyAny>> {
    let Parameter { name, default, low, high, smallest, domain } = parameter;
    module.getattr("Parameter")?.call1((name, default, low, high, smallest, domain))
}

pub(super) fn named_tuple<'py>(
    module: &Bound<'py, PyModule>,
    name: &str,
    fields: &[&str],
) -> PyResult<Bound<'py, PyAny>> {
    let py = module.py();
    let options = [("module", "kldiv._kldiv")].into_py_dict(py)?;
    let made = py.import("collections")?.getattr("namedtuple")?.call((name, fields), Some(&options))?;
    module.add(name, &made)?;
    Ok(made)
}

/// Whether a class with p > 0 = q, and one with q > 0 = p, makes a divergence infinite.
#[pyfunction]
pub(super) fn infinite_where(kind: &str, parameter: f64) -> PyResult<(bool, bool)> {
    Ok(Kind::new(kind, parameter)?.infinite_where()?)
}
