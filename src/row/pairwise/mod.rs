//! A divergence of each of some rows from each of others, in f64 lanes.
//!
//! Every row is made probabilities and their logarithms once for a whole [`Tile`] of pairs, a block of classes at a time, and
//! the f̃ of [`Divergence`] are summed of these ([`PairSums`]): no exponential and no logarithm of a number is left to each pair.
//! What is lost is what the two numbers are rounded by, 10⁻¹⁵ of ln p. It shows in rows that are close, and in sums that cancel:
//! [`OfPairs::value`] says so, and such a pair is computed [as any two rows](OfPairs::accurate), and so is one with a row that is not
//! [ordinary](Facts::ordinary).
//!
//! * [`facts`]: what is to be known of each row before.
//! * [`tile`]: rows as probabilities and logarithms; [`sums`]: the loop over the classes of a pair.

mod facts;
mod sums;
mod tile;

pub(crate) use facts::Facts;
pub(crate) use sums::PairSums;
pub(crate) use tile::{Tile, WIDTH};

use crate::divergence::Divergence;
use crate::row::distribution::Distribution;
use crate::row::gradients::RowGradients;
use crate::rows::Row;
use crate::simd::Isa;
use crate::threads::Blocks;

/// How many times the error ε of ln p in each class Σ|p − q| is to be. Σf̃, of second order, is off by 2ε/Σ|p − q| of itself at
/// most, and by far less where errors of many classes cancel.
const SMALLEST_GAP: f64 = 5e13;

/// What pairs need of a [`Divergence`], whatever its type.
pub(crate) trait OfPairs: Sync {
    /// Whether each pair has weights of its own, so that none can be summed with others.
    fn has_statistic(&self) -> bool;
    /// [`PairSums::of`].
    fn sums(&self, p: [Row<'_>; 2], q: [Row<'_>; 2], full: bool, isa: Isa) -> PairSums;
    /// The value of two rows from their sums; `None` where it is to be found another way.
    fn value(&self, facts: (&Facts, &Facts), sums: PairSums) -> Option<f64>;
    /// The value of any two rows, as that of one pair is found.
    fn accurate(&self, p: Distribution<'_>, q: Distribution<'_>, isa: Isa, blocks: &Blocks) -> f64;
}

impl<D: Divergence> OfPairs for D {
    fn has_statistic(&self) -> bool {
        D::HAS_STATISTIC
    }

    fn sums(&self, p: [Row<'_>; 2], q: [Row<'_>; 2], full: bool, isa: Isa) -> PairSums {
        if D::HAS_STATISTIC { PairSums::default() } else { PairSums::of(self.terms(), p, q, full, isa) }
    }

    fn value(&self, facts: (&Facts, &Facts), sums: PairSums) -> Option<f64> {
        value(*self, facts, sums)
    }

    fn accurate(&self, p: Distribution<'_>, q: Distribution<'_>, isa: Isa, blocks: &Blocks) -> f64 {
        let gradients = RowGradients { scale: 1.0, p: None, q: None };
        super::divergence::divergence(*self, p, q, isa, blocks, gradients)
    }
}

/// The value of two rows from their sums; `None` where it is to be found another way.
fn value<D: Divergence>(divergence: D, facts: (&Facts, &Facts), sums: PairSums) -> Option<f64> {
    /// The part of a sum that rows taken as given leave of its parts.
    const SMALLEST_SHARE: f64 = 0.25;
    let infinite = divergence.infinite_where();
    if (infinite.q_zero && sums.lone_p > 0.0) || (infinite.p_zero && sums.lone_q > 0.0) {
        return Some(f64::INFINITY);
    }
    // Where the sum of the rows is part of the value, its rounding is one of all classes.
    let whole = if divergence.linear_sum() == 0.0 { 0.0 } else { Facts::LARGEST_ERROR };
    if sums.gap < SMALLEST_GAP * facts.0.error.max(facts.1.error).max(whole) {
        return None;
    }
    let mut near = sums.near;
    let normalized = facts.0.normalized && facts.1.normalized;
    if !normalized {
        let above_one = facts.1.mass - 1.0;
        if D::CANCELS && divergence.cancels_of_given_rows(near, sums.excess, above_one) {
            return None;
        }
        let (of_excess, of_rest) = (divergence.linear().0 * sums.excess, divergence.linear_sum() * above_one);
        let parts = near.abs() + of_excess.abs() + of_rest.abs();
        near += of_excess + of_rest;
        if near.abs() < SMALLEST_SHARE * parts {
            return None;
        }
    }
    // An outer function asks by an infinite number for another sum.
    let value = divergence.finish(near).value;
    value.is_finite().then_some(if normalized && value < 0.0 { 0.0 } else { value + 0.0 })
}
