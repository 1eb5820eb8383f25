//! ½ Σ |p − q|. Where p = q the function has a kink, and the derivative used is 0.

use super::{Class, Divergence, Infinite};
use crate::row::pair::Pair;
use crate::simd::Lanes;

#[derive(Clone, Copy)]
pub(crate) struct TotalVariation {
    /// Whether slopes are relative to ½, that of a class which the other row lacks.
    disjoint: bool,
}

impl TotalVariation {
    pub(crate) const NEW: Self = TotalVariation { disjoint: false };
}

impl Divergence for TotalVariation {
    #[inline(always)]
    fn class<V: Lanes>(self, pair: &Pair<V>) -> Class<V> {
        let token = pair.token();
        let half = V::splat(token, 0.5);
        let zero = V::splat(token, 0.0);
        let difference = pair.difference();
        let half_sign = V::select(zero.lt(difference), half, V::select(difference.lt(zero), -half, zero));
        let value = half * difference.abs();
        let top = if self.disjoint { half } else { zero };
        Class { value, d_ln_p: (half_sign - top) * pair.p(), d_ln_q: -((half_sign + top) * pair.q()) }
    }

    fn for_disjoint_rows(self) -> Self {
        TotalVariation { disjoint: true }
    }

    fn infinite_where(self) -> Infinite {
        Infinite { q_zero: false, p_zero: false }
    }

    fn slopes_at_zero(self) -> (f64, f64) {
        (-0.5, -0.5)
    }
}
