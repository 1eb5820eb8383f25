//! The classes that only one of two rows has.

use crate::row::distribution::Distribution;
use crate::row::distribution::scan::{MARGIN, lowest_narrow_logit};
use crate::row::runs::{Step, sums};
use crate::rows::Block;
use crate::simd::{LaneKernel, Lanes};

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

impl LaneKernel for FindSupport<'_> {
    type Output = Support;

    #[inline(always)]
    fn run<V: Lanes>(self, token: V::Token) -> Support {
        let FindSupport { p, q } = self;
        let splat = |value| V::splat(token, value);
        let rate = p.inverse_temperature.max(q.inverse_temperature);
        let mut step = SupportStep::<V> {
            zero: splat(0.0),
            one: splat(1.0),
            absent: (splat(p.space.absent()), splat(q.space.absent())),
            infinite: splat(f64::NEG_INFINITY),
            very_low: splat(MARGIN * lowest_narrow_logit(rate)),
            found: [splat(0.0); 3],
        };
        let blocks = [Block::new(p.row, p.space.absent()), Block::new(q.row, q.space.absent())];
        sums(token, p.row.classes(), blocks, &mut step);
        let [q_zero, p_zero, very_low] = step.found;
        Support { q_zero: q_zero.largest() > 0.0, p_zero: p_zero.largest() > 0.0, very_low: very_low.largest() > 0.0 }
    }
}

struct SupportStep<V: Lanes> {
    zero: V,
    one: V,
    absent: (V, V),
    infinite: V,
    very_low: V,
    /// 1 where there is one.
    found: [V; 3],
}

impl<V: Lanes> Step<V, 2, 0, 0> for SupportStep<V> {
    #[inline(always)]
    fn step<const WHOLE: bool>(&mut self, _: usize, [x, y]: [V; 2], _: &mut [V; 0]) -> [V; 0] {
        let (zero, one) = (self.zero, self.one);
        let has_p = V::select(self.absent.0.lt(x), one, zero);
        let has_q = V::select(self.absent.1.lt(y), one, zero);
        let low = |x: V| V::select(V::and(x.lt(self.very_low), self.infinite.lt(x)), one, zero);
        let found = [has_p - has_q, has_q - has_p, low(x).max(low(y))];
        for (most, found) in self.found.iter_mut().zip(found) {
            *most = most.max(found);
        }
        []
    }
}
