//! The elementary functions, against references with 30 digits.

use super::exact::{self, Exact, LN_2};
use super::{Isa, Lane, LaneKernel, Lanes, load, nearest, value};
use crate::simd::MAX_LANES;
use crate::simd::exp::{Decay, LARGEST_EXPONENT, ScaledExp, exp};
use crate::simd::ln::{Log1p, LogRatio, RoughLogRatio, ln};

/// Largest errors over all instruction sets, in units in the last place of the exact value: f32 lanes, f64 lanes.
/// Measured on ten times as many points as below, rounded up. The tables of `exp.rs` and `ln.rs` hold the same.
const ULPS: [(&str, f64, Option<f64>); 11] = [
    ("[`exp`]", 1.4, Some(1.3)),
    ("[`ScaledExp`]", 2.5, Some(2.0)),
    ("[`Decay`]'s `exp`", 1.1, Some(1.0)),
    ("[`Decay`]'s `expm1`", 1.7, Some(2.0)),
    ("[`Decay`]'s `excess`", 6.9, Some(8.0)),
    ("[`Decay::deficit`]", 6.8, Some(7.6)),
    ("[`ln`]", 2.0, Some(2.0)),
    ("[`Log1p`]'s `ln`", 2.7, Some(2.7)),
    ("[`Log1p`]'s `deficit`", 20.0, Some(20.0)),
    ("[`LogRatio`]'s `ln`", 2.0, Some(2.0)),
    ("[`LogRatio`]'s `excess`", 20.0, Some(20.0)),
];

#[test]
fn the_documentation_holds_these_bounds() {
    let pages = [include_str!("../exp.rs"), include_str!("../ln.rs")].concat();
    for (name, narrow, wide) in ULPS {
        let wide = wide.map_or("–".to_owned(), |wide| format!("{wide:.1} ULP"));
        let row = format!("//! | {name} | {narrow:.1} ULP | {wide} |\n");
        assert!(pages.contains(&row), "{row}");
    }
}

/// One or more functions of the lanes, by their names in [`ULPS`].
trait Functions<const N: usize>: Copy {
    const NAMES: [&'static str; N];
    fn lanes<V: Lanes>(self, token: V::Token, x: V, y: V) -> [V; N];
    fn exact(self, x: f64, y: f64) -> [Exact; N];
}

struct Evaluate<'a, T, F, const N: usize> {
    functions: F,
    points: &'a [[T; 2]],
}

impl<T: Lane, F: Functions<N>, const N: usize> LaneKernel<T> for Evaluate<'_, T, F, N> {
    type Output = Vec<[T; N]>;

    #[inline(always)]
    fn run<V: Lanes<Scalar = T>>(self, token: V::Token) -> Vec<[T; N]> {
        let mut results = Vec::with_capacity(self.points.len());
        for chunk in self.points.chunks(V::N) {
            let lane = |i: usize| chunk[i.min(chunk.len() - 1)];
            let x: [T; MAX_LANES] = std::array::from_fn(|i| lane(i)[0]);
            let y: [T; MAX_LANES] = std::array::from_fn(|i| lane(i)[1]);
            let lanes = self.functions.lanes(token, load::<V>(token, &x), load::<V>(token, &y)).map(V::to_array);
            results.extend((0..chunk.len()).map(|i| lanes.map(|lane| lane[i])));
        }
        results
    }
}

/// Error of `got` in units in the last place of the exact value. A subnormal result may as well be 0.
fn ulps<T: Lane>(got: f64, exact: Exact) -> f64 {
    let magnitude = exact.high.abs();
    if magnitude < T::SMALLEST_NORMAL {
        return if got.abs() <= T::SMALLEST_NORMAL { 0.0 } else { f64::INFINITY };
    }
    let power = f64::from_bits(magnitude.to_bits() & f64::INFINITY.to_bits());
    let error = ((got - exact.high) - exact.low).abs() / power / T::EPSILON;
    if error.is_nan() { f64::INFINITY } else { error }
}

/// Asserts the bounds of `functions` at all points and on every instruction set.
fn check<T: Lane, F: Functions<N>, const N: usize>(functions: F, points: &[[T; 2]]) {
    let exact: Vec<_> = points.iter().map(|&[x, y]| functions.exact(value(x), value(y))).collect();
    for isa in Isa::available() {
        let results = T::run(isa, Evaluate { functions, points });
        assert_eq!(results.len(), points.len());
        for (k, name) in F::NAMES.into_iter().enumerate() {
            let errors = results.iter().zip(&exact).map(|(got, exact)| ulps::<T>(value(got[k]), exact[k]));
            let (at, error) = errors.enumerate().max_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
            let (_, narrow, wide) = ULPS.into_iter().find(|row| row.0 == name).unwrap();
            let bound = if T::WIDE { wide.unwrap() } else { narrow };
            println!("{} {name} {}: {error:.3} ULP at {:?}", isa.name(), T::DTYPE.name(), points[at]);
            assert!(
                error <= bound,
                "{} {name} {}: {error} ULP at {:?}: {:?} for {:?}",
                isa.name(),
                T::DTYPE.name(),
                points[at],
                results[at][k],
                exact[at][k]
            );
        }
    }
}

