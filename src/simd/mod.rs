//! The vector vocabulary: every kernel is written once over [`Lanes`] and compiled for each instruction set.
//!
//! * [`avx512`], [`avx2`] and [`portable`] implement it, a folder for each instruction set.
//! * [`isa`] finds out at run time which of them this CPU has, and runs a [`Kernel`] on it.
//! * [`exp`] and [`ln`] are the elementary functions, written over the vocabulary; [`polynomial`] is for others; `tables` has their numbers.
//!
//! A token (a value of a type that implements [`Simd`]) proves that the CPU has the feature: only detection
//! makes one, and a vector can only be made from a token. Therefore operations on vectors are safe to call, and
//! kernels contain no `unsafe`. Operations are `#[inline(always)]`, so that they become single instructions in
//! the one `#[target_feature]` function per instruction set, [`Simd::vectorize`].

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
pub(crate) mod exp;
pub(crate) mod isa;
pub(crate) mod ln;
pub(crate) mod polynomial;
pub(crate) mod portable;
mod tables;
#[cfg(test)]
mod tests;
mod vector;

pub use isa::Isa;
pub(crate) use vector::{Kernel, LaneKernel, Lanes, MAX_LANES, Narrow, Part, RUN, Scalar, Simd, Total, Wide};
