//! Other divergences of two rows that are compared, which are in cache.

use crate::divergence::{Divergence, Kind, Visitor};
use crate::error::Error;
use crate::row::distribution::Distribution;
use crate::row::divergence::{Known, divergence_of_known};
use crate::row::gradients::RowGradients;
use crate::simd::Isa;
use crate::threads::Blocks;
use smallvec::SmallVec;

/// Of each kind the divergence of two rows.
///
/// # Errors
/// [`Error::Parameter`].
pub(crate) fn divergences(
    kinds: &[Kind],
    p: Distribution<'_>,
    q: Distribution<'_>,
    isa: Isa,
    blocks: &Blocks,
) -> Result<SmallVec<[f64; 4]>, Error> {
    // Of the rows as they are, and exchanged.
    let known = (Known::default(), Known::default());
    kinds
        .iter()
        .map(|kind| {
            let exchanged = kind.exchanges_rows();
            let (p, q, known) = if exchanged { (q, p, &known.1) } else { (p, q, &known.0) };
            kind.visit(OfRows { p, q, isa, blocks, known })
        })
        .collect()
}

struct OfRows<'a> {
    p: Distribution<'a>,
    q: Distribution<'a>,
    isa: Isa,
    blocks: &'a Blocks,
    known: &'a Known,
}

impl Visitor for OfRows<'_> {
    type Output = f64;

    fn visit<D: Divergence>(self, divergence: D) -> f64 {
        let OfRows { p, q, isa, blocks, known } = self;
        let gradients = RowGradients { scale: 1.0, p: None, q: None };
        divergence_of_known(divergence, p, q, isa, blocks, gradients, known)
    }
}
