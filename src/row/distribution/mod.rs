//! One row as a distribution.
//!
//! * [`space`]: what the numbers of a row are.
//! * [`scan`]: largest and smallest element, validity.
//! * [`log_sum_exp`]: the sum that makes probabilities of logits.
//! * [`softmax`]: its kernels, and what is written from it.
//! * [`smoothed`]: rows whose sums f32 lanes round to one side.

mod log_sum_exp;
pub(crate) mod scan;
mod smoothed;
pub(crate) mod softmax;
mod space;

pub(crate) use log_sum_exp::LogSumExp;
pub use space::Space;

use crate::element::Dtype;
use crate::row::two_floats::Rate;
use crate::rows::Row;

/// A row, or a block of it, and how its numbers become probabilities.
#[derive(Clone, Copy)]
pub(crate) struct Distribution<'a> {
    pub(crate) row: Row<'a>,
    pub(crate) space: Space,
    /// 1 / temperature; 1 unless the space is logits.
    pub(crate) inverse_temperature: f64,
    /// What it is short of that.
    pub(crate) inverse_temperature_error: f64,
    /// c of the cap c·tanh(z/c) on logits; a class with logit −∞ stays masked.
    pub(crate) softcap: Option<f64>,
}

/// Temperatures for which f32 lanes keep every intermediate number finite.
const NARROW_RATES: std::ops::RangeInclusive<f64> = 1e-3..=1e3;

impl<'a> Distribution<'a> {
    pub(crate) fn new(row: Row<'a>, space: Space, temperature: f64) -> Self {
        let rate = Rate::of_temperature(temperature);
        Distribution { row, space, inverse_temperature: rate.high, inverse_temperature_error: rate.low, softcap: None }
    }

    pub(crate) fn block(self, start: usize, len: usize) -> Self {
        Distribution { row: self.row.block(start, len), ..self }
    }

    /// 1 / temperature, to twice the precision.
    pub(crate) fn rate(self) -> Rate {
        Rate { high: self.inverse_temperature, low: self.inverse_temperature_error }
    }

    /// Whether f32 lanes are accurate enough to begin with; the range of its numbers is seen later.
    pub(crate) fn allows_narrow_lanes(self) -> bool {
        self.space == Space::Logits
            && self.row.dtype() != Dtype::F64
            && self.softcap.is_none()
            && NARROW_RATES.contains(&self.inverse_temperature)
    }
}
