//! Logarithms, written once over [`Lanes`].
//!
//! Largest errors found by the sweeps in `simd::tests` (every instruction set, whole range):
//!
//! | function | f32 | f64 |
//! | --- | --- | --- |
//! | [`ln`] | 2.0 ULP | 2.0 ULP |
//! | [`Log1p`]'s `ln` | 2.7 ULP | 2.7 ULP |
//! | [`Log1p`]'s `deficit` | 20.0 ULP | 20.0 ULP |
//! | [`LogRatio`]'s `ln` | 2.0 ULP | 2.0 ULP |
//! | [`LogRatio`]'s `excess` | 20.0 ULP | 20.0 ULP |

use super::vector::{Lanes, Scalar};

/// (√2 − 1)/(√2 + 1): (1 + s)/(1 − s) is √2.
pub(crate) const LARGEST_S: f64 = 0.171_572_875_253_809_9;

/// ln(1 + r)/r on 0 ≤ r ≤ 1, lowest degree first: minimax in absolute error, 3.3e-8.
pub(crate) const LN_1P_QUOTIENT: [f64; 9] = [
    0.999_999_965_925_509_6,
    -0.499_994_449_763_400_95,
    0.333_181_217_075_331_9,
    -0.248_353_989_885_155_44,
    0.190_768_807_357_477_94,
    -0.136_022_476_224_794_03,
    0.077_516_086_740_369_41,
    -0.029_074_064_677_494_2,
    0.005_126_102_140_966_913,
];

/// atanh(s) − s for |s| ≤ [`LARGEST_S`].
#[inline(always)]
pub(crate) fn atanh_tail<V: Lanes>(token: V::Token, s: V) -> V {
    let squared = s * s;
    s * squared * squared.polynomial(token, V::Scalar::ATANH)
}

/// 2 atanh s − 2s for |s| ≤ 1/3.
#[inline(always)]
pub(crate) fn atanh_tail_on_third<V: Lanes>(token: V::Token, s: V) -> V {
    let squared = s * s;
    s * squared * squared.polynomial(token, V::Scalar::LN_RATIO)
}

/// k·ln 2 + 2·(s + tail), smallest parts first.
#[inline(always)]
pub(crate) fn assemble<V: Lanes>(token: V::Token, k: V, s: V, tail: V) -> V {
    let small = k.mul_add(V::splat(token, V::Scalar::LN_2_LOW), tail + tail);
    k.mul_add(V::splat(token, V::Scalar::LN_2_HIGH), (s + s) + small)
}

/// ln x for positive finite x, subnormal ones too.
#[inline(always)]
pub(crate) fn ln<V: Lanes>(token: V::Token, x: V) -> V {
    let one = V::splat(token, 1.0);
    let (k, m) = x.split_exponent();
    let s = (m - one) / (m + one);
    assemble(token, k, s, atanh_tail(token, s))
}

/// ln(1 + t) and t − ln(1 + t) ≥ 0, each accurate however small |t| is; −1 < t ≤ 1.
#[derive(Clone, Copy)]
pub(crate) struct Log1p<V> {
    /// ln(1 + t).
    pub(crate) ln: V,
    /// t − ln(1 + t), of second order in t.
    pub(crate) deficit: V,
}

impl<V: Lanes> Log1p<V> {
    #[inline(always)]
    pub(crate) fn new(token: V::Token, t: V) -> Self {
        let zero = V::splat(token, 0.0);
        let one = V::splat(token, 1.0);
        let two = V::splat(token, 2.0);
        let (k, m) = (one + t).split_exponent();
        // Where no power of two is taken out, the numerator is t as given, without the rounding of 1 + t.
        let unscaled = k.abs().le(zero);
        let numerator = V::select(unscaled, t, m - one);
        let denominator = V::select(unscaled, t + two, m + one);
        let s = numerator / denominator;
        let tail = atanh_tail(token, s);
        let ln = assemble(token, k, s, tail);
        // t − 2s = t·s where s = t/(2 + t).
        let deficit = V::select(unscaled, t * s - (tail + tail), t - ln);
        Log1p { ln, deficit }
    }
}

