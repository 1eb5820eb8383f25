//! The traits of the vocabulary: what a vector of floats can do.

use std::ops::{Add, Div, Mul, Neg, Sub};

use crate::element::{Dtype, Element};

/// Lanes of the widest vector of any instruction set.
pub(crate) const MAX_LANES: usize = 16;

/// An instruction set, as a value that proves that the running CPU has it.
pub(crate) trait Simd: Copy + Send + Sync + 'static {
    /// A vector of f32.
    type F32: Lanes<Token = Self, Scalar = f32>;
    /// A vector of f64.
    type F64: Lanes<Token = Self, Scalar = f64>;
    /// Asks for the cache line at `data`, which need not be readable.
    fn prefetch(self, data: *const u8);
    /// Orders what was written past the caches before all that follows.
    fn fence(self);
    /// Runs `kernel` compiled for this instruction set.
    fn vectorize<K: Kernel>(self, kernel: K) -> K::Output;
    /// Does `part`, compiled once for all kernels that do it: for what is large, and for few rows.
    fn apart<V: Lanes<Token = Self>, P: Part<V>>(self, part: P) -> P::Output;
}

/// A part of a kernel, for [`Simd::apart`]; `run` must be `#[inline(always)]`.
pub(crate) trait Part<V: Lanes> {
    /// What it gives back.
    type Output;
    /// The computation.
    fn run(self, token: V::Token) -> Self::Output;
}

