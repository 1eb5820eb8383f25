//! What portable lanes need of f32 and f64 beyond operators, on CPUs without the instructions, too.

use crate::element::Element;
use crate::simd::vector::Scalar;
use std::ops::{Add, Div, Mul, Neg, Sub};

/// What the arrays need of f32 and f64 beyond operators.
pub(crate) trait Float:
    Scalar
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
pub(super) const HARDWARE_FMA: bool = cfg!(any(target_feature = "fma", target_arch = "aarch64"));

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
