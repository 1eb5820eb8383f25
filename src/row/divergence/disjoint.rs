//! The loops over the classes of two rows of logits that have little in common, in f32 lanes.
//!
//! There p and q themselves are accurate enough, without the care that [`Pair`](crate::divergence::Pair) takes of close rows. The
//! statistics are those that [`far`](crate::row::kl::far) found.

use crate::divergence::{Disjoint, DisjointPair, DisjointView};
use crate::row::distribution::Distribution;
use crate::row::divergence::second_pass::{Norms, Sums};
use crate::row::gradients::RowGradients;
use crate::row::pair::{Frame, LogRatio, SideFrame};
use crate::row::runs::{self, Step};
use crate::row::write::{Formulas, write_sides};
use crate::rows::Row;
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
}

/// What is taken from the slopes of a side to give the gradient of its logits, and what that is multiplied by.
#[derive(Clone, Copy)]
pub(crate) struct Centering {
    /// Upstream gradient, φ′ and 1/T.
    pub(crate) scale: f64,
    /// Σ of the slopes.
    pub(crate) slope_sum: f64,
}

impl<D: Disjoint> DisjointRows<'_, D> {
    /// The rows, if they hold f32, with dtypes that the compiler knows.
    #[inline(always)]
    fn known_f32<V: Lanes>(self) -> Option<Self> {
        let p = Distribution { row: self.p.row.known_f32::<V>()?, ..self.p };
        let q = Distribution { row: self.q.row.known_f32::<V>()?, ..self.q };
        Some(DisjointRows { p, q, ..self })
    }

    fn block(self, start: usize, len: usize) -> Self {
        DisjointRows { p: self.p.block(start, len), q: self.q.block(start, len), ..self }
    }

    /// Σf and, of the wanted sides, the sums and norms of the slopes.
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
        parts.iter().fold(Sums::default(), |all, &part| all.merge(part))
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

/// Both rows of a block, vector by vector.
#[derive(Clone, Copy)]
struct Pairs<'a, V: Lanes, W> {
    token: V::Token,
    p: Row<'a>,
    q: Row<'a>,
    lowest: f64,
    exps: (ScaledExp<V>, ScaledExp<V>),
    log_ratio: LogRatio<V>,
    view: W,
}

impl<'a, V: Lanes, W: DisjointView<V>> Pairs<'a, V, W> {
    #[inline(always)]
    fn new<D: Disjoint<View<V> = W>>(token: V::Token, rows: &DisjointRows<'a, D>) -> Self {
        let DisjointRows { divergence, p, q, frame } = *rows;
        let rate = p.inverse_temperature;
        let exp = |side: SideFrame| side.exp(token, rate);
        Pairs {
            token,
            p: p.row,
            q: q.row,
            lowest: crate::row::distribution::scan::lowest_narrow_logit(rate),
            exps: (exp(frame.p), exp(frame.q)),
            log_ratio: LogRatio::new(token, rate, frame.delta),
            view: divergence.view::<V>(token, rate, frame.delta.value()),
        }
    }

    #[inline(always)]
    fn at<const WHOLE: bool>(&self, start: usize) -> DisjointPair<V> {
        let x = self.p.lanes::<V, WHOLE>(self.token, start, self.lowest);
        let y = self.q.lanes::<V, WHOLE>(self.token, start, self.lowest);
        DisjointPair {
            token: self.token,
            p: self.exps.0.at(x),
            q: self.exps.1.at(y),
            difference: LogRatio::difference(x, y),
            log_ratio: self.log_ratio.of(x, y),
        }
    }
}

/// Sums of a block, with those of the slopes of p, of q, or both.
struct SumsKernel<'a, D, const P: bool, const Q: bool>(DisjointRows<'a, D>);

impl<D: Disjoint, const P: bool, const Q: bool> Kernel for SumsKernel<'_, D, P, Q> {
    type Output = Sums;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Sums {
        match self.0.known_f32::<S::F32>() {
            Some(rows) => sums::<S::F32, D, P, Q>(simd, &rows),
            None => sums::<S::F32, D, P, Q>(simd, &self.0),
        }
    }
}

/// Σf; Σa, Σa², Σa·p and Σp² for the slopes a of p; the same of q.
const SUMS: usize = 9;

#[inline(always)]
fn sums<V: Lanes, D: Disjoint, const P: bool, const Q: bool>(token: V::Token, rows: &DisjointRows<'_, D>) -> Sums {
    let pairs = Pairs::<V, D::View<V>>::new(token, rows);
    let mut step = DisjointStep::<V, D::View<V>, P, Q>(pairs);
    let [value, d_ln_p, p_slopes, p_cross, pp, d_ln_q, q_slopes, q_cross, qq] =
        runs::sums(token, rows.p.row.classes(), &mut step);
    Sums {
        value,
        d_ln_p,
        d_ln_q,
        p_norms: Norms { slopes: p_slopes, cross: p_cross, probabilities: pp },
        q_norms: Norms { slopes: q_slopes, cross: q_cross, probabilities: qq },
        ..Sums::default()
    }
}

/// Adds classes to the sums.
struct DisjointStep<'a, V: Lanes, W, const P: bool, const Q: bool>(Pairs<'a, V, W>);

impl<V: Lanes, W: DisjointView<V>, const P: bool, const Q: bool> Step<V, SUMS> for DisjointStep<'_, V, W, P, Q> {
    #[inline(always)]
    fn has_sum(at: usize) -> bool {
        [true, P, P, P, P, Q, Q, Q, Q][at]
    }

    #[inline(always)]
    fn step<const WHOLE: bool>(&mut self, start: usize, runs: &mut [V; SUMS]) {
        let pair = self.0.at::<WHOLE>(start);
        let class = self.0.view.class(&pair);
        runs[0] = runs[0] + class.value;
        if P {
            add_slope(runs, 1, class.d_ln_p, pair.p);
        }
        if Q {
            add_slope(runs, 5, class.d_ln_q, pair.q);
        }
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
        match self.rows.known_f32::<S::F32>() {
            Some(rows) => self.write::<S::F32>(simd, &rows),
            None => self.write::<S::F32>(simd, &self.rows),
        }
    }
}

impl<D: Disjoint> GradientsKernel<'_, D> {
    #[inline(always)]
    fn write<V: Lanes>(&self, token: V::Token, rows: &DisjointRows<'_, D>) {
        let splat = |side: Centering| (V::splat(token, side.scale), V::splat(token, -side.slope_sum));
        let formulas = Gradients {
            pairs: Pairs::<V, D::View<V>>::new(token, rows),
            p: splat(self.centering.0),
            q: splat(self.centering.1),
        };
        write_sides(token, (self.gradients.p, self.gradients.q), &formulas);
    }
}

/// The gradients; of each side the scale and −Σa.
#[derive(Clone, Copy)]
struct Gradients<'a, V: Lanes, W> {
    pairs: Pairs<'a, V, W>,
    p: (V, V),
    q: (V, V),
}

impl<V: Lanes, W: DisjointView<V>> Formulas<V> for Gradients<'_, V, W> {
    /// (a − p·Σa)·scale of each side.
    #[inline(always)]
    fn lanes<const WHOLE: bool>(&self, start: usize) -> (V, V) {
        let pair = self.pairs.at::<WHOLE>(start);
        let class = self.pairs.view.class(&pair);
        let (p, q) = (self.p, self.q);
        (p.0 * pair.p.mul_add_relaxed(p.1, class.d_ln_p), q.0 * pair.q.mul_add_relaxed(q.1, class.d_ln_q))
    }
}
