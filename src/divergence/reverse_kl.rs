//! KL(q‖p) = Σ q (ln q − ln p).
//!
//! f̃ = q·(e^d − 1 − d) with d = ln p − ln q; f = f̃ + q − p.

use super::{Class, Divergence, Infinite};
use crate::row::pair::Pair;
use crate::simd::Lanes;

#[derive(Clone, Copy)]
pub(crate) struct ReverseKl;

impl Divergence for ReverseKl {
    // Σ(p − q) = 0.
    const SLOPE_SUM_IS_ZERO: (bool, bool) = (true, false);

    #[inline(always)]
    fn class<V: Lanes>(self, pair: &Pair<V>) -> Class<V> {
        let value = pair.reverse_kl_term();
        Class { value, d_ln_p: pair.difference(), d_ln_q: -(pair.q() * pair.log_ratio()) }
    }

    fn linear(self) -> (f64, f64) {
        (-1.0, 1.0)
    }

    #[inline(always)]
    fn given_slopes<V: Lanes>(self, pair: &Pair<V>, class: &Class<V>) -> (V, V) {
        (-pair.q(), class.d_ln_q + pair.q())
    }

    fn infinite_where(self) -> Infinite {
        Infinite { q_zero: false, p_zero: true }
    }

    fn slopes_at_zero(self) -> (f64, f64) {
        // −q/p and ln(q/p) + 1.
        (f64::NEG_INFINITY, f64::NEG_INFINITY)
    }
}
