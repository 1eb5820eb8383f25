//! The extension module `kldiv._kldiv`: parse, release the GIL, call, wrap.
//!
//! Private to the Python package, which checks and documents everything its users see. An array is passed as a pair
//! (array with unit stride on its last axis, name of its dtype).

mod arrays;
mod calls;
mod descriptions;
mod results;
mod settings;

use pyo3::prelude::*;

#[pymodule]
mod _kldiv {
    #[pymodule_export]
    use super::calls::{
        compare, cross_entropy, distillation, divergence, entropy, gather_log_probs, log_softmax, logsumexp,
        pointwise_kl, stream,
    };
    #[pymodule_export]
    use super::descriptions::infinite_where;
    #[pymodule_export]
    use super::settings::{build_info, get_num_threads, isa, set_num_threads};

    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        super::settings::read_environment()?;
        super::descriptions::add(module)
    }
}
