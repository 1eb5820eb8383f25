//! The loops over the classes of two rows of logits that have little in common, in f32 lanes.
//!
//! There p and q themselves are accurate enough, without the care that [`Pair`](crate::divergence::Pair) takes of close rows. The
//! statistics are those that [`far`](crate::row::kl::far) found.

use crate::divergence::{Class, Disjoint, DisjointFacts, DisjointPair, DisjointView};
use crate::row::distribution::Distribution;
use crate::row::distribution::scan::lowest_narrow_logit;
use crate::row::divergence::second_pass::{Norms, Sums};
use crate::row::gradients::{Formulas, RowGradients, write_sides};
use crate::row::pair::{Frame, LogRatio, SideFrame};
use crate::row::runs::{self, Step};
use crate::rows::Block;
use crate::simd::exp::ScaledExp;
use crate::simd::{Isa, Kernel, Lanes, Simd};
use crate::threads::Blocks;

/// Two rows of logits with little in common, or a block of them.
#[derive(Clone, Copy)]
pub(crate) struct DisjointRows<'a, D> {
    pub(crate) divergence: D,
    pub(crate) p: Distribution<'a>,
    pub(crate) q: Distribution<'a>,
    pub(crate) frame: Frame,
    /// KL(p‖q).
    pub(crate) kl: f64,
}

/// What is taken from the slopes of a side to give the gradient of its logits, and what that is multiplied by.
#[derive(Clone, Copy)]
pub(crate) struct Centering {
    /// Upstream gradient, φ′ and 1/T.
    pub(crate) scale: f64,
    /// Σ of the slopes, over the weight of the side.
    pub(crate) slope_sum: f64,
}

impl<D: Disjoint> DisjointRows<'_, D> {
    /// [`Disjoint::LARGEST_PARTS`].
    #[expect(clippy::unused_self, reason = "where it is asked for, the type of the divergence has no name")]
    pub(crate) fn largest_parts(&self) -> f64 {
        D::LARGEST_PARTS
    }

    /// To read, padded with logits of probability 0.
    #[inline(always)]
    fn blocks(&self) -> [Block<'_, f32>; 2] {
        let lowest = lowest_narrow_logit(self.p.inverse_temperature);
        [Block::new(self.p.row, lowest), Block::new(self.q.row, lowest)]
    }

    fn block(self, start: usize, len: usize) -> Self {
        DisjointRows { p: self.p.block(start, len), q: self.q.block(start, len), ..self }
    }

    /// Σf and, of the wanted sides, the sums and norms of the slopes, with the weights in the place of p and q.
    pub(crate) fn sums(self, isa: Isa, blocks: &Blocks, wanted: (bool, bool)) -> Sums {
        let parts = blocks.map(self.p.row.classes(), |start, len| {
            let block = self.block(start, len);
            match wanted {
                (false, false) => isa.run(SumsKernel::<D, false, false>(block)),
                (false, true) => isa.run(SumsKernel::<D, false, true>(block)),
                (true, false) => isa.run(SumsKernel::<D, true, false>(block)),
                (true, true) => isa.run(SumsKernel::<D, true, true>(block)),
            }
        });
        let sums = parts.iter().fold(Sums::default(), |all, &part| all.merge(part));
        // a − p·Σa is a − wp·(Σa/w).
        let weights = self.divergence.weights();
        Sums { d_ln_p: sums.d_ln_p / weights.0, d_ln_q: sums.d_ln_q / weights.1, ..sums }
    }

    /// Writes the gradients; `centering` is of p and of q.
    pub(crate) fn write(
        self,
        isa: Isa,
        blocks: &Blocks,
        gradients: &RowGradients<'_>,
        centering: (Centering, Centering),
    ) {
        blocks.map(self.p.row.classes(), |start, len| {
            isa.run(GradientsKernel {
                rows: self.block(start, len),
                centering,
                gradients: gradients.block(start, len),
            });
        });
    }
}

/// How two vectors of numbers become classes.
struct View<V: Lanes, W> {
    token: V::Token,
    exps: (ScaledExp<V>, ScaledExp<V>),
    log_ratio: LogRatio<V>,
    of_divergence: W,
}

impl<V: Lanes, W: DisjointView<V>> View<V, W> {
    #[inline(always)]
    fn new<D: Disjoint<View<V> = W>>(token: V::Token, rows: &DisjointRows<'_, D>) -> Self {
        let DisjointRows { divergence, p, frame, kl, .. } = *rows;
        let rate = p.inverse_temperature;
        let facts = DisjointFacts { inverse_temperature: rate, delta: frame.delta.value(), kl };
        let weights = divergence.weights();
        let exp = |side: SideFrame, weight: f64| side.weighted_exp(token, rate, weight);
        View {
            token,
            exps: (exp(frame.p, weights.0), exp(frame.q, weights.1)),
            log_ratio: LogRatio::new(token, rate, frame.delta),
            of_divergence: divergence.view::<V>(token, facts),
        }
    }

