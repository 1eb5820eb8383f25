//! Values and slopes of two rows of logits that have little in common.
//!
//! There p and q themselves are accurate enough, without the care that [`Pair`](crate::divergence::Pair) takes of close rows. The
//! statistics are those that [`far`](crate::row::kl::far) found.

use crate::divergence::{Disjoint, DisjointFacts, DisjointPair, DisjointView};
use crate::row::distribution::scan::lowest_narrow_logit;
use crate::row::distribution::{Distribution, LogSumExp};
use crate::row::divergence::dominant::{Apart, OF_P, OF_Q, Side, apart};
use crate::row::divergence::kept_slopes::{Centering, Places, SideSlopes, Sides, WriteGradients, block_of};
use crate::row::divergence::second_pass::Sums;
use crate::row::divergence::slope_sums::{Formula, SUMS, Summed, Terms, in_units, sums_of_block};
use crate::row::gradients::RowGradients;
use crate::row::pair::{Frame, LogRatio, SideFrame};
use crate::rows::Block;
use crate::simd::exp::ScaledExp;
use crate::simd::{Isa, Lanes, Scalar};
use crate::threads::{Blocks, Partials};

/// Two rows of logits with little in common, or a block of them.
#[derive(Clone, Copy)]
pub(crate) struct DisjointRows<'a, D> {
    pub(crate) divergence: D,
    pub(crate) p: Distribution<'a>,
    pub(crate) q: Distribution<'a>,
    pub(crate) frame: Frame,
    /// The largest logits.
    pub(crate) largest: (f64, f64),
    /// KL(p‖q).
    pub(crate) kl: f64,
    /// Whether f64 lanes take them.
    pub(crate) wide: bool,
}

impl<D: Disjoint> DisjointRows<'_, D> {
    /// [`Disjoint::LARGEST_PARTS`].
    #[expect(clippy::unused_self, reason = "where it is asked for, the type of the divergence has no name")]
    pub(crate) fn largest_parts(&self) -> f64 {
        D::LARGEST_PARTS
    }

    fn block(self, start: usize, len: usize) -> Self {
        DisjointRows { p: self.p.block(start, len), q: self.q.block(start, len), ..self }
    }

    /// Σf and, of the wanted sides, whose slopes are kept, their sums and norms, with the weights in the place of p and q; of each
    /// block.
    pub(crate) fn sums(self, isa: Isa, blocks: &Blocks, slopes: Places<'_>) -> Partials<Sums> {
        let wanted = (slopes.0.is_some(), slopes.1.is_some());
        blocks.map(self.p.row.classes(), |start, len| {
            sums_of_block(self.block(start, len), len, isa, self.wide, wanted, block_of(slopes, start, len))
                .unwrap_or_default()
        })
    }

    /// Sums of slopes as [`DisjointRows::write`] takes them: a − p·Σa is a − wp·(Σa/w).
    pub(crate) fn over_weights(&self, sums: Sums) -> Sums {
        let weights = self.divergence.weights();
        Sums { d_ln_p: sums.d_ln_p / weights.0, d_ln_q: sums.d_ln_q / weights.1, ..sums }
    }

    /// The dominant classes of the wanted sides whose gradients cancel; `None` where f32 lanes do not do for the others. Given the sums of
    /// all classes, and of blocks.
    pub(crate) fn apart(
        self,
        wanted: Sides<bool>,
        all: &Sums,
        parts: &Partials<Sums>,
        isa: Isa,
        blocks: &Blocks,
    ) -> Option<Sides<Option<Apart>>> {
        let of_block = |block: usize| parts.get(block).copied().unwrap_or_default();
        let sums = |start: usize, len: usize, wide: bool| {
            sums_of_block(self.block(start, len), len, isa, wide, wanted, (None, None))
        };
        let (of_block, sums) = (&of_block, &sums);
        let side = |row, frame: SideFrame, weight, slopes| {
            let sum = LogSumExp { largest: frame.reference, rest: frame.ln_sum.exp_m1() };
            Side { row, sum, weight, slopes, of_block, sums }
        };
        let weights = self.divergence.weights();
        let sides = (side(self.p, self.frame.p, weights.0, OF_P), side(self.q, self.frame.q, weights.1, OF_Q));
        apart(wanted, sides, all, D::LARGEST_PARTS, isa, blocks)
    }

    /// Writes the gradients, from the slopes that were kept; `centering` is of p and of q.
    pub(crate) fn write(
        self,
        isa: Isa,
        blocks: &Blocks,
        gradients: &RowGradients<'_>,
        slopes: Places<'_>,
        centering: Sides<Centering>,
    ) {
        let (rate, weights) = (self.p.inverse_temperature, self.divergence.weights());
        let [p, q] = [
            (self.p.row, self.frame.p, weights.0, slopes.0, centering.0),
            (self.q.row, self.frame.q, weights.1, slopes.1, centering.1),
        ]
        .map(|(row, frame, weight, slopes, centering)| {
            slopes.map(|slopes| SideSlopes { row, slopes: slopes.written(), frame, weight, rate, centering })
        });
        blocks.map(self.p.row.classes(), |start, len| {
            let [p, q] = [p, q].map(|side| side.map(|side| side.block(start, len)));
            let gradients = gradients.block(start, len);
            isa.run_lanes(self.wide, WriteGradients { sides: (p, q), gradients });
        });
    }
}