impl<V: Lanes> Log1p<V> {
    /// The same for −½ ≤ t ≤ 0, in f32 lanes without a division.
    #[inline(always)]
    pub(crate) fn of_at_least_half(token: V::Token, t: V) -> Self {
        if V::Scalar::WIDE {
            return Self::new(token, t);
        }
        let deficit = t * t * t.polynomial(token, V::Scalar::LN_DEFICIT);
        Log1p { ln: t - deficit, deficit }
    }
}

/// ln(p/q) of positive p and q in f32 lanes, to 1.6e-7 of the larger of it and 1: for numbers that are not close.
/// Not finite where q is 0 or subnormal; finite where p is 0.
#[derive(Clone, Copy)]
pub(crate) struct RoughLogRatio<V: Lanes> {
    token: V::Token,
    logarithms: V::Logarithms,
}

impl<V: Lanes> RoughLogRatio<V> {
    #[inline(always)]
    pub(crate) fn new(token: V::Token) -> Self {
        RoughLogRatio { token, logarithms: V::logarithms(token) }
    }

    #[inline(always)]
    pub(crate) fn of(&self, p: V, q: V) -> V {
        // With c about 1/q and qc = 1 + e: ln(p/q) = ln(pc) − ln(1 + e), of which e²/2 < 7e-8 is left out.
        let c = q.reciprocal_rough();
        let e = q.mul_add_relaxed(c, V::splat(self.token, -1.0));
        let ratio = (p * c).max(V::splat(self.token, f64::from(f32::MIN_POSITIVE)));
        let (ln, t) = ratio.ln_step(self.token, self.logarithms);
        // Horner's rule: one operation less than pairs, and few coefficients.
        let mut slope = V::splat(self.token, V::LN_STEP[V::LN_STEP.len() - 1]);
        for &coefficient in V::LN_STEP.iter().rev().skip(1) {
            slope = slope.mul_add_relaxed(t, V::splat(self.token, coefficient));
        }
        slope.mul_add_relaxed(t, V::splat(self.token, 1.0)).mul_add_relaxed(t, ln - e)
    }
}

/// ln(p/q) of two positive finite numbers, accurate however close they are.
#[derive(Clone, Copy)]
pub(crate) struct LogRatio<V> {
    /// ln p − ln q.
    pub(crate) ln: V,
    /// e^(−u) − 1 + u for u = |ln p − ln q|, of second order in u.
    pub(crate) excess: V,
}

/// (k, s, tail) with p/q = 2^k·(1 + s)/(1 − s), k = 0 where p/q is from √½ to √2, and tail = atanh(s) − s.
#[inline(always)]
pub(crate) fn reduced_ratio<V: Lanes>(token: V::Token, p: V, q: V) -> (V, V, V) {
    let one = V::splat(token, 1.0);
    let half = V::splat(token, 0.5);
    let root_2 = V::splat(token, std::f64::consts::SQRT_2);
    let (p_exponent, p_mantissa) = p.split_exponent();
    let (q_exponent, q_mantissa) = q.split_exponent();
    // Bring the ratio of the mantissas into [√½, √2], where their difference is exact.
    let p_larger = (q_mantissa * root_2).lt(p_mantissa);
    let q_larger = (p_mantissa * root_2).lt(q_mantissa);
    let m = V::select(p_larger, p_mantissa * half, p_mantissa);
    let n = V::select(q_larger, q_mantissa * half, q_mantissa);
    let k = p_exponent - q_exponent;
    let k = V::select(p_larger, k + one, V::select(q_larger, k - one, k));
    let s = (m - n) / (m + n);
    (k, s, atanh_tail(token, s))
}

impl<V: Lanes> LogRatio<V> {
    #[inline(always)]
    pub(crate) fn new(token: V::Token, p: V, q: V) -> Self {
        let one = V::splat(token, 1.0);
        let (k, s, tail) = reduced_ratio(token, p, q);
        let ln = assemble(token, k, s, tail);
        // With σ = |s|: e^(−u) − 1 = −2σ/(1 + σ) and u = 2σ + 2·tail, whose sum is 2σ²/(1 + σ) + 2·tail.
        let sigma = s.abs();
        let near = sigma * sigma / (one + sigma) + tail.abs();
        let u = ln.abs();
        let smaller_over_larger = p.min(q) / p.max(q);
        let far = (smaller_over_larger - one) + u;
        let unscaled = k.abs().le(V::splat(token, 0.0));
        LogRatio { ln, excess: V::select(unscaled, near + near, far) }
    }
}
