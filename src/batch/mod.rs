//! The functions of the crate over whole batches, one file each: check, run the row algorithm, reduce.

mod coded;
mod comparison;
mod cross_entropy;
mod distillation;
mod divergence;
mod kept_rows;
mod kept_sets;
mod linear;
mod pairwise;
mod pointwise;
mod softmax;
mod sparse;
mod stream;
mod top_k;
mod uld;

pub use coded::{ClippedKl, clipped_kl, decode_log_probs, encode_log_probs};
pub use comparison::{Comparison, compare};
pub use cross_entropy::{CrossEntropy, Targets, cross_entropy};
pub use distillation::{Distillation, distillation};
pub use divergence::{Gradients, PairOfRows, TEMPERATURE, divergence};
pub use kept_sets::{KeptSets, gather_kept_log_probs, kept_entropy, lowest_kept};
pub use linear::linear;
pub use pairwise::{Side, pairwise};
pub use pointwise::pointwise_kl;
pub use softmax::{entropy, gather_log_probs, log_softmax, logsumexp};
pub use sparse::{SparseLoss, SparseTeacher, sparse_loss};
pub use stream::{Stream, stream};
pub use top_k::{RowClasses, Sampling, sample_k, top_k};
pub use uld::{SharedClasses, uld};
