//! The operations of the vectors, lane by lane.

use half::{bf16, f16};

use super::{Isa, Lane, LaneKernel, Lanes, load, nearest, value};
use crate::element::Element;
use crate::simd::MAX_LANES;

/// Applies `operation` to vectors of `points` and hands back the lanes, in order.
struct Map<'a, T, O> {
    points: &'a [[T; 3]],
    operation: O,
}

trait Operation<T>: Copy {
    fn apply<V: Lanes<Scalar = T>>(self, token: V::Token, a: V, b: V, c: V) -> V;
}

impl<T: Lane, O: Operation<T>> LaneKernel<T> for Map<'_, T, O> {
    type Output = Vec<T>;

    #[inline(always)]
    fn run<V: Lanes<Scalar = T>>(self, token: V::Token) -> Vec<T> {
        let mut results = Vec::with_capacity(self.points.len());
        for chunk in self.points.chunks(V::N) {
            let [a, b, c] = std::array::from_fn(|operand| {
                let lanes: [T; MAX_LANES] = std::array::from_fn(|i| chunk[i.min(chunk.len() - 1)][operand]);
                load::<V>(token, &lanes)
            });
            results.extend_from_slice(&self.operation.apply(token, a, b, c).to_array()[..chunk.len()]);
        }
        results
    }
}

/// Asserts that `operation` gives what `expected` gives, bit for bit, on every instruction set.
fn check<T: Lane, O: Operation<T>>(operation: O, points: &[[T; 3]], expected: impl Fn([f64; 3]) -> f64) {
    for isa in Isa::available() {
        let results = T::run(isa, Map { points, operation });
        assert_eq!(results.len(), points.len());
        for (&point, result) in points.iter().zip(results) {
            let expected = nearest::<T>(expected(point.map(value)));
            assert_eq!(result.bits(), expected.bits(), "{} {point:?}: {result:?}, not {expected:?}", isa.name());
        }
    }
}

/// Numbers of every kind but NaN.
fn numbers<T: Lane>() -> Vec<T> {
    let positive = [
        0.0,
        value(T::of_bits(1)),
        value(T::of_bits(77)),
        T::SMALLEST_NORMAL,
        1.5 * T::SMALLEST_NORMAL,
        T::EPSILON,
        0.5,
        std::f64::consts::FRAC_1_SQRT_2,
        1.0 - T::EPSILON / 2.0,
        1.0,
        1.0 + T::EPSILON,
        std::f64::consts::SQRT_2,
        1.5,
        2.5,
        std::f64::consts::PI,
        1234.5,
        1e30,
        value(T::of_bits(nearest::<T>(f64::INFINITY).bits() - 1)),
        f64::INFINITY,
    ];
    positive.into_iter().flat_map(|x| [nearest::<T>(x), nearest::<T>(-x)]).collect()
}

fn triples<T: Lane>(numbers: &[T]) -> Vec<[T; 3]> {
    let count = numbers.len();
    (0..count * count).map(|i| [numbers[i % count], numbers[i / count], numbers[(7 * i + i / count) % count]]).collect()
}

macro_rules! operations {
    ($($name:ident: |$token:pat_param, $a:pat_param, $b:pat_param, $c:pat_param| $body:expr;)*) => {$(
        #[derive(Clone, Copy)]
        struct $name;
        impl<T: Lane> Operation<T> for $name {
            #[inline(always)]
            fn apply<V: Lanes<Scalar = T>>(self, $token: V::Token, $a: V, $b: V, $c: V) -> V {
                $body
            }
        }
    )*};
}

operations! {
    Arithmetic: |_, a, b, c| a - b * c;
    Quotient: |_, a, b, _| -(a / b);
    Absolute: |_, a, _, _| a.abs();
    WithSign: |_, a, b, _| a.copysign(b);
    Smaller: |_, a, b, _| a.min(b);
    Larger: |_, a, b, _| a.max(b);
    Root: |_, a, _, _| a.sqrt();
    Round: |_, a, _, _| a.round();
    Scale: |_, a, b, _| a.scale(b);
    Exponent: |_, a, _, _| a.split_exponent().0;
    Mantissa: |_, a, _, _| a.split_exponent().1;
    SelectLess: |_, a, b, c| V::select(a.lt(b), c, b);
    SelectLessOrEqual: |_, a, b, c| V::select(a.le(b), c, b);
}

