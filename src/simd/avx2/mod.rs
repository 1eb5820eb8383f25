//! AVX2 with FMA and F16C: 8 lanes of f32, 4 lanes of f64.
//!
//! Every operation here and in [`f32_lanes`] and [`f64_lanes`] is sound for the same reason: a vector, or the token it is made from, exists only
//! where [`Avx2::detect`] has seen the features, and the intrinsics used ask for nothing else.

mod f32_lanes;
mod f64_lanes;

#[cfg_attr(not(test), expect(clippy::wildcard_imports, reason = "one name for every instruction"))]
use std::arch::x86_64::*;
use std::ops::{Add, Div, Mul, Neg, Sub};

use super::vector::{Kernel, Lanes, Part, Simd};

/// Proof that the CPU has AVX2, FMA and F16C.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx2(());

impl Avx2 {
    pub(crate) fn detect() -> Option<Self> {
        let present =
            is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
        present.then_some(Avx2(()))
    }
}

impl Simd for Avx2 {
    type F32 = F32x8;
    type F64 = F64x4;

    #[inline(always)]
    fn prefetch(self, data: *const u8) {
        // SAFETY: a prefetch reads nothing that the program sees, and never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(data.cast()) }
    }

    #[inline(always)]
    fn fence(self) {
        // SAFETY: a fence touches no memory; every x86-64 CPU has it.
        unsafe { _mm_sfence() }
    }

    #[inline]
    fn vectorize<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn trampoline<K: Kernel>(token: Avx2, kernel: K) -> K::Output {
            kernel.run(token)
        }
        // SAFETY: `self` proves the features.
        unsafe { trampoline(self, kernel) }
    }

    #[inline(always)]
    fn apart<V: Lanes<Token = Self>, P: Part<V>>(self, part: P) -> P::Output {
        #[target_feature(enable = "avx2,fma,f16c")]
        // `#[inline(never)]` is forgotten beside target features (Rust 1.95).
        #[cold]
        fn trampoline<V: Lanes<Token = Avx2>, P: Part<V>>(token: Avx2, part: P) -> P::Output {
            part.run(token)
        }
        // SAFETY: `self` proves the features.
        unsafe { trampoline::<V, P>(self, part) }
    }
}

#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct F32x8(__m256);

#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct F64x4(__m256d);

/// `operators!(F32x8: Add add _mm256_add_ps);` expands to
/// `impl Add for F32x8 { fn add(self, other: Self) -> Self { F32x8(unsafe { _mm256_add_ps(self.0, other.0) }) } }`.
macro_rules! operators {
    ($($vector:ident: $operator:ident $method:ident $intrinsic:ident;)*) => {$(
        impl $operator for $vector {
            type Output = Self;
            #[inline(always)]
            fn $method(self, other: Self) -> Self {
                // SAFETY: the vector proves AVX2 (see the module's documentation).
                $vector(unsafe { $intrinsic(self.0, other.0) })
            }
        }
    )*};
}

operators! {
    F32x8: Add add _mm256_add_ps;
    F32x8: Sub sub _mm256_sub_ps;
    F32x8: Mul mul _mm256_mul_ps;
    F32x8: Div div _mm256_div_ps;
    F64x4: Add add _mm256_add_pd;
    F64x4: Sub sub _mm256_sub_pd;
    F64x4: Mul mul _mm256_mul_pd;
    F64x4: Div div _mm256_div_pd;
}

impl Neg for F32x8 {
    type Output = Self;
    #[inline(always)]
    fn neg(self) -> Self {
        // SAFETY: the vector proves AVX2.
        F32x8(unsafe { _mm256_xor_ps(self.0, _mm256_set1_ps(-0.0)) })
    }
}

impl Neg for F64x4 {
    type Output = Self;
    #[inline(always)]
    fn neg(self) -> Self {
        // SAFETY: the vector proves AVX2.
        F64x4(unsafe { _mm256_xor_pd(self.0, _mm256_set1_pd(-0.0)) })
    }
}

const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;

/// Of each mask.
static PLACES: [[u8; 8]; 256] = places();

/// For every mask of eight lanes the numbers of those where it holds, in order, as the first ones.
const fn places() -> [[u8; 8]; 256] {
    let mut places = [[0; 8]; 256];
    let mut mask = 0;
    while mask < 256 {
        let (mut lane, mut place) = (0, 0);
        while lane < 8 {
            if mask >> lane & 1 == 1 {
                places[mask][place] = lane;
                place += 1;
            }
            lane += 1;
        }
        mask += 1;
    }
    places
}

/// The eight floats rounded to bfloat16, ties to even; NaN stays a (quiet) NaN.
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
unsafe fn bf16_bits(single: __m256) -> __m128i {
    // SAFETY: the caller's.
    unsafe {
        let bits = _mm256_castps_si256(single);
        let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
        let rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
        let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(single, single));
        let quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x0040_0000));
        let chosen = _mm256_srli_epi32::<16>(_mm256_blendv_epi8(rounded, quiet, nan));
        _mm_packus_epi32(_mm256_castsi256_si128(chosen), _mm256_extracti128_si256::<1>(chosen))
    }
}
