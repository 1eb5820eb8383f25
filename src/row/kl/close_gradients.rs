//! The gradients of KL of two rows that have much in common: q − p and p·(d − KL), block by block.
//!
//! The statistics are those that [`close`](super::close) found.

use crate::row::distribution::Distribution;
use crate::row::gradients::RowGradients;
use crate::row::known::{PairKernel, run_known};
use crate::row::pair::{Frame, LogRatio};
use crate::row::two_floats::TwoFloats;
use crate::row::write::{Formulas, write_sides};
use crate::rows::Row;
use crate::simd::exp::{Decay, ScaledExp, excess_near_zero, exp};
use crate::simd::{Kernel, Lanes, Scalar, Simd};

pub(crate) struct CloseGradients<'a, const WIDE: bool> {
    pub(crate) p: Distribution<'a>,
    pub(crate) q: Distribution<'a>,
    pub(crate) frame: Frame,
    /// δ + KL, the mean of (x − y)/T over p.
    pub(crate) mean: TwoFloats,
    pub(crate) gradients: RowGradients<'a>,
}

impl<const WIDE: bool> Kernel for CloseGradients<'_, WIDE> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (p, q) = (self.p.row, self.q.row);
        if WIDE { run_known::<S::F64, _>(simd, p, q, self) } else { run_known::<S::F32, _>(simd, p, q, self) }
    }
}

impl<const WIDE: bool> PairKernel for CloseGradients<'_, WIDE> {
    type Output = ();

    #[inline(always)]
    fn run<V: Lanes>(self, token: V::Token, p: Row<'_>, q: Row<'_>) {
        let rate = self.p.inverse_temperature;
        let formulas = KlGradients::<V> {
            token,
            p,
            q,
            absent: self.frame.p.reference,
            lowest: V::splat(token, -V::Scalar::HUGE),
            reference: V::splat(token, self.frame.p.reference),
            ln_sum: V::splat(token, -self.frame.p.ln_sum),
            exps: (self.frame.p.exp(token, rate), self.frame.q.exp(token, rate)),
            log_ratio: LogRatio::new(token, rate, self.frame.delta),
            from_mean: LogRatio::new(token, rate, self.mean),
            scale: V::splat(token, self.gradients.scale * rate),
            rate: V::splat(token, rate),
        };
        write_sides(token, (self.gradients.p, self.gradients.q), &formulas);
    }
}

#[derive(Clone, Copy)]
struct KlGradients<'a, V: Lanes> {
    token: V::Token,
    p: Row<'a>,
    q: Row<'a>,
    /// Any logit in range.
    absent: f64,
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
}

impl<V: Lanes> Formulas<V> for KlGradients<'_, V> {
    /// p·(d − KL) and q − p = p·(e^(−d) − 1).
    #[inline(always)]
    fn lanes<const WHOLE: bool>(&self, start: usize) -> (V, V) {
        let token = self.token;
        let x = self.p.lanes::<V, WHOLE>(token, start, self.absent);
        let y = self.q.lanes::<V, WHOLE>(token, start, self.absent);
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
        let mut difference = p * (excess_near_zero(token, d) - d);
        if V::any(one.lt(d.abs())) {
            difference = V::select(d.abs().le(one), difference, self.exps.1.at(y) - p);
        }
        (self.scale * p * self.from_mean.of(x, y), self.scale * difference)
    }
}