/// Something to be computed on vectors; `run` must be `#[inline(always)]`.
pub(crate) trait Kernel {
    /// What it gives back.
    type Output;
    /// The computation, for any instruction set.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// Something to be computed in f32 or in f64 lanes; `run` must be `#[inline(always)]`.
pub(crate) trait LaneKernel {
    /// What it gives back.
    type Output;
    /// The computation, in lanes of either type.
    fn run<V: Lanes>(self, token: V::Token) -> Self::Output;
}

/// A kernel in f32 lanes.
pub(crate) struct Narrow<K>(pub(crate) K);
/// A kernel in f64 lanes.
pub(crate) struct Wide<K>(pub(crate) K);

impl<K: LaneKernel> Kernel for Narrow<K> {
    type Output = K::Output;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> K::Output {
        self.0.run::<S::F32>(simd)
    }
}

impl<K: LaneKernel> Kernel for Wide<K> {
    type Output = K::Output;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> K::Output {
        self.0.run::<S::F64>(simd)
    }
}

/// The number type of one lane, with the constants that elementary functions and kernels need at its precision.
pub(crate) trait Scalar: Element + PartialOrd + Default {
    /// Whether this is the wide type (f64), for which rounding in intermediate steps is far below any tolerance.
    const WIDE: bool;
    /// Coefficients of (e^r − 1 − r) / r² on |r| ≤ ln 2 / 2, lowest degree first.
    const EXP: &'static [f64];
    /// Coefficients of (e^(−d) − 1 + d) / d² on |d| ≤ 1, lowest degree first.
    const EXCESS: &'static [f64];
    /// Coefficients of (t − ln(1 + t)) / t² on −½ ≤ t ≤ 0, lowest degree first.
    const LN_DEFICIT: &'static [f64];
    /// Coefficients of (2 atanh s − 2s) / s³ in s² on |s| ≤ 1/3, lowest degree first.
    const LN_RATIO: &'static [f64];
    /// Coefficients of (atanh s − s) / s³ in s² on |s| ≤ (√2 − 1)/(√2 + 1), lowest degree first.
    const ATANH: &'static [f64];
    /// ln 2 rounded so that its product with any exponent in use is exact.
    const LN_2_HIGH: f64;
    /// ln 2 − `LN_2_HIGH`.
    const LN_2_LOW: f64;
    /// Below −`EXP_FLOOR` the exponential is 0 against 1 at this precision, with its exponent still in range.
    const EXP_FLOOR: f64;
    /// Stands for an infinite log-ratio, so that no ∞ − ∞ or 0·∞ arises in a kernel, and bounds finite ones.
    const HUGE: f64;
    /// The smallest normal number.
    const MIN_POSITIVE: f64;
}

impl Scalar for f32 {
    const WIDE: bool = false;
    // Minimax in relative error, 1.3e-7 (of the second-order part alone).
    const EXP: &'static [f64] = &[
        0.499_999_995_474_775_86,
        0.166_665_766_045_324_46,
        0.041_666_854_842_676_876,
        0.008_363_259_740_611_998,
        0.001_390_133_486_828_615_8,
    ];
    // Minimax in relative error, 4.3e-9.
    const EXCESS: &'static [f64] = &[
        0.499_999_997_927_181_5,
        -0.166_666_670_106_622_47,
        0.041_666_734_540_770_03,
        -0.008_333_310_275_308_845,
        0.001_388_545_198_243_508,
        -0.000_198_440_236_118_031_38,
        2.535_482_943_355_065_6e-5,
        -2.772_283_429_789_102e-6,
    ];
    // Minimax in relative error, 6.2e-9 and 4.7e-9.
    const LN_DEFICIT: &'static [f64] = &[
        0.499_999_996_876_136_1,
        -0.333_334_560_240_505_23,
        0.249_921_066_723_898_55,
        -0.201_952_585_715_531_96,
        0.142_414_434_116_264_73,
        -0.313_169_119_769_245_94,
        -0.586_050_685_269_241_4,
        -1.877_230_637_410_346_5,
        -2.354_912_990_665_25,
        -1.638_256_572_593_447,
    ];
    // Minimax in relative error, 1e-8.
    const LN_RATIO: &'static [f64] = &[
        0.666_666_673_311_711_7,
        0.399_997_032_229_165_3,
        0.285_924_991_089_382_24,
        0.217_045_319_887_462_73,
        0.232_335_644_876_987_19,
    ];
    // Minimax in relative error, 1.8e-9.
    const ATANH: &'static [f64] =
        &[0.333_333_332_747_229_76, 0.200_000_629_304_870_64, 0.142_751_864_995_955_57, 0.116_712_407_424_706_1];
    const LN_2_HIGH: f64 = 0.693_145_751_953_125; // 15 significant bits: exact times integers below 2^9
    const LN_2_LOW: f64 = 1.428_606_820_309_417_3e-6;
    const EXP_FLOOR: f64 = 80.0;
    const HUGE: f64 = 1e30;
    const MIN_POSITIVE: f64 = f32::MIN_POSITIVE as f64;
}

impl Scalar for f64 {
    const WIDE: bool = true;
    // Minimax in relative error, 2.8e-18.
    const EXP: &'static [f64] = &[
        0.5,
        0.166_666_666_666_666_7,
        0.041_666_666_666_666_616,
        0.008_333_333_333_326_053,
        0.001_388_888_888_891_848_2,
        0.000_198_412_698_751_217_66,
        2.480_158_724_492_368_4e-5,
        2.755_725_500_574_608_4e-6,
        2.755_735_001_547_720_5e-7,
        2.510_538_516_544_722e-8,
        2.088_937_010_111_421_8e-9,
    ];
    // f64 lanes reduce first.
    const EXCESS: &'static [f64] = &[0.5];
    const LN_DEFICIT: &'static [f64] = &[0.5];
    // At Chebyshev's nodes: 6e-17.
    const LN_RATIO: &'static [f64] = &[
        0.666_666_666_666_666_6,
        0.400_000_000_000_000_13,
        0.285_714_285_714_219_4,
        0.222_222_222_233_319_86,
        0.181_818_180_860_056_55,
        0.153_846_202_538_041_63,
        0.133_331_769_491_381_79,
        0.117_679_977_672_410_35,
        0.104_803_992_343_652_74,
        0.099_420_248_965_547_35,
        0.063_341_108_517_702_46,
        0.152_312_626_194_289_84,
    ];
    // Minimax in relative error, 3.3e-18.
    const ATANH: &'static [f64] = &[
        0.333_333_333_333_333_3,
        0.200_000_000_000_004_73,
        0.142_857_142_853_813_07,
        0.111_111_112_004_588_88,
        0.090_908_973_326_952_89,
        0.076_931_461_420_978_16,
        0.066_336_879_207_814_73,
        0.065_505_659_607_188_65,
    ];
    const LN_2_HIGH: f64 = 0.693_147_180_369_123_8; // 33 significant bits: exact times integers below 2^20
    const LN_2_LOW: f64 = 1.908_214_929_270_587_7e-10;
    const EXP_FLOOR: f64 = 700.0;
    const HUGE: f64 = 1e290;
    const MIN_POSITIVE: f64 = f64::MIN_POSITIVE;
}

