//! Every instruction set against the portable one, and the portable one against the definitions.
#![expect(clippy::unwrap_used, reason = "tests")]

use half::{bf16, f16};
use proptest::prelude::*;

use super::{Divergence, Kind, Outer, Visitor};
use crate::{Dtype, Element, Execution, Gradients, Isa, PairOfRows, RowOptions, Rows, RowsMut, Space, divergence};

/// Every divergence, with each of some parameters that it may have.
fn kinds() -> impl Iterator<Item = Kind> {
    Kind::DESCRIPTIONS.iter().flat_map(|one| {
        let parameters = one.parameter.map_or(vec![0.0], |parameter| {
            [0.1, 0.5, 2.0, 5.0].into_iter().filter(|&value| parameter.check(value).is_ok()).collect()
        });
        parameters.into_iter().map(|parameter| Kind::new(one.name, parameter).unwrap())
    })
}

/// A pair of rows of logits, drawn from a seed.
#[derive(Clone, Debug)]
struct Draw {
    classes: usize,
    seed: u64,
    /// Standard deviation of the first row, about.
    spread: f64,
    /// The second row is the first plus this much noise.
    distance: f64,
    /// One class in so many is −∞; 0 for none.
    masked: u64,
    /// Of the masked classes, which are so in the first row, and in the second.
    sides: (bool, bool),
    dtype: Dtype,
    temperature: f64,
}

fn draws() -> impl Strategy<Value = Draw> {
    let classes = prop_oneof![
        8 => 1_usize..300,
        1 => prop::sample::select(vec![4095_usize, 4096, 4097, 8193]),
    ];
    let masks = prop_oneof![2 => Just(0_u64), 1 => 2_u64..20];
    let sides = prop::sample::select(vec![(true, true), (true, false), (false, true)]);
    let dtype = prop::sample::select(vec![Dtype::F64, Dtype::F32, Dtype::F16, Dtype::Bf16]);
    let distance = prop::sample::select(vec![0.0, 1e-4, 1e-2, 1.0, 8.0]);
    let temperature = prop::sample::select(vec![1.0, 0.5, 3.0]);
    (classes, any::<u64>(), 0.1..6.0, distance, masks, sides, dtype, temperature).prop_map(
        |(classes, seed, spread, distance, masked, sides, dtype, temperature)| Draw {
            classes,
            seed,
            spread,
            distance,
            masked,
            sides,
            dtype,
            temperature,
        },
    )
}

impl Draw {
    fn rows(&self) -> (Vec<f64>, Vec<f64>) {
        let mut state = self.seed | 1;
        let mut uniform = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) as f64 / (1_u64 << 53) as f64
        };
        let mut rows = (Vec::new(), Vec::new());
        for _ in 0..self.classes {
            // The sum of four uniform numbers has variance 1/3.
            let mut normal = || 3_f64.sqrt() * (uniform() + uniform() + uniform() + uniform() - 2.0);
            let x = self.spread * normal();
            let y = x + self.distance * normal();
            let masked = self.masked != 0 && uniform() * (self.masked as f64) < 1.0;
            rows.0.push(if masked && self.sides.0 { f64::NEG_INFINITY } else { x });
            rows.1.push(if masked && self.sides.1 { f64::NEG_INFINITY } else { y });
        }
        rows
    }
}

/// Value and both gradients, the gradients in f64 whatever the dtype of the rows.
#[derive(Debug)]
struct Outcome {
    value: f64,
    p: Vec<f64>,
    q: Vec<f64>,
}

fn evaluate<E: Element>(kind: Kind, rows: (&[E], &[E]), temperature: f64, isa: Isa) -> Outcome {
    let classes = rows.0.len();
    let (mut p, mut q) = (vec![7.0; classes], vec![7.0; classes]);
    let pair = PairOfRows {
        temperatures: (temperature, temperature),
        ..PairOfRows::logits(Rows::new(rows.0, classes).unwrap(), Rows::new(rows.1, classes).unwrap())
    };
    let gradients =
        Gradients { p: Some(RowsMut::new(&mut p, classes).unwrap()), q: Some(RowsMut::new(&mut q, classes).unwrap()) };
    let execution = Execution { isa, ..Execution::default() };
    let value = divergence(kind, &pair, RowOptions::default(), gradients, &execution).unwrap().rows[0];
    Outcome { value, p, q }
}

