//! The loops over the classes of rows that have much in common, in f32 lanes: p times polynomials in the log-ratio, of any
//! divergence.

use crate::row::distribution::Distribution;
use crate::row::divergence::gradient_writer::{Rule, SideRule};
use crate::row::divergence::second_pass::{Norms, Sums};
use crate::row::divergence::series::{Polynomial, Series, TERMS};
use crate::row::gradients::{Formulas, RowGradients, write_sides};
use crate::row::pair::{Frame, LogRatio};
use crate::row::runs::{Step, sums};
use crate::rows::Block;
use crate::simd::exp::ScaledExp;
use crate::simd::{Isa, Kernel, Lanes, Simd};

/// A block of two rows of logits with one temperature.
#[derive(Clone, Copy)]
pub(crate) struct NearBlock<'a> {
    pub(crate) p: Distribution<'a>,
    pub(crate) q: Distribution<'a>,
    pub(crate) frame: Frame,
    pub(crate) series: &'a Series,
}

impl<'a> NearBlock<'a> {
    /// Σf̃ and, of the wanted sides, sums and norms of the slopes; `None` where a log-ratio is out of reach.
    pub(crate) fn sums(self, isa: Isa, wanted: (bool, bool)) -> Option<Sums> {
        match wanted {
            (false, false) => isa.run(SumsKernel::<false, false>(self)),
            (false, true) => isa.run(SumsKernel::<false, true>(self)),
            (true, false) => isa.run(SumsKernel::<true, false>(self)),
            (true, true) => isa.run(SumsKernel::<true, true>(self)),
        }
    }

    /// Writes the gradients of a block for which there are sums.
    pub(crate) fn write(self, isa: Isa, gradients: RowGradients<'a>, rule: Rule) {
        isa.run(GradientsKernel { block: self, gradients, rule });
    }

    /// To read, padded with logits of probability 0 and log-ratio 0.
    #[inline(always)]
    fn blocks(&self) -> [Block<'a, f32>; 2] {
        let rate = self.p.inverse_temperature;
        let absent = self.frame.p.reference - 2000.0 / rate;
        [Block::new(self.p.row, absent), Block::new(self.q.row, absent - self.frame.delta.value() / rate)]
    }
}

/// How two vectors of numbers become p and t.
#[derive(Clone, Copy)]
struct View<V: Lanes> {
    exps: (ScaledExp<V>, ScaledExp<V>),
    log_ratio: LogRatio<V>,
}

impl<V: Lanes> View<V> {
    #[inline(always)]
    fn new(token: V::Token, block: &NearBlock<'_>) -> Self {
        let (frame, rate) = (block.frame, block.p.inverse_temperature);
        View {
            exps: (frame.p.exp(token, rate), frame.q.exp(token, rate)),
            log_ratio: LogRatio::new(token, rate, frame.delta),
        }
    }

    #[inline(always)]
    fn of(&self, x: V, y: V) -> (V, V) {
        let (x, y) = (self.exps.0.bounded(x), self.exps.1.bounded(y));
        (self.exps.0.at(x), self.log_ratio.of(x, y))
    }
}

/// The coefficients in every lane.
#[inline(always)]
fn in_lanes<V: Lanes, const N: usize>(token: V::Token, coefficients: [f64; N]) -> [V; N] {
    let mut lanes = [V::splat(token, 0.0); N];
    for (lane, coefficient) in lanes.iter_mut().zip(coefficients) {
        *lane = V::splat(token, coefficient);
    }
    lanes
}

/// The polynomial with these coefficients, lowest degree first: one operation for each, and what waits for one result overlaps with
/// what waits for others.
#[inline(always)]
fn horner<V: Lanes, const N: usize>(coefficients: &[V; N], t: V) -> V {
    let mut value = coefficients[N - 1];
    for &coefficient in coefficients[..N - 1].iter().rev() {
        value = value.mul_add_relaxed(t, coefficient);
    }
    value
}

/// Sums of a block, with those of the slopes of p, of q, or both.
struct SumsKernel<'a, const P: bool, const Q: bool>(NearBlock<'a>);

