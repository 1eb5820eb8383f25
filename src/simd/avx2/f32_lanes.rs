//! The eight lanes of f32.
//!
//! Operations are sound as the module above says.

#[cfg_attr(not(test), expect(clippy::wildcard_imports, reason = "one name for every instruction"))]
use std::arch::x86_64::*;

use super::{Avx2, F32x8, F64x4, NEAREST, PLACES, bf16_bits};
use crate::element::Dtype;
use crate::simd::tables::{EXP2_EIGHTHS, LN_EIGHTHS, logarithm_table, power_table, reciprocal_table};
use crate::simd::vector::{Lanes, MAX_LANES};

impl Lanes for F32x8 {
    type Token = Avx2;
    type Scalar = f32;
    type Mask = __m256;
    type Wide = F64x4;
    type Powers = Self;
    type Logarithms = [Self; 2];
    const N: usize = 8;
    // Nine bits hold the exponent of a power, which the table's is added to.
    const LOWEST_POWER: f64 = -250.0;
    const EXP2: &'static [f64] = EXP2_EIGHTHS;
    const LN_STEP: &'static [f64] = LN_EIGHTHS;

    #[inline(always)]
    fn splat(_: Avx2, value: f64) -> Self {
        // SAFETY: the token proves AVX2.
        F32x8(unsafe { _mm256_set1_ps(value as f32) })
    }

    #[inline(always)]
    unsafe fn load(_: Avx2, data: *const u8, dtype: Dtype) -> Self {
        // SAFETY: the token proves AVX2 and the caller that 8 elements of `dtype` can be read.
        F32x8(unsafe {
            match dtype {
                Dtype::F32 => _mm256_loadu_ps(data.cast()),
                Dtype::Bf16 => {
                    let bits = _mm256_cvtepu16_epi32(_mm_loadu_si128(data.cast()));
                    _mm256_castsi256_ps(_mm256_slli_epi32::<16>(bits))
                }
                Dtype::F16 => _mm256_cvtph_ps(_mm_loadu_si128(data.cast())),
                Dtype::F64 => {
                    let low = _mm256_cvtpd_ps(_mm256_loadu_pd(data.cast()));
                    let high = _mm256_cvtpd_ps(_mm256_loadu_pd(data.add(32).cast()));
                    _mm256_set_m128(high, low)
                }
            }
        })
    }