    #[inline(always)]
    fn of(&self, x: V, y: V) -> (DisjointPair<V>, Class<V>) {
        let pair = DisjointPair {
            token: self.token,
            p: self.exps.0.at(x),
            q: self.exps.1.at(y),
            difference: LogRatio::difference(x, y),
            log_ratio: self.log_ratio.of(x, y),
        };
        (pair, self.of_divergence.class(&pair))
    }
}

/// Sums of a block, with those of the slopes of p, of q, or both.
struct SumsKernel<'a, D, const P: bool, const Q: bool>(DisjointRows<'a, D>);

impl<D: Disjoint, const P: bool, const Q: bool> Kernel for SumsKernel<'_, D, P, Q> {
    type Output = Sums;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Sums {
        let mut step = DisjointStep::<S::F32, D::View<S::F32>, P, Q>(View::new(simd, &self.0));
        let [value, d_ln_p, p_slopes, p_cross, pp, d_ln_q, q_slopes, q_cross, qq] =
            runs::sums(simd, self.0.p.row.classes(), self.0.blocks(), &mut step);
        Sums {
            value,
            d_ln_p,
            d_ln_q,
            p_norms: Norms { slopes: p_slopes, cross: p_cross, probabilities: pp },
            q_norms: Norms { slopes: q_slopes, cross: q_cross, probabilities: qq },
            ..Sums::default()
        }
    }
}

/// Σf; Σa, Σa², Σa·p and Σp² for the slopes a of p; the same of q.
const SUMS: usize = 9;

/// Adds classes to the sums.
struct DisjointStep<V: Lanes, W, const P: bool, const Q: bool>(View<V, W>);

impl<V: Lanes, W: DisjointView<V>, const P: bool, const Q: bool> Step<V, 2, 0, SUMS> for DisjointStep<V, W, P, Q> {
    #[inline(always)]
    fn has_sum(at: usize) -> bool {
        [true, P, P, P, P, Q, Q, Q, Q][at]
    }

    #[inline(always)]
    fn step<const WHOLE: bool>(&mut self, _: usize, [x, y]: [V; 2], runs: &mut [V; SUMS]) -> [V; 0] {
        let (pair, class) = self.0.of(x, y);
        runs[0] = runs[0] + class.value;
        if P {
            add_slope(runs, 1, class.d_ln_p, pair.p);
        }
        if Q {
            add_slope(runs, 5, class.d_ln_q, pair.q);
        }
        []
    }
}

#[inline(always)]
fn add_slope<V: Lanes>(runs: &mut [V; SUMS], at: usize, slope: V, probability: V) {
    runs[at] = runs[at] + slope;
    runs[at + 1] = slope.mul_add_relaxed(slope, runs[at + 1]);
    runs[at + 2] = slope.mul_add_relaxed(probability, runs[at + 2]);
    runs[at + 3] = probability.mul_add_relaxed(probability, runs[at + 3]);
}

struct GradientsKernel<'a, D> {
    rows: DisjointRows<'a, D>,
    centering: (Centering, Centering),
    gradients: RowGradients<'a>,
}

impl<D: Disjoint> Kernel for GradientsKernel<'_, D> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let splat = |side: Centering| (S::F32::splat(simd, side.scale), S::F32::splat(simd, -side.slope_sum));
        let formulas = Gradients::<S::F32, D::View<S::F32>> {
            view: View::new(simd, &self.rows),
            p: splat(self.centering.0),
            q: splat(self.centering.1),
        };
        write_sides(simd, self.rows.blocks(), &self.gradients, formulas);
    }
}

/// The gradients; of each side the scale and −Σa.
struct Gradients<V: Lanes, W> {
    view: View<V, W>,
    p: (V, V),
    q: (V, V),
}

impl<V: Lanes, W: DisjointView<V>> Formulas<V> for Gradients<V, W> {
    /// (a − p·Σa)·scale of each side.
    #[inline(always)]
    fn of(&self, x: V, y: V) -> (V, V) {
        let (pair, class) = self.view.of(x, y);
        let (p, q) = (self.p, self.q);
        (p.0 * pair.p.mul_add_relaxed(p.1, class.d_ln_p), q.0 * pair.q.mul_add_relaxed(q.1, class.d_ln_q))
    }
}
