//! A divergence of rows that have much in common, as polynomials in the log-ratio of a class.
//!
//! f̃ and its slopes grow as p and q do together: with t = ln p − ln q they are p times functions of t alone, f̃ of second order
//! and the slopes of first. So f̃/(p·t²), and slopes over p·t, are smooth functions that do not vanish, and polynomials of one degree
//! serve every divergence, whatever its parameter: they are fitted for a row, to what the divergence says of some classes in f64
//! lanes, and are good as far as they are found to be. Of those with a kink where p = q, some are nothing but a multiple of |p − q|.

use crate::divergence::Divergence;
use crate::element::Element;
use crate::row::distribution::{Distribution, Space};
use crate::row::divergence::second_pass::{EVERYTHING, Gauge, InMode, SecondPass};
use crate::row::pair::{Frame, SideFrame};
use crate::row::two_floats::TwoFloats;
use crate::rows::{Row, RowMut};
use crate::simd::{Isa, Wide};

/// Coefficients of each polynomial. An even number: no node of the fit is at 0, where all functions are 0/0.
pub(crate) const TERMS: usize = 12;

/// A polynomial whose coefficients, lowest degree first, are `scale` times these, of which the first is 1.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Polynomial {
    pub(crate) scale: f64,
    pub(crate) coefficients: [f64; TERMS],
}

/// What f32 lanes need to find a divergence of classes whose log-ratio is within `reach`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Series {
    pub(crate) reach: f64,
    /// (e^(−t) − 1)/t.
    pub(crate) growth: Polynomial,
    pub(crate) form: Form,
}

/// What f̃ is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Form {
    Smooth(Smooth),
    /// This number times |p − q|.
    Kink(f64),
    /// Both.
    Kinked(Smooth, f64),
}

/// f̃ and its slopes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Smooth {
    /// f̃/(p·t²).
    pub(crate) value: Polynomial,
    /// ∂f̃/∂ln p over p·t.
    pub(crate) d_ln_p: Polynomial,
    /// ∂f̃/∂ln q over p·t.
    pub(crate) d_ln_q: Polynomial,
}

/// Half of the nodes, those of Chebyshev's polynomial; the others are their negatives.
const NODES: [f64; TERMS / 2] = [
    0.991_444_861_373_810_4,
    0.923_879_532_511_286_7,
    0.793_353_340_291_235_2,
    0.608_761_429_008_720_7,
    0.382_683_432_365_089_8,
    0.130_526_192_220_051_6,
];

/// Where it is furthest from its nodes, and so are the errors of the fit; half of these points.
const BETWEEN: [f64; TERMS / 2] =
    [1.0, 0.965_925_826_289_068_3, 0.866_025_403_784_438_6, 0.707_106_781_186_547_5, 0.5, 0.258_819_045_102_520_74];

/// Nodes, and the points where the fit is looked at.
const POINTS: usize = 2 * TERMS;

/// The largest reach that is tried, in nats, and how often what part of it.
const LARGEST_REACH: f64 = 1.5;
const TRIES: i32 = 12;
const PART: f64 = 0.75;

/// Largest error of a fit, relative to the function.
const LARGEST_ERROR: f64 = 1e-7;

/// How many times the function the terms of its polynomial may be: by as much f32 lanes round it.
const LARGEST_TERMS: f64 = 4.0;

/// Scales with which products stay in the range of f32.
const SCALES: std::ops::RangeInclusive<f64> = 1e-12..=1e12;

impl Series {
    /// What slopes of p and of q are multiples of.
    pub(crate) fn units(&self) -> (f64, f64) {
        match &self.form {
            Form::Smooth(smooth) | Form::Kinked(smooth, _) => (smooth.d_ln_p.scale, smooth.d_ln_q.scale),
            &Form::Kink(kink) => (kink, -kink),
        }
    }

    /// `None` where no polynomial of this degree does.
    pub(crate) fn new<D: Divergence>(divergence: D, isa: Isa) -> Option<Self> {
        (0..TRIES).find_map(|tried| {
            let reach = LARGEST_REACH * PART.powi(tried);
            let samples = Sampled::new(divergence, reach, isa);
            let growth = ratios(reach).map(|t| (-t).exp_m1());
            let fit = |order: i32, samples: &[f64; POINTS]| Polynomial::fitted(reach, order, samples);
            let smooth = |samples: &Sampled| {
                Some(Smooth {
                    value: fit(2, &samples.value)?,
                    d_ln_p: fit(1, &samples.d_ln_p)?,
                    d_ln_q: fit(1, &samples.d_ln_q)?,
                })
            };
            let form = if D::FIRST_ORDER {
                let kink = divergence.kink();
                let rest = samples.without_kink(kink, &growth);
                if rest.is_nothing_to(&samples) { Form::Kink(kink) } else { Form::Kinked(smooth(&rest)?, kink) }
            } else {
                Form::Smooth(smooth(&samples)?)
            };
            Some(Series { reach, growth: fit(1, &growth)?, form })
        })
    }
}

/// Of nodes and points between them, for log-ratios up to `reach`.
fn ratios(reach: f64) -> [f64; POINTS] {
    let mut ratios = [0.0; POINTS];
    for (index, ratio) in ratios.iter_mut().enumerate() {
        let half = if index < TERMS { &NODES } else { &BETWEEN };
        let sign = if index % 2 == 0 { reach } else { -reach };
        *ratio = sign * half[index % TERMS / 2];
    }
    ratios
}

