//! The table of divergences as Python has it: named tuples, by name.

use pyo3::prelude::*;
use pyo3::types::{IntoPyDict, PyDict, PyTuple};

use crate::{Kind, Parameter};

/// Adds `DIVERGENCES` to the module, and the types of what it holds, `Divergence` and `Parameter`.
pub(super) fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    let fields = ["name", "default", "low", "high", "domain", "symmetric_at", "special"];
    let parameter_type = named_tuple(module, "Parameter", &fields)?;
    let fields = ["name", "parameter", "symmetric", "exchanged", "f_divergence", "bound"];
    let divergence_type = named_tuple(module, "Divergence", &fields)?;
    let divergences = PyDict::new(py);
    for one in Kind::DESCRIPTIONS {
        let parameter = one.parameter.map(|parameter| {
            let Parameter { name, default, low, high, domain, symmetric_at, special } = parameter;
            let special = PyTuple::new(py, special.iter().copied())?;
            parameter_type.call1((name, default, low, high, domain, symmetric_at, special))
        });
        let of = one.properties;
        let record = divergence_type.call1((
            one.name,
            parameter.transpose()?,
            of.symmetric,
            of.exchanged,
            of.f_divergence,
            of.bound,
        ))?;
        divergences.set_item(one.name, record)?;
    }
    module.add("DIVERGENCES", divergences)
}

fn named_tuple<'py>(module: &Bound<'py, PyModule>, name: &str, fields: &[&str]) -> PyResult<Bound<'py, PyAny>> {
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
