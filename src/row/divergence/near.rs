//! The loops over the classes of rows that have much in common, in f32 lanes: p times polynomials in the log-ratio, of any
//! divergence.

use crate::row::distribution::Distribution;
use crate::row::divergence::gradient_writer::{Rule, SideRule};
use crate::row::divergence::second_pass::Sums;
use crate::row::divergence::series::{Form, Polynomial, Series, Smooth, TERMS};
use crate::row::divergence::slope_sums::{SUMS, add_slope, has_sum, in_units};
use crate::row::gradients::{Formulas, RowGradients, write_sides};
use crate::row::pair::{Frame, LogRatio};
use crate::row::runs::{Step, sums};
use crate::rows::Block;
use crate::simd::exp::ScaledExp;
use crate::simd::polynomial::{horner, in_lanes};
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
            (false, false) => self.sums_of::<false, false>(isa),
            (false, true) => self.sums_of::<false, true>(isa),
            (true, false) => self.sums_of::<true, false>(isa),
            (true, true) => self.sums_of::<true, true>(isa),
        }
    }

    fn sums_of<const P: bool, const Q: bool>(self, isa: Isa) -> Option<Sums> {
        match self.series.form {
            Form::Smooth(smooth) => isa.run(SmoothSums::<P, Q>(self, smooth)),
            Form::Kink(kink) => isa.run(KinkSums::<P, Q>(self, kink)),
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

/// 1 with the sign of t; 0 for 0.
#[inline(always)]
fn sign<V: Lanes>(token: V::Token, t: V) -> V {
    /// No log-ratio but 0 is so small that the product is below 1.
    const LARGE: f64 = 1e38;
    (t * V::splat(token, LARGE)).min(V::splat(token, 1.0)).max(V::splat(token, -1.0))
}

/// Sums of a block, with those of the slopes of p, of q, or both.
struct SmoothSums<'a, const P: bool, const Q: bool>(NearBlock<'a>, Smooth);

impl<const P: bool, const Q: bool> Kernel for SmoothSums<'_, P, Q> {
    type Output = Option<Sums>;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Option<Sums> {
        let SmoothSums(block, Smooth { value, d_ln_p, d_ln_q }) = self;
        let mut step = SmoothStep::<S::F32, P, Q> {
            view: View::new(simd, &block),
            value: in_lanes(simd, value.coefficients),
            d_ln_p: in_lanes(simd, d_ln_p.coefficients),
            d_ln_q: in_lanes(simd, d_ln_q.coefficients),
            growth: in_lanes(simd, block.series.growth.scaled()),
            largest: S::F32::splat(simd, 0.0),
        };
        let found = sums(simd, block.p.row.classes(), block.blocks(), &mut step);
        let within = step.largest.largest() <= block.series.reach;
        within.then(|| in_units(found, value.scale, d_ln_p.scale, d_ln_q.scale))
    }
}

/// Adds classes to the sums.
struct SmoothStep<V: Lanes, const P: bool, const Q: bool> {
    view: View<V>,
    value: [V; TERMS],
    d_ln_p: [V; TERMS],
    d_ln_q: [V; TERMS],
    growth: [V; TERMS],
    /// Of the magnitudes of log-ratios.
    largest: V,
}

impl<V: Lanes, const P: bool, const Q: bool> Step<V, 2, 0, SUMS> for SmoothStep<V, P, Q> {
    #[inline(always)]
    fn has_sum(at: usize) -> bool {
        has_sum::<P, Q>(at)
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
            add_slope(runs, 5, moment * horner(&self.d_ln_q, t), moment.mul_add_relaxed(horner(&self.growth, t), p));
        }
        []
    }
}

/// The same where f̃ is a multiple of |p − q|.
struct KinkSums<'a, const P: bool, const Q: bool>(NearBlock<'a>, f64);

impl<const P: bool, const Q: bool> Kernel for KinkSums<'_, P, Q> {
    type Output = Option<Sums>;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Option<Sums> {
        let KinkSums(block, kink) = self;
        let mut step = KinkStep::<S::F32, P, Q> {
            token: simd,
            view: View::new(simd, &block),
            growth: in_lanes(simd, block.series.growth.scaled()),
            largest: S::F32::splat(simd, 0.0),
        };
        let found = sums(simd, block.p.row.classes(), block.blocks(), &mut step);
        let within = step.largest.largest() <= block.series.reach;
        within.then(|| in_units(found, kink, kink, -kink))
    }
}

