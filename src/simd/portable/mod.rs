//! Any CPU: arrays of f32 or half as many f64, which the compiler turns into whatever vectors the build target has (64-bit
//! Arm's included).

mod scalar;

use std::ops::{Add, Div, Mul, Neg, Sub};

use half::{bf16, f16};

use super::tables::{EXP2_WHOLE, EXP2_WIDE, LN_WHOLE, WIDE_GRID};
use super::vector::{Kernel, Lanes, MAX_LANES, Part, Simd, ln_step_without_table};
use crate::element::{Dtype, Element};
use scalar::{Float, HARDWARE_FMA};

/// Needs no proof: every CPU runs it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Portable;

impl Simd for Portable {
    type F32 = Array<f32, { 2 * WIDE_LANES }>;
    type F64 = Array<f64, WIDE_LANES>;

    #[inline(always)]
    fn prefetch(self, _: *const u8) {}

    #[inline(always)]
    fn fence(self) {}

    // Never inlined, as on the other instruction sets: a copy in every caller is 0.9 MB of code and an eighth of the build.
    #[inline(never)]
    fn vectorize<K: Kernel>(self, kernel: K) -> K::Output {
        kernel.run(self)
    }

    #[cold]
    #[inline(never)]
    fn apart<V: Lanes<Token = Self>, P: Part<V>>(self, part: P) -> P::Output {
        part.run(self)
    }
}

/// Two vectors of most build targets, whose latencies hide each other. On x86-64, whose CPUs run this where they have no AVX2,
/// one: half the code.
const WIDE_LANES: usize = if cfg!(target_arch = "x86_64") { 2 } else { 4 };

/// `N` lanes side by side.
#[derive(Clone, Copy)]
pub(crate) struct Array<T, const N: usize>([T; N]);

impl<T: Float, const N: usize> Array<T, N> {
    #[inline(always)]
    fn map(self, f: impl Fn(T) -> T) -> Self {
        Array(self.0.map(f))
    }
    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(T, T) -> T) -> Self {
        Array(std::array::from_fn(|i| f(self.0[i], other.0[i])))
    }
    #[inline(always)]
    fn fused(self, b: Self, c: Self) -> Self {
        Array(std::array::from_fn(|i| self.0[i].fused(b.0[i], c.0[i])))
    }
    #[inline(never)]
    fn fused_by_call(self, b: Self, c: Self) -> Self {
        self.fused(b, c)
    }
    /// # Safety
    /// As for [`Lanes::load`].
    #[inline(always)]
    unsafe fn read(data: *const u8, dtype: Dtype) -> Self {
        // SAFETY: the caller's.
        Array(unsafe {
            match dtype {
                Dtype::F64 => read::<f64, T, N>(data),
                Dtype::F32 => read::<f32, T, N>(data),
                Dtype::F16 => read::<f16, T, N>(data),
                Dtype::Bf16 => read::<bf16, T, N>(data),
            }
        })
    }
    /// # Safety
    /// As for [`Lanes::load`].
    #[inline(never)]
    unsafe fn read_by_call(data: *const u8, dtype: Dtype) -> Self {
        // SAFETY: the caller's.
        unsafe { Self::read(data, dtype) }
    }
    /// # Safety
    /// As for [`Lanes::store`].
    #[inline(always)]
    unsafe fn write(self, data: *mut u8, dtype: Dtype) {
        // SAFETY: the caller's.
        unsafe {
            match dtype {
                Dtype::F64 => write::<f64, T, N>(self.0, data),
                Dtype::F32 => write::<f32, T, N>(self.0, data),
                Dtype::F16 => write::<f16, T, N>(self.0, data),
                Dtype::Bf16 => write::<bf16, T, N>(self.0, data),
            }
        }
    }
    /// # Safety
    /// As for [`Lanes::store`].
    #[inline(never)]
    unsafe fn write_by_call(self, data: *mut u8, dtype: Dtype) {
        // SAFETY: the caller's.
        unsafe { self.write(data, dtype) }
    }
    #[inline(always)]
    fn compare(self, other: Self, f: impl Fn(T, T) -> bool) -> [bool; N] {
        // Not `from_fn`, which is a call at times.
        let mut mask = [false; N];
        for (lane, (&a, &b)) in mask.iter_mut().zip(self.0.iter().zip(&other.0)) {
            *lane = f(a, b);
        }
        mask
    }
}

