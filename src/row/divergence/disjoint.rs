//! The loops over the classes of two rows of logits that have little in common, in f32 lanes.
//!
//! There p and q themselves are accurate enough, without the care that [`Pair`](crate::divergence::Pair) takes of close rows. The
//! statistics are those that [`far`](crate::row::kl::far) found. Slopes are kept when they are summed, so that the gradients, which
//! are slopes less a multiple of p or q, take one exponential, and no divergence.

use crate::divergence::{Class, Disjoint, DisjointFacts, DisjointPair, DisjointView};
use crate::row::distribution::Distribution;
use crate::row::distribution::scan::lowest_narrow_logit;
use crate::row::divergence::second_pass::Sums;
use crate::row::divergence::slope_sums::{SUMS, add_slope, has_sum, in_units};
use crate::row::gradients::RowGradients;
use crate::row::pair::{Frame, LogRatio, SideFrame};
use crate::row::runs::{Step, pass};
use crate::row::scratch::{has_scratch, with_scratch};
use crate::rows::{Block, BlockMut, Row, RowMut};
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

    /// Σf and, of the sides whose slopes are to be kept, their sums and norms, with the weights in the place of p and q.
    pub(crate) fn sums(self, isa: Isa, blocks: &Blocks, slopes: Sides<Option<RowMut<'_>>>) -> Sums {
        let parts = blocks.map(self.p.row.classes(), |start, len| {
            let rows = self.block(start, len);
            let out = [slopes.0, slopes.1].map(|side| side.map(|side| BlockMut::new(side.block(start, len))));
            match out.into() {
                (None, None) => isa.run(SumsKernel::<D, false, false, 0>(rows, [])),
                (None, q) => isa.run(SumsKernel::<D, false, true, 1>(rows, [q])),
                (p, None) => isa.run(SumsKernel::<D, true, false, 1>(rows, [p])),
                (p, q) => isa.run(SumsKernel::<D, true, true, 2>(rows, [p, q])),
            }
        });
        let sums = parts.iter().fold(Sums::default(), |all, &part| all.merge(part));
        // a − p·Σa is a − wp·(Σa/w).
        let weights = self.divergence.weights();
        Sums { d_ln_p: sums.d_ln_p / weights.0, d_ln_q: sums.d_ln_q / weights.1, ..sums }
    }

    /// Writes the gradients, from the slopes that were kept; `centering` is of p and of q.
    pub(crate) fn write(
        self,
        isa: Isa,
        blocks: &Blocks,
        gradients: &RowGradients<'_>,
        slopes: Sides<Option<Row<'_>>>,
        centering: Sides<Centering>,
    ) {
        let (rate, weights) = (self.p.inverse_temperature, self.divergence.weights());
        let [p, q] = [
            (self.p.row, self.frame.p, weights.0, slopes.0, centering.0),
            (self.q.row, self.frame.q, weights.1, slopes.1, centering.1),
        ]
        .map(|(row, frame, weight, slopes, centering)| {
            slopes.map(|slopes| SideSlopes { row, slopes, frame, weight, rate, centering })
        });
        blocks.map(self.p.row.classes(), |start, len| {
            let [p, q] = [p, q].map(|side| side.map(|side| side.block(start, len)));
            isa.run(GradientsKernel { sides: (p, q), gradients: gradients.block(start, len) });
        });
    }
}

/// Of p, and of q.
pub(crate) type Sides<T> = (T, T);

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

/// Sums of a block, with those of the slopes of p, of q, or both, which are written to the `W` outputs.
struct SumsKernel<'a, D, const P: bool, const Q: bool, const W: usize>(
    DisjointRows<'a, D>,
    [Option<BlockMut<'a, f32>>; W],
);

macro_rules! sums_kernel {
    ($p:literal, $q:literal, $w:literal, $slopes:expr) => {
        impl<D: Disjoint> Kernel for SumsKernel<'_, D, $p, $q, $w> {
            type Output = Sums;

            #[inline(always)]
            fn run<S: Simd>(self, simd: S) -> Sums {
                let SumsKernel(rows, outputs) = self;
                let mut step = DisjointStep::<S::F32, D::View<S::F32>, $p, $q>(View::new(simd, &rows));
                in_units(pass(simd, rows.p.row.classes(), rows.blocks(), outputs, &mut step), 1.0, 1.0, 1.0)
            }
        }

        impl<V: Lanes, W: DisjointView<V>> Step<V, 2, $w, SUMS> for DisjointStep<V, W, $p, $q> {
            #[inline(always)]
            fn has_sum(at: usize) -> bool {
                has_sum::<$p, $q>(at)
            }

            #[inline(always)]
            fn step<const WHOLE: bool>(&mut self, _: usize, lanes: [V; 2], runs: &mut [V; SUMS]) -> [V; $w] {
                let class = self.add(lanes, runs);
                $slopes(class)
            }
        }
    };
}

sums_kernel!(false, false, 0, |_| []);
sums_kernel!(false, true, 1, |class: Class<V>| [class.d_ln_q]);
sums_kernel!(true, false, 1, |class: Class<V>| [class.d_ln_p]);
sums_kernel!(true, true, 2, |class: Class<V>| [class.d_ln_p, class.d_ln_q]);

/// Adds classes to the sums.
struct DisjointStep<V: Lanes, W, const P: bool, const Q: bool>(View<V, W>);

