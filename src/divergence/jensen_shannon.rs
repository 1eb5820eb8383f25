//! β KL(p‖m) + (1−β) KL(q‖m), m = βp + (1−β)q.
//!
//! Let e be the larger of p and q, e(1 + v) the smaller with −1 ≤ v ≤ 0, u = −ln(1 + v), and γ the weight of the
//! smaller one (1−β where p is larger, else β), so that m = e(1 + γv). With h = v + u and L(t) = t − ln(1 + t), both
//! of second order, the class contributes
//!
//! e·[γ(1−γ)v² + (1 + γv)·L(γv) − γe^(−u)·h],
//!
//! in which nothing of first order is left to cancel.

use super::{Class, Disjoint, DisjointView, Divergence, Infinite, Outer};
use crate::error::Error;
use crate::row::disjoint::DisjointPair;
use crate::row::pair::Pair;
use crate::simd::Lanes;
use crate::simd::ln::{Log1p, atanh_tail_on_third};

#[derive(Clone, Copy)]
pub(crate) struct JensenShannon {
    beta: f64,
    /// 0 for β = 0 and β = 1, where m is one of the rows and the divergence vanishes; else 1.
    factor: f64,
}

impl JensenShannon {
    /// β = ½.
    pub(crate) const EVEN: Self = JensenShannon { beta: 0.5, factor: 1.0 };

    pub(crate) fn new(beta: f64) -> Result<Self, Error> {
        if beta == 0.0 || beta == 1.0 {
            // Any other weight keeps ln m finite.
            Ok(JensenShannon { factor: 0.0, ..Self::EVEN })
        } else if (0.0..=1.0).contains(&beta) {
            Ok(JensenShannon { beta, ..Self::EVEN })
        } else {
            Err(Error::Parameter { name: "beta", value: beta, domain: "from 0 to 1" })
        }
    }
}

impl Divergence for JensenShannon {
    #[inline(always)]
    fn class<V: Lanes>(self, pair: &Pair<V>) -> Class<V> {
        let token = pair.token();
        let zero = V::splat(token, 0.0);
        let one = V::splat(token, 1.0);
        let beta = V::splat(token, self.beta);
        let other = V::splat(token, 1.0 - self.beta);
        let gamma = pair.where_p_larger(other, beta);
        let rest = pair.where_p_larger(beta, other);
        let v = pair.decay.expm1;
        let mixed = gamma * v;
        let log = if self.beta == 0.5 { Log1p::of_at_least_half(token, mixed) } else { Log1p::new(token, mixed) };
        let second = gamma * (rest * v * v - pair.decay.exp * pair.decay.excess);
        let larger = pair.larger * V::splat(token, self.factor);
        let value = larger * (one + mixed).mul_add(log.deficit, second).max(zero);
        // ln(e/m) = −ln(1 + γv) for the larger, and −u − ln(1 + γv) for the smaller.
        let d_ln_larger = -(rest * larger * log.ln);
        let d_ln_smaller = -(gamma * larger * pair.decay.exp * (log.ln + pair.bounded_u()));
        Class {
            value,
            d_ln_p: pair.where_p_larger(d_ln_larger, d_ln_smaller),
            d_ln_q: pair.where_p_larger(d_ln_smaller, d_ln_larger),
        }
    }

    type Disjoint = EvenDisjoint;

    fn for_disjoint_rows(self) -> Option<EvenDisjoint> {
        (self.beta == 0.5 && self.factor == 1.0).then_some(EvenDisjoint)
    }

    fn infinite_where(self) -> Infinite {
        Infinite { q_zero: false, p_zero: false }
    }

    /// The three parts of a class cancel the more the less even the weights are.
    fn needs_wide_lanes(self) -> bool {
        self.beta != 0.5
    }

    fn slopes_at_zero(self) -> (f64, f64) {
        // β ln(p/m) and (1−β) ln(q/m).
        if self.factor == 0.0 { (0.0, 0.0) } else { (f64::NEG_INFINITY, f64::NEG_INFINITY) }
    }
}

/// β = ½: ln 2 less ½Σ[p·ln(1 + q/p) + q·ln(1 + p/q)], whose terms vanish where either row lacks the class.
///
/// With s = min(p, q)/(p + q + max(p, q)), ln(1 + min/max) is 2 atanh s, and where the ratio is the inverse of that, its
/// logarithm is larger by |ln(p/q)|.
#[derive(Clone, Copy)]
pub(crate) struct EvenDisjoint;

impl Disjoint for EvenDisjoint {
    type View<V: Lanes> = EvenDisjointView<V>;

    #[inline(always)]
    fn view<V: Lanes>(self, token: V::Token, inverse_temperature: f64, delta: f64) -> EvenDisjointView<V> {
        let splat = |value| V::splat(token, value);
        EvenDisjointView {
            half_rate: splat(0.5 * inverse_temperature),
            half_delta: splat(0.5 * delta),
            zero: splat(0.0),
            half: splat(0.5),
            tiny: splat(1e-37),
        }
    }

    fn finish(self, sum: f64) -> Option<Outer> {
        /// Below, little is left of ln 2.
        const SMALLEST: f64 = 0.2;
        let value = std::f64::consts::LN_2 + sum;
        (value >= SMALLEST).then_some(Outer { value, slope: 1.0 })
    }
}

#[derive(Clone, Copy)]
pub(crate) struct EvenDisjointView<V> {
    half_rate: V,
    half_delta: V,
    zero: V,
    half: V,
    /// About the smallest normal number: no class has less, but 0.
    tiny: V,
}

impl<V: Lanes> DisjointView<V> for EvenDisjointView<V> {
    #[inline(always)]
    fn class(&self, pair: &DisjointPair<V>) -> Class<V> {
        let (p, q) = (pair.p, pair.q);
        let s = p.min(q).divide_relaxed((p + q + p.max(q)).max(self.tiny));
        let half_ln = atanh_tail_on_third(pair.token, s).mul_add_relaxed(self.half, s);
        // ½ ln(p/q), with the rounding error of x − y.
        let ratio = pair.difference.0.mul_add_relaxed(self.half_rate, -self.half_delta);
        let d_ln_p = p * (ratio.min(self.zero) - half_ln);
        let d_ln_q = q * ((-ratio).min(self.zero) - half_ln);
        Class { value: d_ln_p + d_ln_q, d_ln_p, d_ln_q }
    }
}
