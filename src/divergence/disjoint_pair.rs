//! The two probabilities of a class of rows that have little in common.

use super::DisjointFacts;
use crate::element::Element;
use crate::simd::Lanes;

/// One class of each lane.
#[derive(Clone, Copy)]
pub(crate) struct DisjointPair<V: Lanes> {
    pub(crate) token: V::Token,
    /// p and q times [`Disjoint::weights`](super::Disjoint::weights).
    pub(crate) p: V,
    pub(crate) q: V,
    /// x − y, and its rounding error.
    pub(crate) difference: (V, V),
    /// ln p − ln q.
    pub(crate) log_ratio: V,
}

/// ln(p/q) − KL(p‖q), whose product with p is the slope of KL. Where p has one class almost alone the two agree in all digits
/// but a few, which only the logits still tell.
#[derive(Clone, Copy)]
pub(crate) struct BeyondKl<V> {
    rate: V,
    /// What (x − y)/T is to be less, as two numbers.
    offset: (V, V),
}

impl<V: Lanes> BeyondKl<V> {
    #[inline(always)]
    pub(crate) fn new(token: V::Token, rows: DisjointFacts) -> Self {
        // Rounded by the factor that 1/T is.
        let rate = V::Scalar::from_f64(rows.inverse_temperature).to_f64();
        let offset = (rows.delta + rows.kl) * (rate / rows.inverse_temperature);
        let high = V::Scalar::from_f64(offset).to_f64();
        BeyondKl { rate: V::splat(token, rate), offset: (V::splat(token, high), V::splat(token, offset - high)) }
    }

    #[inline(always)]
    pub(crate) fn of(&self, pair: &DisjointPair<V>) -> V {
        let (difference, error) = pair.difference;
        difference.mul_add(self.rate, -self.offset.0) + error.mul_add(self.rate, -self.offset.1)
    }
}
