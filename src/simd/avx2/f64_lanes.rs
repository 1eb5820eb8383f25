//! The four lanes of f64.
//!
//! Operations are sound as the module above says.

#[cfg_attr(not(test), expect(clippy::wildcard_imports, reason = "one name for every instruction"))]
use std::arch::x86_64::*;

use super::{Avx2, F64x4, NEAREST, PLACES, bf16_bits};
use crate::element::Dtype;
use crate::simd::tables::{EXP2_WIDE, LN_WHOLE, WIDE_GRID};
use crate::simd::vector::{Lanes, MAX_LANES, ln_step_without_table};

impl Lanes for F64x4 {
    type Token = Avx2;
    type Scalar = f64;
    type Mask = __m256d;
    type Wide = F64x4;
    type Powers = Self;
    type Logarithms = ();
    const N: usize = 4;
    const EXP2: &'static [f64] = EXP2_WIDE;
    const LN_STEP: &'static [f64] = LN_WHOLE;

    #[inline(always)]
    fn splat(_: Avx2, value: f64) -> Self {
        // SAFETY: the token proves AVX2.
        F64x4(unsafe { _mm256_set1_pd(value) })
    }

    #[inline(always)]
    unsafe fn load(_: Avx2, data: *const u8, dtype: Dtype) -> Self {
        // SAFETY: the token proves AVX2 and the caller that 4 elements of `dtype` can be read.
        F64x4(unsafe {
            match dtype {
                Dtype::F64 => _mm256_loadu_pd(data.cast()),
                Dtype::F32 => _mm256_cvtps_pd(_mm_loadu_ps(data.cast())),
                Dtype::Bf16 => {
                    let bits = _mm_cvtepu16_epi32(_mm_loadl_epi64(data.cast()));
                    _mm256_cvtps_pd(_mm_castsi128_ps(_mm_slli_epi32::<16>(bits)))
                }
                Dtype::F16 => _mm256_cvtps_pd(_mm_cvtph_ps(_mm_loadl_epi64(data.cast()))),
            }
        })
    }