impl<T: Float, const N: usize> Add for Array<T, N> {
    type Output = Self;
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }
}

impl<T: Float, const N: usize> Sub for Array<T, N> {
    type Output = Self;
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }
}

impl<T: Float, const N: usize> Mul for Array<T, N> {
    type Output = Self;
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }
}

impl<T: Float, const N: usize> Div for Array<T, N> {
    type Output = Self;
    #[inline(always)]
    fn div(self, other: Self) -> Self {
        self.zip(other, |a, b| a / b)
    }
}

impl<T: Float, const N: usize> Neg for Array<T, N> {
    type Output = Self;
    #[inline(always)]
    fn neg(self) -> Self {
        self.map(|a| -a)
    }
}

/// `N` elements of type `E`, converted to `T` through f64 (which holds every element exactly).
///
/// # Safety
/// `data` is valid for reads of `N` elements.
#[inline(always)]
unsafe fn read<E: Element, T: Float, const N: usize>(data: *const u8) -> [T; N] {
    // SAFETY: the caller's; the read is unaligned.
    let elements = unsafe { data.cast::<[E; N]>().read_unaligned() };
    elements.map(|element| T::from_f64(element.to_f64()))
}

/// # Safety
/// `data` is valid for writes of `N` elements.
#[inline(always)]
unsafe fn write<E: Element, T: Float, const N: usize>(lanes: [T; N], data: *mut u8) {
    let elements = lanes.map(|lane| E::from_f64(lane.to_f64()));
    // SAFETY: the caller's; the write is unaligned.
    unsafe { data.cast::<[E; N]>().write_unaligned(elements) };
}

