//! The gradient q − p of rows that have little in common, from exponentials that are kept.

use crate::row::distribution::scan::lowest_narrow_logit;
use crate::row::runs::{Step, pass};
use crate::rows::{Block, BlockMut, Row, RowMut};
use crate::simd::exp::ScaledExp;
use crate::simd::{Kernel, Lanes, Simd};

/// (q − p)·scale: the scale last, so that it multiplies the same numbers whatever it is.
pub(crate) struct Difference<'a> {
    /// Kept exponentials, and the weight that makes them p.
    pub(crate) of_p: Row<'a>,
    pub(crate) weight: f64,
    pub(crate) of_q: OfQ<'a>,
    pub(crate) scale: f64,
    pub(crate) out: RowMut<'a>,
}

/// What q is made of.
pub(crate) enum OfQ<'a> {
    /// Kept exponentials, and their weight.
    Kept(Row<'a>, f64),
    /// Logits, with 1/T and what is taken off.
    Logits(Row<'a>, f64, f64),
}

impl Kernel for Difference<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Difference { of_p, weight, of_q, scale, out } = self;
        let p = Block::new(of_p, 0.0);
        let (less, scale) = (S::F32::splat(simd, -weight), S::F32::splat(simd, scale));
        let out = [Some(BlockMut::new(out))];
        match of_q {
            OfQ::Kept(q, weight) => {
                let mut step = KeptDifference { less, weight: S::F32::splat(simd, weight), scale };
                pass(simd, of_p.classes(), [p, Block::new(q, 0.0)], out, &mut step);
            }
            OfQ::Logits(y, rate, ln_divisor) => {
                let exp = ScaledExp::<S::F32>::new(simd, rate, ln_divisor, 1.0);
                let mut step = LogitsDifference { less, exp, scale };
                let y = Block::new(y, lowest_narrow_logit(rate));
                pass(simd, of_p.classes(), [p, y], out, &mut step);
            }
        }
    }
}

struct KeptDifference<V: Lanes> {
    less: V,
    weight: V,
    scale: V,
}

impl<V: Lanes> Step<V, 2, 1, 0> for KeptDifference<V> {
    #[inline(always)]
    fn step<const WHOLE: bool>(&mut self, _: usize, [p, q]: [V; 2], _: &mut [V; 0]) -> [V; 1] {
        [self.scale * p.mul_add_relaxed(self.less, q * self.weight)]
    }
}

struct LogitsDifference<V: Lanes> {
    less: V,
    exp: ScaledExp<V>,
    scale: V,
}

impl<V: Lanes> Step<V, 2, 1, 0> for LogitsDifference<V> {
    #[inline(always)]
    fn step<const WHOLE: bool>(&mut self, _: usize, [p, y]: [V; 2], _: &mut [V; 0]) -> [V; 1] {
        [self.scale * p.mul_add_relaxed(self.less, self.exp.at(y))]
    }
}
