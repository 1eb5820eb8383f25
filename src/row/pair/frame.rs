//! How two rows become probabilities.

use crate::row::distribution::LogSumExp;
use crate::row::pair::log_ratio::NARROW_ROUNDING;
use crate::row::two_floats::TwoFloats;
use crate::simd::Lanes;
use crate::simd::exp::ScaledExp;

/// How the numbers of one side become probabilities: p = e^((x − reference)/T − `ln_sum`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct SideFrame {
    pub(crate) reference: f64,
    pub(crate) ln_sum: f64,
}

impl SideFrame {
    /// ln Σ of a row's weights.
    pub(crate) fn ln_total(self) -> f64 {
        self.reference + self.ln_sum
    }

    /// 1/Σ of a row's weights, a number in range.
    pub(crate) fn scale(self) -> f64 {
        (-self.ln_total()).exp().clamp(f64::MIN_POSITIVE, f64::MAX)
    }

    /// Makes probabilities of numbers, in f32 lanes.
    #[inline(always)]
    pub(crate) fn exp<V: Lanes>(self, token: V::Token, inverse_temperature: f64) -> ScaledExp<V> {
        self.weighted_exp(token, inverse_temperature, 1.0)
    }

    /// Makes probabilities of numbers, times a weight, in f32 lanes.
    #[inline(always)]
    pub(crate) fn weighted_exp<V: Lanes>(self, token: V::Token, inverse_temperature: f64, weight: f64) -> ScaledExp<V> {
        ScaledExp::new(token, inverse_temperature, self.reference * inverse_temperature + self.ln_sum, weight)
    }
}

impl From<LogSumExp> for SideFrame {
    fn from(sum: LogSumExp) -> Self {
        SideFrame { reference: sum.largest, ln_sum: sum.ln_sum() }
    }
}

/// How two rows become probabilities.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame {
    pub(crate) p: SideFrame,
    pub(crate) q: SideFrame,
    /// The log-sum-exp of p less that of q, so that d = (x − y)/T − delta. In f64 lanes the logits of close rows are as
    /// precise as a single f64 of it, hence two.
    pub(crate) delta: TwoFloats,
    /// What Σ(q − p) shows beyond the two `scale`, in the space of weights to be normalised.
    pub(crate) delta_of_scales: TwoFloats,
    /// That of `ln_sum` only, so that d = (x − reference)/T − (y − reference)/T′ − `delta_of_sums`.
    pub(crate) delta_of_sums: TwoFloats,
}

impl Frame {
    /// The frame of two log-sum-exp, the first with this temperature.
    pub(crate) fn of(p: LogSumExp, q: LogSumExp, inverse_temperature: f64) -> Self {
        let sums = |tops: TwoFloats| tops.plus(p.ln_sum()).plus(-q.ln_sum());
        Frame {
            p: p.into(),
            q: q.into(),
            delta: sums(TwoFloats::scaled_difference(p.largest, q.largest, inverse_temperature)),
            delta_of_sums: sums(TwoFloats::ZERO),
            delta_of_scales: TwoFloats::ZERO,
        }
    }

    /// Whether what f32 lanes round log-ratios by shows in a value of first order in them: rows that one class dominates may
    /// differ by no more, in that class and so in all.
    pub(crate) fn hides(&self, value: f64) -> bool {
        /// Of the value.
        const ROUNDING: f64 = 3e-7;
        0.0 < value && value * ROUNDING < self.delta.value().abs() * NARROW_ROUNDING
    }

    /// With the difference of the log-sum-exp for which Σq is 1, where it is 1 + `excess` with the present one.
    pub(crate) fn corrected(self, excess: f64) -> Self {
        let correction = -excess.ln_1p();
        Frame {
            delta: self.delta.plus(correction),
            delta_of_sums: self.delta_of_sums.plus(correction),
            delta_of_scales: self.delta_of_scales.plus(correction),
            ..self
        }
    }
}
