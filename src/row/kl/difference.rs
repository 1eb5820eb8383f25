//! The gradient q − p from what was kept of the pass before.

use crate::row::distribution::scan::lowest_narrow_logit;
use crate::row::runs::{Step, pass};
use crate::rows::{Block, BlockMut, Row, RowMut};
use crate::simd::exp::ScaledExp;
use crate::simd::{LaneKernel, Lanes};

/// (from − less)·scale: the scale last, so that it multiplies the same numbers whatever it is.
pub(crate) struct Difference<'a> {
    pub(crate) from: Minuend<'a>,
    pub(crate) less: Factored<'a>,
    pub(crate) scale: f64,
    pub(crate) out: RowMut<'a>,
}

/// Kept numbers times a factor.
pub(crate) struct Factored<'a>(pub(crate) Row<'a>, pub(crate) f64);

pub(crate) enum Minuend<'a> {
    Kept(Factored<'a>),
    /// The exponentials of logits, with 1/T and what is taken off.
    ExpOf(Row<'a>, f64, f64),
}

impl LaneKernel for Difference<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Lanes>(self, token: V::Token) {
        let Difference { from, less: Factored(less, factor), scale, out } = self;
        let classes = less.classes();
        let (minus, scale) = (V::splat(token, -factor), V::splat(token, scale));
        let (less, out) = (Block::new(less, 0.0), [Some(BlockMut::new(out))]);
        match from {
            Minuend::Kept(Factored(kept, factor)) => {
                let mut step = FromKept { factor: V::splat(token, factor), minus, scale };
                pass(token, classes, [less, Block::new(kept, 0.0)], out, &mut step);
            }
            Minuend::ExpOf(logits, rate, ln_divisor) => {
                let exp = ScaledExp::<V>::new(token, rate, ln_divisor, 1.0);
                let mut step = FromLogits { exp, minus, scale };
                pass(token, classes, [less, Block::new(logits, lowest_narrow_logit(rate))], out, &mut step);
            }
        }
    }
}

struct FromKept<V: Lanes> {
    factor: V,
    minus: V,
    scale: V,
}

impl<V: Lanes> Step<V, 2, 1, 0> for FromKept<V> {
    #[inline(always)]
    fn step<const WHOLE: bool>(&mut self, _: usize, [less, kept]: [V; 2], _: &mut [V; 0]) -> [V; 1] {
        [self.scale * less.mul_add_relaxed(self.minus, kept * self.factor)]
    }
}

struct FromLogits<V: Lanes> {
    exp: ScaledExp<V>,
    minus: V,
    scale: V,
}

impl<V: Lanes> Step<V, 2, 1, 0> for FromLogits<V> {
    #[inline(always)]
    fn step<const WHOLE: bool>(&mut self, _: usize, [less, logit]: [V; 2], _: &mut [V; 0]) -> [V; 1] {
        [self.scale * less.mul_add_relaxed(self.minus, self.exp.at(logit))]
    }
}
