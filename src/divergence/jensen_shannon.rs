//! β KL(p‖m) + (1−β) KL(q‖m), m = βp + (1−β)q.
//!
//! Let e be the larger of p and q, e(1 + v) the smaller with −1 ≤ v ≤ 0, u = −ln(1 + v), and γ the weight of the
//! smaller one (1−β where p is larger, else β), so that m = e(1 + γv). With h = v + u and L(t) = t − ln(1 + t), both
//! of second order, the class contributes
//!
//! e·[γ(1−γ)v² + (1 + γv)·L(γv) − γe^(−u)·h],
//!
//! in which nothing of first order is left to cancel.
//!
//! The smaller of β and 1 − β is that of m's other row in one of two ways, and either may be as small as numbers go. Where it
//! is the weight of the smaller of p and q, the terms above are all of its size. Where it is r = 1 − γ, that of the larger,
//! they are not, and the same is, with w = e^u − 1, m = e(r + γe^(−u)) and h as above,
//!
//! e·[r(h − rw·(1 − e^(−u))) + (m/e)·L(rw)] for rw < 1, e·[r·ln(e/m) − γe^(−u)·ln(m/e(1 + v))] beyond.

use super::disjoint_pair::DisjointPair;
use super::pair::Pair;
#[cfg(test)]
use super::times;
use super::{
    Class, Disjoint, DisjointFacts, DisjointView, Divergence, Infinite, OfProbabilities, Outer, Probabilities,
};
use crate::simd::Lanes;
use crate::simd::ln::{Log1p, atanh_tail_on_third, ln};

#[derive(Clone, Copy)]
pub(crate) struct JensenShannon {
    beta: f64,
    /// 0 for β = 0 and β = 1, where m is one of the rows and the divergence vanishes; else 1.
    factor: f64,
}

impl JensenShannon {
    /// β = ½.
    pub(crate) const EVEN: Self = JensenShannon { beta: 0.5, factor: 1.0 };

    pub(crate) fn new(beta: f64) -> Self {
        if beta == 0.0 || beta == 1.0 {
            // Any other weight keeps ln m finite.
            JensenShannon { factor: 0.0, ..Self::EVEN }
        } else {
            JensenShannon { beta, ..Self::EVEN }
        }
    }
}

/// m = βp + (1−β)q of a class, relative to e, the larger of p and q; as above.
pub(super) struct Mixture<V: Lanes> {
    /// r and γ, the weights of the larger and of the smaller.
    pub(super) rest: V,
    pub(super) gamma: V,
    /// m/e.
    pub(super) share: V,
    /// γv = m/e − 1 and L(γv).
    pub(super) growth_of_larger: V,
    pub(super) deficit_of_larger: V,
    /// ln(e/m).
    pub(super) to_larger: V,
    /// Where rw = m/e(1 + v) − 1 is less than 1: rw and L(rw).
    pub(super) near_smaller: V::Mask,
    pub(super) growth_of_smaller: V,
    pub(super) deficit_of_smaller: V,
    /// ln(m/e(1 + v)).
    pub(super) to_smaller: V,
}

impl<V: Lanes> Mixture<V> {
    /// For β other than 0 and 1.
    #[inline(always)]
    pub(super) fn new(beta: f64, pair: &Pair<V>) -> Self {
        let token = pair.token;
        let (zero, half, one) = (V::splat(token, 0.0), V::splat(token, 0.5), V::splat(token, 1.0));
        let (beta, other) = (V::splat(token, beta), V::splat(token, 1.0 - beta));
        let gamma = pair.where_p_larger(other, beta);
        let rest = pair.where_p_larger(beta, other);
        let (v, exp) = (pair.decay.expm1, pair.decay.exp);
        let mixed = gamma * v;
        let log = Log1p::new(token, mixed);
        let share = gamma.mul_add(exp, rest);
        let little = share.lt(half);
        let to_larger = V::select(little, -ln(token, share), -log.ln);
        let product = -(rest * v);
        let near = product.lt(exp);
        let t = V::select(near, product, zero) / V::select(near, exp, one);
        let near_log = Log1p::new(token, t);
        Mixture {
            rest,
            gamma,
            share,
            growth_of_larger: mixed,
            deficit_of_larger: V::select(little, mixed + to_larger, log.deficit),
            to_larger,
            near_smaller: near,
            growth_of_smaller: t,
            deficit_of_smaller: near_log.deficit,
            to_smaller: V::select(near, near_log.ln, pair.bounded_u() - to_larger),
        }
    }
}