    #[inline(always)]
    unsafe fn store(self, data: *mut u8, dtype: Dtype) {
        // SAFETY: the vector proves AVX2 and the caller that 8 elements of `dtype` can be written.
        unsafe {
            match dtype {
                Dtype::F32 => _mm256_storeu_ps(data.cast(), self.0),
                Dtype::Bf16 => _mm_storeu_si128(data.cast(), bf16_bits(self.0)),
                Dtype::F16 => _mm_storeu_si128(data.cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(self.0)),
                Dtype::F64 => {
                    let high = _mm256_extractf128_ps::<1>(self.0);
                    _mm256_storeu_pd(data.cast(), _mm256_cvtps_pd(_mm256_castps256_ps128(self.0)));
                    _mm256_storeu_pd(data.add(32).cast(), _mm256_cvtps_pd(high));
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn store_past_caches(self, data: *mut u8, dtype: Dtype) {
        // SAFETY: the vector proves AVX2 and the caller that eight elements of `dtype` can be written, aligned.
        unsafe {
            match dtype {
                Dtype::F32 => _mm256_stream_ps(data.cast(), self.0),
                Dtype::Bf16 => _mm_stream_si128(data.cast(), bf16_bits(self.0)),
                Dtype::F16 => _mm_stream_si128(data.cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(self.0)),
                Dtype::F64 => self.store(data, dtype),
            }
        }
    }
    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        // SAFETY: the vector proves AVX2 and FMA.
        F32x8(unsafe { _mm256_fmadd_ps(self.0, b.0, c.0) })
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
        // SAFETY: the vector proves AVX2.
        F32x8(unsafe {
            let field = _mm256_srli_epi32::<23>(_mm256_castps_si256(self.0));
            _mm256_cvtepi32_ps(_mm256_sub_epi32(field, _mm256_set1_epi32(127)))
        })
    }
    #[inline(always)]
    fn abs(self) -> Self {
        // SAFETY: the vector proves AVX2.
        F32x8(unsafe { _mm256_andnot_ps(_mm256_set1_ps(-0.0), self.0) })
    }
    #[inline(always)]
    fn copysign(self, sign: Self) -> Self {
        // SAFETY: the vector proves AVX2.
        unsafe {
            let bit = _mm256_set1_ps(-0.0);
            F32x8(_mm256_or_ps(_mm256_andnot_ps(bit, self.0), _mm256_and_ps(bit, sign.0)))
        }
    }
    #[inline(always)]
    fn min(self, other: Self) -> Self {
        // SAFETY: the vector proves AVX2.
        F32x8(unsafe { _mm256_min_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        // SAFETY: the vector proves AVX2.
        F32x8(unsafe { _mm256_max_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn round(self) -> Self {
        // SAFETY: the vector proves AVX2.
        F32x8(unsafe { _mm256_round_ps::<NEAREST>(self.0) })
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        // SAFETY: the vector proves AVX2.
        F32x8(unsafe { _mm256_sqrt_ps(self.0) })
    }
    #[inline(always)]
    fn scale(self, n: Self) -> Self {
        // SAFETY: the vector proves AVX2.
        unsafe {
            // An exponent field of 0 makes the factor 0.
            let n = _mm256_max_ps(n.0, _mm256_set1_ps(-127.0));
            let field = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
            let factor = _mm256_castsi256_ps(_mm256_slli_epi32::<23>(field));
            F32x8(_mm256_mul_ps(self.0, factor))
        }
    }
    #[inline(always)]
    fn powers(token: Avx2, weight: f64) -> Self {
        let mut powers = power_table::<8>(weight);
        for (step, power) in powers.iter_mut().enumerate() {
            // Less what the step adds to the exponent in `power`.
            *power = f32::from_bits(power.to_bits().wrapping_sub((step as u32) << 20));
        }
        // SAFETY: the array has eight elements.
        unsafe { Self::load(token, powers.as_ptr().cast(), Dtype::F32) }
    }
    #[inline(always)]
    fn grid() -> f64 {
        1_572_864.0 // 1.5·2^20, where a unit in the last place is 1/8
    }
    #[inline(always)]
    fn power(self, token: Avx2, powers: Self) -> Self {
        let power = self.normal_power(token, powers);
        // SAFETY: the vector proves AVX2. An exponent below that of subnormal numbers has borrowed from the sign.
        F32x8(unsafe {
            let bits = _mm256_max_epi32(_mm256_castps_si256(power.0), _mm256_setzero_si256());
            _mm256_castsi256_ps(bits)
        })
    }
    #[inline(always)]
    fn normal_power(self, _: Avx2, powers: Self) -> Self {
        // SAFETY: the vector proves AVX2. The lookup takes the low three bits, and the integer part is added to the exponent.
        F32x8(unsafe {
            let bits = _mm256_castps_si256(self.0);
            let step = _mm256_castps_si256(_mm256_permutevar8x32_ps(powers.0, bits));
            _mm256_castsi256_ps(_mm256_add_epi32(step, _mm256_slli_epi32::<20>(bits)))
        })
    }
    #[inline(always)]
    fn reciprocal_rough(self) -> Self {
        // SAFETY: the vector proves AVX2.
        F32x8(unsafe { _mm256_rcp_ps(self.0) })
    }
    #[inline(always)]
    fn logarithms(token: Avx2) -> [Self; 2] {
        const TABLES: [[f32; 8]; 2] = [reciprocal_table(), logarithm_table()];
        // SAFETY: a table has eight elements.
        let load = |table: usize| unsafe { Self::load(token, TABLES[table].as_ptr().cast(), Dtype::F32) };
        [load(0), load(1)]
    }
    #[inline(always)]
    fn ln_step(self, token: Avx2, [reciprocals, logarithms]: [Self; 2]) -> (Self, Self) {
        // SAFETY: the vector proves AVX2. The lookups take the low three bits: the first of the mantissa.
        unsafe {
            let bits = _mm256_castps_si256(self.0);
            let step = _mm256_srli_epi32::<20>(bits);
            let look_up = |table: Self| F32x8(_mm256_permutevar8x32_ps(table.0, step));
            let fraction = _mm256_and_si256(bits, _mm256_set1_epi32(0x007f_ffff));
            let mantissa = _mm256_or_si256(fraction, _mm256_set1_epi32(0x3f80_0000));
            let ln = self.exponent().mul_add(Self::splat(token, std::f64::consts::LN_2), look_up(logarithms));
            let mantissa = F32x8(_mm256_castsi256_ps(mantissa));
            (ln, mantissa.mul_add(look_up(reciprocals), Self::splat(token, -1.0)))
        }
    }
    #[inline(always)]
    fn at_least(self, lowest: Self) -> Self {
        // SAFETY: the vector proves AVX2. The instruction gives its second operand where one is NaN.
        F32x8(unsafe { _mm256_max_ps(lowest.0, self.0) })
    }
    #[inline(always)]
    fn at_most(self, highest: Self) -> Self {
        // SAFETY: the vector proves AVX2. The instruction gives its second operand where one is NaN.
        F32x8(unsafe { _mm256_min_ps(highest.0, self.0) })
    }
    #[inline(always)]
    fn split_exponent(self) -> (Self, Self) {
        // SAFETY: the vector proves AVX2.
        unsafe {
            // Subnormal numbers are multiplied by 2^32 first, which makes them normal.
            let subnormal = _mm256_cmp_ps::<_CMP_LT_OQ>(self.0, _mm256_set1_ps(f32::MIN_POSITIVE));
            let normal = _mm256_mul_ps(self.0, _mm256_set1_ps(4_294_967_296.0));
            let bits = _mm256_castps_si256(_mm256_blendv_ps(self.0, normal, subnormal));
            // Subtracting the bits of √½ puts the carry into the exponent where the mantissa passes √2.
            let root_half = _mm256_set1_epi32(0x3f35_04f3);
            let shifted = _mm256_sub_epi32(bits, root_half);
            let field = _mm256_srai_epi32::<23>(shifted);
            let mantissa = _mm256_add_epi32(_mm256_and_si256(shifted, _mm256_set1_epi32(0x007f_ffff)), root_half);
            let offset = _mm256_and_ps(subnormal, _mm256_set1_ps(32.0));
            (F32x8(_mm256_sub_ps(_mm256_cvtepi32_ps(field), offset)), F32x8(_mm256_castsi256_ps(mantissa)))
        }
    }
    #[inline(always)]
    fn lt(self, other: Self) -> __m256 {
        // SAFETY: the vector proves AVX2.
        unsafe { _mm256_cmp_ps::<_CMP_LT_OQ>(self.0, other.0) }
    }
    #[inline(always)]
    fn le(self, other: Self) -> __m256 {
        // SAFETY: the vector proves AVX2.
        unsafe { _mm256_cmp_ps::<_CMP_LE_OQ>(self.0, other.0) }
    }
    #[inline(always)]
    fn select(mask: __m256, yes: Self, no: Self) -> Self {
        // SAFETY: the vector proves AVX2.
        F32x8(unsafe { _mm256_blendv_ps(no.0, yes.0, mask) })
    }
    #[inline(always)]
    fn any(mask: __m256) -> bool {
        // SAFETY: a mask is only made from vectors, which prove AVX2.
        unsafe { _mm256_movemask_ps(mask) != 0 }
    }
    #[inline(always)]
    fn and(a: __m256, b: __m256) -> __m256 {
        // SAFETY: a mask is only made from vectors, which prove AVX2.
        unsafe { _mm256_and_ps(a, b) }
    }
    #[inline(always)]
    fn or(a: __m256, b: __m256) -> __m256 {
        // SAFETY: a mask is only made from vectors, which prove AVX2.
        unsafe { _mm256_or_ps(a, b) }
    }
    #[inline(always)]
    fn xor(a: __m256, b: __m256) -> __m256 {
        // SAFETY: a mask is only made from vectors, which prove AVX2.
        unsafe { _mm256_xor_ps(a, b) }
    }
    #[inline(always)]
    fn all(mask: __m256) -> bool {
        // SAFETY: a mask is only made from vectors, which prove AVX2.
        unsafe { _mm256_movemask_ps(mask) == 0xff }
    }
    #[inline(always)]
    fn compress(self, mask: __m256) -> (Self, usize) {
        // SAFETY: the vector proves AVX2; the places of a mask are 8 bytes.
        unsafe {
            let bits = _mm256_movemask_ps(mask) as usize & 0xff;
            let places = _mm256_cvtepu8_epi32(_mm_loadl_epi64(PLACES[bits].as_ptr().cast()));
            (F32x8(_mm256_permutevar8x32_ps(self.0, places)), bits.count_ones() as usize)
        }
    }
    #[inline(always)]
    fn widen(self, _: Avx2) -> [F64x4; 2] {
        // SAFETY: the vector proves AVX2.
        unsafe {
            let high = _mm256_extractf128_ps::<1>(self.0);
            [F64x4(_mm256_cvtps_pd(_mm256_castps256_ps128(self.0))), F64x4(_mm256_cvtps_pd(high))]
        }
    }
    #[inline(always)]
    fn to_array(self) -> [f32; MAX_LANES] {
        let mut lanes = [0.0; MAX_LANES];
        // SAFETY: the vector proves AVX2; the array has room for 8 lanes.
        unsafe { _mm256_storeu_ps(lanes.as_mut_ptr(), self.0) };
        lanes
    }
}