/// Numbers from `low` to `high`, both included: every 1009th bit pattern in f32, 200,000 of them in f64.
///
/// Below 2^−30 functions are their leading terms, and a hundredth of that will do.
fn sweep<T: Lane>(low: f64, high: f64) -> impl Iterator<Item = T> {
    assert!(0.0 <= low && low < high);
    let bits = |number: f64| nearest::<T>(number).bits();
    let (low, leading, high) = (bits(low), bits(2_f64.powi(-30)).clamp(bits(low), bits(high)), bits(high));
    // An odd step visits every pattern of the low bits.
    let step = if T::WIDE { ((high - leading) / 200_000) | 1 } else { 1009 };
    let coarse = (low..leading).step_by(100 * step as usize + 1);
    coarse.chain((leading..high).step_by(step as usize)).chain([high]).map(T::of_bits)
}

fn alone<T: Lane>(points: impl Iterator<Item = T>) -> Vec<[T; 2]> {
    points.map(|x| [x, T::default()]).collect()
}

fn both_signs<T: Lane>(lowest: f64, highest: f64) -> impl Iterator<Item = T> {
    let negative = sweep::<T>(0.0, -lowest).map(|x| nearest::<T>(-value(x)));
    negative.chain(sweep(0.0, highest))
}

#[derive(Clone, Copy)]
struct Exp;