/// A class relative to the larger of p and q.
struct Terms<V> {
    /// The weights of the larger, and of the smaller.
    rest: V,
    gamma: V,
    /// f̃ relative to the larger.
    value: V,
    /// ln(e/m).
    to_larger: V,
    /// ln(m/smaller).
    to_smaller: V,
}

impl JensenShannon {
    #[inline(always)]
    fn terms<V: Lanes>(self, pair: &Pair<V>) -> Terms<V> {
        let token = pair.token;
        let (half, one) = (V::splat(token, 0.5), V::splat(token, 1.0));
        let (v, exp, excess) = (pair.decay.expm1, pair.decay.exp, pair.decay.excess);
        if self.beta == 0.5 {
            let mixed = half * v;
            let log = Log1p::of_at_least_half(token, mixed);
            let value = (one + mixed).mul_add(log.deficit, half * (half * v * v - exp * excess));
            let to_smaller = log.ln + pair.bounded_u();
            return Terms { rest: half, gamma: half, value, to_larger: -log.ln, to_smaller };
        }
        let m = Mixture::new(self.beta, pair);
        let (rest, gamma, to_larger, to_smaller) = (m.rest, m.gamma, m.to_larger, m.to_smaller);
        let second = gamma * (rest * v * v - exp * excess);
        let value = (one + m.growth_of_larger).mul_add(m.deficit_of_larger, second);
        let near = m.share.mul_add(m.deficit_of_smaller, rest * (m.growth_of_smaller.mul_add(v, excess)));
        let far = rest * to_larger - gamma * exp * to_smaller;
        let light = V::select(m.near_smaller, near, far);
        Terms { rest, gamma, value: V::select(half.lt(gamma), light, value), to_larger, to_smaller }
    }
}

impl Divergence for JensenShannon {
    const HAS_LONE_SLOPES: bool = true;

    #[cfg(test)]
    fn definition(self, ln_p: f64, ln_q: f64) -> (f64, f64, f64) {
        let (p, q, beta) = (ln_p.exp(), ln_q.exp(), self.beta);
        let ln_m = (beta * p + (1.0 - beta) * q).ln();
        let to_p = self.factor * beta * times(p, ln_p - ln_m);
        let to_q = self.factor * (1.0 - beta) * times(q, ln_q - ln_m);
        (to_p + to_q, to_p, to_q)
    }

    #[inline(always)]
    fn class<V: Lanes>(self, pair: &Pair<V>) -> Class<V> {
        let token = pair.token;
        let Terms { rest, gamma, value, to_larger, to_smaller } = self.terms(pair);
        let larger = pair.larger * V::splat(token, self.factor);
        let d_ln_larger = rest * larger * to_larger;
        let d_ln_smaller = -(gamma * larger * pair.decay.exp * to_smaller);
        Class {
            value: larger * value.max(V::splat(token, 0.0)),
            d_ln_p: pair.where_p_larger(d_ln_larger, d_ln_smaller),
            d_ln_q: pair.where_p_larger(d_ln_smaller, d_ln_larger),
        }
    }

    #[inline(always)]
    fn slopes_per_probability<V: Lanes>(self, pair: &Pair<V>) -> (V, V) {
        let Terms { rest, gamma, to_larger, to_smaller, .. } = self.terms(pair);
        let factor = V::splat(pair.token, self.factor);
        let of_larger = factor * rest * to_larger;
        let of_smaller = -(factor * gamma * to_smaller);
        (pair.where_p_larger(of_larger, of_smaller), pair.where_p_larger(of_smaller, of_larger))
    }

    fn lone_slopes(self) -> (f64, f64) {
        let slope = |weight: f64| -self.factor * weight * weight.ln();
        (slope(self.beta), slope(1.0 - self.beta))
    }

