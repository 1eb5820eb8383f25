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
    /// x − y, each relative to the largest logit of its row: rounded by little where p and q are not small.
    pub(crate) relative_difference: V,
    /// ln p − ln q.
    pub(crate) log_ratio: V,
}

/// ln(p/q) less a number c. With KL(p‖q), the product with p is the slope of KL: where p has one class almost alone the two agree in
/// all digits but a few, which only the logits still tell.
#[derive(Clone, Copy)]
pub(crate) struct LogRatioLess<V> {
    rate: V,
    /// What (x − y)/T is to be less, as two numbers.
    offset: (V, V),
}

impl<V: Lanes> LogRatioLess<V> {
    #[inline(always)]
    pub(crate) fn new(token: V::Token, rows: DisjointFacts, c: f64) -> Self {
        // Rounded by the factor that 1/T is.
        let rate = V::Scalar::from_f64(rows.inverse_temperature).to_f64();
        let offset = (rows.delta + c) * (rate / rows.inverse_temperature);
        let high = V::Scalar::from_f64(offset).to_f64();
        LogRatioLess { rate: V::splat(token, rate), offset: (V::splat(token, high), V::splat(token, offset - high)) }
    }

    #[inline(always)]
    pub(crate) fn of(&self, pair: &DisjointPair<V>) -> V {
        let (difference, error) = pair.difference;
        difference.mul_add(self.rate, -self.offset.0) + error.mul_add(self.rate, -self.offset.1)
    }
}