fn arithmetic<T: Lane>() {
    // Two roundings of a result in f64 are one only as long as f32 lanes do not meet subnormal numbers.
    let finite: Vec<T> = numbers().into_iter().filter(|&x| (1e-6..1e6).contains(&value(x).abs())).collect();
    let triples_of_finite = triples(&finite);
    let rounded = |x: f64| value(nearest::<T>(x));
    check::<T, _>(Arithmetic, &triples_of_finite, |[a, b, c]| a - rounded(b * c));
    check::<T, _>(Quotient, &triples_of_finite, |[a, b, _]| -(a / b));
    let all = triples(&numbers::<T>());
    check::<T, _>(Absolute, &all, |[a, ..]| a.abs());
    check::<T, _>(WithSign, &all, |[a, b, _]| a.copysign(b));
    let distinct: Vec<[T; 3]> = all.iter().copied().filter(|point| value(point[0]) != value(point[1])).collect();
    check::<T, _>(Smaller, &distinct, |[a, b, _]| a.min(b));
    check::<T, _>(Larger, &distinct, |[a, b, _]| a.max(b));
    check::<T, _>(SelectLess, &all, |[a, b, c]| if a < b { c } else { b });
    check::<T, _>(SelectLessOrEqual, &all, |[a, b, c]| if a <= b { c } else { b });
    let positive: Vec<[T; 3]> = all.iter().copied().filter(|point| value(point[0]) > 0.0).collect();
    check::<T, _>(Root, &positive, |[a, ..]| a.sqrt());
}

#[test]
fn operators_and_comparisons() {
    arithmetic::<f32>();
    arithmetic::<f64>();
}

fn rounding<T: Lane>() {
    // Below a quarter of the first number without a fraction: kernels round nothing larger.
    let largest = 0.25 / T::EPSILON;
    let mut points: Vec<[T; 3]> = Vec::new();
    for base in [0.0, 1.0, 2.0, 3.0, 126.0, 1022.0, 65535.0, largest - 2.0] {
        for fraction in [0.0, 0.25, 0.5, 0.75, 1.0] {
            points.push([nearest(base + fraction); 3]);
            points.push([nearest(-base - fraction); 3]);
        }
    }
    points.extend([T::of_bits(1), nearest(0.5 - T::EPSILON / 4.0), nearest(0.5 + T::EPSILON)].map(|x| [x; 3]));
    for isa in Isa::available() {
        for (point, result) in points.iter().zip(T::run(isa, Map { points: &points, operation: Round })) {
            // The sign of a zero is free.
            assert_eq!(value(result), value(point[0]).round_ties_even(), "{} {point:?}", isa.name());
        }
    }
}

#[test]
fn rounds_to_the_nearest_even_integer() {
    rounding::<f32>();
    rounding::<f64>();
}

fn scaling<T: Lane>() {
    let smallest = T::SMALLEST_NORMAL.log2();
    let exponents = [smallest, smallest + 1.0, -30.0, -1.0, 0.0, 1.0, 64.0, 127.0];
    let mantissas = [0.75, 1.0, 1.25, -1.375];
    let points: Vec<[T; 3]> =
        exponents.iter().flat_map(|&n| mantissas.map(|m| [nearest(m), nearest(n), nearest(0.0)])).collect();
    check::<T, _>(Scale, &points, |[a, n, _]| a * n.exp2());
    for isa in Isa::available() {
        // One instruction set goes through the subnormal numbers on its way to 0.
        let low = [smallest - 1.0, smallest - 10.0].map(|n| [nearest(1.25), nearest(n), nearest(0.0)]);
        for result in T::run(isa, Map { points: &low, operation: Scale }) {
            assert!((0.0..T::SMALLEST_NORMAL).contains(&value(result)), "{}", isa.name());
        }
        let none = [smallest - 60.0, -4000.0, -4_194_304.0].map(|n| [nearest(1.25), nearest(n), nearest(0.0)]);
        for result in T::run(isa, Map { points: &none, operation: Scale }) {
            assert_eq!(value(result), 0.0, "{}", isa.name());
        }
    }
}

