//! What is done to a batch: rows to threads, and the functions of the crate over whole batches.
//!
//! * [`driver`] runs a function over rows: rows in parallel, or the blocks of one wide row.
//! * The other files each hold one function of the crate: check, run the row algorithm, reduce.

mod comparison;
mod cross_entropy;
mod distillation;
mod divergence;
mod driver;
mod pointwise;
mod softmax;
mod stream;

pub use comparison::{Comparison, compare};
pub use cross_entropy::{CrossEntropy, Targets, cross_entropy};
pub use distillation::{Distillation, distillation};
pub use divergence::{Gradients, PairOfRows, divergence};
pub use driver::Execution;
pub(crate) use driver::{BLOCK, Blocks};
pub use pointwise::pointwise_kl;
pub use softmax::{entropy, gather_log_probs, log_softmax, logsumexp};
pub use stream::{Stream, stream};
