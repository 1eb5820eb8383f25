//! The log-sum-exp of a row.

/// ln Σ e^(z/T) as the largest logit and Σ of the other classes' e^((z − largest)/T).
///
/// Leaving the largest one out of the sum keeps ln p of a class with p near 1 accurate: it is −ln(1 + rest).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct LogSumExp {
    pub(crate) largest: f64,
    pub(crate) rest: f64,
}

impl LogSumExp {
    /// Of no class at all.
    pub(crate) const EMPTY: Self = LogSumExp { largest: f64::NEG_INFINITY, rest: -1.0 };
    /// Of a row that is a distribution as given.
    pub(crate) const GIVEN: Self = LogSumExp { largest: 0.0, rest: 0.0 };
    /// Of a row that cannot be computed with.
    pub(crate) const INVALID: Self = LogSumExp { largest: f64::NAN, rest: f64::NAN };

    pub(crate) fn is_empty(self) -> bool {
        self.largest == f64::NEG_INFINITY
    }

    pub(crate) fn is_nan(self) -> bool {
        self.largest.is_nan()
    }

    /// ln Σ e^((z − largest)/T).
    pub(crate) fn ln_sum(self) -> f64 {
        self.rest.ln_1p()
    }

    /// ln Σ e^(z/T).
    pub(crate) fn value(self, inverse_temperature: f64) -> f64 {
        self.largest * inverse_temperature + self.ln_sum()
    }

    /// −ln p of a class with logit z.
    pub(crate) fn surprise(self, z: f64, inverse_temperature: f64) -> f64 {
        (self.largest - z) * inverse_temperature + self.ln_sum()
    }

    /// The probability of the class with the largest logit.
    pub(crate) fn largest_probability(self) -> f64 {
        (1.0 + self.rest).recip()
    }

    /// p − 1 of a class with logit z.
    pub(crate) fn probability_minus_one(self, z: f64, inverse_temperature: f64) -> f64 {
        if z == self.largest {
            -self.rest / (1.0 + self.rest)
        } else {
            (-self.surprise(z, inverse_temperature)).exp_m1()
        }
    }

    /// The share of `whole`'s sum that is this part's.
    pub(crate) fn relative_to(self, whole: Self, inverse_temperature: f64) -> f64 {
        if self.is_empty() {
            0.0
        } else {
            ((self.largest - whole.largest) * inverse_temperature - whole.ln_sum()).exp() * (1.0 + self.rest)
        }
    }

    /// Of a row, from its blocks in order.
    pub(crate) fn merge(blocks: impl Iterator<Item = Self> + Clone, inverse_temperature: f64) -> Self {
        let mut largest = f64::NEG_INFINITY;
        for block in blocks.clone() {
            if block.is_nan() {
                return Self::INVALID;
            }
            largest = largest.max(block.largest);
        }
        if largest == f64::NEG_INFINITY {
            return Self::EMPTY;
        }
        let mut rest = 0.0;
        let mut left_out = false;
        for block in blocks.filter(|block| !block.is_empty()) {
            if block.largest == largest && !left_out {
                left_out = true;
                rest += block.rest;
            } else {
                rest += ((block.largest - largest) * inverse_temperature).exp() * (1.0 + block.rest);
            }
        }
        LogSumExp { largest, rest }
    }
}
