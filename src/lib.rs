//! Batched KL divergence, cross-entropy and their relatives, with gradients, straight from logits.
//!
//! Rows are categorical distributions over up to hundreds of thousands of classes, given as logits, log-probabilities
//! or probabilities in f64, f32, f16 or bf16. Every function reads each row from memory once, runs on all threads,
//! and gives the same bits for any number of them. Everything is in nats.
//!
//! ```
//! use kldiv::{Execution, Gradients, Kind, PairOfRows, Reduction, RowOptions, Rows, RowsMut, divergence};
//!
//! fn main() -> Result<(), kldiv::Error> {
//!     let teacher = [1.0_f32, 2.0, 0.5, -1.0, 0.0, 3.0];
//!     let student = [0.9_f32, 2.1, 0.5, -1.0, 0.5, 2.0];
//!     let pair = PairOfRows::logits(Rows::new(&teacher, 3)?, Rows::new(&student, 3)?);
//!     let mut gradient = [0.0_f32; 6];
//!     let outputs = Gradients { q: Some(RowsMut::new(&mut gradient, 3)?), ..Gradients::default() };
//!     let options = RowOptions { reduction: Reduction::Mean, ..RowOptions::default() };
//!
//!     let kl = divergence(Kind::Kl, &pair, options, outputs, &Execution::default())?;
//!
//!     println!("{:?} {gradient:?}", kl.result);
//!     assert!((kl.result.unwrap() - 0.045_892_4).abs() < 1e-6);
//!     assert!(gradient[..3].iter().sum::<f32>().abs() < 1e-6);
//!     Ok(())
//! }
//! ```
//!
//! # Arrays
//!
//! With the feature `ndarray`, [`Rows`] and [`RowsMut`] are made of the arrays of that crate, of any number of axes, of which
//! the last is that of the classes; slices and reversed arrays are read and written where they are. [`Rows::array_of`] gives
//! values the shape of the batch.
//!
#![cfg_attr(feature = "ndarray", doc = "```")]
#![cfg_attr(not(feature = "ndarray"), doc = "```ignore")]
//! use kldiv::{Execution, Gradients, Kind, PairOfRows, RowOptions, Rows, RowsMut, divergence};
//! use ndarray::{Array2, array, s};
//!
//! fn main() -> Result<(), kldiv::Error> {
//!     let teacher = array![[1.0_f32, 2.0, 0.5, 9.0], [-1.0, 0.0, 3.0, 9.0]];
//!     let student = array![[0.9_f32, 2.1, 0.5], [-1.0, 0.5, 2.0]];
//!     // The fourth column is padding: rows are a slice of wider ones.
//!     let pair = PairOfRows::logits(Rows::try_from(teacher.slice(s![.., ..3]))?, Rows::try_from(&student)?);
//!     let mut gradient = Array2::<f32>::zeros(student.dim());
//!     let outputs = Gradients { q: Some(RowsMut::try_from(&mut gradient)?), ..Gradients::default() };
//!
//!     let kl = divergence(Kind::Kl, &pair, RowOptions::default(), outputs, &Execution::default())?;
//!
//!     let kl = pair.rows.1.array_of(kl.rows)?;
//!     println!("{kl} {gradient}");
//!     assert!((kl.sum() - 2.0 * 0.045_892_4).abs() < 1e-6);
//!     assert!(gradient.row(0).sum().abs() < 1e-6);
//!     Ok(())
//! }
//! ```
//!
//! The Python package of the same name is this crate built with the feature `python`.

mod batch;
mod divergence;
mod element;
mod error;
mod memory;
#[cfg(feature = "python")]
mod python;
mod reduction;
mod row;
mod rows;
mod simd;
mod threads;

pub use batch::{
    ClippedKl, Comparison, CrossEntropy, Distillation, Gradients, KeptSets, PairOfRows, RowClasses, Sampling,
    SharedClasses, Side, SparseLoss, SparseTeacher, Stream, TEMPERATURE, Targets, clipped_kl, compare, cross_entropy,
    decode_log_probs, distillation, divergence, encode_log_probs, entropy, gather_kept_log_probs, gather_log_probs,
    kept_entropy, linear, log_softmax, logsumexp, lowest_kept, pairwise, pointwise_kl, sample_k, sparse_loss, stream,
    top_k, uld,
};
pub use divergence::{Description, Kind, Parameter, Properties};
pub use element::{Dtype, Element};
pub use error::Error;
pub use reduction::{Reduced, Reduction, RowOptions};
pub use row::coded::Coding;
pub use row::distribution::Space;
pub use row::kept_set::Truncation;
pub use row::sparse::{Rule, RuleDescription};
pub use rows::{Rows, RowsMut};
pub use simd::Isa;
pub use threads::{Execution, MAX_THREADS, num_threads, set_num_threads};