    #[inline(always)]
    fn slopes_beyond_lone<V: Lanes>(self, pair: &Pair<V>, class: &Class<V>) -> (V, V) {
        let token = pair.token;
        let one = V::splat(token, 1.0);
        let (of_p, of_q) = self.lone_slopes();
        let (beta, other) = (V::splat(token, self.beta), V::splat(token, 1.0 - self.beta));
        let (rest, ratio) = (
            pair.where_p_larger(beta, other),
            pair.where_p_larger(
                V::splat(token, (1.0 - self.beta) / self.beta),
                V::splat(token, self.beta / (1.0 - self.beta)),
            ),
        );
        // ln(e/m) + ln r = −ln(1 + γe^(−u)/r).
        let share = ratio * pair.decay.exp;
        let small = share.le(one);
        let log = Log1p::new(token, V::select(small, share, one));
        let larger = pair.larger * V::splat(token, self.factor) * rest;
        let of_larger = -(larger * log.ln);
        let differences = (
            pair.p.mul_add(V::splat(token, -of_p), class.d_ln_p),
            pair.q.mul_add(V::splat(token, -of_q), class.d_ln_q),
        );
        (
            V::select(small, pair.where_p_larger(of_larger, differences.0), differences.0),
            V::select(small, pair.where_p_larger(differences.1, of_larger), differences.1),
        )
    }

    fn for_disjoint_rows(self) -> Option<impl Disjoint> {
        (self.factor == 1.0 && is_even_enough(self.beta)).then_some(DisjointJensenShannon { beta: self.beta })
    }

    fn for_many_pairs(self) -> Option<impl OfProbabilities> {
        (self.beta == 0.5 && self.factor == 1.0).then_some(EvenOfProbabilities)
    }

    fn infinite_where(self) -> Infinite {
        Infinite { q_zero: false, p_zero: false }
    }

    /// The three parts of a class cancel the more the less even the weights are.
    fn needs_wide_lanes(self) -> bool {
        self.beta != 0.5
    }

    fn slopes_at_zero(self) -> (f64, f64) {
        // β ln(p/m) and (1−β) ln(q/m).
        if self.factor == 0.0 { (0.0, 0.0) } else { (f64::NEG_INFINITY, f64::NEG_INFINITY) }
    }
}

/// The entropy of the weights, of which Σ[a·ln(1 + b/a) + b·ln(1 + a/b)] with a = βp and b = (1−β)q is to be taken: terms that
/// vanish where either row lacks the class.
///
/// With s = min(a, b)/(a + b + max(a, b)), ln(1 + min/max) is 2 atanh s, and where the ratio is the inverse of that, its
/// logarithm is larger by |ln(a/b)|.
#[derive(Clone, Copy)]
pub(crate) struct DisjointJensenShannon {
    beta: f64,
}

impl Disjoint for DisjointJensenShannon {
    type View<V: Lanes> = DisjointJensenShannonView<V>;

    // Two exponentials, a quotient and a logarithm are in each slope.
    const LARGEST_PARTS: f64 = 4.0;

    fn weights(self) -> (f64, f64) {
        (self.beta, 1.0 - self.beta)
    }

    #[inline(always)]
    fn view<V: Lanes>(self, token: V::Token, rows: DisjointFacts) -> DisjointJensenShannonView<V> {
        let splat = |value| V::splat(token, value);
        DisjointJensenShannonView {
            rate: splat(rows.inverse_temperature),
            offset: splat(ln_ratio_of_weights(self.beta) - rows.relative_delta),
            zero: splat(0.0),
            two: splat(2.0),
            tiny: splat(TINY),
        }
    }

    fn finish(self, sum: f64) -> Option<Outer> {
        let rest = 1.0 - self.beta;
        let entropy = -(self.beta * self.beta.ln() + rest * rest.ln());
        let value = entropy + sum;
        (value >= SMALLEST_SHARE * entropy).then_some(Outer { value, slope: 1.0 })
    }
}

/// Weights of a mixture that f32 lanes take, of rows with little in common. With 0.999 gradients are off by 1.4e-6 of their norm.
pub(super) fn is_even_enough(weight: f64) -> bool {
    (1e-2..=0.99).contains(&weight)
}

