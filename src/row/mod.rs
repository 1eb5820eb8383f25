//! What is done to one row: statistics first, then values and gradients, block by block.
//!
//! * [`distribution`]: one row as a distribution; [`pair`]: two rows seen class by class.
//! * [`kl`]: KL of two rows in one pass, each file for another kind of rows.
//! * [`divergence`]: value and gradients of any divergence of two rows.
//! * [`pairwise`]: a divergence of each of some rows from each of others.
//! * [`cross_entropy`], [`entropy`], [`distillation`], [`comparison`]: the other functions of the crate.
//! * [`sparse`]: losses of teachers of which only some classes are known.
//! * [`top_k`]: the most probable classes of a row; [`sample`]: classes drawn from it, by the numbers of [`random`];
//!   [`kept_set`]: a row of some of its classes.
//! * [`uld`]: rows of different vocabularies.
//! * [`coded`]: rows of 16 bits a class; [`clipped_kl`]: KL as llama.cpp computes it of them.
//! * [`gradients`]: where gradients go; [`runs`]: the loop over the vectors of blocks.
//! * [`two_floats`]: numbers with twice the precision.

pub(crate) mod clipped_kl;
pub(crate) mod coded;
pub(crate) mod comparison;
pub(crate) mod cross_entropy;
pub(crate) mod distillation;
pub(crate) mod distribution;
pub(crate) mod divergence;
pub(crate) mod entropy;
pub(crate) mod gradients;
pub(crate) mod kept_set;
pub(crate) mod kl;
mod pair;
pub(crate) mod pairwise;
mod random;
pub(crate) mod runs;
pub(crate) mod sample;
mod scratch;
pub(crate) mod sparse;
pub(crate) mod top_k;
mod two_floats;
pub(crate) mod uld;
