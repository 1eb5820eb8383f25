//! The two probabilities of a class of rows that have little in common.

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
