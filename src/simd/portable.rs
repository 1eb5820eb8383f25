//! Any CPU: arrays of f32 or half as many f64, which the compiler turns into whatever vectors the build target has (64-bit
//! Arm's included).

use std::ops::{Add, Div, Mul, Neg, Sub};

use half::{bf16, f16};

use super::vector::{
    EXP2_WHOLE, EXP2_WIDE, Kernel, LN_WHOLE, Lanes, MAX_LANES, Simd, WIDE_GRID, ln_step_without_table,
};
use crate::element::{Dtype, Element};

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
}

/// Two vectors of most build targets, whose latencies hide each other. On x86-64, whose CPUs run this where they have no AVX2,
/// one: half the code.
const WIDE_LANES: usize = if cfg!(target_arch = "x86_64") { 2 } else { 4 };

/// `N` lanes side by side.
#[derive(Clone, Copy)]
pub(crate) struct Array<T, const N: usize>([T; N]);

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
///
/// Elsewhere means an x86-64 without AVX2, where to run at all is what matters: a fused multiply-add is dozens of
/// instructions there, as is the conversion of a half, and inlined they were most of the library and of its compile time.
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
        // An exponent field of 0 makes the factor 0. n + 127 + 1.5·2^23 has the field in its low bits.
        let n = if n > -127.0 { n } else { -127.0 };
        f32::from_bits((n + 12_583_039.0).to_bits() << 23)
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
        let n = if n > -1023.0 { n } else { -1023.0 };
        f64::from_bits((n + 6_755_399_441_056_767.0).to_bits() << 52)
    }
    #[inline(always)]
    fn exponent(self) -> f64 {
        // The field moves down into the mantissa of 2^52, and becomes a float by subtraction.
        f64::from_bits(self.to_bits() >> 52 | 0x4330_0000_0000_0000) - 4_503_599_627_371_519.0
    }
    #[inline(always)]
    fn split(self) -> (f64, f64) {
        let subnormal = self < f64::MIN_POSITIVE;
        let bits = if subnormal { self * 18_446_744_073_709_551_616.0 } else { self }.to_bits();
        let shifted = bits.wrapping_sub(0x3fe6_a09e_667f_3bcd);
        // −1024 ≤ exponent < 1024, biased into the mantissa of 1.5·2^52.
        let biased = (shifted >> 52 ^ 0x800) | 0x4330_0000_0000_0000;
        let exponent = f64::from_bits(biased) - 4_503_599_627_372_544.0;
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
        std::array::from_fn(|i| f(self.0[i], other.0[i]))
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
    const STORES_OTHERWISE: bool = HARDWARE_FMA;
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