impl Polynomial {
    /// The coefficients.
    pub(crate) fn scaled(&self) -> [f64; TERMS] {
        self.coefficients.map(|coefficient| self.scale * coefficient)
    }

    /// Of a function over t^order, given the function at all [`ratios`]; `None` where it is not as good as f32 lanes need it.
    fn fitted(reach: f64, order: i32, function: &[f64; POINTS]) -> Option<Self> {
        let ratios = ratios(reach);
        let wanted = |index: usize| function[index] / ratios[index].powi(order);
        // The series of Chebyshev's polynomials, and that in powers of s = t/reach.
        let mut powers = [0.0; TERMS];
        let (mut before, mut chebyshev) = ([0.0; TERMS], [0.0; TERMS]);
        chebyshev[0] = 1.0;
        for degree in 0..TERMS {
            let mut sum = 0.0;
            for (index, ratio) in ratios.iter().take(TERMS).enumerate() {
                sum += wanted(index) * evaluate(&chebyshev, ratio / reach);
            }
            let weight = if degree == 0 { 1.0 } else { 2.0 } / TERMS as f64;
            for (power, coefficient) in powers.iter_mut().zip(chebyshev) {
                *power += weight * sum * coefficient;
            }
            // T(k + 1) = 2s·T(k) − T(k − 1), T(1) = s·T(0).
            let factor = if degree == 0 { 1.0 } else { 2.0 };
            let mut next = before.map(|coefficient| -coefficient);
            for (at, coefficient) in chebyshev.iter().take(TERMS - 1).enumerate() {
                next[at + 1] += factor * coefficient;
            }
            (before, chebyshev) = (chebyshev, next);
        }
        let scale = powers[0];
        if !SCALES.contains(&scale.abs()) {
            return None;
        }
        let mut coefficients = [0.0; TERMS];
        let mut per_reach = 1.0;
        for (coefficient, power) in coefficients.iter_mut().zip(powers) {
            *coefficient = f32::from_f64(power / scale * per_reach).to_f64();
            per_reach /= reach;
        }
        let good = (TERMS..POINTS).all(|index| {
            let (t, wanted) = (ratios[index], wanted(index) / scale);
            let terms = evaluate(&coefficients.map(f64::abs), t.abs());
            (evaluate(&coefficients, t) - wanted).abs() <= LARGEST_ERROR * wanted.abs()
                && terms <= LARGEST_TERMS * wanted.abs()
        });
        good.then_some(Polynomial { scale, coefficients })
    }
}

/// The polynomial with these coefficients, lowest degree first.
fn evaluate(coefficients: &[f64], at: f64) -> f64 {
    coefficients.iter().rev().fold(0.0, |sum, coefficient| sum * at + coefficient)
}

/// f̃ and its slopes at all [`ratios`].
struct Sampled {
    value: [f64; POINTS],
    d_ln_p: [f64; POINTS],
    d_ln_q: [f64; POINTS],
}

impl Sampled {
    /// Of classes with p = 1.
    fn new<D: Divergence>(divergence: D, reach: f64, isa: Isa) -> Self {
        let side = SideFrame { reference: 0.0, ln_sum: 0.0 };
        let (delta, none) = (TwoFloats::ZERO, (Gauge::NONE, Gauge::NONE));
        let frame = Frame { p: side, q: side, delta, delta_of_sums: delta, delta_of_scales: delta };
        let (x, y) = ([0.0; POINTS], ratios(reach).map(|ratio| -ratio));
        let [p, q] = [&x, &y].map(|row| Distribution::new(Row::from(&row[..]), Space::Logits, 1.0));
        let (mut d_ln_p, mut d_ln_q) = ([0.0; POINTS], [0.0; POINTS]);
        let outputs = (Some(RowMut::from(&mut d_ln_p[..])), Some(RowMut::from(&mut d_ln_q[..])));
        isa.run(Wide(InMode::<D, EVERYTHING>(SecondPass {
            divergence,
            p,
            q,
            frame,
            gauge: none,
            outputs,
            rule: None,
            norms: false,
        })));
        // f̃ grows as p and q together do, and so it is the sum of its slopes: Euler's theorem.
        Sampled { value: std::array::from_fn(|at| d_ln_p[at] + d_ln_q[at]), d_ln_p, d_ln_q }
    }

    /// Less `kink`·|p − q|, given q − p.
    fn without_kink(&self, kink: f64, growth: &[f64; POINTS]) -> Self {
        let value = std::array::from_fn(|at| self.value[at] - kink * growth[at].abs());
        // Where q is smaller, p is what |p − q| grows with.
        let slope = |at: usize| -kink.copysign(kink * growth[at]);
        Sampled {
            value,
            d_ln_p: std::array::from_fn(|at| self.d_ln_p[at] - slope(at)),
            d_ln_q: std::array::from_fn(|at| self.d_ln_q[at] + slope(at) * (1.0 + growth[at])),
        }
    }

    /// Whether it is but the rounding of something else.
    fn is_nothing_to(&self, other: &Self) -> bool {
        /// Of that.
        const ROUNDING: f64 = 1e-12;
        let nothing = |(rest, value): (&f64, &f64)| rest.abs() <= ROUNDING * value.abs();
        self.value.iter().zip(&other.value).all(nothing)
    }
}