impl<V: Lanes, W: DisjointView<V>, const P: bool, const Q: bool> DisjointStep<V, W, P, Q> {
    #[inline(always)]
    fn add(&self, [x, y]: [V; 2], runs: &mut [V; SUMS]) -> Class<V> {
        let (pair, class) = self.0.of(x, y);
        runs[0] = runs[0] + class.value;
        if P {
            add_slope(runs, 1, class.d_ln_p, pair.p);
        }
        if Q {
            add_slope(runs, 5, class.d_ln_q, pair.q);
        }
        class
    }
}

/// One side and its slopes.
#[derive(Clone, Copy)]
struct SideSlopes<'a> {
    row: Row<'a>,
    slopes: Row<'a>,
    frame: SideFrame,
    weight: f64,
    rate: f64,
    centering: Centering,
}

impl<'a> SideSlopes<'a> {
    fn block(self, start: usize, len: usize) -> Self {
        SideSlopes { row: self.row.block(start, len), slopes: self.slopes.block(start, len), ..self }
    }

    /// To read: the logits, padded with those of probability 0, and the slopes.
    #[inline(always)]
    fn blocks(self) -> [Block<'a, f32>; 2] {
        [Block::new(self.row, lowest_narrow_logit(self.rate)), Block::new(self.slopes, 0.0)]
    }

    #[inline(always)]
    fn centered<V: Lanes>(self, token: V::Token) -> Centered<V> {
        Centered {
            exp: self.frame.weighted_exp(token, self.rate, self.weight),
            scale: V::splat(token, self.centering.scale),
            less: V::splat(token, -self.centering.slope_sum),
        }
    }
}

struct GradientsKernel<'a> {
    sides: Sides<Option<SideSlopes<'a>>>,
    gradients: RowGradients<'a>,
}

impl Kernel for GradientsKernel<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (of_p, of_q) = (self.gradients.p.map(BlockMut::new), self.gradients.q.map(BlockMut::new));
        match self.sides {
            (Some(p), Some(q)) => {
                let mut step = Both(p.centered::<S::F32>(simd), q.centered::<S::F32>(simd));
                let ([x, a], [y, b]) = (p.blocks(), q.blocks());
                // All that is read of a class is read before either gradient is written, which may be over either row.
                pass(simd, p.row.classes(), [x, a, y, b], [of_p, of_q], &mut step);
            }
            (Some(side), None) | (None, Some(side)) => {
                let mut step = One(side.centered::<S::F32>(simd));
                pass(simd, side.row.classes(), side.blocks(), [of_p.or(of_q)], &mut step);
            }
            (None, None) => {}
        }
    }
}

/// (a − p·Σa)·scale of a side.
struct Centered<V: Lanes> {
    exp: ScaledExp<V>,
    scale: V,
    less: V,
}

impl<V: Lanes> Centered<V> {
    #[inline(always)]
    fn of(&self, x: V, slope: V) -> V {
        self.scale * self.exp.at(x).mul_add_relaxed(self.less, slope)
    }
}

struct One<V: Lanes>(Centered<V>);
struct Both<V: Lanes>(Centered<V>, Centered<V>);

impl<V: Lanes> Step<V, 2, 1, 0> for One<V> {
    #[inline(always)]
    fn step<const WHOLE: bool>(&mut self, _: usize, [x, slope]: [V; 2], _: &mut [V; 0]) -> [V; 1] {
        [self.0.of(x, slope)]
    }
}

impl<V: Lanes> Step<V, 4, 2, 0> for Both<V> {
    #[inline(always)]
    fn step<const WHOLE: bool>(&mut self, _: usize, [x, a, y, b]: [V; 4], _: &mut [V; 0]) -> [V; 2] {
        [self.0.of(x, a), self.1.of(y, b)]
    }
}

/// Whether there is memory for the slopes of the wanted sides of rows of so many classes.
pub(crate) fn has_slopes(classes: usize, wanted: Sides<bool>) -> bool {
    has_scratch((usize::from(wanted.0) + usize::from(wanted.1)) * classes)
}

/// Calls `run` with memory for the slopes of the wanted sides of rows of so many classes.
pub(crate) fn with_slopes<R>(classes: usize, wanted: Sides<bool>, run: impl FnOnce(Slopes<'_>) -> R) -> R {
    let of_p = if wanted.0 { classes } else { 0 };
    let of_q = if wanted.1 { classes } else { 0 };
    with_scratch(of_p + of_q, |memory| {
        let (p, q) = memory.split_at_mut(of_p);
        run(Slopes { p: wanted.0.then_some(p), q: wanted.1.then_some(q) })
    })
}

/// Memory for slopes.
pub(crate) struct Slopes<'a> {
    p: Option<&'a mut [f32]>,
    q: Option<&'a mut [f32]>,
}

impl Slopes<'_> {
    /// To write.
    pub(crate) fn places(&mut self) -> Sides<Option<RowMut<'_>>> {
        (self.p.as_deref_mut().map(RowMut::from), self.q.as_deref_mut().map(RowMut::from))
    }

    /// What was written.
    pub(crate) fn rows(&self) -> Sides<Option<Row<'_>>> {
        (self.p.as_deref().map(Row::from), self.q.as_deref().map(Row::from))
    }
}
