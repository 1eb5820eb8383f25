//! Every instruction set of this CPU against exact references.
#![expect(clippy::unwrap_used, reason = "tests")]

mod exact;
mod ulp;
mod vocabulary;

use super::{Isa, Kernel, Lanes, Scalar, Simd};
use crate::element::Element;

/// The number types of lanes, by bit pattern.
trait Lane: Scalar + Element + std::fmt::Debug {
    const SMALLEST_NORMAL: f64;
    const EPSILON: f64;
    fn of_bits(bits: u64) -> Self;
    fn bits(self) -> u64;
    /// Runs `kernel` with the lanes of this type.
    fn run<K: LaneKernel<Self>>(isa: Isa, kernel: K) -> K::Output;
}

/// A kernel over lanes of one number type.
trait LaneKernel<T: Lane> {
    type Output;
    fn run<V: Lanes<Scalar = T>>(self, token: V::Token) -> Self::Output;
}

struct Narrow<K>(K);
struct Wide<K>(K);

impl<K: LaneKernel<f32>> Kernel for Narrow<K> {
    type Output = K::Output;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> K::Output {
        self.0.run::<S::F32>(simd)
    }
}

impl<K: LaneKernel<f64>> Kernel for Wide<K> {
    type Output = K::Output;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> K::Output {
        self.0.run::<S::F64>(simd)
    }
}

impl Lane for f32 {
    const SMALLEST_NORMAL: f64 = f32::MIN_POSITIVE as f64;
    const EPSILON: f64 = f32::EPSILON as f64;

    fn of_bits(bits: u64) -> Self {
        f32::from_bits(bits as u32)
    }
    fn bits(self) -> u64 {
        u64::from(self.to_bits())
    }
    fn run<K: LaneKernel<f32>>(isa: Isa, kernel: K) -> K::Output {
        isa.run(Narrow(kernel))
    }
}

impl Lane for f64 {
    const SMALLEST_NORMAL: f64 = f64::MIN_POSITIVE;
    const EPSILON: f64 = f64::EPSILON;

    fn of_bits(bits: u64) -> Self {
        f64::from_bits(bits)
    }
    fn bits(self) -> u64 {
        self.to_bits()
    }
    fn run<K: LaneKernel<f64>>(isa: Isa, kernel: K) -> K::Output {
        isa.run(Wide(kernel))
    }
}

/// The value of a lane; `Scalar` and `Element` both have this method.
fn value<T: Lane>(lane: T) -> f64 {
    Element::to_f64(lane)
}

/// The lanes that hold `values`, which are as many.
fn load<V: Lanes<Scalar: Lane>>(token: V::Token, values: &[V::Scalar]) -> V {
    assert!(values.len() >= V::N);
    // SAFETY: there are `N` values of the lane type, and `DTYPE` is its tag.
    unsafe { V::load(token, values.as_ptr().cast(), V::Scalar::DTYPE) }
}

/// The lane nearest to a number.
fn nearest<T: Lane>(number: f64) -> T {
    T::from_f64(number)
}
