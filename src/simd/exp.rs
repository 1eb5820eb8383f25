//! Exponentials, written once over [`Lanes`].
//!
//! Largest errors found by the sweeps in `simd::tests` (every instruction set, whole range):
//!
//! | function | f32 | f64 |
//! | --- | --- | --- |
//! | [`exp`] | 1.4 ULP | 1.3 ULP |
//! | [`ScaledExp`] | 2.5 ULP | 2.0 ULP |
//! | [`Decay`]'s `exp` | 1.1 ULP | 1.0 ULP |
//! | [`Decay`]'s `expm1` | 1.7 ULP | 2.0 ULP |
//! | [`Decay`]'s `excess` | 6.9 ULP | 8.0 ULP |
//! | [`Decay::deficit`] | 6.8 ULP | 7.6 ULP |

use super::polynomial::{horner, in_lanes};
use super::vector::{LOWEST_SUMMED_POWER, Lanes, Scalar};
use crate::element::Element;

/// (e^r − 1 − r) / r² for |r| ≤ ln 2 / 2.
#[inline(always)]
fn quotient<V: Lanes>(token: V::Token, r: V) -> V {
    r.polynomial(token, V::Scalar::EXP)
}

/// e^r for |r| ≤ ln 2 / 2.
#[inline(always)]
fn of_reduced<V: Lanes>(token: V::Token, r: V) -> V {
    (r * r).mul_add_relaxed(quotient(token, r), V::splat(token, 1.0) + r)
}

/// (n, r) with x = n·ln 2 + r, n integral and |r| ≤ ln 2 / 2; r is x itself where n = 0.
#[inline(always)]
fn reduce<V: Lanes>(token: V::Token, x: V) -> (V, V) {
    let n = (x * V::splat(token, std::f64::consts::LOG2_E)).round();
    let r = n.mul_add(V::splat(token, -V::Scalar::LN_2_HIGH), x);
    (n, n.mul_add(V::splat(token, -V::Scalar::LN_2_LOW), r))
}

/// e^x for x up to 127·ln 2 in f32 and 1023·ln 2 in f64; 0 for x below the smallest normal number's logarithm.
#[inline(always)]
pub(crate) fn exp<V: Lanes>(token: V::Token, x: V) -> V {
    // Below twice the floor the factor 2^n is 0 for every type, and n stays in the range `scale` takes.
    let x = x.max(V::splat(token, -2.0 * V::Scalar::EXP_FLOOR));
    let (n, r) = reduce(token, x);
    of_reduced(token, r).scale(n)
}

/// e^x for any x: ∞ where it leaves the range of f64, 0 where it falls below the smallest normal number; f64 lanes.
#[inline(always)]
pub(crate) fn saturating_exp<V: Lanes>(token: V::Token, x: V) -> V {
    let most = V::splat(token, 1023.0 * std::f64::consts::LN_2);
    V::select(most.lt(x), V::splat(token, f64::INFINITY), exp(token, x.min(most)))
}

/// Largest |x·log2(e)/T| of a row's maximum that [`ScaledExp`] takes in f32 lanes; rows reach down to twice this.
pub(crate) const LARGEST_EXPONENT: f64 = 65_536.0; // 2^16: sums of three such numbers are below the grid's 2^18

/// log2(e) less its f64.
const LOG2_E_LOW: f64 = 2.035_527_374_093_103_3e-17;

/// e^(x/T − c)·w for a constant c and weight w.
///
/// Its error does not grow with |x|: the part of x·log2(e)/T on a grid (the steps of [`Lanes::Powers`]) never meets the rest,
/// which the fused multiply-add gives from the exact product. The constant and the weight are in the table.
#[derive(Clone, Copy)]
pub(crate) struct ScaledExp<V: Lanes> {
    token: V::Token,
    /// log2(e)/T as the unevaluated sum of two lane values.
    rate: (V, V),
    /// The grid less the integer part of c·log2(e).
    grid: V,
    powers: V::Powers,
    /// Logits below it are to be raised to it: their exponentials are 0.
    floor: V,
    /// Where the exponential is 0 already, and the lookup ends.
    zero: V,
    /// Where it is nothing in a sum.
    nothing: V,
}