#[test]
fn scales_by_powers_of_two() {
    scaling::<f32>();
    scaling::<f64>();
}

fn exponents<T: Lane>() {
    let infinity = nearest::<T>(f64::INFINITY).bits();
    let edges = [1, 2, 3, infinity - 1].map(T::of_bits);
    let roots = [0.5, 2.0, 8.0].into_iter().flat_map(|square: f64| {
        let bits = nearest::<T>(square.sqrt()).bits();
        [bits - 1, bits, bits + 1].map(T::of_bits)
    });
    let all = (1..infinity).step_by(((infinity / 20_000) | 1) as usize).map(T::of_bits);
    let points: Vec<[T; 3]> = edges.into_iter().chain(roots).chain(all).map(|x| [x; 3]).collect();
    for isa in Isa::available() {
        let exponents = T::run(isa, Map { points: &points, operation: Exponent });
        let mantissas = T::run(isa, Map { points: &points, operation: Mantissa });
        for ((point, k), m) in points.iter().zip(exponents).zip(mantissas) {
            let (k, m) = (value(k), value(m));
            let slack = 1.0 + T::EPSILON;
            assert_eq!(k, k.round(), "{} {point:?}", isa.name());
            assert!(
                (std::f64::consts::FRAC_1_SQRT_2 / slack..=std::f64::consts::SQRT_2 * slack).contains(&m),
                "{} {point:?}: 2^{k}·{m}",
                isa.name()
            );
            // Two factors, as one power of two may be out of range.
            let product = m * (k / 2.0).floor().exp2() * (k / 2.0).ceil().exp2();
            assert_eq!(product, value(point[0]), "{} {point:?}: 2^{k}·{m}", isa.name());
        }
    }
}

#[test]
fn splits_off_the_exponent() {
    exponents::<f32>();
    exponents::<f64>();
}

/// a·b + c.
#[derive(Clone, Copy)]
struct Fused;

impl<T: Lane> Operation<T> for Fused {
    #[inline(always)]
    fn apply<V: Lanes<Scalar = T>>(self, _: V::Token, a: V, b: V, c: V) -> V {
        a.mul_add(b, c)
    }
}

#[test]
fn multiplies_and_adds_with_one_rounding() {
    // (1 + ε)² − (1 + 2ε) is ε²: all of it would be lost with a rounding in between.
    fn square<T: Lane>() {
        let near_one = 1.0 + T::EPSILON;
        let point: [T; 3] = [near_one, near_one, -(near_one + T::EPSILON)].map(nearest);
        check::<T, _>(Fused, &[point], |_| T::EPSILON * T::EPSILON);
    }
    square::<f32>();
    square::<f64>();
}

/// Loads elements of another dtype, `N` at a time.
struct Load<'a, E>(&'a [E]);

impl<T: Lane, E: Element> LaneKernel<T> for Load<'_, E> {
    type Output = Vec<T>;

    #[inline(always)]
    fn run<V: Lanes<Scalar = T>>(self, token: V::Token) -> Vec<T> {
        assert_eq!(self.0.len() % V::N, 0);
        let mut lanes = Vec::with_capacity(self.0.len());
        for chunk in self.0.chunks_exact(V::N) {
            // SAFETY: the chunk has `N` elements of that dtype.
            let vector = unsafe { V::load(token, chunk.as_ptr().cast(), E::DTYPE) };
            lanes.extend_from_slice(&vector.to_array()[..V::N]);
        }
        lanes
    }
}

/// Stores lanes as elements of another dtype, `N` at a time.
struct Store<'a, T, E> {
    lanes: &'a [T],
    out: &'a mut [E],
}

impl<T: Lane, E: Element> LaneKernel<T> for Store<'_, T, E> {
    type Output = ();

    #[inline(always)]
    fn run<V: Lanes<Scalar = T>>(self, token: V::Token) {
        assert_eq!(self.lanes.len() % V::N, 0);
        assert_eq!(self.lanes.len(), self.out.len());
        for (lanes, out) in self.lanes.chunks_exact(V::N).zip(self.out.chunks_exact_mut(V::N)) {
            // SAFETY: the chunk has room for `N` elements of that dtype.
            unsafe { load::<V>(token, lanes).store(out.as_mut_ptr().cast(), E::DTYPE) };
        }
    }
}

