//! The two probabilities of a class of rows that are taken many times.

use crate::simd::Lanes;

/// One class of each lane, in f64 lanes.
#[derive(Clone, Copy)]
pub(crate) struct Probabilities<V: Lanes> {
    pub(crate) token: V::Token,
    /// p + q; 1 where no row has the class.
    pub(crate) sum: V,
    /// |p − q|/(p + q); 0 where no row has the class.
    pub(crate) sigma: V,
    /// |ln p − ln q|; some finite number where one row lacks the class.
    pub(crate) u: V,
}