/// [`Lanes::ln_step`] where nothing is looked up: a is a power of two, 1 + t from √½ to √2.
#[inline(always)]
pub(super) fn ln_step_without_table<V: Lanes>(token: V::Token, x: V) -> (V, V) {
    let (exponent, mantissa) = x.split_exponent();
    (exponent * V::splat(token, std::f64::consts::LN_2), mantissa - V::splat(token, 1.0))
}

/// Exponent of the power of two that stands for smaller ones where they are summed with one of about 1: what it adds is far below
/// any rounding.
pub(super) const LOWEST_SUMMED_POWER: f64 = -120.0;

/// A vector of floats. Comparisons and `min`/`max` are only defined for operands that are not NaN.
pub(crate) trait Lanes:
    Copy + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Div<Output = Self> + Neg<Output = Self>
{
    /// The instruction set.
    type Token: Simd;
    /// The type of one lane.
    type Scalar: Scalar;
    /// One truth value per lane.
    type Mask: Copy;
    /// A vector of f64 of the same instruction set.
    type Wide: Lanes<Token = Self::Token, Scalar = f64>;
    /// A table of powers of two, to be looked up by lane.
    type Powers: Copy;
    /// Tables of reciprocals and logarithms, to be looked up by lane.
    type Logarithms: Copy;
    /// Number of lanes, at most [`MAX_LANES`].
    const N: usize;
    /// Whether loops are worth compiling that are faster than others that do as well: which store vectors past the caches, or
    /// rounded, and those of f64 lanes for rows that have little in common.
    const HAS_SHORT_CUTS: bool = true;
    /// The lowest exponent that [`Lanes::power`] takes.
    const LOWEST_POWER: f64 = f64::NEG_INFINITY;
    /// Coefficients of (2^f − 1) / f on half a step of the table to both sides, lowest degree first.
    const EXP2: &'static [f64];
    /// Coefficients of (ln(1 + t) − t) / t² for the t of [`Lanes::ln_step`], lowest degree first, by the error of
    /// ln(1 + t).
    const LN_STEP: &'static [f64];

    /// All lanes equal to `value`, rounded to the lane type.
    fn splat(token: Self::Token, value: f64) -> Self;
    /// `N` elements of `dtype` from `data`, converted.
    ///
    /// # Safety
    /// `data` is valid for reads of `N * dtype.size()` bytes; no alignment is needed.
    unsafe fn load(token: Self::Token, data: *const u8, dtype: Dtype) -> Self;
    /// Writes `N` elements of `dtype` to `data`, rounded to nearest.
    ///
    /// # Safety
    /// `data` is valid for writes of `N * dtype.size()` bytes; no alignment is needed.
    unsafe fn store(self, data: *mut u8, dtype: Dtype);
    /// Like [`Lanes::store`], but past the caches, where the CPU can.
    ///
    /// # Safety
    /// As for `store`; `data` is aligned to the bytes written, and [`Simd::fence`] comes before any other access to them.
    unsafe fn store_past_caches(self, data: *mut u8, dtype: Dtype);
    /// self·b + c rounded once.
    fn mul_add(self, b: Self, c: Self) -> Self;
    /// self·b + c rounded once or twice, whichever is faster.
    fn mul_add_relaxed(self, b: Self, c: Self) -> Self;
    /// self / divisor, for normal numbers of middling size; the last bit may be wrong.
    fn divide_relaxed(self, divisor: Self) -> Self;
    /// ⌊log2 self⌋ of a positive normal number; at most that of the smallest normal one for subnormal ones.
    fn exponent(self) -> Self;
    /// Absolute value.
    fn abs(self) -> Self;
    /// The magnitude of `self` with the sign of `sign`.
    fn copysign(self, sign: Self) -> Self;
    /// The smaller of the two.
    fn min(self, other: Self) -> Self;
    /// The larger of the two.
    fn max(self, other: Self) -> Self;
    /// The nearest integer, ties to even.
    fn round(self) -> Self;
    /// The square root, correctly rounded.
    fn sqrt(self) -> Self;
    /// self·2^n for an integral n of at most 127; 0 once 2^n is below the smallest normal number.
    fn scale(self, n: Self) -> Self;
    /// The table of weight·2^f for f from 0 to 1, in as many steps as one lookup takes.
    fn powers(token: Self::Token, weight: f64) -> Self::Powers;
    /// The number that, added to one of magnitude below 2^18, rounds it to a whole number of steps, which
    /// [`Lanes::power`] takes.
    fn grid() -> f64;
    /// weight·2^n for `self` = n + [`Lanes::grid`], n a whole number of steps from [`Lanes::LOWEST_POWER`] on and below 127; 0
    /// once it is far below the smallest normal number.
    fn power(self, token: Self::Token, powers: Self::Powers) -> Self;
    /// The same for n from [`LOWEST_SUMMED_POWER`] on and a weight of about 1.
    #[inline(always)]
    fn normal_power(self, token: Self::Token, powers: Self::Powers) -> Self {
        self.power(token, powers)
    }
    /// 1/self to at least eleven bits, for normal numbers; not finite for 0.
    fn reciprocal_rough(self) -> Self;
    /// The tables for [`Lanes::ln_step`].
    fn logarithms(token: Self::Token) -> Self::Logarithms;
    /// (ln a, t) with self = a·(1 + t) and t as small as one lookup makes it, for positive normal numbers; f32 lanes.
    fn ln_step(self, token: Self::Token, logarithms: Self::Logarithms) -> (Self, Self);
    /// The larger of the two; NaN where `self` is NaN.
    fn at_least(self, lowest: Self) -> Self;
    /// The smaller of the two; NaN where `self` is NaN.
    fn at_most(self, highest: Self) -> Self;
    /// (k, m) with self = 2^k·m exactly and m in [√½, √2), for positive finite lanes, subnormal ones too.
    fn split_exponent(self) -> (Self, Self);
    /// self < other.
    fn lt(self, other: Self) -> Self::Mask;
    /// self ≤ other.
    fn le(self, other: Self) -> Self::Mask;
    /// Lanes of `yes` where the mask holds, of `no` elsewhere.
    fn select(mask: Self::Mask, yes: Self, no: Self) -> Self;
    /// Whether the mask holds in any lane.
    fn any(mask: Self::Mask) -> bool;
    /// Lanes where both masks hold.
    fn and(a: Self::Mask, b: Self::Mask) -> Self::Mask;
    /// Lanes where either mask holds.
    fn or(a: Self::Mask, b: Self::Mask) -> Self::Mask;
    /// Lanes where exactly one mask holds.
    fn xor(a: Self::Mask, b: Self::Mask) -> Self::Mask;
    /// Whether the mask holds in all lanes.
    fn all(mask: Self::Mask) -> bool;
    /// The lanes where the mask holds, in order, as the first ones; and their number. The others are anything.
    fn compress(self, mask: Self::Mask) -> (Self, usize);
    /// The lanes in f64, in order, as two vectors; the second is 0 where one holds them all.
    fn widen(self, token: Self::Token) -> [Self::Wide; 2];
    /// The lanes, in order, in the first `N` places.
    fn to_array(self) -> [Self::Scalar; MAX_LANES];

    /// Sum of the lanes in f64, in their order.
    #[inline(always)]
    fn sum(self) -> f64 {
        let lanes = self.to_array();
        let mut total = 0.0;
        for lane in &lanes[..Self::N] {
            total += lane.to_f64();
        }
        total
    }

    /// The largest lane.
    #[inline(always)]
    fn largest(self) -> f64 {
        let lanes = self.to_array();
        let mut largest = lanes[0].to_f64();
        for lane in &lanes[1..Self::N] {
            largest = largest.max(lane.to_f64());
        }
        largest
    }

    /// The first `N` numbers, rounded to the lane type.
    #[inline(always)]
    fn from_array(token: Self::Token, numbers: &[f64; MAX_LANES]) -> Self {
        // SAFETY: the array has `MAX_LANES` ≥ `N` elements.
        unsafe { Self::load(token, numbers.as_ptr().cast(), Dtype::F64) }
    }

    /// The polynomial with these coefficients (lowest degree first) at `self`: pairs of neighbours first, then Horner's
    /// rule in `self`², which waits for half as many results as Horner's rule in `self`.
    #[inline(always)]
    fn polynomial(self, token: Self::Token, coefficients: &'static [f64]) -> Self {
        let squared = self * self;
        let mut at = (coefficients.len() - 1) / 2 * 2;
        let mut value = self.neighbours(token, coefficients, at);
        while at > 0 {
            at -= 2;
            value = value.mul_add_relaxed(squared, self.neighbours(token, coefficients, at));
        }
        value
    }

    /// Coefficient `at`, and the one after it, if there is one, times `self`.
    #[inline(always)]
    fn neighbours(self, token: Self::Token, coefficients: &'static [f64], at: usize) -> Self {
        let low = Self::splat(token, coefficients[at]);
        match coefficients.get(at + 1) {
            Some(&high) => Self::splat(token, high).mul_add_relaxed(self, low),
            None => low,
        }
    }
}

