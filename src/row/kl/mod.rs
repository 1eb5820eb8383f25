//! KL of two rows in one pass over them.
//!
//! * [`far`]: rows of logits that have little in common, by plain sums; [`difference`]: the gradient q − p from what they keep.
//! * [`close`]: rows of logits that have much in common; [`close_sums`]: its loop; [`close_gradients`]: its gradients; [`outlook`]: what some of the
//!   largest classes tell about a block; [`mean`]: what the gradient of p is relative to, where it is far smaller than that.
//! * [`probabilities`]: rows of probabilities taken as given.
//! * [`pointwise`]: element by element, as torch has it.

pub(crate) mod close;
mod close_gradients;
mod close_sums;
mod difference;
pub(crate) mod far;
mod mean;
mod outlook;
pub(crate) mod pointwise;
pub(crate) mod probabilities;
