//! KL(p‖q) = Σ p (ln p − ln q).
//!
//! f̃ = p·(e^(−d) − 1 + d) with d = ln p − ln q; f = f̃ + p − q.

use super::pair::Pair;
#[cfg(test)]
use super::times;
use super::{Class, Divergence, Infinite};

use crate::simd::Lanes;
use crate::simd::exp::saturating_exp;

#[derive(Clone, Copy)]
pub(crate) struct Kl;

impl Divergence for Kl {
    const IS_KL: bool = true;
    const FINITE_WHERE_LACKING: bool = true;
    // Σ(q − p) = 0.
    const SLOPE_SUM_IS_ZERO: (bool, bool) = (false, true);

    #[cfg(test)]
    fn definition(self, ln_p: f64, ln_q: f64) -> (f64, f64, f64) {
        let (p, f) = (ln_p.exp(), times(ln_p.exp(), ln_p - ln_q));
        (f, f + p, -p)
    }

    #[inline(always)]
    fn class<V: Lanes>(self, pair: &Pair<V>) -> Class<V> {
        let value = pair.kl_term();
        Class { value, d_ln_p: pair.p * pair.log_ratio, d_ln_q: -pair.difference() }
    }

    fn linear(self) -> (f64, f64) {
        (1.0, -1.0)
    }

    #[inline(always)]
    fn given_slopes<V: Lanes>(self, pair: &Pair<V>, class: &Class<V>) -> (V, V) {
        (class.d_ln_p + pair.p, -pair.p)
    }

    #[inline(always)]
    fn slopes_per_probability<V: Lanes>(self, pair: &Pair<V>) -> (V, V) {
        let token = pair.token;
        let (zero, one) = (V::splat(token, 0.0), V::splat(token, 1.0));
        // A probability that was found as an exponential may have become 0.
        let divides = zero.lt(pair.q);
        let quotient = pair.p / V::select(divides, pair.q, one);
        let ratio = V::select(divides, quotient, saturating_exp(token, pair.log_ratio));
        (pair.log_ratio + one, -V::select(pair.has.0, ratio, zero))
    }

    fn infinite_where(self) -> Infinite {
        Infinite { q_zero: true, p_zero: false }
    }

    fn slopes_at_zero(self) -> (f64, f64) {
        // ln(p/q) + 1 and −p/q.
        (f64::NEG_INFINITY, f64::NEG_INFINITY)
    }
}
