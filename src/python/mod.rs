//! The extension module `kldiv._kldiv`: parse, release the GIL, call, wrap.
//!
//! Private to the Python package, which checks and documents everything its users see. What belongs together is passed as
//! one object, and read by the names of its attributes, which `python/kldiv/_kldiv.pyi` states with their types.

mod arrays;
mod calls;
mod coded;
mod descriptions;
mod freed;
mod kept_sets;
mod lent;
mod pages;
mod plain;
mod results;
mod settings;
mod sparse;
mod uld;
mod xla;

use pyo3::prelude::*;

#[pymodule(gil_used = false)]
mod _kldiv {
    #[pymodule_export]
    use super::calls::{
        compare, cross_entropy, distillation, divergence, entropy, gather_log_probs, linear, log_softmax, logsumexp,
        pairwise, pointwise_kl, stream,
    };
    #[pymodule_export]
    use super::coded::{clipped_kl, decode_log_probs, encode_log_probs};
    #[pymodule_export]
    use super::descriptions::infinite_where;
    #[pymodule_export]
    use super::freed::{empty, empty_cache};
    #[pymodule_export]
    use super::kept_sets::{gather_kept_log_probs, kept_entropy, lowest_kept, sample_k, top_k};
    #[pymodule_export]
    use super::plain::{PlainCalls, plain_calls};
    #[pymodule_export]
    use super::settings::{build_info, get_num_threads, isa, set_num_threads};
    #[pymodule_export]
    use super::sparse::{check_rule, sparse_loss};
    #[pymodule_export]
    use super::uld::uld;
    #[pymodule_export]
    use super::xla::xla_handlers;

    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        super::settings::read_environment()?;
        super::freed::read_environment()?;
        super::descriptions::add(module)?;
        super::sparse::add(module)
    }
}