impl Functions<1> for Exp {
    const NAMES: [&'static str; 1] = ["[`exp`]"];

    #[inline(always)]
    fn lanes<V: Lanes>(self, token: V::Token, x: V, _: V) -> [V; 1] {
        [exp(token, x)]
    }
    fn exact(self, x: f64, _: f64) -> [Exact; 1] {
        [exact::exp(Exact::from(x))]
    }
}

#[test]
fn exponential() {
    // From where it is 0 to where its power of two is the largest.
    check(Exp, &alone::<f32>(both_signs(-120.0, 127.0 * LN_2.high).chain([-1e4, -1e30])));
    check(Exp, &alone::<f64>(both_signs(-800.0, 1023.0 * LN_2.high).chain([-1e4, -1e290])));
}

/// e^(x/T − c)·w.
#[derive(Clone, Copy)]
struct Scaled {
    inverse_temperature: f64,
    ln_divisor: f64,
    weight: f64,
}

impl Functions<1> for Scaled {
    const NAMES: [&'static str; 1] = ["[`ScaledExp`]"];

    #[inline(always)]
    fn lanes<V: Lanes>(self, token: V::Token, x: V, _: V) -> [V; 1] {
        let exp = ScaledExp::new(token, self.inverse_temperature, self.ln_divisor, self.weight);
        [exp.at(exp.bounded(x))]
    }
    fn exact(self, x: f64, _: f64) -> [Exact; 1] {
        let exponent = Exact::from(x) * Exact::from(self.inverse_temperature) - Exact::from(self.ln_divisor);
        [exact::exp(exponent) * Exact::from(self.weight)]
    }
}

#[test]
fn scaled_exponential() {
    for inverse_temperature in [1.0, 1.0 / 3.0, 7.0] {
        let rate = inverse_temperature * std::f64::consts::LOG2_E;
        let largest = LARGEST_EXPONENT / rate;
        for reference in [0.0, 1.3, -20.7, 300.0, largest, -largest] {
            for weight in [1.0, 0.3] {
                // The divisor of a row is its log-sum-exp, up to ln(classes) above its largest logit.
                let ln_divisor = reference * inverse_temperature + 5.3;
                let functions = Scaled { inverse_temperature, ln_divisor, weight };
                let low = (reference - 79.0 / inverse_temperature).max(-2.0 * largest);
                let points: Vec<[f32; 2]> =
                    (0..=40_000).map(|i| [(low + (reference - low) * f64::from(i) / 40_000.0) as f32, 0.0]).collect();
                check(functions, &points);
                if reference.abs() * inverse_temperature < 100.0 {
                    let low = reference - 700.0 / inverse_temperature;
                    let points: Vec<[f64; 2]> =
                        (0..=40_000).map(|i| [low + (reference - low) * f64::from(i) / 40_000.0, 0.0]).collect();
                    check(functions, &points);
                }
                // What stands for −∞, and what is raised to it.
                check(functions, &[[(-2.0 * largest) as f32, 0.0], [-1e30, 0.0]]);
            }
        }
        check(
            Scaled { inverse_temperature, ln_divisor: 0.0, weight: 1.0 },
            &alone(both_signs::<f32>(-80.0 / inverse_temperature, 80.0 / inverse_temperature)),
        );
    }
}

#[derive(Clone, Copy)]
struct Decays;

impl Functions<3> for Decays {
    const NAMES: [&'static str; 3] = ["[`Decay`]'s `exp`", "[`Decay`]'s `expm1`", "[`Decay`]'s `excess`"];

    #[inline(always)]
    fn lanes<V: Lanes>(self, token: V::Token, x: V, _: V) -> [V; 3] {
        let decay = Decay::new(token, x);
        [decay.exp, decay.expm1, decay.excess]
    }
    fn exact(self, x: f64, _: f64) -> [Exact; 3] {
        let t = Exact::from(x);
        [exact::exp(-t), exact::exp_m1(-t), exact::excess(t)]
    }
}

#[derive(Clone, Copy)]
struct Deficit;

impl Functions<1> for Deficit {
    const NAMES: [&'static str; 1] = ["[`Decay::deficit`]"];

    #[inline(always)]
    fn lanes<V: Lanes>(self, token: V::Token, x: V, _: V) -> [V; 1] {
        [Decay::new(token, x).deficit(token, x)]
    }
    fn exact(self, x: f64, _: f64) -> [Exact; 1] {
        [exact::deficit(Exact::from(x))]
    }
}

fn decays<T: Lane>() {
    check(Decays, &alone::<T>(both_signs(-T::EXP_FLOOR, T::EXP_FLOOR)));
    check(Deficit, &alone::<T>(sweep(0.0, 2.0 * T::EXP_FLOOR).chain([nearest(T::HUGE)])));
}

#[test]
fn decay() {
    decays::<f32>();
    decays::<f64>();
}

/// e^(−t) beyond the floor is whatever is nothing against 1.
#[derive(Clone, Copy)]
struct BeyondTheFloor;

impl Functions<2> for BeyondTheFloor {
    const NAMES: [&'static str; 2] = ["[`Decay`]'s `expm1`", "[`Decay`]'s `excess`"];

    #[inline(always)]
    fn lanes<V: Lanes>(self, token: V::Token, x: V, _: V) -> [V; 2] {
        let decay = Decay::new(token, x);
        [decay.expm1, decay.excess]
    }
    fn exact(self, x: f64, _: f64) -> [Exact; 2] {
        let t = Exact::from(x);
        [exact::exp_m1(-t), exact::excess(t)]
    }
}

#[test]
fn decay_beyond_the_floor() {
    check(BeyondTheFloor, &alone::<f32>(sweep(80.0, 200.0).chain([1e30])));
    check(BeyondTheFloor, &alone::<f64>(sweep(700.0, 2000.0).chain([1e290])));
}

#[derive(Clone, Copy)]
struct Ln;

impl Functions<1> for Ln {
    const NAMES: [&'static str; 1] = ["[`ln`]"];

    #[inline(always)]
    fn lanes<V: Lanes>(self, token: V::Token, x: V, _: V) -> [V; 1] {
        [ln(token, x)]
    }
    fn exact(self, x: f64, _: f64) -> [Exact; 1] {
        [exact::ln(x)]
    }
}

#[test]
fn logarithm() {
    check(Ln, &alone::<f32>(sweep(f64::from(f32::from_bits(1)), f64::from(f32::MAX)).chain(sweep(0.99, 1.01))));
    check(Ln, &alone::<f64>(sweep(f64::from_bits(1), f64::MAX).chain(sweep(0.7, 1.5)).chain(sweep(0.9999, 1.0001))));
}

#[derive(Clone, Copy)]
struct Log1ps;

impl Functions<2> for Log1ps {
    const NAMES: [&'static str; 2] = ["[`Log1p`]'s `ln`", "[`Log1p`]'s `deficit`"];

    #[inline(always)]
    fn lanes<V: Lanes>(self, token: V::Token, x: V, _: V) -> [V; 2] {
        let log = Log1p::new(token, x);
        [log.ln, log.deficit]
    }
    fn exact(self, x: f64, _: f64) -> [Exact; 2] {
        [exact::ln_1p(Exact::from(x)), exact::ln_1p_deficit(x)]
    }
}

fn log1ps<T: Lane>() {
    // To the number before −1, and densely where powers of two begin to be taken out.
    let points = both_signs::<T>(-1.0 + 0.5 * T::EPSILON, 1.0);
    let dense = both_signs::<T>(-0.75, 0.75).filter(|&x| value(x).abs() > 0.125);
    check(Log1ps, &alone(points.chain(dense)));
}

#[test]
fn logarithm_near_one() {
    log1ps::<f32>();
    log1ps::<f64>();
}

#[derive(Clone, Copy)]
struct Ratios;

impl Functions<2> for Ratios {
    const NAMES: [&'static str; 2] = ["[`LogRatio`]'s `ln`", "[`LogRatio`]'s `excess`"];

    #[inline(always)]
    fn lanes<V: Lanes>(self, token: V::Token, x: V, y: V) -> [V; 2] {
        let ratio = LogRatio::new(token, x, y);
        [ratio.ln, ratio.excess]
    }
    fn exact(self, x: f64, y: f64) -> [Exact; 2] {
        let ln = exact::ln_ratio(x, y);
        [ln, exact::excess(if ln.high < 0.0 { -ln } else { ln })]
    }
}

fn ratios<T: Lane>() {
    let lowest = T::of_bits(1).bits();
    let largest = nearest::<T>(1.0).bits();
    let mut state = 1_u64;
    let points: Vec<[T; 2]> = sweep::<T>(value(T::of_bits(1)), 1.0)
        .map(|p| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let random = state >> 11;
            // Every eighth pair is independent; the others differ by up to 2^k units in the last place.
            let digits = if T::WIDE { 53 } else { 24 };
            let q = if state.is_multiple_of(8) {
                lowest + random % (largest - lowest)
            } else {
                (p.bits() + (random & ((1 << ((state >> 5) % digits)) - 1))).min(largest)
            };
            if state & 16 == 0 { [p, T::of_bits(q)] } else { [T::of_bits(q), p] }
        })
        .collect();
    check(Ratios, &points);
}

#[test]
fn logarithm_of_a_ratio() {
    ratios::<f32>();
    ratios::<f64>();
}

struct Exactly;

impl<T: Lane> LaneKernel<T> for Exactly {
    type Output = [f64; 9];

