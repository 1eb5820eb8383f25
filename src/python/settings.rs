//! Threads, instruction set, and what was built.

use std::sync::OnceLock;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::Isa;

static ISA: OnceLock<Isa> = OnceLock::new();

/// The instruction set of calls that do not name one.
pub(super) fn default_isa() -> Isa {
    *ISA.get_or_init(Isa::detect)
}

/// Applies `KLDIV_ISA` and `KLDIV_NUM_THREADS`, once, when the module is imported.
pub(super) fn read_environment() -> PyResult<()> {
    if let Ok(name) = std::env::var("KLDIV_ISA") {
        let isa = Isa::by_name(&name).ok_or_else(|| {
            let available: Vec<_> = Isa::available().map(Isa::name).collect();
            PyValueError::new_err(format!("KLDIV_ISA={name:?}: this CPU has {}", available.join(", ")))
        })?;
        ISA.get_or_init(|| isa);
    }
    if let Ok(count) = std::env::var("KLDIV_NUM_THREADS") {
        let refused =
            || PyValueError::new_err(format!("KLDIV_NUM_THREADS={count:?}: expected an integer from 1 to 256"));
        crate::set_num_threads(count.parse().map_err(|_| refused())?).map_err(|_| refused())?;
    }
    Ok(())
}

/// Set the number of threads of this process; results do not depend on it, to the last bit.
///
/// Raises `ValueError` unless 1 <= n <= 256. The environment variable ``KLDIV_NUM_THREADS`` sets it at import; without
/// either it is the number of CPUs available to the process.
#[pyfunction]
pub(super) fn set_num_threads(n: i64) -> PyResult<()> {
    let count = usize::try_from(n).map_err(|_| crate::threads::no_number_of_threads(n as f64))?;
    Ok(crate::set_num_threads(count)?)
}

/// Return the number of threads of this process.
#[pyfunction]
pub(super) fn get_num_threads() -> usize {
    crate::num_threads()
}

/// Return the instruction set in use: "avx512", "avx2" or "portable".
///
/// The fastest one of this CPU, or the one named by the environment variable ``KLDIV_ISA`` when kldiv is imported.
#[pyfunction]
pub(super) fn isa() -> &'static str {
    default_isa().name()
}

/// Return the version, the target, whether the build is optimised, and this CPU's instruction sets.
#[pyfunction]
pub(super) fn build_info(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let info = PyDict::new(py);
    info.set_item("version", env!("CARGO_PKG_VERSION"))?;
    info.set_item("target", format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS))?;
    info.set_item("optimized", !cfg!(debug_assertions))?;
    info.set_item("isas", Isa::available().map(Isa::name).collect::<Vec<_>>())?;
    Ok(info)
}