/// Kahan's sum: what a plain one of thousands of classes loses is above the tolerances.
fn sum(terms: impl Iterator<Item = f64>) -> f64 {
    let (mut total, mut lost) = (0.0, 0.0);
    for term in terms {
        let term = term - lost;
        let next = total + term;
        lost = (next - total) - term;
        total = next;
    }
    total
}

/// log-softmax of a row; `None` where it holds no class.
fn ln_softmax(row: &[f64], temperature: f64) -> Option<Vec<f64>> {
    let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let ln_sum = sum(row.iter().map(|z| ((z - largest) / temperature).exp())).ln();
    (largest > f64::NEG_INFINITY).then(|| row.iter().map(|z| (z - largest) / temperature - ln_sum).collect())
}

/// The definition, and its derivatives with respect to ln p and ln q of every class, as they stand.
fn definition(kind: Kind, ln_p: &[f64], ln_q: &[f64]) -> Outcome {
    if kind.exchanges_rows() {
        let Outcome { value, p, q } = kind.visit(ByDefinition { ln_p: ln_q, ln_q: ln_p }).unwrap();
        return Outcome { value, p: q, q: p };
    }
    kind.visit(ByDefinition { ln_p, ln_q }).unwrap()
}

struct ByDefinition<'a> {
    ln_p: &'a [f64],
    ln_q: &'a [f64],
}

impl Visitor for ByDefinition<'_> {
    type Output = Outcome;

    fn visit<D: Divergence>(self, divergence: D) -> Outcome {
        let divergence = match divergence.statistic() {
            Some(statistic) => divergence.weighed(statistic.definition(self.ln_p, self.ln_q)),
            None => divergence,
        };
        let classes = self.ln_p.iter().zip(self.ln_q).map(|(&ln_p, &ln_q)| divergence.definition(ln_p, ln_q));
        let (terms, (p, q)): (Vec<f64>, (Vec<f64>, Vec<f64>)) = classes.map(|(f, p, q)| (f, (p, q))).unzip();
        let Outer { value, slope } = divergence.outer_definition(terms.iter().sum());
        let times_slope = |slopes: Vec<f64>| slopes.iter().map(|one| one * slope).collect();
        Outcome { value, p: times_slope(p), q: times_slope(q) }
    }
}

/// The definition for two rows of logits: ∂/∂zᵢ = (∂/∂ln pᵢ − pᵢ·Σ ∂/∂ln pⱼ)/T.
fn expected(kind: Kind, rows: (&[f64], &[f64]), temperature: f64) -> Option<Outcome> {
    let ln_p = ln_softmax(rows.0, temperature)?;
    let ln_q = ln_softmax(rows.1, temperature)?;
    let mut outcome = definition(kind, &ln_p, &ln_q);
    for (slopes, ln) in [(&mut outcome.p, &ln_p), (&mut outcome.q, &ln_q)] {
        let total = sum(slopes.iter().copied());
        for (slope, ln) in slopes.iter_mut().zip(ln) {
            *slope = (*slope - ln.exp() * total) / temperature;
        }
    }
    Some(outcome)
}

/// Whether a class of two different rows has p and q so close that the definition cannot tell which is larger.
fn hides_signs(rows: (&[f64], &[f64]), temperature: f64) -> bool {
    let (Some(ln_p), Some(ln_q)) = (ln_softmax(rows.0, temperature), ln_softmax(rows.1, temperature)) else {
        return false;
    };
    rows.0 != rows.1 && ln_p.iter().zip(&ln_q).any(|(ln_p, ln_q)| (ln_p - ln_q).abs() < 1e-12)
}

