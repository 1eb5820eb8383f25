//! The two probabilities of a class, as divergences see them.
//!
//! With d = ln p − ln q, u = |d| and e = max(p, q), everything is built from e, e^(−u) − 1 and e^(−u) − 1 + u, each of
//! which keeps its relative accuracy however small u is.
//!
//! Which of the two rows has a class is a mask of lanes. A lane without the class takes part in all arithmetic with some
//! finite number, and is put right by the mask at the end: what a parameter does to that number does not matter.

use crate::simd::exp::{Decay, excess_near_zero};
use crate::simd::{Lanes, Scalar};

/// The two log-ratios and probabilities of one class of each lane.
#[derive(Clone, Copy)]
pub(crate) struct Pair<V: Lanes> {
    pub(crate) token: V::Token,
    pub(crate) p_larger: V::Mask,
    /// Where p, and q, has the class.
    pub(crate) has: (V::Mask, V::Mask),
    pub(crate) p: V,
    pub(crate) q: V,
    /// max(p, q).
    pub(crate) larger: V,
    /// ln max(p, q); only in f64 lanes.
    pub(crate) ln_larger: V,
    /// |ln p − ln q|; a very large number where one row lacks the class.
    pub(crate) u: V,
    /// ln p − ln q; a very large number of either sign where one row lacks the class.
    pub(crate) log_ratio: V,
    pub(crate) decay: Decay<V>,
}

impl<V: Lanes> Pair<V> {
    /// `yes` where p ≥ q, `no` where q > p.
    #[inline(always)]
    pub(crate) fn where_p_larger(&self, yes: V, no: V) -> V {
        V::select(self.p_larger, yes, no)
    }

    /// Where exactly one row has the class.
    #[inline(always)]
    pub(crate) fn lone(&self) -> V::Mask {
        V::xor(self.has.0, self.has.1)
    }

    /// Where both rows have the class.
    #[inline(always)]
    pub(crate) fn shared(&self) -> V::Mask {
        V::and(self.has.0, self.has.1)
    }

    /// p − q, relatively accurate.
    #[inline(always)]
    pub(crate) fn difference(&self) -> V {
        if V::Scalar::WIDE {
            return (self.larger * self.decay.expm1).copysign(self.log_ratio);
        }
        let near = self.p * (self.log_ratio - excess_near_zero(self.token, self.log_ratio));
        V::select(self.is_near(), near, self.p - self.q)
    }

    /// Whether p and q are within a factor of e, in f32 lanes: there their difference is to be found from d.
    #[inline(always)]
    fn is_near(&self) -> V::Mask {
        self.u.lt(V::splat(self.token, 1.0))
    }

    /// u, or the largest u for which e^(−u) is not 0.
    #[inline(always)]
    pub(crate) fn bounded_u(&self) -> V {
        self.u.min(V::splat(self.token, 2.0 * V::Scalar::EXP_FLOOR))
    }

    /// p·(e^(−d) − 1 + d) = p·d + q − p ≥ 0.
    #[inline(always)]
    pub(crate) fn kl_term(&self) -> V {
        self.excess(self.p, self.q, self.log_ratio, self.p_larger, true)
    }

    /// q·(e^d − 1 − d) = p − q − q·d ≥ 0.
    #[inline(always)]
    pub(crate) fn reverse_kl_term(&self) -> V {
        self.excess(self.q, self.p, -self.log_ratio, self.p_larger, false)
    }

    /// a·(e^(−t) − 1 + t) for b = a·e^(−t), where a ≥ b is `p_larger == first`.
    #[inline(always)]
    fn excess(&self, a: V, b: V, t: V, p_larger: V::Mask, first: bool) -> V {
        if V::Scalar::WIDE {
            let deficit = self.decay.deficit(self.token, self.u);
            let (yes, no) = if first { (self.decay.excess, deficit) } else { (deficit, self.decay.excess) };
            return self.larger * V::select(p_larger, yes, no);
        }
        V::select(self.is_near(), a * excess_near_zero(self.token, t), a.mul_add_relaxed(t, b - a))
    }
}