/// Of the value of rows with nothing in common; below, little is left of it.
pub(super) const SMALLEST_SHARE: f64 = 0.29;

/// About the smallest normal number: no class has less, but 0.
pub(super) const TINY: f64 = 1e-37;

/// ln(β/(1−β)).
pub(super) fn ln_ratio_of_weights(beta: f64) -> f64 {
    beta.ln() - (1.0 - beta).ln()
}

#[derive(Clone, Copy)]
pub(crate) struct DisjointJensenShannonView<V> {
    rate: V,
    /// What is added to (x − y)/T of relative logits to give ln(a/b).
    offset: V,
    zero: V,
    two: V,
    tiny: V,
}

impl<V: Lanes> DisjointView<V> for DisjointJensenShannonView<V> {
    #[inline(always)]
    fn class(&self, pair: &DisjointPair<V>) -> Class<V> {
        let (a, b) = (pair.p, pair.q);
        let s = a.min(b).divide_relaxed((a + b + a.max(b)).max(self.tiny));
        let ln = s.mul_add_relaxed(self.two, atanh_tail_on_third(pair.token, s));
        // ln(a/b), with the rounding of x − y.
        let ratio = pair.relative_difference.mul_add_relaxed(self.rate, self.offset);
        let d_ln_p = a * (ratio.min(self.zero) - ln);
        let d_ln_q = b * ((-ratio).min(self.zero) - ln);
        Class { value: d_ln_p + d_ln_q, d_ln_p, d_ln_q }
    }
}

/// β = ½ from probabilities: ½(p + q)·g with g = ½[(1 + σ)·ln(1 + σ) + (1 − σ)·ln(1 − σ)], σ = |p − q|/(p + q).
///
/// Up to σ = ⅓ it is σ² times a polynomial in σ²; beyond, with ln(1 − σ) = ln(1 + σ) − u, it is ln(1 + σ) − ½(1 − σ)·u, the
/// logarithm a polynomial in σ − ⅔. No division is left but that of σ.
#[derive(Clone, Copy)]
pub(crate) struct EvenOfProbabilities;

impl EvenOfProbabilities {
    /// Of g/σ² in σ² up to 1/9: minimax in absolute error, 2.1e-18.
    const NEAR: &'static [f64] = &[
        0.5,
        0.083_333_333_333_336_78,
        0.033_333_333_332_309_05,
        0.017_857_142_974_612_886,
        0.011_111_104_287_615_012,
        0.007_575_984_421_409_666,
        0.005_489_938_991_306_624,
        0.004_223_048_369_598_351,
        0.002_854_706_131_412_372,
        0.004_235_158_661_846_857,
    ];
    /// Of ln(1 + σ) in σ − ⅔ from ⅓ to 1: minimax in absolute error, 1.8e-17.
    const FAR: &'static [f64] = &[
        0.510_825_623_765_990_7,
        0.6,
        -0.180_000_000_000_016_62,
        0.072_000_000_000_009_4,
        -0.032_399_999_996_861_21,
        0.015_551_999_998_225_848,
        -0.007_776_000_225_370_38,
        0.003_999_085_841_670_657,
        -0.002_099_512_068_215_417_2,
        0.001_119_739_516_890_645,
        -0.000_604_812_894_895_724_1,
        0.000_329_900_923_961_305_63,
        -0.000_179_812_400_186_946_82,
        9.957_050_548_478_443e-5,
        -6.451_910_740_445_528e-5,
        3.617_368_883_706_804e-5,
    ];
}

impl OfProbabilities for EvenOfProbabilities {
    #[inline(always)]
    fn class<V: Lanes>(self, class: &Probabilities<V>) -> V {
        let Probabilities { token, sum, sigma, u, .. } = *class;
        let splat = |value| V::splat(token, value);
        let half = splat(0.5);
        let squared = sigma * sigma;
        let near = squared * squared.polynomial(token, Self::NEAR);
        let far = (sigma - splat(2.0 / 3.0)).polynomial(token, Self::FAR) - half * (splat(1.0) - sigma) * u;
        half * sum * V::select(sigma.le(splat(1.0 / 3.0)), near, far)
    }
}
