//! β KL(p‖m) + (1−β) KL(q‖m), m = βp + (1−β)q.
//!
//! Let e be the larger of p and q, e(1 + v) the smaller with −1 ≤ v ≤ 0, u = −ln(1 + v), and γ the weight of the
//! smaller one (1−β where p is larger, else β), so that m = e(1 + γv). With h = v + u and L(t) = t − ln(1 + t), both
//! of second order, the class contributes
//!
//! e·[γ(1−γ)v² + (1 + γv)·L(γv) − γe^(−u)·h],
//!
//! in which nothing of first order is left to cancel.

use super::{Class, Divergence, Infinite, Outer};
use crate::error::Error;
use crate::row::pair::Pair;
use crate::simd::Lanes;
use crate::simd::ln::{Log1p, ln_1p_of_ratio};

#[derive(Clone, Copy)]
pub(crate) struct JensenShannon {
    beta: f64,
    /// 0 for β = 0 and β = 1, where m is one of the rows and the divergence vanishes; else 1.
    factor: f64,
    /// Whether slopes are relative to −ln β and −ln(1 − β), those of a class which the other row lacks.
    disjoint: bool,
}

impl JensenShannon {
    /// β = ½.
    pub(crate) const EVEN: Self = JensenShannon { beta: 0.5, factor: 1.0, disjoint: false };

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

impl JensenShannon {
    /// For even weights: slopes less ½p·ln 2 and ½q·ln 2, whose sum is the value less ln 2.
    #[inline(always)]
    fn disjoint_class<V: Lanes>(pair: &Pair<V>) -> Class<V> {
        let token = pair.token();
        let minus_half = V::splat(token, -0.5);
        // ln(m/e) = ln(1 + e^(−u)) − ln 2.
        let ln = ln_1p_of_ratio(token, pair.decay.exp);
        let larger = minus_half * pair.larger * ln;
        let smaller = minus_half * pair.larger * pair.decay.exp * (ln + pair.u);
        let (d_ln_p, d_ln_q) = (pair.where_p_larger(larger, smaller), pair.where_p_larger(smaller, larger));
        Class { value: larger + smaller, d_ln_p, d_ln_q }
    }
}

impl Divergence for JensenShannon {
    #[inline(always)]
    fn class<V: Lanes>(self, pair: &Pair<V>) -> Class<V> {
        if self.disjoint {
            return Self::disjoint_class(pair);
        }
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

    fn finish(self, near: f64) -> Outer {
        let value = if self.disjoint { std::f64::consts::LN_2 + near } else { near };
        Outer { value, slope: 1.0 }
    }

    fn for_disjoint_rows(self) -> Self {
        JensenShannon { disjoint: self.beta == 0.5, ..self }
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
