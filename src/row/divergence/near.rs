//! Values and slopes of rows that have much in common, in f32 lanes: p times polynomials in the log-ratio, of any divergence.

use crate::divergence::Class;
use crate::row::distribution::Distribution;
use crate::row::divergence::kept_slopes::{Places, Sides};
use crate::row::divergence::second_pass::Sums;
use crate::row::divergence::series::{Form, Series, Smooth, TERMS};
use crate::row::divergence::slope_sums::{Formula, SUMS, Summed, Terms, in_units, sums_of_block};
use crate::row::pair::{Frame, LogRatio};
use crate::rows::Block;
use crate::simd::exp::ScaledExp;
use crate::simd::polynomial::{horner, in_lanes};
use crate::simd::{Isa, Lanes, Scalar};

/// A block of two rows of logits with one temperature.
#[derive(Clone, Copy)]
pub(crate) struct NearBlock<'a> {
    pub(crate) p: Distribution<'a>,
    pub(crate) q: Distribution<'a>,
    pub(crate) frame: Frame,
    pub(crate) series: &'a Series,
}

impl<'a> NearBlock<'a> {
    /// Σf̃ and, of the wanted sides, sums and norms of the slopes, which are kept where there are places for them, in units of
    /// their own; `None` where a log-ratio is out of reach.
    pub(crate) fn sums(self, isa: Isa, wanted: Sides<bool>, places: Places<'_>) -> Option<Sums> {
        let classes = self.p.row.classes();
        match &self.series.form {
            Form::Smooth(smooth) => {
                sums_of_block(SmoothBlock { block: self, smooth }, classes, isa, false, wanted, places)
            }
            &Form::Kink(kink) => sums_of_block(KinkBlock { block: self, kink }, classes, isa, false, wanted, places),
            Form::Kinked(smooth, kink) => {
                let smooth = SmoothBlock { block: self, smooth };
                sums_of_block(KinkedBlock { smooth, kink: *kink }, classes, isa, false, wanted, places)
            }
        }
    }

    /// To read, padded with logits of probability 0 and log-ratio 0.
    #[inline(always)]
    fn blocks<T: Scalar>(&self) -> [Block<'a, T>; 2] {
        let rate = self.p.inverse_temperature;
        let absent = self.frame.p.reference - 2000.0 / rate;
        [Block::new(self.p.row, absent), Block::new(self.q.row, absent - self.frame.delta.value() / rate)]
    }

    /// Of classes whose log-ratios are all within reach.
    #[inline(always)]
    fn within_reach<V: Lanes>(&self, view: &View<V>, sums: Sums) -> Option<Sums> {
        (view.largest.largest() <= self.series.reach).then_some(sums)
    }
}

/// How two vectors of numbers become p, t, and q.
#[derive(Clone, Copy)]
struct View<V: Lanes> {
    exps: (ScaledExp<V>, ScaledExp<V>),
    log_ratio: LogRatio<V>,
    /// (q − p)/(p·t).
    growth: [V; TERMS],
    /// Of the magnitudes of log-ratios.
    largest: V,
}

impl<V: Lanes> View<V> {
    #[inline(always)]
    fn new(token: V::Token, block: &NearBlock<'_>) -> Self {
        let (frame, rate) = (block.frame, block.p.inverse_temperature);
        View {
            exps: (frame.p.exp(token, rate), frame.q.exp(token, rate)),
            log_ratio: LogRatio::new(token, rate, frame.delta),
            growth: in_lanes(token, block.series.growth.scaled()),
            largest: V::splat(token, 0.0),
        }
    }

    /// p and t.
    #[inline(always)]
    fn of(&mut self, x: V, y: V) -> (V, V) {
        let (x, y) = (self.exps.0.bounded(x), self.exps.1.bounded(y));
        let t = self.log_ratio.of(x, y);
        self.largest = self.largest.max(t.abs());
        (self.exps.0.at(x), t)
    }
}

/// A block of rows whose divergence is smooth.
#[derive(Clone, Copy)]
struct SmoothBlock<'a> {
    block: NearBlock<'a>,
    smooth: &'a Smooth,
}

struct SmoothFormula<V: Lanes> {
    view: View<V>,
    value: [V; TERMS],
    d_ln_p: [V; TERMS],
    d_ln_q: [V; TERMS],
}

impl Summed for SmoothBlock<'_> {
    const WIDE: bool = false;
    const P_ALONE: bool = true;

    type Formula<V: Lanes> = SmoothFormula<V>;

    #[inline(always)]
    fn blocks<T: Scalar>(&self) -> [Block<'_, T>; 2] {
        self.block.blocks()
    }

    #[inline(always)]
    fn formula<V: Lanes>(&self, token: V::Token) -> SmoothFormula<V> {
        let Smooth { value, d_ln_p, d_ln_q } = self.smooth;
        SmoothFormula {
            view: View::new(token, &self.block),
            value: in_lanes(token, value.coefficients),
            d_ln_p: in_lanes(token, d_ln_p.coefficients),
            d_ln_q: in_lanes(token, d_ln_q.coefficients),
        }
    }

    #[inline(always)]
    fn found<V: Lanes>(&self, formula: SmoothFormula<V>, sums: [f64; SUMS]) -> Option<Sums> {
        let Smooth { value, d_ln_p, d_ln_q } = self.smooth;
        self.block.within_reach(&formula.view, in_units(sums, value.scale, d_ln_p.scale, d_ln_q.scale))
    }
}

