//! The eight lanes of f64.
//!
//! Operations are sound as the module above says.

#[cfg_attr(not(test), expect(clippy::wildcard_imports, reason = "one name for every instruction"))]
use std::arch::x86_64::*;

use super::{Avx512, F64x8, NEAREST, bf16_bits};
use crate::element::Dtype;
use crate::simd::tables::{EXP2_WIDE, LN_WHOLE, WIDE_GRID};
use crate::simd::vector::{Lanes, MAX_LANES, ln_step_without_table};

impl Lanes for F64x8 {
    type Token = Avx512;
    type Scalar = f64;
    type Mask = __mmask8;
    type Wide = F64x8;
    type Powers = Self;
    type Logarithms = ();
    const N: usize = 8;
    const EXP2: &'static [f64] = EXP2_WIDE;
    const LN_STEP: &'static [f64] = LN_WHOLE;

    #[inline(always)]
    fn splat(_: Avx512, value: f64) -> Self {
        // SAFETY: the token proves AVX-512.
        F64x8(unsafe { _mm512_set1_pd(value) })
    }

    #[inline(always)]
    unsafe fn load(_: Avx512, data: *const u8, dtype: Dtype) -> Self {
        // SAFETY: the token proves AVX-512 and the caller that 8 elements of `dtype` can be read.
        F64x8(unsafe {
            match dtype {
                Dtype::F64 => _mm512_loadu_pd(data.cast()),
                Dtype::F32 => _mm512_cvtps_pd(_mm256_loadu_ps(data.cast())),
                Dtype::Bf16 => {
                    let bits = _mm256_cvtepu16_epi32(_mm_loadu_si128(data.cast()));
                    _mm512_cvtps_pd(_mm256_castsi256_ps(_mm256_slli_epi32::<16>(bits)))
                }
                Dtype::F16 => _mm512_cvtps_pd(_mm256_cvtph_ps(_mm_loadu_si128(data.cast()))),
            }
        })
    }

