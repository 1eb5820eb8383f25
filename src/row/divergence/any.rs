//! A divergence of any kind: what is done around its rows is compiled once, and not for each.

use crate::divergence::{Divergence, Kind, Visitor};
use crate::error::Error;
use crate::row::distribution::Distribution;
use crate::row::divergence::divergence;
use crate::row::gradients::RowGradients;
use crate::simd::Isa;
use crate::threads::Blocks;

/// A divergence of two rows, of whatever type.
#[derive(Clone, Copy)]
pub(crate) struct AnyDivergence<'a> {
    of_type: &'a dyn OfType,
    /// Whether the divergence of its type is that of q and p, in this order.
    exchanges_rows: bool,
}

impl AnyDivergence<'_> {
    /// Calls `run` with the divergence of a kind.
    ///
    /// # Errors
    /// [`Error::Parameter`].
    pub(crate) fn with<R>(kind: Kind, run: impl FnOnce(AnyDivergence<'_>) -> R) -> Result<R, Error> {
        kind.visit(With { exchanges_rows: kind.exchanges_rows(), run })
    }

    /// Whether it is KL(p‖q).
    pub(crate) fn is_kl(self) -> bool {
        self.of_type.is_kl() && !self.exchanges_rows
    }

    /// The value between `p` and `q`; writes the gradients asked for.
    pub(crate) fn of(
        self,
        p: Distribution<'_>,
        q: Distribution<'_>,
        isa: Isa,
        blocks: &Blocks,
        gradients: RowGradients<'_>,
    ) -> f64 {
        if self.exchanges_rows {
            let gradients = RowGradients { p: gradients.q, q: gradients.p, ..gradients };
            return self.of_type.of(q, p, isa, blocks, gradients);
        }
        self.of_type.of(p, q, isa, blocks, gradients)
    }
}

impl<'a, D: Divergence> From<&'a D> for AnyDivergence<'a> {
    fn from(divergence: &'a D) -> Self {
        AnyDivergence { of_type: divergence, exchanges_rows: false }
    }
}

/// What of a [`Divergence`] is the same for all types.
trait OfType: Sync {
    fn is_kl(&self) -> bool;
    fn of(
        &self,
        p: Distribution<'_>,
        q: Distribution<'_>,
        isa: Isa,
        blocks: &Blocks,
        gradients: RowGradients<'_>,
    ) -> f64;
}

impl<D: Divergence> OfType for D {
    fn is_kl(&self) -> bool {
        D::IS_KL
    }

    fn of(
        &self,
        p: Distribution<'_>,
        q: Distribution<'_>,
        isa: Isa,
        blocks: &Blocks,
        gradients: RowGradients<'_>,
    ) -> f64 {
        divergence(*self, p, q, isa, blocks, gradients)
    }
}

struct With<F> {
    exchanges_rows: bool,
    run: F,
}

impl<R, F: FnOnce(AnyDivergence<'_>) -> R> Visitor for With<F> {
    type Output = R;

    fn visit<D: Divergence>(self, divergence: D) -> R {
        /// Not inlined for each type.
        #[inline(never)]
        fn call<R>(run: impl FnOnce(AnyDivergence<'_>) -> R, divergence: AnyDivergence<'_>) -> R {
            run(divergence)
        }
        call(self.run, AnyDivergence { exchanges_rows: self.exchanges_rows, ..AnyDivergence::from(&divergence) })
    }
}
