//! What is done to one row: statistics first, then values and gradients, block by block.
//!
//! * [`scan`]: largest and smallest element, validity.
//! * [`softmax`]: log-sum-exp of one row, and what is written from it.
//! * [`pair`]: two rows seen class by class, with the accuracy that close rows need.
//! * [`close`]: KL of two rows that have much in common, in one pass; [`close_gradients`]: its gradients.
//! * [`known`]: kernels over two rows of one dtype.
//! * [`outlook`]: what some of the largest classes tell about a block.
//! * [`far`]: KL of two rows that have little in common, in one pass.
//! * [`disjoint`]: the loops of the other divergences over such rows.
//! * [`first_pass`]: the statistics of two rows.
//! * [`given`]: KL of two rows of probabilities.
//! * [`divergence`]: value and gradients of a divergence of two rows; [`second_pass`]: its loops over the classes;
//!   [`gradient_writer`]: the gradient in the space of what was passed.
//! * [`cross_entropy`]: cross-entropy with a class index or a distribution.
//! * [`distillation`]: a divergence and cross-entropy of one student.
//! * [`pointwise`]: KL element by element, as torch has it.
//! * [`entropy`]: entropy of one row.
//! * [`comparison`]: everything about two rows at once.
//! * [`write`](mod@write): writing a row of results.

mod close;
mod close_gradients;
pub(crate) mod comparison;
pub(crate) mod cross_entropy;
pub(crate) mod disjoint;
pub(crate) mod distillation;
pub(crate) mod divergence;
pub(crate) mod entropy;
mod far;
mod first_pass;
mod given;
mod gradient_writer;
mod known;
mod outlook;
pub(crate) mod pair;
pub(crate) mod pointwise;
pub(crate) mod scan;
mod second_pass;
pub(crate) mod softmax;
pub(crate) mod space;
pub(crate) mod write;
