//! ½ Σ |p − q|. Where p = q the function has a kink, and the derivative used is 0.

use super::{Class, Divergence, Infinite};
use crate::row::pair::Pair;
use crate::simd::Lanes;

#[derive(Clone, Copy)]
pub(crate) struct TotalVariation;

impl Divergence for TotalVariation {
    #[inline(always)]
    fn class<V: Lanes>(self, pair: &Pair<V>) -> Class<V> {
        let token = pair.token();
        let half = V::splat(token, 0.5);
        let zero = V::splat(token, 0.0);
        let difference = pair.difference();
        let half_sign = V::select(zero.lt(difference), half, V::select(difference.lt(zero), -half, zero));
        let value = half * difference.abs();
        Class { value, d_ln_p: half_sign * pair.p(), d_ln_q: -(half_sign * pair.q()) }
    }

    fn infinite_where(self) -> Infinite {
        Infinite { q_zero: false, p_zero: false }
    }

    fn slopes_at_zero(self) -> (f64, f64) {
        (-0.5, -0.5)
    }
}
