//! Any CPU: arrays of eight lanes, which the compiler turns into whatever vectors the build target has (64-bit
//! Arm's included).

use std::ops::{Add, Div, Mul, Neg, Sub};

use half::{bf16, f16};

use super::vector::{EXP2_WHOLE, EXP2_WIDE, Kernel, Lanes, MAX_LANES, Simd, WIDE_GRID};
use crate::element::{Dtype, Element};

/// Needs no proof: every CPU runs it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Portable;

impl Simd for Portable {
    type F32 = Array<f32>;
    type F64 = Array<f64>;

    #[inline(always)]
    fn prefetch(self, _: *const u8) {}

    #[inline(always)]
    fn fence(self) {}

    #[inline]
    fn vectorize<K: Kernel>(self, kernel: K) -> K::Output {
        kernel.run(self)
    }
}

const LANES: usize = 8;

/// Eight lanes side by side.
#[derive(Clone, Copy)]
pub(crate) struct Array<T>([T; LANES]);

/// What the arrays need of f32 and f64 beyond operators.
pub(crate) trait Float:
    super::vector::Scalar
    + Element
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
{
    fn fused(self, b: Self, c: Self) -> Self;
    fn abs(self) -> Self;
    fn copysign(self, sign: Self) -> Self;
    fn round(self) -> Self;
    fn sqrt(self) -> Self;
    fn power_of_two(n: Self) -> Self;
    fn split(self) -> (Self, Self);
    fn exponent(self) -> Self;
}

/// Whether `mul_add` compiles to one instruction; elsewhere it would be a call to a slow library function.
const HARDWARE_FMA: bool = cfg!(any(target_feature = "fma", target_arch = "aarch64"));

impl Float for f32 {
    #[inline(always)]
    fn fused(self, b: f32, c: f32) -> f32 {
        if HARDWARE_FMA {
            self.mul_add(b, c)
        } else {
            // The product of two f32 is exact in f64.
            f64::from(self).mul_add_twice(f64::from(b), f64::from(c)) as f32
        }
    }
    #[inline(always)]
    fn abs(self) -> f32 {
        f32::abs(self)
    }
    #[inline(always)]
    fn copysign(self, sign: f32) -> f32 {
        f32::copysign(self, sign)
    }
    #[inline(always)]
    fn round(self) -> f32 {
        // Adding and subtracting 1.5·2^23 leaves the nearest even integer; larger numbers are integers already.
        let magic = 12_582_912.0_f32;
        let rounded = (self + magic) - magic;
        if f32::abs(self) < 8_388_608.0 { rounded } else { self }
    }
    #[inline(always)]
    fn sqrt(self) -> f32 {
        f32::sqrt(self)
    }
    #[inline(always)]
    fn power_of_two(n: f32) -> f32 {
        // An exponent field of 0 makes the factor 0. `as` saturates.
        f32::from_bits(((n.max(-127.0) as i32 + 127) as u32) << 23)
    }
    #[inline(always)]
    fn exponent(self) -> f32 {
        ((self.to_bits() >> 23) as i32 - 127) as f32
    }
    #[inline(always)]
    fn split(self) -> (f32, f32) {
        // Subnormal numbers are multiplied by 2^32 first, which makes them normal.
        let subnormal = self < f32::MIN_POSITIVE;
        let bits = if subnormal { self * 4_294_967_296.0 } else { self }.to_bits();
        // Subtracting the bits of √½ puts the carry into the exponent where the mantissa passes √2.
        let shifted = bits.wrapping_sub(0x3f35_04f3);
        let exponent = (shifted as i32 >> 23) as f32;
        let mantissa = f32::from_bits((shifted & 0x007f_ffff) + 0x3f35_04f3);
        (if subnormal { exponent - 32.0 } else { exponent }, mantissa)
    }
}

/// f64 arithmetic where the build target has no fused multiply-add.
trait TwiceRounded {
    fn mul_add_twice(self, b: f64, c: f64) -> f64;
}

impl TwiceRounded for f64 {
    #[inline(always)]
    fn mul_add_twice(self, b: f64, c: f64) -> f64 {
        self * b + c
    }
}