    #[inline(always)]
    unsafe fn store(self, data: *mut u8, dtype: Dtype) {
        // SAFETY: the vector proves AVX-512 and the caller that 8 elements of `dtype` can be written.
        unsafe {
            match dtype {
                Dtype::F64 => _mm512_storeu_pd(data.cast(), self.0),
                Dtype::F32 => _mm256_storeu_ps(data.cast(), _mm512_cvtpd_ps(self.0)),
                Dtype::Bf16 => {
                    let single = _mm512_castps256_ps512(_mm512_cvtpd_ps(self.0));
                    _mm_storeu_si128(data.cast(), _mm256_castsi256_si128(bf16_bits(single)));
                }
                Dtype::F16 => {
                    _mm_storeu_si128(
                        data.cast(),
                        _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(_mm512_cvtpd_ps(self.0)),
                    );
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn store_past_caches(self, data: *mut u8, dtype: Dtype) {
        // SAFETY: the vector proves AVX-512 and the caller that the elements can be written, aligned.
        unsafe {
            match dtype {
                Dtype::F64 => _mm512_stream_pd(data.cast(), self.0),
                _ => self.store(data, dtype),
            }
        }
    }
    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        // SAFETY: the vector proves AVX-512.
        F64x8(unsafe { _mm512_fmadd_pd(self.0, b.0, c.0) })
    }
    #[inline(always)]
    fn mul_add_relaxed(self, b: Self, c: Self) -> Self {
        self.mul_add(b, c)
    }
    #[inline(always)]
    fn divide_relaxed(self, divisor: Self) -> Self {
        self / divisor
    }
    #[inline(always)]
    fn exponent(self) -> Self {
        // SAFETY: the vector proves AVX-512.
        F64x8(unsafe { _mm512_getexp_pd(self.0) })
    }
    #[inline(always)]
    fn abs(self) -> Self {
        // SAFETY: the vector proves AVX-512.
        F64x8(unsafe { _mm512_abs_pd(self.0) })
    }
    #[inline(always)]
    fn copysign(self, sign: Self) -> Self {
        // SAFETY: the vector proves AVX-512. The table picks bits of the magnitude where the mask is set, else of the sign.
        unsafe {
            let mask = _mm512_set1_epi64(i64::MAX);
            let (magnitude, sign) = (_mm512_castpd_si512(self.0), _mm512_castpd_si512(sign.0));
            F64x8(_mm512_castsi512_pd(_mm512_ternarylogic_epi64::<0xCA>(mask, magnitude, sign)))
        }
    }
    #[inline(always)]
    fn min(self, other: Self) -> Self {
        // SAFETY: the vector proves AVX-512.
        F64x8(unsafe { _mm512_min_pd(self.0, other.0) })
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        // SAFETY: the vector proves AVX-512.
        F64x8(unsafe { _mm512_max_pd(self.0, other.0) })
    }
    #[inline(always)]
    fn round(self) -> Self {
        // SAFETY: the vector proves AVX-512.
        F64x8(unsafe { _mm512_roundscale_pd::<NEAREST>(self.0) })
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        // SAFETY: the vector proves AVX-512.
        F64x8(unsafe { _mm512_sqrt_pd(self.0) })
    }
    #[inline(always)]
    fn scale(self, n: Self) -> Self {
        // SAFETY: the vector proves AVX-512.
        F64x8(unsafe { _mm512_scalef_pd(self.0, n.0) })
    }
    #[inline(always)]
    fn powers(token: Avx512, weight: f64) -> Self {
        Self::splat(token, weight)
    }
    #[inline(always)]
    fn grid() -> f64 {
        WIDE_GRID
    }
    #[inline(always)]
    fn power(self, token: Avx512, powers: Self) -> Self {
        powers.scale(self - Self::splat(token, WIDE_GRID))
    }
    #[inline(always)]
    fn reciprocal_rough(self) -> Self {
        // SAFETY: the vector proves AVX-512.
        F64x8(unsafe { _mm512_rcp14_pd(self.0) })
    }
    #[inline(always)]
    fn logarithms(_: Avx512) {}
    #[inline(always)]
    fn ln_step(self, token: Avx512, (): ()) -> (Self, Self) {
        ln_step_without_table(token, self)
    }
    #[inline(always)]
    fn at_least(self, lowest: Self) -> Self {
        // SAFETY: the vector proves AVX-512. The instruction gives its second operand where one is NaN.
        F64x8(unsafe { _mm512_max_pd(lowest.0, self.0) })
    }
    #[inline(always)]
    fn at_most(self, highest: Self) -> Self {
        // SAFETY: the vector proves AVX-512. The instruction gives its second operand where one is NaN.
        F64x8(unsafe { _mm512_min_pd(highest.0, self.0) })
    }
    #[inline(always)]
    fn split_exponent(self) -> (Self, Self) {
        // SAFETY: the vector proves AVX-512.
        unsafe {
            let exponent = _mm512_getexp_pd(self.0);
            let mantissa = _mm512_getmant_pd::<_MM_MANT_NORM_1_2, _MM_MANT_SIGN_ZERO>(self.0);
            let large = _mm512_cmp_pd_mask::<_CMP_GT_OQ>(mantissa, _mm512_set1_pd(std::f64::consts::SQRT_2));
            let half = _mm512_set1_pd(0.5);
            (
                F64x8(_mm512_mask_add_pd(exponent, large, exponent, _mm512_set1_pd(1.0))),
                F64x8(_mm512_mask_mul_pd(mantissa, large, mantissa, half)),
            )
        }
    }
    #[inline(always)]
    fn lt(self, other: Self) -> __mmask8 {
        // SAFETY: the vector proves AVX-512.
        unsafe { _mm512_cmp_pd_mask::<_CMP_LT_OQ>(self.0, other.0) }
    }
    #[inline(always)]
    fn le(self, other: Self) -> __mmask8 {
        // SAFETY: the vector proves AVX-512.
        unsafe { _mm512_cmp_pd_mask::<_CMP_LE_OQ>(self.0, other.0) }
    }
    #[inline(always)]
    fn select(mask: __mmask8, yes: Self, no: Self) -> Self {
        // SAFETY: the vector proves AVX-512.
        F64x8(unsafe { _mm512_mask_blend_pd(mask, no.0, yes.0) })
    }
    #[inline(always)]
    fn any(mask: __mmask8) -> bool {
        mask != 0
    }
    #[inline(always)]
    fn and(a: __mmask8, b: __mmask8) -> __mmask8 {
        a & b
    }
    #[inline(always)]
    fn or(a: __mmask8, b: __mmask8) -> __mmask8 {
        a | b
    }
    #[inline(always)]
    fn xor(a: __mmask8, b: __mmask8) -> __mmask8 {
        a ^ b
    }
    #[inline(always)]
    fn all(mask: __mmask8) -> bool {
        mask == __mmask8::MAX
    }
    #[inline(always)]
    fn compress(self, mask: __mmask8) -> (Self, usize) {
        // SAFETY: the vector proves AVX-512.
        (F64x8(unsafe { _mm512_maskz_compress_pd(mask, self.0) }), mask.count_ones() as usize)
    }
    #[inline(always)]
    fn widen(self, token: Self::Token) -> [Self; 2] {
        [self, Self::splat(token, 0.0)]
    }
    #[inline(always)]
    fn to_array(self) -> [f64; MAX_LANES] {
        let mut lanes = [0.0; MAX_LANES];
        // SAFETY: the vector proves AVX-512; the array has room for 8 lanes.
        unsafe { _mm512_storeu_pd(lanes.as_mut_ptr(), self.0) };
        lanes
    }
}
