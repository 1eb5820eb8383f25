//! The classes that only one of two rows has.

use crate::row::distribution::Distribution;
use crate::row::distribution::scan::{MARGIN, lowest_narrow_logit};
use crate::simd::{Kernel, Lanes, Simd};

/// What the classes without probability mean to a pair of rows.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Support {
    /// Some class has p > 0 = q.
    pub(crate) q_zero: bool,
    /// Some class has q > 0 = p.
    pub(crate) p_zero: bool,
    /// Some finite element is too low for f32 lanes, and hidden from [`Scan::smallest`] by a −∞.
    pub(crate) very_low: bool,
}

impl Support {
    pub(crate) fn merge(self, other: Self) -> Self {
        Support {
            q_zero: self.q_zero || other.q_zero,
            p_zero: self.p_zero || other.p_zero,
            very_low: self.very_low || other.very_low,
        }
    }
}

/// Looks for classes that only one of two rows has; for the few blocks where a row lacks a class.
pub(crate) struct FindSupport<'a> {
    pub(crate) p: Distribution<'a>,
    pub(crate) q: Distribution<'a>,
}

impl Kernel for FindSupport<'_> {
    type Output = Support;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Support {
        let zero = S::F64::splat(simd, 0.0);
        let one = S::F64::splat(simd, 1.0);
        let rate = self.p.inverse_temperature.max(self.q.inverse_temperature);
        let very_low = S::F64::splat(simd, MARGIN * lowest_narrow_logit(rate));
        let infinite = S::F64::splat(simd, f64::NEG_INFINITY);
        let p_absent = S::F64::splat(simd, self.p.space.absent());
        let q_absent = S::F64::splat(simd, self.q.space.absent());
        let mut found = [zero; 3];
        let mut start = 0;
        while start < self.p.row.classes() {
            let x = self.p.row.load::<S::F64>(simd, start, self.p.space.absent());
            let y = self.q.row.load::<S::F64>(simd, start, self.q.space.absent());
            let has_p = S::F64::select(p_absent.lt(x), one, zero);
            let has_q = S::F64::select(q_absent.lt(y), one, zero);
            found[0] = found[0].max(has_p - has_q);
            found[1] = found[1].max(has_q - has_p);
            let low_p = S::F64::select(x.lt(very_low), S::F64::select(infinite.lt(x), one, zero), zero);
            let low_q = S::F64::select(y.lt(very_low), S::F64::select(infinite.lt(y), one, zero), zero);
            found[2] = found[2].max(low_p.max(low_q));
            start += S::F64::N;
        }
        let [q_zero, p_zero, very_low] = found;
        Support { q_zero: q_zero.largest() > 0.0, p_zero: p_zero.largest() > 0.0, very_low: very_low.largest() > 0.0 }
    }
}
