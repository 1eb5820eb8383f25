//! Gradients of logits, (a − p·Σa) times a number, from slopes a that were kept when they were summed: one exponential, and
//! nothing of the divergence.

use crate::row::distribution::scan::lowest_narrow_logit;
use crate::row::gradients::RowGradients;
use crate::row::pair::SideFrame;
use crate::row::runs::{Step, pass};
use crate::row::scratch::{has_scratch, with_scratch};
use crate::rows::{Block, BlockMut, Row, RowMut};
use crate::simd::exp::ScaledExp;
use crate::simd::{LaneKernel, Lanes, Scalar};

/// Of p, and of q.
pub(crate) type Sides<T> = (T, T);

/// What is taken from the slopes of a side to give the gradient of its logits, and what that is multiplied by.
#[derive(Clone, Copy)]
pub(crate) struct Centering {
    /// Upstream gradient, φ′, 1/T, and the unit of the slopes.
    pub(crate) scale: f64,
    /// Σ of the slopes, over the weight of the side.
    pub(crate) slope_sum: f64,
}

/// One side, or a block of it, and its slopes.
#[derive(Clone, Copy)]
pub(crate) struct SideSlopes<'a> {
    pub(crate) row: Row<'a>,
    pub(crate) slopes: Row<'a>,
    pub(crate) frame: SideFrame,
    /// What multiplies its probabilities.
    pub(crate) weight: f64,
    pub(crate) rate: f64,
    pub(crate) centering: Centering,
}

impl<'a> SideSlopes<'a> {
    pub(crate) fn block(self, start: usize, len: usize) -> Self {
        SideSlopes { row: self.row.block(start, len), slopes: self.slopes.block(start, len), ..self }
    }

    /// To read: the logits, padded with those of probability 0, and the slopes.
    #[inline(always)]
    fn blocks<T: Scalar>(self) -> [Block<'a, T>; 2] {
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

/// Writes the gradients of a block.
pub(crate) struct WriteGradients<'a> {
    pub(crate) sides: Sides<Option<SideSlopes<'a>>>,
    pub(crate) gradients: RowGradients<'a>,
}

impl LaneKernel for WriteGradients<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Lanes>(self, token: V::Token) {
        let (of_p, of_q) = (self.gradients.p.map(BlockMut::new), self.gradients.q.map(BlockMut::new));
        match self.sides {
            (Some(p), Some(q)) => {
                let mut step = Both(p.centered::<V>(token), q.centered::<V>(token));
                let ([x, a], [y, b]) = (p.blocks(), q.blocks());
                // All that is read of a class is read before either gradient is written, which may be over either row.
                pass(token, p.row.classes(), [x, a, y, b], [of_p, of_q], &mut step);
            }
            (Some(side), None) | (None, Some(side)) => {
                let mut step = One(side.centered::<V>(token));
                pass(token, side.row.classes(), side.blocks(), [of_p.or(of_q)], &mut step);
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
        // Of −∞ too: classes that one row lacks, or both.
        self.scale * self.exp.of(x).mul_add_relaxed(self.less, slope)
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

/// Whether there is memory for the slopes of the wanted sides of rows of so many classes, found in f32 or in f64 lanes.
pub(crate) fn has_slopes(classes: usize, wanted: Sides<bool>, wide: bool) -> bool {
    has_scratch((usize::from(wanted.0) + usize::from(wanted.1)) * classes, wide)
}

/// Calls `run` with places for the slopes of the wanted sides of rows of so many classes.
pub(crate) fn with_slopes<R>(classes: usize, wanted: Sides<bool>, wide: bool, run: impl FnOnce(Places<'_>) -> R) -> R {
    let of_p = if wanted.0 { classes } else { 0 };
    let of_q = if wanted.1 { classes } else { 0 };
    with_scratch(of_p + of_q, wide, |memory| {
        run((wanted.0.then(|| memory.block(0, of_p)), wanted.1.then(|| memory.block(of_p, of_q))))
    })
}

/// Where slopes are kept.
pub(crate) type Places<'a> = Sides<Option<RowMut<'a>>>;

/// Of a block.
pub(crate) fn block_of(places: Places<'_>, start: usize, len: usize) -> Places<'_> {
    (places.0.map(|side| side.block(start, len)), places.1.map(|side| side.block(start, len)))
}
