//! Where the gradients of one row go.

use crate::rows::RowMut;

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