/// Vectors summed in f32 before they are added to an f64 total.
///
/// A lane that holds the largest class of a row loses half a unit in its last place with every addition after it: over
/// sixteen additions of numbers that differ about 1.5e-7 of the sum, over a whole block of 4096 classes 1e-6; of numbers that are
/// alike up to 9e-7 (`Distribution::is_smoothed`).
pub(crate) const RUN: usize = 16;

/// A sum over many vectors, in f64 lanes.
#[derive(Clone, Copy)]
pub(crate) struct Total<V: Lanes>([V::Wide; 2]);

impl<V: Lanes> Total<V> {
    #[inline(always)]
    pub(crate) fn zero(token: V::Token) -> Self {
        Total([V::Wide::splat(token, 0.0); 2])
    }

    /// Adds the sum of at most [`RUN`] vectors.
    #[inline(always)]
    pub(crate) fn add(&mut self, token: V::Token, run: V) {
        let [low, high] = run.widen(token);
        self.0[0] = self.0[0] + low;
        self.0[1] = self.0[1] + high;
    }

    #[inline(always)]
    pub(crate) fn sum(self) -> f64 {
        (self.0[0] + self.0[1]).sum()
    }

    /// The sum of each. `map` of an array is a call, in which lanes go through memory.
    #[inline(always)]
    pub(crate) fn sums<const N: usize>(totals: [Self; N]) -> [f64; N] {
        let mut sums = [0.0; N];
        for (sum, total) in sums.iter_mut().zip(totals) {
            *sum = total.sum();
        }
        sums
    }
}
