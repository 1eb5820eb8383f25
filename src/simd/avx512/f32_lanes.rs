//! The sixteen lanes of f32.
//!
//! Operations are sound as the module above says.

#[cfg_attr(not(test), expect(clippy::wildcard_imports, reason = "one name for every instruction"))]
use std::arch::x86_64::*;

use super::{Avx512, F32x16, F64x8, NEAREST, bf16_bits};
use crate::element::Dtype;
use crate::simd::tables::{EXP2_SIXTEENTHS, LN_32NDS, logarithm_table, power_table, reciprocal_table};
use crate::simd::vector::{Lanes, MAX_LANES};

impl Lanes for F32x16 {
    type Token = Avx512;
    type Scalar = f32;
    type Mask = __mmask16;
    type Wide = F64x8;
    type Powers = Self;
    type Logarithms = [[Self; 2]; 2];
    const N: usize = 16;
    const EXP2: &'static [f64] = EXP2_SIXTEENTHS;
    const LN_STEP: &'static [f64] = LN_32NDS;

    #[inline(always)]
    fn splat(_: Avx512, value: f64) -> Self {
        // SAFETY: the token proves AVX-512.
        F32x16(unsafe { _mm512_set1_ps(value as f32) })
    }

    #[inline(always)]
    unsafe fn load(_: Avx512, data: *const u8, dtype: Dtype) -> Self {
        // SAFETY: the token proves AVX-512 and the caller that 16 elements of `dtype` can be read.
        F32x16(unsafe {
            match dtype {
                Dtype::F32 => _mm512_loadu_ps(data.cast()),
                Dtype::Bf16 => {
                    let bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(data.cast()));
                    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits))
                }
                Dtype::F16 => _mm512_cvtph_ps(_mm256_loadu_si256(data.cast())),
                Dtype::F64 => {
                    let low = _mm512_cvtpd_ps(_mm512_loadu_pd(data.cast()));
                    let high = _mm512_cvtpd_ps(_mm512_loadu_pd(data.add(64).cast()));
                    _mm512_insertf32x8::<1>(_mm512_castps256_ps512(low), high)
                }
            }
        })
    }

    #[inline(always)]
    unsafe fn store(self, data: *mut u8, dtype: Dtype) {
        // SAFETY: the vector proves AVX-512 and the caller that 16 elements of `dtype` can be written.
        unsafe {
            match dtype {
                Dtype::F32 => _mm512_storeu_ps(data.cast(), self.0),
                Dtype::Bf16 => _mm256_storeu_si256(data.cast(), bf16_bits(self.0)),
                Dtype::F16 => _mm256_storeu_si256(data.cast(), _mm512_cvtps_ph::<NEAREST>(self.0)),
                Dtype::F64 => {
                    let high = _mm512_extractf32x8_ps::<1>(self.0);
                    _mm512_storeu_pd(data.cast(), _mm512_cvtps_pd(_mm512_castps512_ps256(self.0)));
                    _mm512_storeu_pd(data.add(64).cast(), _mm512_cvtps_pd(high));
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn store_past_caches(self, data: *mut u8, dtype: Dtype) {
        // SAFETY: the vector proves AVX-512 and the caller that sixteen elements of `dtype` can be written, aligned.
        unsafe {
            match dtype {
                Dtype::F32 => _mm512_stream_ps(data.cast(), self.0),
                Dtype::Bf16 => _mm256_stream_si256(data.cast(), bf16_bits(self.0)),
                Dtype::F16 => _mm256_stream_si256(data.cast(), _mm512_cvtps_ph::<NEAREST>(self.0)),
                Dtype::F64 => self.store(data, dtype),
            }
        }
    }
    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        // SAFETY: the vector proves AVX-512.
        F32x16(unsafe { _mm512_fmadd_ps(self.0, b.0, c.0) })
    }
    #[inline(always)]
    fn mul_add_relaxed(self, b: Self, c: Self) -> Self {
        self.mul_add(b, c)
    }
    #[inline(always)]
    fn divide_relaxed(self, divisor: Self) -> Self {
        // SAFETY: the vector proves AVX-512. A reciprocal of 14 bits, and one step of Newton's for the quotient: four
        // cycles instead of the ten of a division.
        F32x16(unsafe {
            let reciprocal = _mm512_rcp14_ps(divisor.0);
            let quotient = _mm512_mul_ps(self.0, reciprocal);
            _mm512_fmadd_ps(_mm512_fnmadd_ps(divisor.0, quotient, self.0), reciprocal, quotient)
        })
    }
    #[inline(always)]
    fn exponent(self) -> Self {
        // SAFETY: the vector proves AVX-512.
        F32x16(unsafe { _mm512_getexp_ps(self.0) })
    }
    #[inline(always)]
    fn abs(self) -> Self {
        // SAFETY: the vector proves AVX-512.
        F32x16(unsafe { _mm512_abs_ps(self.0) })
    }
    #[inline(always)]
    fn copysign(self, sign: Self) -> Self {
        // SAFETY: the vector proves AVX-512. The table picks bits of the magnitude where the mask is set, else of the sign.
        unsafe {
            let mask = _mm512_set1_epi32(i32::MAX);
            let (magnitude, sign) = (_mm512_castps_si512(self.0), _mm512_castps_si512(sign.0));
            F32x16(_mm512_castsi512_ps(_mm512_ternarylogic_epi32::<0xCA>(mask, magnitude, sign)))
        }
    }
    #[inline(always)]
    fn min(self, other: Self) -> Self {
        // SAFETY: the vector proves AVX-512.
        F32x16(unsafe { _mm512_min_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        // SAFETY: the vector proves AVX-512.
        F32x16(unsafe { _mm512_max_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn round(self) -> Self {
        // SAFETY: the vector proves AVX-512.
        F32x16(unsafe { _mm512_roundscale_ps::<NEAREST>(self.0) })
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        // SAFETY: the vector proves AVX-512.
        F32x16(unsafe { _mm512_sqrt_ps(self.0) })
    }
    #[inline(always)]
    fn scale(self, n: Self) -> Self {
        // SAFETY: the vector proves AVX-512.
        F32x16(unsafe { _mm512_scalef_ps(self.0, n.0) })
    }
    #[inline(always)]
    fn powers(token: Avx512, weight: f64) -> Self {
        let powers = power_table::<16>(weight);
        // SAFETY: the array has sixteen elements.
        unsafe { Self::load(token, powers.as_ptr().cast(), Dtype::F32) }
    }
    #[inline(always)]
    fn grid() -> f64 {
        786_432.0 // 1.5·2^19, where a unit in the last place is 1/16
    }
    #[inline(always)]
    fn power(self, token: Avx512, powers: Self) -> Self {
        let n = self - Self::splat(token, Self::grid());
        // SAFETY: the vector proves AVX-512. The lookup takes the low four bits, `scalef` rounds its exponent down.
        F32x16(unsafe {
            let step = _mm512_permutexvar_ps(_mm512_castps_si512(self.0), powers.0);
            _mm512_scalef_ps(step, n.0)
        })
    }
    #[inline(always)]
    fn reciprocal_rough(self) -> Self {
        // SAFETY: the vector proves AVX-512.
        F32x16(unsafe { _mm512_rcp14_ps(self.0) })
    }
    #[inline(always)]
    fn logarithms(token: Avx512) -> [[Self; 2]; 2] {
        const TABLES: [[f32; 32]; 2] = [reciprocal_table(), logarithm_table()];
        // SAFETY: each half of a table has sixteen elements.
        let half = |table: usize, first: usize| unsafe {
            Self::load(token, TABLES[table][first..].as_ptr().cast(), Dtype::F32)
        };
        [[half(0, 0), half(0, 16)], [half(1, 0), half(1, 16)]]
    }
    #[inline(always)]
    fn ln_step(self, token: Avx512, [reciprocals, logarithms]: [[Self; 2]; 2]) -> (Self, Self) {
        // SAFETY: the vector proves AVX-512. The lookups take the low five bits: the first of the mantissa.
        unsafe {
            let step = _mm512_srli_epi32::<18>(_mm512_castps_si512(self.0));
            let look_up = |table: [Self; 2]| F32x16(_mm512_permutex2var_ps(table[0].0, step, table[1].0));
            let exponent = F32x16(_mm512_getexp_ps(self.0));
            let mantissa = F32x16(_mm512_getmant_ps::<_MM_MANT_NORM_1_2, _MM_MANT_SIGN_ZERO>(self.0));
            let ln = exponent.mul_add(Self::splat(token, std::f64::consts::LN_2), look_up(logarithms));
            (ln, mantissa.mul_add(look_up(reciprocals), Self::splat(token, -1.0)))
        }
    }
    #[inline(always)]
    fn at_least(self, lowest: Self) -> Self {
        // SAFETY: the vector proves AVX-512. The instruction gives its second operand where one is NaN.
        F32x16(unsafe { _mm512_max_ps(lowest.0, self.0) })
    }
    #[inline(always)]
    fn at_most(self, highest: Self) -> Self {
        // SAFETY: the vector proves AVX-512. The instruction gives its second operand where one is NaN.
        F32x16(unsafe { _mm512_min_ps(highest.0, self.0) })
    }
    #[inline(always)]
    fn split_exponent(self) -> (Self, Self) {
        // SAFETY: the vector proves AVX-512.
        unsafe {
            let exponent = _mm512_getexp_ps(self.0);
            let mantissa = _mm512_getmant_ps::<_MM_MANT_NORM_1_2, _MM_MANT_SIGN_ZERO>(self.0);
            let large = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(mantissa, _mm512_set1_ps(std::f32::consts::SQRT_2));
            let half = _mm512_set1_ps(0.5);
            (
                F32x16(_mm512_mask_add_ps(exponent, large, exponent, _mm512_set1_ps(1.0))),
                F32x16(_mm512_mask_mul_ps(mantissa, large, mantissa, half)),
            )
        }
    }
    #[inline(always)]
    fn lt(self, other: Self) -> __mmask16 {
        // SAFETY: the vector proves AVX-512.
        unsafe { _mm512_cmp_ps_mask::<_CMP_LT_OQ>(self.0, other.0) }
    }
    #[inline(always)]
    fn le(self, other: Self) -> __mmask16 {
        // SAFETY: the vector proves AVX-512.
        unsafe { _mm512_cmp_ps_mask::<_CMP_LE_OQ>(self.0, other.0) }
    }
    #[inline(always)]
    fn select(mask: __mmask16, yes: Self, no: Self) -> Self {
        // SAFETY: the vector proves AVX-512.
        F32x16(unsafe { _mm512_mask_blend_ps(mask, no.0, yes.0) })
    }
    #[inline(always)]
    fn any(mask: __mmask16) -> bool {
        mask != 0
    }
    #[inline(always)]
    fn and(a: __mmask16, b: __mmask16) -> __mmask16 {
        a & b
    }
    #[inline(always)]
    fn or(a: __mmask16, b: __mmask16) -> __mmask16 {
        a | b
    }
    #[inline(always)]
    fn xor(a: __mmask16, b: __mmask16) -> __mmask16 {
        a ^ b
    }
    #[inline(always)]
    fn all(mask: __mmask16) -> bool {
        mask == __mmask16::MAX
    }
    #[inline(always)]
    fn compress(self, mask: __mmask16) -> (Self, usize) {
        // SAFETY: the vector proves AVX-512.
        (F32x16(unsafe { _mm512_maskz_compress_ps(mask, self.0) }), mask.count_ones() as usize)
    }
    #[inline(always)]
    fn widen(self, _: Avx512) -> [F64x8; 2] {
        // SAFETY: the vector proves AVX-512.
        unsafe {
            let high = _mm512_extractf32x8_ps::<1>(self.0);
            [F64x8(_mm512_cvtps_pd(_mm512_castps512_ps256(self.0))), F64x8(_mm512_cvtps_pd(high))]
        }
    }
    #[inline(always)]
    fn to_array(self) -> [f32; MAX_LANES] {
        let mut lanes = [0.0; MAX_LANES];
        // SAFETY: the vector proves AVX-512; the array has room for 16 lanes.
        unsafe { _mm512_storeu_ps(lanes.as_mut_ptr(), self.0) };
        lanes
    }
}
