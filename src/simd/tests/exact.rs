//! References with 30 digits: sums of two f64, and exponentials and logarithms over them.

use std::ops::{Add, Div, Mul, Neg, Sub};
use std::sync::LazyLock;

/// high + low, unevaluated; |low| is at most half a unit in the last place of high.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exact {
    pub(super) high: f64,
    pub(super) low: f64,
}

pub(super) const LN_2: Exact = Exact { high: std::f64::consts::LN_2, low: 2.319_046_813_846_299_6e-17 };

impl From<f64> for Exact {
    fn from(high: f64) -> Self {
        Exact { high, low: 0.0 }
    }
}

/// a + b and its rounding error (Knuth).
fn two_sum(a: f64, b: f64) -> Exact {
    let high = a + b;
    let shadow = high - a;
    Exact { high, low: (a - (high - shadow)) + (b - shadow) }
}

impl Add for Exact {
    type Output = Exact;
    fn add(self, other: Exact) -> Exact {
        let high = two_sum(self.high, other.high);
        let low = two_sum(self.low, other.low);
        let sum = two_sum(high.high, high.low + low.high);
        two_sum(sum.high, sum.low + low.low)
    }
}

impl Neg for Exact {
    type Output = Exact;
    fn neg(self) -> Exact {
        Exact { high: -self.high, low: -self.low }
    }
}

impl Sub for Exact {
    type Output = Exact;
    fn sub(self, other: Exact) -> Exact {
        self + -other
    }
}

impl Mul for Exact {
    type Output = Exact;
    fn mul(self, other: Exact) -> Exact {
        let high = self.high * other.high;
        let error = self.high.mul_add(other.high, -high);
        two_sum(high, error + (self.high * other.low + self.low * other.high))
    }
}

impl Div for Exact {
    type Output = Exact;
    fn div(self, other: Exact) -> Exact {
        let mut quotient = Exact::from(self.high / other.high);
        for _ in 0..2 {
            let rest = self - other * quotient;
            quotient = quotient + Exact::from(rest.high / other.high);
        }
        quotient
    }
}

/// 1/2!, 1/3!, … 1/26!: the rest of the series is below 1e-36 of its sum for |r| ≤ ln 2 / 2.
static INVERSE_FACTORIALS: LazyLock<Vec<Exact>> = LazyLock::new(|| {
    let mut inverse = Exact::from(1.0);
    (2..=26)
        .map(|k| {
            inverse = inverse / Exact::from(f64::from(k));
            inverse
        })
        .collect()
});

/// e^r − 1 − r for |r| ≤ ln 2 / 2.
fn second_order(r: Exact) -> Exact {
    r * r * INVERSE_FACTORIALS.iter().rev().fold(Exact::from(0.0), |sum, &coefficient| sum * r + coefficient)
}

/// (n, r) with x = n·ln 2 + r.
fn reduce(x: Exact) -> (f64, Exact) {
    let n = (x.high * std::f64::consts::LOG2_E).round();
    (n, x - LN_2 * Exact::from(n))
}

/// e^x − 1.
pub(super) fn exp_m1(x: Exact) -> Exact {
    if x.high < -1000.0 {
        return Exact::from(-1.0);
    }
    let (n, r) = reduce(x);
    let power = Exact::from(n.exp2());
    power * (r + second_order(r)) + (power - Exact::from(1.0))
}

/// e^x.
pub(super) fn exp(x: Exact) -> Exact {
    if x.high < -1000.0 {
        return Exact::from(0.0);
    }
    let (n, r) = reduce(x);
    Exact::from(n.exp2()) * (Exact::from(1.0) + (r + second_order(r)))
}

/// e^(−t) − 1 + t.
pub(super) fn excess(t: Exact) -> Exact {
    if reduce(t).0 == 0.0 { second_order(-t) } else { exp_m1(-t) + t }
}

/// 1 − (1 + u)e^(−u).
pub(super) fn deficit(u: Exact) -> Exact {
    -(u * exp_m1(-u) + excess(u))
}

/// ln(1 + w): Newton's step from the value in f64.
pub(super) fn ln_1p(w: Exact) -> Exact {
    let y = Exact::from(w.high.ln_1p());
    let e = (Exact::from(1.0) + w) * exp_m1(-y) + w;
    y + (e - e * e * Exact::from(0.5))
}

/// w − ln(1 + w).
pub(super) fn ln_1p_deficit(w: f64) -> Exact {
    let w = Exact::from(w);
    if w.high.abs() > 1e-6 {
        return w - ln_1p(w);
    }
    let series = [2.0, 3.0, 4.0, 5.0].map(|k| Exact::from(1.0) / Exact::from(k));
    w * w * (series[0] - w * (series[1] - w * (series[2] - w * series[3])))
}

/// ln x for positive x.
pub(super) fn ln(x: f64) -> Exact {
    let (x, offset) = if x < f64::MIN_POSITIVE { (x * 2_f64.powi(64), 64.0) } else { (x, 0.0) };
    let k = (x.log2() - offset).round();
    // Two factors, as one power of two may be out of range.
    let m = x * (-(k + offset) / 2.0).floor().exp2() * (-(k + offset) / 2.0).ceil().exp2();
    LN_2 * Exact::from(k) + ln_1p(Exact::from(m) - Exact::from(1.0))
}

/// ln(p/q) of positive numbers.
pub(super) fn ln_ratio(p: f64, q: f64) -> Exact {
    let ratio = p / q;
    if !(0.5..=2.0).contains(&ratio) {
        return ln(p) - ln(q);
    }
    // Far enough from 0 for products to have all their digits.
    let lift = if p < 1e-200 { 2_f64.powi(600) } else { 1.0 };
    ln_1p(two_sum(p * lift, -(q * lift)) / Exact::from(q * lift))
}

#[test]
fn the_references_agree_with_each_other() {
    for step in 0..2000 {
        let t = f64::from(step) * 0.001 - 0.69;
        let back = ln_1p(exp_m1(Exact::from(t))) - Exact::from(t);
        assert!(back.high.abs() < 1e-29 * t.abs(), "{t}: {back:?}");
        let x = (30.0 * t).exp();
        let round_trip = exp(ln(x)) - Exact::from(x);
        assert!(round_trip.high.abs() < 1e-29 * x, "{x}: {round_trip:?}");
    }
    // The first digits of e^(−1/4) − 3/4, 1 − (5/4)e^(−1/4) and 1/4 − ln(5/4).
    assert_eq!(excess(Exact::from(0.25)).high, 0.028_800_783_071_404_868);
    assert_eq!(deficit(Exact::from(0.25)).high, 0.026_499_021_160_743_915);
    assert_eq!(ln_1p_deficit(0.25).high, 0.026_856_448_685_790_244);
}