    #[inline(always)]
    fn run<V: Lanes<Scalar = T>>(self, token: V::Token) -> [f64; 9] {
        let zero = V::splat(token, 0.0);
        let one = V::splat(token, 1.0);
        let tenth = V::splat(token, 0.1);
        let decay = Decay::new(token, zero);
        let log = Log1p::new(token, zero);
        let ratio = LogRatio::new(token, tenth, tenth);
        [
            exp(token, zero) - one,
            decay.exp - one,
            decay.expm1,
            decay.excess,
            decay.deficit(token, zero),
            log.ln,
            log.deficit,
            ratio.ln,
            ratio.excess,
        ]
        .map(V::largest)
    }
}

#[test]
fn equal_arguments_give_exactly_zero() {
    for isa in Isa::available() {
        assert_eq!(f32::run(isa, Exactly), [0.0; 9], "{}", isa.name());
        assert_eq!(f64::run(isa, Exactly), [0.0; 9], "{}", isa.name());
    }
}

#[derive(Clone, Copy)]
struct RoughRatio;

impl Functions<1> for RoughRatio {
    const NAMES: [&'static str; 1] = ["[`RoughLogRatio`]"];

    #[inline(always)]
    fn lanes<V: Lanes>(self, token: V::Token, x: V, y: V) -> [V; 1] {
        [RoughLogRatio::new(token).of(x, y)]
    }
    fn exact(self, x: f64, y: f64) -> [Exact; 1] {
        [Exact::from((x / y).ln())]
    }
}

/// Its error is absolute where the logarithm is small, as that of a plain sum.
#[test]
fn rough_log_ratio() {
    const BOUND: f64 = 1.6e-7;
    let probabilities: Vec<f32> = sweep::<f32>(1e-37, 1.0).step_by(11).collect();
    let shifted = probabilities.iter().cycle().skip(probabilities.len() / 3);
    let mut points: Vec<[f32; 2]> = probabilities.iter().zip(shifted).map(|(&p, &q)| [p, q]).collect();
    points.extend(probabilities.iter().map(|&p| [p, p * 0.7]));
    for isa in Isa::available() {
        let results = f32::run(isa, Evaluate { functions: RoughRatio, points: &points });
        let mut largest = 0.0_f64;
        for (&[p, q], [got]) in points.iter().zip(results) {
            let exact = RoughRatio.exact(p.into(), q.into())[0].high;
            largest = largest.max((f64::from(got) - exact).abs() / exact.abs().max(1.0));
        }
        println!("{} RoughLogRatio: {largest:e}", isa.name());
        assert!(largest <= BOUND, "{}: {largest:e}", isa.name());
    }
}
