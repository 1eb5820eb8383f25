//! AVX-512 (F, BW, DQ, VL): 16 lanes of f32, 8 lanes of f64.
//!
//! Every operation here and in [`f32_lanes`] and [`f64_lanes`] is sound for the same reason: a vector, or the token it is made from, exists only
//! where [`Avx512::detect`] has seen the features, and `_mm512_*` intrinsics ask for nothing else.

mod f32_lanes;
mod f64_lanes;

#[cfg_attr(not(test), expect(clippy::wildcard_imports, reason = "one name for every instruction"))]
use std::arch::x86_64::*;
use std::ops::{Add, Div, Mul, Neg, Sub};

use super::vector::{Kernel, Lanes, Part, Simd};

/// Proof that the CPU has AVX-512 F, BW, DQ and VL, AVX2, FMA and F16C.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx512(());

impl Avx512 {
    pub(crate) fn detect() -> Option<Self> {
        let present = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        present.then_some(Avx512(()))
    }
}

impl Simd for Avx512 {
    type F32 = F32x16;
    type F64 = F64x8;

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
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
        fn trampoline<K: Kernel>(token: Avx512, kernel: K) -> K::Output {
            kernel.run(token)
        }
        // SAFETY: `self` proves the features.
        unsafe { trampoline(self, kernel) }
    }

    #[inline(always)]
    fn apart<V: Lanes<Token = Self>, P: Part<V>>(self, part: P) -> P::Output {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
        // `#[inline(never)]` is forgotten beside target features (Rust 1.95).
        #[cold]
        fn trampoline<V: Lanes<Token = Avx512>, P: Part<V>>(token: Avx512, part: P) -> P::Output {
            part.run(token)
        }
        // SAFETY: `self` proves the features.
        unsafe { trampoline::<V, P>(self, part) }
    }
}

#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct F32x16(__m512);

#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct F64x8(__m512d);

/// `operators!(F32x16: Add add _mm512_add_ps);` expands to
/// `impl Add for F32x16 { fn add(self, other: Self) -> Self { F32x16(unsafe { _mm512_add_ps(self.0, other.0) }) } }`.
macro_rules! operators {
    ($($vector:ident: $operator:ident $method:ident $intrinsic:ident;)*) => {$(
        impl $operator for $vector {
            type Output = Self;
            #[inline(always)]
            fn $method(self, other: Self) -> Self {
                // SAFETY: the vector proves AVX-512 (see the module's documentation).
                $vector(unsafe { $intrinsic(self.0, other.0) })
            }
        }
    )*};
}

operators! {
    F32x16: Add add _mm512_add_ps;
    F32x16: Sub sub _mm512_sub_ps;
    F32x16: Mul mul _mm512_mul_ps;
    F32x16: Div div _mm512_div_ps;
    F64x8: Add add _mm512_add_pd;
    F64x8: Sub sub _mm512_sub_pd;
    F64x8: Mul mul _mm512_mul_pd;
    F64x8: Div div _mm512_div_pd;
}

impl Neg for F32x16 {
    type Output = Self;
    #[inline(always)]
    fn neg(self) -> Self {
        // SAFETY: the vector proves AVX-512.
        F32x16(unsafe { _mm512_xor_ps(self.0, _mm512_set1_ps(-0.0)) })
    }
}

impl Neg for F64x8 {
    type Output = Self;
    #[inline(always)]
    fn neg(self) -> Self {
        // SAFETY: the vector proves AVX-512.
        F64x8(unsafe { _mm512_xor_pd(self.0, _mm512_set1_pd(-0.0)) })
    }
}

const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;

/// The sixteen floats rounded to bfloat16, ties to even; NaN stays a (quiet) NaN.
///
/// # Safety
/// The CPU has AVX-512 F and BW.
#[inline(always)]
unsafe fn bf16_bits(single: __m512) -> __m256i {
    // SAFETY: the caller's.
    unsafe {
        let bits = _mm512_castps_si512(single);
        let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
        let rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
        let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(single, single);
        let chosen = _mm512_mask_blend_epi32(nan, rounded, _mm512_set1_epi32(0x7fc0_0000));
        // The upper halves of the sixteen numbers, in order, in the lower half of the vector.
        let upper = _mm512_set_epi16(
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 31, 29, 27, 25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1,
        );
        _mm512_castsi512_si256(_mm512_permutexvar_epi16(upper, chosen))
    }
}