fn norm(row: &[f64]) -> f64 {
    row.iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// What results may differ by: relative to the value and the norm of the gradient, but of nothing smaller than these.
#[derive(Clone, Copy)]
struct Tolerance {
    relative: f64,
    smallest_value: f64,
    smallest_gradient: f64,
}

/// Where one class has all the probability the gradient is nearly 0, as the difference of slopes of about this size.
fn slope_size(kind: Kind, value: f64) -> f64 {
    match kind {
        kind if kind.properties().kinked => 0.5,
        // Those of powers are as large as the sum.
        Kind::AlphaDivergence { .. } | Kind::ChiSquared => 0.1 * value,
        _ => 0.1 * value.min(1.0),
    }
}

/// What cancels in the definition of a value: it is known to 1e-13 of this, more or less.
fn cancelled_size(kind: Kind) -> f64 {
    match kind {
        // A sum of about 1 less 1, over this.
        Kind::AlphaDivergence { alpha } => 1.0 / (alpha * (alpha - 1.0)).abs().min(1.0),
        _ => 1.0,
    }
}

fn compare(kind: Kind, got: &Outcome, expected: &Outcome, tolerance: Tolerance) -> Result<(), TestCaseError> {
    let bound = tolerance.relative * expected.value.abs().max(tolerance.smallest_value);
    let close = (got.value - expected.value).abs() <= bound;
    let same = got.value == expected.value || (got.value.is_nan() && expected.value.is_nan());
    prop_assert!(same || close, "value {}, not {} (± {bound:e})", got.value, expected.value);
    let smallest = tolerance.smallest_gradient.max(slope_size(kind, expected.value));
    for (side, got, expected) in [("p", &got.p, &expected.p), ("q", &got.q, &expected.q)] {
        let nans = |row: &[f64]| row.iter().map(|x| x.is_nan()).collect::<Vec<_>>();
        prop_assert_eq!(nans(got), nans(expected), "NaN in the gradient of {}", side);
        if got.iter().any(|x| x.is_nan()) {
            continue;
        }
        let error = norm(&got.iter().zip(expected).map(|(a, b)| a - b).collect::<Vec<_>>());
        let bound = tolerance.relative * norm(expected).max(smallest);
        prop_assert!(error <= bound, "gradient of {side}: {error:e} > {bound:e}");
    }
    Ok(())
}

/// What holds of every pair of rows of logits.
fn check_invariants(draw: &Draw, kind: Kind, outcome: &Outcome, rows: (&[f64], &[f64])) -> Result<(), TestCaseError> {
    prop_assert!(outcome.value >= 0.0 || outcome.value.is_nan(), "{}", outcome.value);
    if rows.0 == rows.1 && outcome.value.is_finite() {
        prop_assert_eq!(outcome.value, 0.0);
        prop_assert!(outcome.p.iter().chain(&outcome.q).all(|&slope| slope == 0.0), "gradient of equal rows");
    }
    let relative = if draw.dtype == Dtype::F64 { 1e-12 } else { 2e-6 };
    for (side, slopes, row) in [("p", &outcome.p, rows.0), ("q", &outcome.q, rows.1)] {
        if slopes.iter().any(|slope| slope.is_nan()) {
            continue;
        }
        let parts: f64 = slopes.iter().map(|slope| slope.abs()).sum();
        let size = parts + slope_size(kind, outcome.value);
        let sum: f64 = slopes.iter().sum();
        prop_assert!(sum.abs() <= relative * size, "{kind:?}: gradient of {side} sums to {sum:e} of {size:e}");
        if outcome.value.is_finite() {
            for (slope, z) in slopes.iter().zip(row).filter(|(_, z)| **z == f64::NEG_INFINITY) {
                prop_assert!(*slope == 0.0, "{kind:?}: gradient of {side} is {slope:e} at {z}");
            }
        }
    }
    Ok(())
}

fn check<E: Element>(draw: &Draw) -> Result<(), TestCaseError> {
    let exact = draw.rows();
    let stored: (Vec<E>, Vec<E>) =
        (exact.0.iter().map(|&x| E::from_f64(x)).collect(), exact.1.iter().map(|&x| E::from_f64(x)).collect());
    let widened: (Vec<f64>, Vec<f64>) =
        (stored.0.iter().map(|x| x.to_f64()).collect(), stored.1.iter().map(|x| x.to_f64()).collect());
    let wide = E::DTYPE == Dtype::F64;
    let between = if wide {
        Tolerance { relative: 1e-12, smallest_value: 1e-24, smallest_gradient: 1e-15 }
    } else {
        Tolerance { relative: 2e-6, smallest_value: 1e-12, smallest_gradient: 1e-9 }
    };
    let portable = Isa::by_name("portable").unwrap();
    for kind in kinds() {
        let of_definition =
            Tolerance { smallest_value: 1e-1 * cancelled_size(kind), smallest_gradient: 1e-1, ..between };
        let reference = evaluate(kind, (&stored.0, &stored.1), draw.temperature, portable);
        check_invariants(draw, kind, &reference, (&widened.0, &widened.1))?;
        match expected(kind, (&widened.0, &widened.1), draw.temperature) {
            None => prop_assert!(reference.value.is_nan(), "{kind:?} of a row without classes"),
            Some(_) if kind.properties().kinked && hides_signs((&widened.0, &widened.1), draw.temperature) => {}
            Some(expected) if expected.value.is_finite() => compare(kind, &reference, &expected, of_definition)
                .map_err(|error| TestCaseError::fail(format!("{kind:?} by definition: {error}")))?,
            Some(_) => prop_assert_eq!(reference.value, f64::INFINITY, "{:?}", kind),
        }
        for isa in Isa::available().filter(|isa| isa.name() != portable.name()) {
            let outcome = evaluate(kind, (&stored.0, &stored.1), draw.temperature, isa);
            check_invariants(draw, kind, &outcome, (&widened.0, &widened.1))?;
            compare(kind, &outcome, &reference, between)
                .map_err(|error| TestCaseError::fail(format!("{kind:?} {}: {error}", isa.name())))?;
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn instruction_sets_agree(draw in draws()) {
        match draw.dtype {
            Dtype::F64 => check::<f64>(&draw)?,
            Dtype::F32 => check::<f32>(&draw)?,
            Dtype::F16 => check::<f16>(&draw)?,
            Dtype::Bf16 => check::<bf16>(&draw)?,
        }
    }
}

/// Rows taken as given, in each space, against the definition of unnormalized rows.
#[test]
fn spaces_agree_with_the_definition() {
    let p = [0.5_f64, 0.2, 0.0, 0.3];
    let q = [0.25, 0.3, 0.2, 0.25];
    let ln = |row: &[f64]| row.iter().map(|x| x.ln()).collect::<Vec<_>>();
    for kind in kinds() {
        let expected = definition(kind, &ln(&p), &ln(&q));
        for space in [Space::Probs, Space::LogProbs, Space::Logits] {
            let (x, y) = if space == Space::Probs { (p.to_vec(), q.to_vec()) } else { (ln(&p), ln(&q)) };
            let pair = PairOfRows {
                spaces: (space, space),
                ..PairOfRows::logits(Rows::new(&x, 4).unwrap(), Rows::new(&y, 4).unwrap())
            };
            let mut gradient = [0.0; 4];
            for isa in Isa::available() {
                let gradients = Gradients { q: Some(RowsMut::new(&mut gradient, 4).unwrap()), p: None };
                let execution = Execution { isa, ..Execution::default() };
                let value = divergence(kind, &pair, RowOptions::default(), gradients, &execution).unwrap().rows[0];
                let (_, infinite) = kind.infinite_where().unwrap();
                if infinite {
                    assert_eq!(value, f64::INFINITY, "{kind:?} {space:?}");
                } else {
                    assert!((value - expected.value).abs() < 1e-14, "{kind:?} {space:?}: {value}, not {expected:?}");
                }
                if !infinite && space == Space::LogProbs {
                    for (got, expected) in gradient.iter().zip(&expected.q) {
                        assert!((got - expected).abs() < 1e-14, "{kind:?}: {gradient:?}, not {expected}");
                    }
                }
                if !infinite && space == Space::Probs {
                    for ((got, expected), q) in gradient.iter().zip(&expected.q).zip(&q) {
                        assert!((got - expected / q).abs() < 1e-13, "{kind:?}: {gradient:?}, not {}", expected / q);
                    }
                }
            }
        }
    }
}
