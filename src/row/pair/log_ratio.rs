//! ln p − ln q of two vectors of logits, which keeps its digits however close two rows are.

use crate::element::Element;
use crate::row::two_floats::{Rate, TwoFloats};
use crate::simd::{Lanes, Scalar};

/// What f32 lanes round a log-ratio by, relative to the difference of the two log-sum-exp: 2^−49.
pub(crate) const NARROW_ROUNDING: f64 = 1.0 / (1_u64 << 49) as f64;

/// Largest difference of the two log-sum-exp that f32 lanes take, in nats: log-ratios are to be rounded by less than 10⁻¹².
pub(crate) const LARGEST_NARROW_DELTA: f64 = 256.0;

/// (x − y)/T − delta of two rows with one temperature.
#[derive(Clone, Copy)]
pub(crate) struct LogRatio<V> {
    rate: V,
    delta: [V; 3],
}

impl<V: Lanes> LogRatio<V> {
    #[inline(always)]
    pub(crate) fn new(token: V::Token, inverse_temperature: f64, delta: TwoFloats) -> Self {
        // f32 lanes round 1/T. With delta rounded by the same factor the log-ratio is, too, and loses nothing to cancellation.
        let rate = V::Scalar::from_f64(inverse_temperature).to_f64();
        let delta = if V::Scalar::WIDE { delta } else { delta.times(rate / inverse_temperature) };
        LogRatio { rate: V::splat(token, rate), delta: delta.split(token) }
    }

    /// x − y and its rounding error.
    #[inline(always)]
    pub(crate) fn difference(x: V, y: V) -> (V, V) {
        let difference = x - y;
        let shadow = difference - x;
        (difference, (x - (difference - shadow)) - (y + shadow))
    }

    /// The log-ratio, but for the rounding of x − y.
    #[inline(always)]
    pub(crate) fn without_error(&self, x: V, y: V) -> V {
        let [high, middle, _] = self.delta;
        (x - y).mul_add(self.rate, -high) - middle
    }

    /// The log-ratio. The subtraction is exact as the sum of two numbers, so that a constant added to one of two close
    /// rows (a large delta) costs nothing.
    #[inline(always)]
    pub(crate) fn of(&self, x: V, y: V) -> V {
        let (difference, error) = Self::difference(x, y);
        let [high, middle, low] = self.delta;
        // Small numbers last: rough and middle cancel where the log-ratio is far smaller than either.
        let rough = difference.mul_add(self.rate, -high);
        error.mul_add(self.rate, rough - middle) - low
    }
}

/// (x − r)/T − (y − r′)/T′ − delta of two rows with two temperatures, or far apart, and references r, in f64 lanes.
///
/// Differences and quotients are sums of two numbers each, with twice the precision: rows that two temperatures bring close
/// differ by far less than either quotient is rounded. Relative to the largest logits, since small temperatures make quotients
/// so large that two numbers do not hold the fraction.
#[derive(Clone, Copy)]
pub(crate) struct LogRatioOfTwoRates<V> {
    references: (V, V),
    rates: ((V, V), (V, V)),
    delta: [V; 3],
}

impl<V: Lanes> LogRatioOfTwoRates<V> {
    #[inline(always)]
    pub(crate) fn new(token: V::Token, references: (V, V), rates: (Rate, Rate), delta: TwoFloats) -> Self {
        let splat = |rate: Rate| (V::splat(token, rate.high), V::splat(token, rate.low));
        LogRatioOfTwoRates { references, rates: (splat(rates.0), splat(rates.1)), delta: delta.split(token) }
    }

    /// The difference of two numbers times a rate, and what the product is short of it.
    #[inline(always)]
    fn scaled_difference(number: V, reference: V, (high, low): (V, V)) -> (V, V) {
        let (difference, error) = LogRatio::difference(number, reference);
        let product = difference * high;
        (product, error.mul_add(high, difference.mul_add(low, difference.mul_add(high, -product))))
    }

    #[inline(always)]
    pub(crate) fn of(&self, x: V, y: V) -> V {
        let (a, a_error) = Self::scaled_difference(x, self.references.0, self.rates.0);
        let (b, b_error) = Self::scaled_difference(y, self.references.1, self.rates.1);
        let (difference, error) = LogRatio::difference(a, b);
        let [high, middle, low] = self.delta;
        let (rough, delta_error) = LogRatio::difference(difference, high);
        rough + (delta_error + (error + (a_error - b_error) - middle - low))
    }
}