impl<const P: bool, const Q: bool> Kernel for SumsKernel<'_, P, Q> {
    type Output = Option<Sums>;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Option<Sums> {
        let Series { reach, value, d_ln_p, d_ln_q, decay } = self.0.series;
        let of = |polynomial: &Polynomial| in_lanes::<S::F32, TERMS>(simd, polynomial.coefficients);
        let mut step = NearStep::<S::F32, P, Q> {
            view: View::new(simd, &self.0),
            value: of(value),
            d_ln_p: of(d_ln_p),
            d_ln_q: of(d_ln_q),
            decay: of(decay),
            largest: S::F32::splat(simd, 0.0),
        };
        let found = sums(simd, self.0.p.row.classes(), self.0.blocks(), &mut step);
        if step.largest.largest() > *reach {
            return None;
        }
        let norms = |at: usize, scale: f64| Norms {
            slopes: scale * scale * found[at],
            cross: scale * found[at + 1],
            probabilities: found[at + 2],
        };
        Some(Sums {
            value: value.scale * found[0],
            d_ln_p: d_ln_p.scale * found[1],
            p_norms: norms(2, d_ln_p.scale),
            d_ln_q: d_ln_q.scale * found[5],
            q_norms: norms(6, d_ln_q.scale),
            ..Sums::default()
        })
    }
}

/// Σf̃; Σa, Σa², Σa·p and Σp² for the slopes a of p; the same of q.
const SUMS: usize = 9;

/// Adds classes to the sums.
struct NearStep<V: Lanes, const P: bool, const Q: bool> {
    view: View<V>,
    value: [V; TERMS],
    d_ln_p: [V; TERMS],
    d_ln_q: [V; TERMS],
    decay: [V; TERMS],
    /// Of the magnitudes of log-ratios.
    largest: V,
}

impl<V: Lanes, const P: bool, const Q: bool> Step<V, 2, 0, SUMS> for NearStep<V, P, Q> {
    #[inline(always)]
    fn has_sum(at: usize) -> bool {
        [true, P, P, P, P, Q, Q, Q, Q][at]
    }

    #[inline(always)]
    fn step<const WHOLE: bool>(&mut self, _: usize, [x, y]: [V; 2], runs: &mut [V; SUMS]) -> [V; 0] {
        let (p, t) = self.view.of(x, y);
        self.largest = self.largest.max(t.abs());
        let moment = p * t;
        runs[0] = (moment * t).mul_add_relaxed(horner(&self.value, t), runs[0]);
        if P {
            add_slope(runs, 1, moment * horner(&self.d_ln_p, t), p);
        }
        if Q {
            add_slope(runs, 5, moment * horner(&self.d_ln_q, t), p * horner(&self.decay, t));
        }
        []
    }
}

#[inline(always)]
fn add_slope<V: Lanes>(runs: &mut [V; SUMS], at: usize, slope: V, probability: V) {
    runs[at] = runs[at] + slope;
    runs[at + 1] = slope.mul_add_relaxed(slope, runs[at + 1]);
    runs[at + 2] = slope.mul_add_relaxed(probability, runs[at + 2]);
    runs[at + 3] = probability.mul_add_relaxed(probability, runs[at + 3]);
}

struct GradientsKernel<'a> {
    block: NearBlock<'a>,
    gradients: RowGradients<'a>,
    rule: Rule,
}

impl Kernel for GradientsKernel<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Series { d_ln_p, d_ln_q, decay, .. } = self.block.series;
        let mut one = [0.0; TERMS];
        one[0] = 1.0;
        let formulas = Gradients::<S::F32> {
            view: View::new(simd, &self.block),
            p: in_lanes(simd, per_probability(self.rule.p, d_ln_p, one)),
            q: in_lanes(simd, per_probability(self.rule.q, d_ln_q, decay.coefficients.map(|one| decay.scale * one))),
        };
        write_sides(simd, self.block.blocks(), &self.gradients, formulas);
    }
}

/// The gradient of a side over p, from the polynomials of its slopes over p·t and of its probability over p.
fn per_probability(rule: SideRule, slope: &Polynomial, probability: [f64; TERMS]) -> [f64; TERMS + 1] {
    let mut coefficients = [0.0; TERMS + 1];
    for degree in 0..TERMS {
        coefficients[degree + 1] += rule.scale * slope.scale * slope.coefficients[degree];
        coefficients[degree] -= rule.scale * rule.slope_sum * probability[degree];
    }
    coefficients
}

/// The gradients over p of each side.
struct Gradients<V: Lanes> {
    view: View<V>,
    p: [V; TERMS + 1],
    q: [V; TERMS + 1],
}

impl<V: Lanes> Formulas<V> for Gradients<V> {
    #[inline(always)]
    fn of(&self, x: V, y: V) -> (V, V) {
        let (p, t) = self.view.of(x, y);
        (p * horner(&self.p, t), p * horner(&self.q, t))
    }
}