impl Float for f64 {
    #[inline(always)]
    fn fused(self, b: f64, c: f64) -> f64 {
        if HARDWARE_FMA { self.mul_add(b, c) } else { fused_by_splitting(self, b, c) }
    }
    #[inline(always)]
    fn abs(self) -> f64 {
        f64::abs(self)
    }
    #[inline(always)]
    fn copysign(self, sign: f64) -> f64 {
        f64::copysign(self, sign)
    }
    #[inline(always)]
    fn round(self) -> f64 {
        let magic = 6_755_399_441_055_744.0_f64; // 1.5·2^52
        let rounded = (self + magic) - magic;
        if f64::abs(self) < 4_503_599_627_370_496.0 { rounded } else { self }
    }
    #[inline(always)]
    fn sqrt(self) -> f64 {
        f64::sqrt(self)
    }
    #[inline(always)]
    fn power_of_two(n: f64) -> f64 {
        f64::from_bits(((n.max(-1023.0) as i64 + 1023) as u64) << 52)
    }
    #[inline(always)]
    fn exponent(self) -> f64 {
        ((self.to_bits() >> 52) as i64 - 1023) as f64
    }
    #[inline(always)]
    fn split(self) -> (f64, f64) {
        let subnormal = self < f64::MIN_POSITIVE;
        let bits = if subnormal { self * 18_446_744_073_709_551_616.0 } else { self }.to_bits();
        let shifted = bits.wrapping_sub(0x3fe6_a09e_667f_3bcd);
        let exponent = (shifted as i64 >> 52) as f64;
        let mantissa = f64::from_bits((shifted & 0x000f_ffff_ffff_ffff) + 0x3fe6_a09e_667f_3bcd);
        (if subnormal { exponent - 64.0 } else { exponent }, mantissa)
    }
}

/// a·b + c with an error of about one rounding: Dekker's exact product, then a compensated sum.
///
/// Splitting overflows for |a| or |b| above 2^996; the plain expression serves there.
#[inline(always)]
fn fused_by_splitting(a: f64, b: f64, c: f64) -> f64 {
    let product = a * b;
    let (a_high, a_low) = halves(a);
    let (b_high, b_low) = halves(b);
    let product_error = ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low;
    let sum = product + c;
    let shadow = sum - product;
    let sum_error = (product - (sum - shadow)) + (c - shadow);
    let correction = product_error + sum_error;
    let exact = sum + correction;
    if exact.is_nan() { product + c } else { exact }
}

/// The upper 26 bits of a number and the rest (Veltkamp's splitting).
#[inline(always)]
fn halves(a: f64) -> (f64, f64) {
    let scaled = a * 134_217_729.0; // 2^27 + 1
    let high = scaled - (scaled - a);
    (high, a - high)
}

impl<T: Float> Array<T> {
    #[inline(always)]
    fn map(self, f: impl Fn(T) -> T) -> Self {
        Array(self.0.map(f))
    }
    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(T, T) -> T) -> Self {
        Array(std::array::from_fn(|i| f(self.0[i], other.0[i])))
    }
    #[inline(always)]
    fn compare(self, other: Self, f: impl Fn(T, T) -> bool) -> [bool; LANES] {
        std::array::from_fn(|i| f(self.0[i], other.0[i]))
    }
}

impl<T: Float> Add for Array<T> {
    type Output = Self;
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }
}

impl<T: Float> Sub for Array<T> {
    type Output = Self;
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }
}

impl<T: Float> Mul for Array<T> {
    type Output = Self;
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }
}

impl<T: Float> Div for Array<T> {
    type Output = Self;
    #[inline(always)]
    fn div(self, other: Self) -> Self {
        self.zip(other, |a, b| a / b)
    }
}

impl<T: Float> Neg for Array<T> {
    type Output = Self;
    #[inline(always)]
    fn neg(self) -> Self {
        self.map(|a| -a)
    }
}