fn same(got: f64, expected: f64) -> bool {
    if expected.is_nan() { got.is_nan() } else { got.to_bits() == expected.to_bits() }
}

/// Loads `elements` and asserts their values, then stores `lanes` and asserts that they become `rounded`.
fn conversions<T: Lane, E: Element>(elements: &[E], lanes: &[T], rounded: impl Fn(T) -> E) {
    // Not aligned to a vector, as rows are not.
    for isa in Isa::available() {
        let usable = (elements.len() - 1) / MAX_LANES * MAX_LANES;
        let loaded = T::run(isa, Load(&elements[1..=usable]));
        assert_eq!(loaded.len(), usable);
        for (&element, lane) in elements[1..].iter().zip(loaded) {
            let expected = value(nearest::<T>(element.to_f64()));
            assert!(same(value(lane), expected), "{} load {:?}: {lane:?}", isa.name(), element.to_f64());
        }
        let usable = lanes.len() / MAX_LANES * MAX_LANES;
        let mut out = vec![E::from_f64(0.0); usable];
        T::run(isa, Store { lanes: &lanes[..usable], out: &mut out });
        for (&lane, stored) in lanes.iter().zip(out) {
            let expected = rounded(lane).to_f64();
            assert!(same(stored.to_f64(), expected), "{} store {lane:?}: {}", isa.name(), stored.to_f64());
        }
    }
}

/// All numbers of a 16-bit type; and all of them with the midpoints to their neighbours, and the f32 numbers beside.
fn sixteen_bits<E: Element>(of_bits: fn(u16) -> E) -> (Vec<E>, Vec<f32>) {
    let all: Vec<E> = (0..=u16::MAX).map(of_bits).collect();
    let around = all.windows(2).flat_map(|pair| {
        let middle = f64::midpoint(pair[0].to_f64(), pair[1].to_f64()) as f32;
        let next = |step: i32| f32::from_bits((middle.to_bits() as i32).wrapping_add(step) as u32);
        [pair[0].to_f64() as f32, middle, next(1), next(-1)]
    });
    let around = around.chain([f32::MAX, f32::MIN, 65519.99, 65520.0, f32::NAN, -f32::NAN, 1e-40, -1e-40]).collect();
    (all, around)
}

#[test]
fn half_precision_both_ways() {
    let (elements, lanes) = sixteen_bits(f16::from_bits);
    let wide: Vec<f64> = lanes.iter().copied().map(f64::from).collect();
    conversions(&elements, &lanes, f16::from_f32);
    conversions(&elements, &wide, |lane| f16::from_f32(lane as f32));
}

#[test]
fn brain_floats_both_ways() {
    let (elements, lanes) = sixteen_bits(bf16::from_bits);
    let wide: Vec<f64> = lanes.iter().copied().map(f64::from).collect();
    conversions(&elements, &lanes, bf16::from_f32);
    conversions(&elements, &wide, |lane| bf16::from_f32(lane as f32));
}

#[test]
fn single_and_double_precision_both_ways() {
    let mut singles: Vec<f32> = numbers::<f32>();
    let mut doubles: Vec<f64> = numbers::<f64>();
    // A tie between two f32, and numbers to both sides of it.
    let tie = 1.0 + f64::from(f32::EPSILON) / 2.0;
    doubles.extend([
        tie,
        tie + f64::EPSILON,
        tie - f64::EPSILON,
        3.0 * tie,
        f64::NAN,
        1e-45,
        1e-42,
        f64::from(f32::MAX),
    ]);
    singles.extend([f32::NAN, 1e-42, f32::MIN_POSITIVE]);
    let widened = singles.iter().copied().map(f64::from);
    let mut wide_lanes: Vec<f64> = doubles.iter().copied().chain(widened).collect();
    wide_lanes.resize(96, 1.5);
    singles.resize(64, 0.75);
    doubles.resize(64, 0.75);
    conversions(&singles, &singles, |lane| lane);
    conversions(&doubles, &singles, f64::from);
    conversions(&singles, &wide_lanes, |lane| lane as f32);
    conversions(&doubles, &wide_lanes, |lane| lane);
}

/// What is seen of one vector whose lane `at` differs from the others.
struct Across {
    at: usize,
}