/// Adds classes to the sums.
struct KinkStep<V: Lanes, const P: bool, const Q: bool> {
    token: V::Token,
    view: View<V>,
    growth: [V; TERMS],
    /// Of the magnitudes of log-ratios.
    largest: V,
}

impl<V: Lanes, const P: bool, const Q: bool> Step<V, 2, 0, SUMS> for KinkStep<V, P, Q> {
    #[inline(always)]
    fn has_sum(at: usize) -> bool {
        has_sum::<P, Q>(at)
    }

    #[inline(always)]
    fn step<const WHOLE: bool>(&mut self, _: usize, [x, y]: [V; 2], runs: &mut [V; SUMS]) -> [V; 0] {
        let (p, t) = self.view.of(x, y);
        self.largest = self.largest.max(t.abs());
        // q − p.
        let difference = p * t * horner(&self.growth, t);
        runs[0] = runs[0] + difference.abs();
        let sign = sign(self.token, t);
        if P {
            add_slope(runs, 1, sign * p, p);
        }
        if Q {
            let q = p + difference;
            add_slope(runs, 5, sign * q, q);
        }
        []
    }
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
        let GradientsKernel { block, gradients, rule } = self;
        let (mut p, mut q) = ([0.0; TERMS + 1], [0.0; TERMS + 1]);
        (p[0], q[0]) = (1.0, 1.0);
        q[1..].copy_from_slice(&block.series.growth.scaled());
        let view = View::new(simd, &block);
        match block.series.form {
            Form::Smooth(Smooth { d_ln_p, d_ln_q, .. }) => {
                let formulas = SmoothGradients::<S::F32> {
                    view,
                    p: in_lanes(simd, over_p(rule.p, &d_ln_p, p)),
                    q: in_lanes(simd, over_p(rule.q, &d_ln_q, q)),
                };
                write_sides(simd, block.blocks(), &gradients, formulas);
            }
            Form::Kink(kink) => {
                let formulas = KinkGradients::<S::F32> {
                    token: simd,
                    view,
                    p: of_kink(simd, rule.p, kink),
                    q: of_kink(simd, rule.q, -kink),
                    q_over_p: in_lanes(simd, q),
                };
                write_sides(simd, block.blocks(), &gradients, formulas);
            }
        }
    }
}

/// The gradient of a side over p, from the polynomials of its slopes over p·t and of its probability over p.
fn over_p(rule: SideRule, slope: &Polynomial, probability: [f64; TERMS + 1]) -> [f64; TERMS + 1] {
    let mut coefficients = probability.map(|coefficient| -rule.scale * rule.slope_sum * coefficient);
    for (coefficient, slope) in coefficients[1..].iter_mut().zip(slope.scaled()) {
        *coefficient += rule.scale * slope;
    }
    coefficients
}

/// The gradient of a side over its probability: what is the same for all classes, and what has the sign of t.
#[inline(always)]
fn of_kink<V: Lanes>(token: V::Token, rule: SideRule, kink: f64) -> (V, V) {
    (V::splat(token, -rule.scale * rule.slope_sum), V::splat(token, rule.scale * kink))
}

/// The gradients over p of each side.
struct SmoothGradients<V: Lanes> {
    view: View<V>,
    p: [V; TERMS + 1],
    q: [V; TERMS + 1],
}

impl<V: Lanes> Formulas<V> for SmoothGradients<V> {
    #[inline(always)]
    fn of(&self, x: V, y: V) -> (V, V) {
        let (p, t) = self.view.of(x, y);
        (p * horner(&self.p, t), p * horner(&self.q, t))
    }
}

/// The gradients by [`of_kink`].
struct KinkGradients<V: Lanes> {
    token: V::Token,
    view: View<V>,
    p: (V, V),
    q: (V, V),
    q_over_p: [V; TERMS + 1],
}

impl<V: Lanes> Formulas<V> for KinkGradients<V> {
    #[inline(always)]
    fn of(&self, x: V, y: V) -> (V, V) {
        let (p, t) = self.view.of(x, y);
        let (sign, q) = (sign(self.token, t), p * horner(&self.q_over_p, t));
        (p * sign.mul_add_relaxed(self.p.1, self.p.0), q * sign.mul_add_relaxed(self.q.1, self.q.0))
    }
}