/// `LANES` elements of type `E`, converted to `T` through f64 (which holds every element exactly).
///
/// # Safety
/// `data` is valid for reads of `LANES` elements.
#[inline(always)]
unsafe fn read<E: Element, T: Float>(data: *const u8) -> [T; LANES] {
    // SAFETY: the caller's; the read is unaligned.
    let elements = unsafe { data.cast::<[E; LANES]>().read_unaligned() };
    elements.map(|element| <T as super::vector::Scalar>::from_f64(element.to_f64()))
}

/// # Safety
/// `data` is valid for writes of `LANES` elements.
#[inline(always)]
unsafe fn write<E: Element, T: Float>(lanes: [T; LANES], data: *mut u8) {
    let elements = lanes.map(|lane| E::from_f64(super::vector::Scalar::to_f64(lane)));
    // SAFETY: the caller's; the write is unaligned.
    unsafe { data.cast::<[E; LANES]>().write_unaligned(elements) };
}

impl<T: Float> Lanes for Array<T>
where
    Portable: Simd,
{
    type Token = Portable;
    type Scalar = T;
    type Mask = [bool; LANES];
    type Wide = Array<f64>;
    type Powers = Self;
    const N: usize = LANES;
    const EXP2: &'static [f64] = if T::WIDE { EXP2_WIDE } else { EXP2_WHOLE };

    #[inline(always)]
    fn splat(_: Portable, value: f64) -> Self {
        Array([<T as super::vector::Scalar>::from_f64(value); LANES])
    }
    #[inline(always)]
    unsafe fn load(_: Portable, data: *const u8, dtype: Dtype) -> Self {
        // SAFETY: the caller's.
        Array(unsafe {
            match dtype {
                Dtype::F64 => read::<f64, T>(data),
                Dtype::F32 => read::<f32, T>(data),
                Dtype::F16 => read::<f16, T>(data),
                Dtype::Bf16 => read::<bf16, T>(data),
            }
        })
    }
    #[inline(always)]
    unsafe fn store(self, data: *mut u8, dtype: Dtype) {
        // SAFETY: the caller's.
        unsafe {
            match dtype {
                Dtype::F64 => write::<f64, T>(self.0, data),
                Dtype::F32 => write::<f32, T>(self.0, data),
                Dtype::F16 => write::<f16, T>(self.0, data),
                Dtype::Bf16 => write::<bf16, T>(self.0, data),
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
        Array(std::array::from_fn(|i| self.0[i].fused(b.0[i], c.0[i])))
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
    fn at_least(self, lowest: Self) -> Self {
        self.zip(lowest, |a, b| if a < b { b } else { a })
    }
    #[inline(always)]
    fn split_exponent(self) -> (Self, Self) {
        let parts = self.0.map(Float::split);
        (Array(parts.map(|part| part.0)), Array(parts.map(|part| part.1)))
    }
    #[inline(always)]
    fn lt(self, other: Self) -> [bool; LANES] {
        self.compare(other, |a, b| a < b)
    }
    #[inline(always)]
    fn le(self, other: Self) -> [bool; LANES] {
        self.compare(other, |a, b| a <= b)
    }
    #[inline(always)]
    fn select(mask: [bool; LANES], yes: Self, no: Self) -> Self {
        Array(std::array::from_fn(|i| if mask[i] { yes.0[i] } else { no.0[i] }))
    }
    #[inline(always)]
    fn any(mask: [bool; LANES]) -> bool {
        mask.into_iter().any(|lane| lane)
    }
    #[inline(always)]
    fn and(a: [bool; LANES], b: [bool; LANES]) -> [bool; LANES] {
        std::array::from_fn(|i| a[i] & b[i])
    }
    #[inline(always)]
    fn all(mask: [bool; LANES]) -> bool {
        mask.into_iter().all(|lane| lane)
    }
    #[inline(always)]
    fn widen(self, _: Portable) -> [Array<f64>; 2] {
        [Array(self.0.map(super::vector::Scalar::to_f64)), Array([0.0; LANES])]
    }
    #[inline(always)]
    fn to_array(self) -> [T; MAX_LANES] {
        std::array::from_fn(|i| if i < LANES { self.0[i] } else { T::default() })
    }
}