impl<T: Float, const N: usize> Lanes for Array<T, N>
where
    Portable: Simd,
{
    type Token = Portable;
    type Scalar = T;
    type Mask = [bool; N];
    type Wide = Array<f64, WIDE_LANES>;
    type Powers = Self;
    type Logarithms = ();
    const N: usize = N;
    const HAS_SHORT_CUTS: bool = HARDWARE_FMA;
    const EXP2: &'static [f64] = if T::WIDE { EXP2_WIDE } else { EXP2_WHOLE };
    const LN_STEP: &'static [f64] = LN_WHOLE;

    #[inline(always)]
    fn splat(_: Portable, value: f64) -> Self {
        Array([T::from_f64(value); N])
    }
    #[inline(always)]
    unsafe fn load(_: Portable, data: *const u8, dtype: Dtype) -> Self {
        // SAFETY: the caller's.
        unsafe {
            if dtype == T::DTYPE {
                Array(data.cast::<[T; N]>().read_unaligned())
            } else if HARDWARE_FMA {
                Self::read(data, dtype)
            } else {
                Self::read_by_call(data, dtype)
            }
        }
    }
    #[inline(always)]
    unsafe fn store(self, data: *mut u8, dtype: Dtype) {
        // SAFETY: the caller's.
        unsafe {
            if dtype == T::DTYPE {
                data.cast::<[T; N]>().write_unaligned(self.0);
            } else if HARDWARE_FMA {
                self.write(data, dtype);
            } else {
                self.write_by_call(data, dtype);
            }
        }
    }
    #[inline(always)]
    unsafe fn store_past_caches(self, data: *mut u8, dtype: Dtype) {
        // SAFETY: the caller's.
        unsafe { self.store(data, dtype) }
    }
    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        if HARDWARE_FMA { self.fused(b, c) } else { self.fused_by_call(b, c) }
    }
    #[inline(always)]
    fn mul_add_relaxed(self, b: Self, c: Self) -> Self {
        if HARDWARE_FMA { self.mul_add(b, c) } else { self * b + c }
    }
    #[inline(always)]
    fn divide_relaxed(self, divisor: Self) -> Self {
        self / divisor
    }
    #[inline(always)]
    fn exponent(self) -> Self {
        self.map(Float::exponent)
    }
    #[inline(always)]
    fn abs(self) -> Self {
        self.map(Float::abs)
    }
    #[inline(always)]
    fn copysign(self, sign: Self) -> Self {
        self.zip(sign, Float::copysign)
    }
    #[inline(always)]
    fn min(self, other: Self) -> Self {
        self.zip(other, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        self.zip(other, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn round(self) -> Self {
        self.map(Float::round)
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        self.map(Float::sqrt)
    }
    #[inline(always)]
    fn scale(self, n: Self) -> Self {
        self.zip(n, |a, n| a * T::power_of_two(n))
    }
    #[inline(always)]
    fn powers(token: Portable, weight: f64) -> Self {
        Self::splat(token, weight)
    }
    #[inline(always)]
    fn grid() -> f64 {
        if T::WIDE { WIDE_GRID } else { 12_582_912.0 } // 1.5·2^52 and 1.5·2^23, where a unit in the last place is 1
    }
    #[inline(always)]
    fn power(self, token: Portable, powers: Self) -> Self {
        powers.scale(self - Self::splat(token, Self::grid()))
    }
    #[inline(always)]
    fn reciprocal_rough(self) -> Self {
        Self::splat(Portable, 1.0) / self
    }
    #[inline(always)]
    fn logarithms(_: Portable) {}
    #[inline(always)]
    fn ln_step(self, token: Portable, (): ()) -> (Self, Self) {
        ln_step_without_table(token, self)
    }
    #[inline(always)]
    fn at_least(self, lowest: Self) -> Self {
        self.zip(lowest, |a, b| if a < b { b } else { a })
    }
    #[inline(always)]
    fn at_most(self, highest: Self) -> Self {
        self.zip(highest, |a, b| if a > b { b } else { a })
    }
    #[inline(always)]
    fn split_exponent(self) -> (Self, Self) {
        let parts = self.0.map(Float::split);
        (Array(parts.map(|part| part.0)), Array(parts.map(|part| part.1)))
    }
    #[inline(always)]
    fn lt(self, other: Self) -> [bool; N] {
        self.compare(other, |a, b| a < b)
    }
    #[inline(always)]
    fn le(self, other: Self) -> [bool; N] {
        self.compare(other, |a, b| a <= b)
    }
    #[inline(always)]
    fn select(mask: [bool; N], yes: Self, no: Self) -> Self {
        Array(std::array::from_fn(|i| if mask[i] { yes.0[i] } else { no.0[i] }))
    }
    #[inline(always)]
    fn any(mask: [bool; N]) -> bool {
        mask.into_iter().any(|lane| lane)
    }
    #[inline(always)]
    fn and(a: [bool; N], b: [bool; N]) -> [bool; N] {
        std::array::from_fn(|i| a[i] & b[i])
    }
    #[inline(always)]
    fn or(a: [bool; N], b: [bool; N]) -> [bool; N] {
        std::array::from_fn(|i| a[i] | b[i])
    }
    #[inline(always)]
    fn xor(a: [bool; N], b: [bool; N]) -> [bool; N] {
        std::array::from_fn(|i| a[i] ^ b[i])
    }
    #[inline(always)]
    fn all(mask: [bool; N]) -> bool {
        mask.into_iter().all(|lane| lane)
    }
    #[inline(always)]
    fn compress(self, mask: [bool; N]) -> (Self, usize) {
        let (mut front, mut count) = (self, 0);
        for (lane, kept) in self.0.into_iter().zip(mask) {
            front.0[count] = lane;
            count += usize::from(kept);
        }
        (front, count)
    }
    #[inline(always)]
    fn widen(self, _: Portable) -> [Self::Wide; 2] {
        let lane = |i: usize| if i < N { self.0[i].to_f64() } else { 0.0 };
        [Array(std::array::from_fn(lane)), Array(std::array::from_fn(|i| lane(i + WIDE_LANES)))]
    }
    #[inline(always)]
    fn to_array(self) -> [T; MAX_LANES] {
        std::array::from_fn(|i| if i < N { self.0[i] } else { T::default() })
    }
}
