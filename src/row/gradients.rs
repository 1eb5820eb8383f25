//! Where the gradients of one row go.

use crate::row::runs::{Step, pass};
use crate::rows::{Block, BlockMut, RowMut};
use crate::simd::Lanes;

/// Where to write the gradients of one row, and what to multiply them by.
#[derive(Clone, Copy)]
pub(crate) struct RowGradients<'a> {
    /// ∂L/∂value: upstream gradient, weight and the reduction's divisor.
    pub(crate) scale: f64,
    pub(crate) p: Option<RowMut<'a>>,
    pub(crate) q: Option<RowMut<'a>>,
}

/// Largest number that f32 lanes multiply gradients by: their products with slopes stay in range.
pub(crate) const LARGEST_NARROW_SCALE: f64 = 1e30;

impl RowGradients<'_> {
    /// Sets every gradient to `value`.
    pub(crate) fn fill(&self, value: f64) {
        for out in [self.p, self.q].into_iter().flatten() {
            out.fill(value);
        }
    }

    /// Whether the scale is beyond f32 lanes, where it would make ∞ of gradients, or NaN of those that are 0.
    pub(crate) fn leave_narrow_lanes(&self, inverse_temperature: f64) -> bool {
        (self.p.is_some() || self.q.is_some()) && (self.scale * inverse_temperature).abs() > LARGEST_NARROW_SCALE
    }

    /// Multiplies gradients that were written for a scale of 1.
    pub(crate) fn multiply(&self) {
        for out in [self.p, self.q].into_iter().flatten() {
            for class in 0..out.classes() {
                out.set(class, out.get(class) * self.scale);
            }
        }
    }

    pub(crate) fn block(&self, start: usize, len: usize) -> Self {
        RowGradients {
            scale: self.scale,
            p: self.p.map(|out| out.block(start, len)),
            q: self.q.map(|out| out.block(start, len)),
        }
    }
}

/// The gradients of the two sides, as functions of the numbers of a class.
pub(crate) trait Formulas<V: Lanes> {
    /// Those of p and of q. `#[inline(always)]`.
    fn of(&self, x: V, y: V) -> (V, V);
}

/// Writes the sides that there are.
#[inline(always)]
pub(crate) fn write_sides<V: Lanes>(
    token: V::Token,
    blocks: [Block<'_, V::Scalar>; 2],
    gradients: &RowGradients<'_>,
    formulas: impl Formulas<V>,
) {
    let (p, q) = (gradients.p.map(BlockMut::new), gradients.q.map(BlockMut::new));
    let classes = gradients.p.or(gradients.q).map_or(0, RowMut::classes);
    match (p, q) {
        (Some(_), None) => pass(token, classes, blocks, [p], &mut First(formulas)),
        (None, Some(_)) => pass(token, classes, blocks, [q], &mut Second(formulas)),
        _ => pass(token, classes, blocks, [p, q], &mut Both(formulas)),
    };
}

/// One of the two; what only the other needs is not computed.
struct First<F>(F);
struct Second<F>(F);
struct Both<F>(F);

impl<V: Lanes, F: Formulas<V>> Step<V, 2, 1, 0> for First<F> {
    #[inline(always)]
    fn step<const WHOLE: bool>(&mut self, _: usize, [x, y]: [V; 2], _: &mut [V; 0]) -> [V; 1] {
        [self.0.of(x, y).0]
    }
}

impl<V: Lanes, F: Formulas<V>> Step<V, 2, 1, 0> for Second<F> {
    #[inline(always)]
    fn step<const WHOLE: bool>(&mut self, _: usize, [x, y]: [V; 2], _: &mut [V; 0]) -> [V; 1] {
        [self.0.of(x, y).1]
    }
}

impl<V: Lanes, F: Formulas<V>> Step<V, 2, 2, 0> for Both<F> {
    #[inline(always)]
    fn step<const WHOLE: bool>(&mut self, _: usize, [x, y]: [V; 2], _: &mut [V; 0]) -> [V; 2] {
        let (p, q) = self.0.of(x, y);
        [p, q]
    }
}