impl<D: Disjoint> Summed for DisjointRows<'_, D> {
    const WIDE: bool = true;
    const P_ALONE: bool = D::P_ALONE;

    type Formula<V: Lanes> = View<V, D::View<V>>;

    /// Padded with logits of probability 0.
    #[inline(always)]
    fn blocks<T: Scalar>(&self) -> [Block<'_, T>; 2] {
        let lowest = lowest_narrow_logit(self.p.inverse_temperature);
        [Block::new(self.p.row, lowest), Block::new(self.q.row, lowest)]
    }

    #[inline(always)]
    fn formula<V: Lanes>(&self, token: V::Token) -> View<V, D::View<V>> {
        let DisjointRows { divergence, p, frame, largest, kl, .. } = *self;
        let rate = p.inverse_temperature;
        let relative_delta = frame.delta.plus((largest.1 - largest.0) * rate).value();
        let facts = DisjointFacts { inverse_temperature: rate, delta: frame.delta.value(), relative_delta, kl };
        let weights = divergence.weights();
        let exp = |side: SideFrame, weight: f64| side.weighted_exp(token, rate, weight);
        View {
            token,
            exps: (exp(frame.p, weights.0), exp(frame.q, weights.1)),
            largest: (V::splat(token, largest.0), V::splat(token, largest.1)),
            log_ratio: LogRatio::new(token, rate, frame.delta),
            of_divergence: divergence.view::<V>(token, facts),
        }
    }

    #[inline(always)]
    fn found<V: Lanes>(&self, _: Self::Formula<V>, sums: [f64; SUMS]) -> Option<Sums> {
        Some(in_units(sums, 1.0, 1.0, 1.0))
    }
}

/// How two vectors of numbers become classes.
pub(crate) struct View<V: Lanes, W> {
    token: V::Token,
    exps: (ScaledExp<V>, ScaledExp<V>),
    largest: (V, V),
    log_ratio: LogRatio<V>,
    of_divergence: W,
}

impl<V: Lanes, W: DisjointView<V>> Formula<V> for View<V, W> {
    #[inline(always)]
    fn terms(&mut self, x: V, y: V) -> Terms<V> {
        let pair = DisjointPair {
            token: self.token,
            p: self.exps.0.at(x),
            q: self.exps.1.at(y),
            difference: LogRatio::difference(x, y),
            relative_difference: (x - self.largest.0) - (y - self.largest.1),
            log_ratio: self.log_ratio.of(x, y),
        };
        Terms { class: self.of_divergence.class(&pair), probabilities: (pair.p, pair.q) }
    }
}