impl<V: Lanes> Formula<V> for SmoothFormula<V> {
    #[inline(always)]
    fn terms(&mut self, x: V, y: V) -> Terms<V> {
        let (p, t) = self.view.of(x, y);
        self.of(p, t)
    }
}

impl<V: Lanes> SmoothFormula<V> {
    #[inline(always)]
    fn of(&self, p: V, t: V) -> Terms<V> {
        let moment = p * t;
        let class = Class {
            value: moment * t * horner(&self.value, t),
            d_ln_p: moment * horner(&self.d_ln_p, t),
            d_ln_q: moment * horner(&self.d_ln_q, t),
        };
        Terms { class, probabilities: (p, moment.mul_add_relaxed(horner(&self.view.growth, t), p)) }
    }
}

/// A block of rows whose f̃ is a multiple of |p − q|.
#[derive(Clone, Copy)]
struct KinkBlock<'a> {
    block: NearBlock<'a>,
    kink: f64,
}

struct KinkFormula<V: Lanes> {
    token: V::Token,
    view: View<V>,
}

impl Summed for KinkBlock<'_> {
    const WIDE: bool = false;
    const P_ALONE: bool = true;

    type Formula<V: Lanes> = KinkFormula<V>;

    #[inline(always)]
    fn blocks<T: Scalar>(&self) -> [Block<'_, T>; 2] {
        self.block.blocks()
    }

    #[inline(always)]
    fn formula<V: Lanes>(&self, token: V::Token) -> KinkFormula<V> {
        KinkFormula { token, view: View::new(token, &self.block) }
    }

    #[inline(always)]
    fn found<V: Lanes>(&self, formula: KinkFormula<V>, sums: [f64; SUMS]) -> Option<Sums> {
        self.block.within_reach(&formula.view, in_units(sums, self.kink, self.kink, -self.kink))
    }
}

impl<V: Lanes> Formula<V> for KinkFormula<V> {
    #[inline(always)]
    fn terms(&mut self, x: V, y: V) -> Terms<V> {
        let (p, t) = self.view.of(x, y);
        let difference = p * t * horner(&self.view.growth, t);
        let (sign, q) = (sign(self.token, t), p + difference);
        let class = Class { value: difference.abs(), d_ln_p: sign * p, d_ln_q: sign * q };
        Terms { class, probabilities: (p, q) }
    }
}

/// A block of rows whose f̃ is both.
#[derive(Clone, Copy)]
struct KinkedBlock<'a> {
    smooth: SmoothBlock<'a>,
    kink: f64,
}

struct KinkedFormula<V: Lanes> {
    token: V::Token,
    smooth: SmoothFormula<V>,
    /// The kink in the units of value and slopes.
    kinks: [V; 3],
}

impl Summed for KinkedBlock<'_> {
    const WIDE: bool = false;
    const P_ALONE: bool = true;

    type Formula<V: Lanes> = KinkedFormula<V>;

    #[inline(always)]
    fn blocks<T: Scalar>(&self) -> [Block<'_, T>; 2] {
        self.smooth.blocks()
    }

    #[inline(always)]
    fn formula<V: Lanes>(&self, token: V::Token) -> KinkedFormula<V> {
        let Smooth { value, d_ln_p, d_ln_q } = self.smooth.smooth;
        let kink = |scale: f64| V::splat(token, self.kink / scale);
        let kinks = [kink(value.scale), kink(d_ln_p.scale), kink(-d_ln_q.scale)];
        KinkedFormula { token, smooth: self.smooth.formula(token), kinks }
    }

    #[inline(always)]
    fn found<V: Lanes>(&self, formula: KinkedFormula<V>, sums: [f64; SUMS]) -> Option<Sums> {
        self.smooth.found::<V>(formula.smooth, sums)
    }
}

impl<V: Lanes> Formula<V> for KinkedFormula<V> {
    #[inline(always)]
    fn terms(&mut self, x: V, y: V) -> Terms<V> {
        let (p, t) = self.smooth.view.of(x, y);
        let Terms { class, probabilities } = self.smooth.of(p, t);
        // Not the difference of p and q, which rounds it.
        let difference = p * t * horner(&self.smooth.view.growth, t);
        let (sign, [value, d_ln_p, d_ln_q]) = (sign(self.token, t), self.kinks);
        let class = Class {
            value: difference.abs().mul_add_relaxed(value, class.value),
            d_ln_p: (sign * p).mul_add_relaxed(d_ln_p, class.d_ln_p),
            d_ln_q: (sign * probabilities.1).mul_add_relaxed(d_ln_q, class.d_ln_q),
        };
        Terms { class, probabilities }
    }
}

/// 1 with the sign of t; 0 for 0.
#[inline(always)]
fn sign<V: Lanes>(token: V::Token, t: V) -> V {
    /// No log-ratio but 0 is so small that the product is below 1.
    const LARGE: f64 = 1e38;
    (t * V::splat(token, LARGE)).min(V::splat(token, 1.0)).max(V::splat(token, -1.0))
}
