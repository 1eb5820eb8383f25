//! Numbers with twice the precision of f64.

use crate::element::Element;
use crate::simd::Lanes;

/// A number as the unevaluated sum of two f64, with twice their precision.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TwoFloats {
    pub(crate) high: f64,
    pub(crate) low: f64,
}

/// 1/T as the unevaluated sum of two f64.
///
/// One f64 is off by 1e-16 of it, and by 1e-16 of a logit's quotient: the same for two rows with one temperature, but not for
/// two.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rate {
    pub(crate) high: f64,
    pub(crate) low: f64,
}

impl Rate {
    pub(crate) fn of_temperature(temperature: f64) -> Self {
        let high = 1.0 / temperature;
        Rate { high, low: (-temperature).mul_add(high, 1.0) / temperature }
    }
}

impl TwoFloats {
    /// (a − b)·rate, exactly but for the rounding of products of rounding errors.
    pub(crate) fn scaled_difference(a: f64, b: f64, rate: f64) -> Self {
        let difference = a - b;
        let shadow = difference - a;
        let error = (a - (difference - shadow)) - (b + shadow);
        let high = difference * rate;
        TwoFloats { high, low: difference.mul_add(rate, -high) + error * rate }
    }

    pub(crate) fn times(self, factor: f64) -> Self {
        let high = self.high * factor;
        TwoFloats { high, low: self.high.mul_add(factor, -high) + self.low * factor }
    }

    pub(crate) fn plus(self, addend: f64) -> Self {
        let high = self.high + addend;
        let shadow = high - self.high;
        TwoFloats { high, low: self.low + ((self.high - (high - shadow)) + (addend - shadow)) }
    }

    pub(crate) const ZERO: Self = TwoFloats { high: 0.0, low: 0.0 };

    pub(crate) fn minus(self, other: Self) -> f64 {
        (self.high - other.high) + (self.low - other.low)
    }

    /// As one f64.
    pub(crate) fn value(self) -> f64 {
        self.high + self.low
    }

    /// The number as the sum of three lane values.
    #[inline(always)]
    pub(crate) fn split<V: Lanes>(self, token: V::Token) -> [V; 3] {
        let high = V::Scalar::from_f64(self.high + self.low).to_f64();
        let rest = self.high - high;
        let middle = V::Scalar::from_f64(rest + self.low).to_f64();
        [V::splat(token, high), V::splat(token, middle), V::splat(token, (rest - middle) + self.low)]
    }
}