impl<V: Lanes> ScaledExp<V> {
    /// For c = `ln_divisor` and w = `weight`.
    #[inline(always)]
    pub(crate) fn new(token: V::Token, inverse_temperature: f64, ln_divisor: f64, weight: f64) -> Self {
        let rate = inverse_temperature * std::f64::consts::LOG2_E;
        let high = V::Scalar::from_f64(rate).to_f64();
        let low = if V::Scalar::WIDE {
            inverse_temperature.mul_add(std::f64::consts::LOG2_E, -rate) + inverse_temperature * LOG2_E_LOW
        } else {
            rate - high
        };
        let log2_divisor = ln_divisor * std::f64::consts::LOG2_E;
        let exponent = log2_divisor.round();
        // What the product is rounded by shows in f64 lanes.
        let lost = ln_divisor.mul_add(std::f64::consts::LOG2_E, -log2_divisor) + ln_divisor * LOG2_E_LOW;
        let splat = |value| V::splat(token, value);
        // In the order of the logits, which a negative rate turns round.
        let logit = |power: f64| (exponent + power).max(-2.0 * LARGEST_EXPONENT) / rate;
        ScaledExp {
            token,
            rate: (splat(high), splat(low)),
            grid: splat(V::grid() - exponent),
            powers: V::powers(token, weight * (exponent - log2_divisor - lost).exp2()),
            floor: splat(-2.0 * LARGEST_EXPONENT / rate),
            zero: splat(logit(V::LOWEST_POWER)),
            nothing: splat(logit(LOWEST_SUMMED_POWER)),
        }
    }

    /// `x` not below the floor; NaN stays NaN.
    #[inline(always)]
    pub(crate) fn bounded(&self, x: V) -> V {
        x.at_least(self.floor)
    }

    /// Where `x` is above the floor, as every number that f32 lanes take is, and −∞ is not.
    #[inline(always)]
    pub(crate) fn is_above_floor(&self, x: V) -> V::Mask {
        self.floor.lt(x)
    }

    /// The exponential of x, which is [`bounded`](ScaledExp::bounded); of far lower ones, of which sums are to tell, it is 0 or
    /// NaN, and of −∞ NaN. The temperature is positive.
    #[inline(always)]
    pub(crate) fn at(&self, x: V) -> V {
        if !V::LOWEST_POWER.is_finite() {
            return self.within_range(x);
        }
        let gridded = self.gridded(x.at_least(self.zero));
        self.at_gridded(gridded, self.fraction(x, gridded))
    }

    /// The exponential of any x: 0 for −∞, NaN for NaN; the temperature is positive.
    #[inline(always)]
    pub(crate) fn of(&self, x: V) -> V {
        self.within_range(x.at_least(self.zero))
    }

    /// The same for a negative temperature and x ≥ 0.
    #[inline(always)]
    fn of_magnitude(&self, x: V) -> V {
        self.within_range(if V::LOWEST_POWER.is_finite() { x.at_most(self.zero) } else { x })
    }

    /// `sum` and the exponential of any x, but 2^−120 where that is less, where the sum has one of about 1 and the weight is 1; the
    /// temperature is positive.
    #[inline(always)]
    pub(crate) fn add(&self, sum: V, x: V) -> V {
        let x = x.at_least(self.nothing);
        let gridded = self.gridded(x);
        let fraction = self.fraction(x, gridded);
        let factor = self.quotient(fraction).mul_add_relaxed(fraction, V::splat(self.token, 1.0));
        gridded.normal_power(self.token, self.powers).mul_add_relaxed(factor, sum)
    }

    /// The exponential of an x for which it is a normal number.
    #[inline(always)]
    pub(crate) fn within_range(&self, x: V) -> V {
        let gridded = self.gridded(x);
        self.at_gridded(gridded, self.fraction(x, gridded))
    }

    #[inline(always)]
    fn at_gridded(&self, gridded: V, fraction: V) -> V {
        let power = gridded.power(self.token, self.powers);
        (power * fraction).mul_add_relaxed(self.quotient(fraction), power)
    }

    /// The number on the grid next to the exponent of two.
    #[inline(always)]
    fn gridded(&self, x: V) -> V {
        x.mul_add_relaxed(self.rate.0, self.grid)
    }

    /// How far the exponent is above it.
    #[inline(always)]
    fn fraction(&self, x: V, gridded: V) -> V {
        x.mul_add(self.rate.1, x.mul_add(self.rate.0, -(gridded - self.grid)))
    }

    /// (2^f − 1) / f.
    #[inline(always)]
    fn quotient(&self, fraction: V) -> V {
        let mut quotient = V::splat(self.token, V::EXP2[V::EXP2.len() - 1]);
        for &coefficient in V::EXP2.iter().rev().skip(1) {
            quotient = quotient.mul_add_relaxed(fraction, V::splat(self.token, coefficient));
        }
        quotient
    }
}

