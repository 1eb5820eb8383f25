//! The choice of instruction set at run time: one enum, one detection, one match.

use super::portable::Portable;
use super::vector::{Kernel, LaneKernel, Narrow, Simd, Wide};
#[cfg(target_arch = "x86_64")]
use super::{avx2::Avx2, avx512::Avx512};

#[derive(Clone, Copy, Debug)]
enum Token {
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    Portable(Portable),
}

/// An instruction set that this CPU has.
#[derive(Clone, Copy, Debug)]
pub struct Isa(Token);

impl Isa {
    /// The names of all instruction sets with kernels of their own, fastest first.
    pub const NAMES: [&'static str; 3] = ["avx512", "avx2", "portable"];

    /// The instruction set called `name`, or `None` where this CPU does not have it.
    pub fn by_name(name: &str) -> Option<Self> {
        match name {
            #[cfg(target_arch = "x86_64")]
            "avx512" => Avx512::detect().map(|token| Isa(Token::Avx512(token))),
            #[cfg(target_arch = "x86_64")]
            "avx2" => Avx2::detect().map(|token| Isa(Token::Avx2(token))),
            "portable" => Some(Isa(Token::Portable(Portable))),
            _ => None,
        }
    }

    /// Every instruction set of this CPU, fastest first.
    pub fn available() -> impl Iterator<Item = Self> {
        Self::NAMES.into_iter().filter_map(Self::by_name)
    }

    /// The fastest instruction set of this CPU.
    pub fn detect() -> Self {
        Self::available().next().unwrap_or(Isa(Token::Portable(Portable)))
    }

    /// Its name, one of [`Isa::NAMES`].
    pub fn name(self) -> &'static str {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Token::Avx512(_) => "avx512",
            #[cfg(target_arch = "x86_64")]
            Token::Avx2(_) => "avx2",
            Token::Portable(_) => "portable",
        }
    }

    /// Runs `kernel` in f64 lanes if `wide`, else in f32 lanes.
    #[inline]
    pub(crate) fn run_lanes<K: LaneKernel>(self, wide: bool, kernel: K) -> K::Output {
        if wide { self.run(Wide(kernel)) } else { self.run(Narrow(kernel)) }
    }

    /// Runs `kernel` compiled for this instruction set.
    #[inline]
    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Token::Avx512(token) => token.vectorize(kernel),
            #[cfg(target_arch = "x86_64")]
            Token::Avx2(token) => token.vectorize(kernel),
            Token::Portable(token) => token.vectorize(kernel),
        }
    }
}
