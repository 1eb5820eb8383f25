//! KL(p‖q) = Σ p (ln p − ln q).
//!
//! f̃ = p·(e^(−d) − 1 + d) with d = ln p − ln q; f = f̃ + p − q.

use std::convert::Infallible;

use super::{Class, Divergence, Infinite};
use crate::row::pair::Pair;
use crate::simd::Lanes;

#[derive(Clone, Copy)]
pub(crate) struct Kl;

impl Divergence for Kl {
    const IS_KL: bool = true;
    // Σ(q − p) = 0.
    const SLOPE_SUM_IS_ZERO: (bool, bool) = (false, true);

    #[inline(always)]
    fn class<V: Lanes>(self, pair: &Pair<V>) -> Class<V> {
        let value = pair.kl_term();
        Class { value, d_ln_p: pair.p() * pair.log_ratio(), d_ln_q: -pair.difference() }
    }

    fn linear(self) -> (f64, f64) {
        (1.0, -1.0)
    }

    #[inline(always)]
    fn given_slopes<V: Lanes>(self, pair: &Pair<V>, class: &Class<V>) -> (V, V) {
        (class.d_ln_p + pair.p(), -pair.p())
    }

    #[inline(always)]
    fn slopes_per_probability<V: Lanes>(self, pair: &Pair<V>) -> (V, V) {
        (pair.log_ratio() + V::splat(pair.token(), 1.0), -(pair.p() / pair.q()))
    }

    type Disjoint = Infallible;

    fn for_disjoint_rows(self) -> Option<Infallible> {
        None
    }

    fn infinite_where(self) -> Infinite {
        Infinite { q_zero: true, p_zero: false }
    }

    fn slopes_at_zero(self) -> (f64, f64) {
        // ln(p/q) + 1 and −p/q.
        (f64::NEG_INFINITY, f64::NEG_INFINITY)
    }
}