    #[inline(always)]
    unsafe fn store(self, data: *mut u8, dtype: Dtype) {
        // SAFETY: the vector proves AVX2 and the caller that 4 elements of `dtype` can be written.
        unsafe {
            match dtype {
                Dtype::F64 => _mm256_storeu_pd(data.cast(), self.0),
                Dtype::F32 => _mm_storeu_ps(data.cast(), _mm256_cvtpd_ps(self.0)),
                Dtype::Bf16 => {
                    let single = _mm256_castps128_ps256(_mm256_cvtpd_ps(self.0));
                    _mm_storel_epi64(data.cast(), bf16_bits(single));
                }
                Dtype::F16 => {
                    _mm_storel_epi64(data.cast(), _mm_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(_mm256_cvtpd_ps(self.0)));
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn store_past_caches(self, data: *mut u8, dtype: Dtype) {
        // SAFETY: the vector proves AVX2 and the caller that the elements can be written, aligned.
        unsafe {
            match dtype {
                Dtype::F64 => _mm256_stream_pd(data.cast(), self.0),
                _ => self.store(data, dtype),
            }
        }
    }
    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        // SAFETY: the vector proves AVX2 and FMA.
        F64x4(unsafe { _mm256_fmadd_pd(self.0, b.0, c.0) })
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
        // SAFETY: the vector proves AVX2. The exponent field moves down into the mantissa of 2^52, and becomes a float
        // by subtraction.
        F64x4(unsafe {
            let field = _mm256_srli_epi64::<52>(_mm256_castpd_si256(self.0));
            let shifted = _mm256_or_si256(field, _mm256_set1_epi64x(0x4330_0000_0000_0000));
            _mm256_sub_pd(_mm256_castsi256_pd(shifted), _mm256_set1_pd(4_503_599_627_371_519.0))
        })
    }
    #[inline(always)]
    fn abs(self) -> Self {
        // SAFETY: the vector proves AVX2.
        F64x4(unsafe { _mm256_andnot_pd(_mm256_set1_pd(-0.0), self.0) })
    }
    #[inline(always)]
    fn copysign(self, sign: Self) -> Self {
        // SAFETY: the vector proves AVX2.
        unsafe {
            let bit = _mm256_set1_pd(-0.0);
            F64x4(_mm256_or_pd(_mm256_andnot_pd(bit, self.0), _mm256_and_pd(bit, sign.0)))
        }
    }
    #[inline(always)]
    fn min(self, other: Self) -> Self {
        // SAFETY: the vector proves AVX2.
        F64x4(unsafe { _mm256_min_pd(self.0, other.0) })
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        // SAFETY: the vector proves AVX2.
        F64x4(unsafe { _mm256_max_pd(self.0, other.0) })
    }
    #[inline(always)]
    fn round(self) -> Self {
        // SAFETY: the vector proves AVX2.
        F64x4(unsafe { _mm256_round_pd::<NEAREST>(self.0) })
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        // SAFETY: the vector proves AVX2.
        F64x4(unsafe { _mm256_sqrt_pd(self.0) })
    }
    #[inline(always)]
    fn scale(self, n: Self) -> Self {
        // SAFETY: the vector proves AVX2.
        unsafe {
            // An exponent field of 0 makes the factor 0.
            let n = _mm256_max_pd(n.0, _mm256_set1_pd(-1023.0));
            // n + 1023 + 2^52 has the exponent field in its low bits.
            let field = _mm256_add_pd(n, _mm256_set1_pd(4_503_599_627_371_519.0));
            let factor = _mm256_castsi256_pd(_mm256_slli_epi64::<52>(_mm256_castpd_si256(field)));
            F64x4(_mm256_mul_pd(self.0, factor))
        }
    }
    #[inline(always)]
    fn powers(token: Avx2, weight: f64) -> Self {
        Self::splat(token, weight)
    }
    #[inline(always)]
    fn grid() -> f64 {
        WIDE_GRID
    }
    #[inline(always)]
    fn power(self, token: Avx2, powers: Self) -> Self {
        powers.scale(self - Self::splat(token, WIDE_GRID))
    }
    #[inline(always)]
    fn reciprocal_rough(self) -> Self {
        // SAFETY: the vector proves AVX2.
        F64x4(unsafe { _mm256_div_pd(_mm256_set1_pd(1.0), self.0) })
    }
    #[inline(always)]
    fn logarithms(_: Avx2) {}
    #[inline(always)]
    fn ln_step(self, token: Avx2, (): ()) -> (Self, Self) {
        ln_step_without_table(token, self)
    }
    #[inline(always)]
    fn at_least(self, lowest: Self) -> Self {
        // SAFETY: the vector proves AVX2. The instruction gives its second operand where one is NaN.
        F64x4(unsafe { _mm256_max_pd(lowest.0, self.0) })
    }
    #[inline(always)]
    fn at_most(self, highest: Self) -> Self {
        // SAFETY: the vector proves AVX2. The instruction gives its second operand where one is NaN.
        F64x4(unsafe { _mm256_min_pd(highest.0, self.0) })
    }
    #[inline(always)]
    fn split_exponent(self) -> (Self, Self) {
        // SAFETY: the vector proves AVX2.
        unsafe {
            // Subnormal numbers are multiplied by 2^64 first, which makes them normal.
            let subnormal = _mm256_cmp_pd::<_CMP_LT_OQ>(self.0, _mm256_set1_pd(f64::MIN_POSITIVE));
            let normal = _mm256_mul_pd(self.0, _mm256_set1_pd(18_446_744_073_709_551_616.0));
            let bits = _mm256_castpd_si256(_mm256_blendv_pd(self.0, normal, subnormal));
            // The exponent field moves down into the mantissa of 2^52, and becomes a float by subtraction.
            let field = _mm256_castsi256_pd(_mm256_or_si256(
                _mm256_srli_epi64::<52>(bits),
                _mm256_set1_epi64x(0x4330_0000_0000_0000),
            ));
            let exponent = _mm256_sub_pd(field, _mm256_set1_pd(4_503_599_627_370_496.0 + 1023.0));
            let mantissa = _mm256_castsi256_pd(_mm256_or_si256(
                _mm256_and_si256(bits, _mm256_set1_epi64x(0x000f_ffff_ffff_ffff)),
                _mm256_set1_epi64x(0x3ff0_0000_0000_0000),
            ));
            let large = _mm256_cmp_pd::<_CMP_GT_OQ>(mantissa, _mm256_set1_pd(std::f64::consts::SQRT_2));
            let halved = _mm256_mul_pd(mantissa, _mm256_set1_pd(0.5));
            let offset = _mm256_sub_pd(
                _mm256_and_pd(large, _mm256_set1_pd(1.0)),
                _mm256_and_pd(subnormal, _mm256_set1_pd(64.0)),
            );
            (F64x4(_mm256_add_pd(exponent, offset)), F64x4(_mm256_blendv_pd(mantissa, halved, large)))
        }
    }
    #[inline(always)]
    fn lt(self, other: Self) -> __m256d {
        // SAFETY: the vector proves AVX2.
        unsafe { _mm256_cmp_pd::<_CMP_LT_OQ>(self.0, other.0) }
    }
    #[inline(always)]
    fn le(self, other: Self) -> __m256d {
        // SAFETY: the vector proves AVX2.
        unsafe { _mm256_cmp_pd::<_CMP_LE_OQ>(self.0, other.0) }
    }
    #[inline(always)]
    fn select(mask: __m256d, yes: Self, no: Self) -> Self {
        // SAFETY: the vector proves AVX2.
        F64x4(unsafe { _mm256_blendv_pd(no.0, yes.0, mask) })
    }
    #[inline(always)]
    fn any(mask: __m256d) -> bool {
        // SAFETY: a mask is only made from vectors, which prove AVX2.
        unsafe { _mm256_movemask_pd(mask) != 0 }
    }
    #[inline(always)]
    fn and(a: __m256d, b: __m256d) -> __m256d {
        // SAFETY: a mask is only made from vectors, which prove AVX2.
        unsafe { _mm256_and_pd(a, b) }
    }
    #[inline(always)]
    fn or(a: __m256d, b: __m256d) -> __m256d {
        // SAFETY: a mask is only made from vectors, which prove AVX2.
        unsafe { _mm256_or_pd(a, b) }
    }
    #[inline(always)]
    fn xor(a: __m256d, b: __m256d) -> __m256d {
        // SAFETY: a mask is only made from vectors, which prove AVX2.
        unsafe { _mm256_xor_pd(a, b) }
    }
    #[inline(always)]
    fn all(mask: __m256d) -> bool {
        // SAFETY: a mask is only made from vectors, which prove AVX2.
        unsafe { _mm256_movemask_pd(mask) == 0xf }
    }
    #[inline(always)]
    fn compress(self, mask: __m256d) -> (Self, usize) {
        // SAFETY: the vector proves AVX2; the places of a mask are 8 bytes.
        unsafe {
            // Each lane is two of a half as wide.
            let halves = _mm256_movemask_ps(_mm256_castpd_ps(mask)) as usize & 0xff;
            let places = _mm256_cvtepu8_epi32(_mm_loadl_epi64(PLACES[halves].as_ptr().cast()));
            let front = _mm256_permutevar8x32_ps(_mm256_castpd_ps(self.0), places);
            (F64x4(_mm256_castps_pd(front)), halves.count_ones() as usize / 2)
        }
    }
    #[inline(always)]
    fn widen(self, token: Self::Token) -> [Self; 2] {
        [self, Self::splat(token, 0.0)]
    }
    #[inline(always)]
    fn to_array(self) -> [f64; MAX_LANES] {
        let mut lanes = [0.0; MAX_LANES];
        // SAFETY: the vector proves AVX2; the array has room for 4 lanes.
        unsafe { _mm256_storeu_pd(lanes.as_mut_ptr(), self.0) };
        lanes
    }
}
