//! The gradients of KL of two rows that have much in common: q − p and p·(d − KL), block by block.
//!
//! The statistics are those that [`close`](super::close) found.

use crate::row::distribution::Distribution;
use crate::row::gradients::{Formulas, RowGradients, write_sides};
use crate::row::pair::{Frame, LogRatio};
use crate::row::two_floats::TwoFloats;
use crate::rows::Block;
use crate::simd::exp::{Decay, Excess, ScaledExp, exp};
use crate::simd::{LaneKernel, Lanes, Scalar};

pub(crate) struct CloseGradients<'a> {
    pub(crate) p: Distribution<'a>,
    pub(crate) q: Distribution<'a>,
    pub(crate) frame: Frame,
    /// δ + KL, the mean of (x − y)/T over p.
    pub(crate) mean: TwoFloats,
    pub(crate) gradients: RowGradients<'a>,
}

impl LaneKernel for CloseGradients<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Lanes>(self, token: V::Token) {
        let rate = self.p.inverse_temperature;
        let formulas = KlGradients::<V> {
            token,
            lowest: V::splat(token, -V::Scalar::HUGE),
            reference: V::splat(token, self.frame.p.reference),
            ln_sum: V::splat(token, -self.frame.p.ln_sum),
            exps: (self.frame.p.exp(token, rate), self.frame.q.exp(token, rate)),
            log_ratio: LogRatio::new(token, rate, self.frame.delta),
            from_mean: LogRatio::new(token, rate, self.mean),
            scale: V::splat(token, self.gradients.scale * rate),
            rate: V::splat(token, rate),
            excess: Excess::new(token),
        };
        // Any logit in range pads.
        let absent = self.frame.p.reference;
        write_sides(token, [Block::new(self.p.row, absent), Block::new(self.q.row, absent)], &self.gradients, formulas);
    }
}

struct KlGradients<V: Lanes> {
    token: V::Token,
    lowest: V,
    reference: V,
    ln_sum: V,
    /// In f32 lanes.
    exps: (ScaledExp<V>, ScaledExp<V>),
    /// d, and d − KL.
    log_ratio: LogRatio<V>,
    from_mean: LogRatio<V>,
    scale: V,
    rate: V,
    excess: Excess<V>,
}

impl<V: Lanes> Formulas<V> for KlGradients<V> {
    /// p·(d − KL) and q − p = p·(e^(−d) − 1).
    #[inline(always)]
    fn of(&self, x: V, y: V) -> (V, V) {
        let token = self.token;
        if V::Scalar::WIDE {
            let (x, y) = (x.at_least(self.lowest), y.at_least(self.lowest));
            let d = self.log_ratio.of(x, y);
            let p = exp(token, (x - self.reference).mul_add(self.rate, self.ln_sum));
            let scaled = self.scale * p;
            return (scaled * self.from_mean.of(x, y), scaled * Decay::new(token, d).expm1);
        }
        let one = V::splat(token, 1.0);
        let (x, y) = (self.exps.0.bounded(x), self.exps.1.bounded(y));
        let d = self.log_ratio.of(x, y);
        let p = self.exps.0.at(x);
        // |d| ≤ 1 where d² ≤ 1.
        let squared = d * d;
        let mut difference = p * squared.mul_add_relaxed(self.excess.quotient(d), -d);
        if V::any(one.lt(squared)) {
            difference = V::select(squared.le(one), difference, self.exps.1.at(y) - p);
        }
        (self.scale * p * self.from_mean.of(x, y), self.scale * difference)
    }
}