impl<T: Lane> LaneKernel<T> for Across {
    type Output = Option<()>;

    #[inline(always)]
    fn run<V: Lanes<Scalar = T>>(self, token: V::Token) -> Option<()> {
        let at = self.at;
        if at >= V::N {
            return None;
        }
        let with = |special: f64| {
            let mut lanes = [nearest::<T>(1.0); MAX_LANES];
            lanes[at] = nearest(special);
            load::<V>(token, &lanes)
        };
        let one = V::splat(token, 1.0);
        assert!(V::any(with(0.5).lt(one)) && !V::any(with(1.5).lt(one)) && !V::any(one.lt(one)));
        assert!(V::any(one.le(with(-3.0))) == (V::N > 1) && V::any(one.le(one)));
        assert!(!V::all(with(1.5).le(one)) && V::all(with(0.5).le(one)) && V::all(with(0.5).lt(one)) == (V::N == 1));
        // No comparison holds for NaN, in any lane.
        assert!(!V::all(with(f64::NAN).lt(one)) && !V::all(with(-f64::NAN).le(one)) && !V::all(one.le(with(f64::NAN))));
        assert!(!V::all(with(f64::INFINITY).lt(with(f64::INFINITY))) && V::all(with(f64::NEG_INFINITY).le(one)));
        let (low, high) = (with(0.5).lt(one), with(1.5).le(one));
        assert!(V::any(low) && !V::any(V::and(low, high)) && !V::all(V::and(high, high)));
        assert_eq!(with(7.0).largest(), 7.0);
        assert_eq!(with(-7.0).largest(), if V::N > 1 { 1.0 } else { -7.0 });
        // In order, and in f64: 1 + 2^60 − 2^60 depends on both.
        let lanes: [T; MAX_LANES] =
            std::array::from_fn(|i| nearest(if i < at { 1.0 } else { 2_f64.powi(60 + i as i32) }));
        let expected = lanes[..V::N].iter().fold(0.0, |sum, &lane| sum + value(lane));
        assert_eq!(load::<V>(token, &lanes).sum(), expected);
        let numbered: [T; MAX_LANES] = std::array::from_fn(|i| nearest(i as f64 + 1.0));
        // One vector of f64 or two, in order.
        let [first, second] = load::<V>(token, &numbered).widen(token);
        let wide = <V::Wide as Lanes>::N;
        let widened = first.to_array().into_iter().take(wide).chain(second.to_array().into_iter().take(wide));
        for (i, lane) in widened.enumerate() {
            assert_eq!(lane, if i < V::N { i as f64 + 1.0 } else { 0.0 });
        }
        assert!(V::N <= 2 * wide);
        Some(())
    }
}

/// The lanes of a vector that a mask has, for every mask.
struct Compressed;

impl<T: Lane> LaneKernel<T> for Compressed {
    type Output = ();

    #[inline(always)]
    fn run<V: Lanes<Scalar = T>>(self, token: V::Token) {
        let numbered: [T; MAX_LANES] = std::array::from_fn(|i| nearest(i as f64 + 1.0));
        for bits in 0..1_u32 << V::N {
            let marks: [T; MAX_LANES] = std::array::from_fn(|i| nearest(f64::from(bits >> i & 1)));
            let mask = V::splat(token, 0.5).lt(load::<V>(token, &marks));
            let (front, count) = load::<V>(token, &numbered).compress(mask);
            let expected: Vec<f64> = (0..V::N).filter(|i| bits >> i & 1 == 1).map(|i| i as f64 + 1.0).collect();
            let found: Vec<f64> = front.to_array()[..count].iter().map(|&lane| value(lane)).collect();
            assert_eq!(found, expected, "{bits:b}");
        }
    }
}

#[test]
fn compresses_by_every_mask() {
    for isa in Isa::available() {
        f32::run(isa, Compressed);
        f64::run(isa, Compressed);
    }
}

#[test]
fn every_lane_counts() {
    for isa in Isa::available() {
        for at in 0..MAX_LANES {
            let narrow = f32::run(isa, Across { at });
            let wide = f64::run(isa, Across { at });
            assert!(at >= 4 || narrow.is_some(), "{}", isa.name());
            assert!(at >= 2 || wide.is_some(), "{}", isa.name());
        }
    }
}
