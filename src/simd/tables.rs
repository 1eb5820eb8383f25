//! Coefficients and tables of what instruction sets look up: powers of two, reciprocals and logarithms.

/// `Lanes::EXP2` for steps of 1/16: minimax in relative error of 2^f, 1.6e-9.
#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "of instruction sets that look up"))]
pub(super) const EXP2_SIXTEENTHS: &[f64] = &[0.693_147_182_666_641_3, 0.240_234_288_014_125_8, 0.055_502_136_490_773];
/// For steps of 1/8: 2.5e-8.
#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "of instruction sets that look up"))]
pub(super) const EXP2_EIGHTHS: &[f64] = &[0.693_147_214_260_275_9, 0.240_257_629_783_873_23, 0.055_496_221_792_364_48];
/// For whole steps: 1.3e-7 of the part of second order.
pub(super) const EXP2_WHOLE: &[f64] = &[
    std::f64::consts::LN_2,
    0.240_226_504_784_943_12,
    0.055_503_808_735_712_51,
    0.009_618_172_545_256_345,
    0.001_338_144_120_541_609_6,
    0.000_154_173_336_589_599_36,
];
/// For whole steps in f64 lanes: 5e-17.
pub(super) const EXP2_WIDE: &[f64] = &[
    std::f64::consts::LN_2,
    0.240_226_506_959_100_72,
    0.055_504_108_664_821_625,
    0.009_618_129_107_628_48,
    0.001_333_355_814_640_647,
    0.000_154_035_303_933_707_34,
    1.525_273_384_155_677_3e-5,
    1.321_548_680_870_556_3e-6,
    1.017_805_708_773_394_1e-7,
    7.054_897_304_155_5e-9,
    4.455_817_908_336_065e-10,
    2.572_932_417_736_230_5e-11,
];
/// 1.5·2^52, where a unit in the last place is 1.
pub(super) const WIDE_GRID: f64 = 6_755_399_441_055_744.0;

/// `Lanes::LN_STEP` for steps of 1/32: 2.7e-9.
#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "of instruction sets that look up"))]
pub(super) const LN_32NDS: &[f64] = &[-0.500_051_134_219_630_2, 0.333_382_797_195_047_15];
/// For steps of 1/8: 3.3e-10.
#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "of instruction sets that look up"))]
pub(super) const LN_EIGHTHS: &[f64] =
    &[-0.499_999_042_585_876_63, 0.333_331_920_567_829_6, -0.250_850_298_929_034_2, 0.200_910_856_794_284_36];
/// From √½ to √2: 6.5e-9.
pub(super) const LN_WHOLE: &[f64] = &[
    -0.499_999_819_814_822_06,
    0.333_342_254_410_786_85,
    -0.250_024_910_335_056_14,
    0.199_536_134_797_864_56,
    -0.165_523_352_221_925_88,
    0.149_792_859_457_846,
    -0.144_418_719_377_653_67,
    0.087_336_259_909_952_67,
];

/// 1/c for c in the middle of each N-th of 1 to 2, in f32.
#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "of instruction sets that look up"))]
pub(super) const fn reciprocal_table<const N: usize>() -> [f32; N] {
    let mut table = [0.0; N];
    let mut step = 0;
    while step < N {
        table[step] = (1.0 / (1.0 + (step as f64 + 0.5) / N as f64)) as f32;
        step += 1;
    }
    table
}

/// The logarithms of the reciprocals of [`reciprocal_table`].
#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "of instruction sets that look up"))]
pub(super) const fn logarithm_table<const N: usize>() -> [f32; N] {
    /// Of 1/3² the last one is below the last bit of f64.
    const TERMS: usize = 18;
    let reciprocals = reciprocal_table::<N>();
    let mut table = [0.0; N];
    let mut step = 0;
    while step < N {
        // ln c = 2 atanh((c − 1)/(c + 1)).
        let reciprocal = reciprocals[step] as f64;
        let s = (1.0 - reciprocal) / (1.0 + reciprocal);
        let (mut sum, mut term) = (0.0, TERMS);
        while term > 0 {
            term -= 1;
            sum = sum * s * s + 2.0 / (2 * term + 1) as f64;
        }
        table[step] = (sum * s) as f32;
        step += 1;
    }
    table
}

/// weight·2^(j/N) in f32.
#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "of instruction sets that look up"))]
#[inline(always)]
pub(super) fn power_table<const N: usize>(weight: f64) -> [f32; N] {
    std::array::from_fn(|j| (weight * SIXTEENTHS[j * 16 / N]) as f32)
}

/// 2^(j/16).
const SIXTEENTHS: [f64; 16] = [
    1.0,
    1.044_273_782_427_413_8,
    1.090_507_732_665_257_7,
    1.138_788_634_756_691_6,
    1.189_207_115_002_721,
    1.241_857_812_073_484,
    1.296_839_554_651_009_6,
    1.354_255_546_936_892_7,
    std::f64::consts::SQRT_2,
    1.476_826_145_939_499_3,
    1.542_210_825_407_940_7,
    1.610_490_331_949_254_3,
    1.681_792_830_507_429,
    1.756_252_160_373_299_5,
    1.834_008_086_409_342_4,
    1.915_206_561_397_147_4,
];