/// [`excess_near_zero`] by coefficients that lie in memory, where an instruction takes them from, and not broadcast by one each: for
/// loops that need all registers.
#[derive(Clone, Copy)]
pub(crate) struct Excess<V>([V; EXCESS_TERMS]);

/// The coefficients of f32 lanes.
const EXCESS_TERMS: usize = 8;

impl<V: Lanes> Excess<V> {
    #[inline(always)]
    pub(crate) fn new(token: V::Token) -> Self {
        let mut coefficients = [0.0; EXCESS_TERMS];
        for (to, from) in coefficients.iter_mut().zip(V::Scalar::EXCESS) {
            *to = *from;
        }
        Excess(in_lanes(token, std::hint::black_box(coefficients)))
    }

    /// Over d².
    #[inline(always)]
    pub(crate) fn quotient(&self, d: V) -> V {
        horner(&self.0, d)
    }
}

/// e^(−d) − 1 + d for |d| ≤ 1, in f32 lanes.
#[inline(always)]
pub(crate) fn excess_near_zero<V: Lanes>(token: V::Token, d: V) -> V {
    d * d * d.polynomial(token, V::Scalar::EXCESS)
}

/// What two probabilities with log-ratio t need of e^(−t), each accurate however small t is.
#[derive(Clone, Copy)]
pub(crate) struct Decay<V> {
    /// e^(−t).
    pub(crate) exp: V,
    /// e^(−t) − 1.
    pub(crate) expm1: V,
    /// e^(−t) − 1 + t ≥ 0, of second order in t.
    pub(crate) excess: V,
}

impl<V: Lanes> Decay<V> {
    #[inline(always)]
    pub(crate) fn new(token: V::Token, t: V) -> Self {
        let floor = V::splat(token, V::Scalar::EXP_FLOOR);
        Self::within_range(token, t, t.min(floor + floor).max(-floor))
    }

    /// The decay of u ≥ 0; exactly 0 for u that stands for infinity. In f32 lanes `exp` is a [`ScaledExp`] of rate −1,
    /// and u no larger than the difference of two numbers that one takes.
    #[inline(always)]
    pub(crate) fn of_magnitude(token: V::Token, u: V, exp: &ScaledExp<V>) -> Self {
        if V::Scalar::WIDE {
            return Self::within_range(token, u, u.min(V::splat(token, 2.0 * V::Scalar::EXP_FLOOR)));
        }
        let one = V::splat(token, 1.0);
        let near = u.lt(one);
        let exp = exp.of_magnitude(u);
        let (near_excess, far_expm1) = (excess_near_zero(token, u), exp - one);
        Decay {
            exp,
            expm1: V::select(near, near_excess - u, far_expm1),
            excess: V::select(near, near_excess, far_expm1 + u),
        }
    }

    #[inline(always)]
    fn within_range(token: V::Token, t: V, clamped: V) -> Self {
        let one = V::splat(token, 1.0);
        // −t = n·ln 2 + r.
        let n = (clamped * V::splat(token, -std::f64::consts::LOG2_E)).round();
        let r = n.mul_add(V::splat(token, -V::Scalar::LN_2_HIGH), -clamped);
        let r = n.mul_add(V::splat(token, -V::Scalar::LN_2_LOW), r);
        let squared = r * r;
        let quotient = quotient(token, r);
        let power = one.scale(n);
        // e^r − 1; and e^r − 1 − r, relatively accurate however small r is.
        let first_order = squared.mul_add_relaxed(quotient, r);
        let second_order = squared * quotient;
        let expm1 = power.mul_add(first_order, power - one);
        // For n = 0 the inner sum is exactly 0, and the excess is the second-order part itself.
        let excess = power.mul_add(second_order, power.mul_add(r, t + (power - one)));
        Decay { exp: power.mul_add(first_order, power), expm1, excess }
    }

    /// 1 − (1 + u)·e^(−u) for u ≥ 0, of second order in u, given the decay of u.
    #[inline(always)]
    pub(crate) fn deficit(self, token: V::Token, u: V) -> V {
        let near = -(u.mul_add(self.expm1, self.excess));
        // Beyond the floor e^(−u) is 0 against 1, but u may stand for infinity.
        let bounded = if V::Scalar::WIDE { u.min(V::splat(token, V::Scalar::EXP_FLOOR)) } else { u };
        let far = -(bounded.mul_add(self.exp, self.expm1));
        V::select(u.lt(V::splat(token, 2.0)), near, far)
    }
}
