//! Rényi's divergence of order α, ln(S) / (α − 1) with S = Σ p^α q^(1−α).
//!
//! f = p^α q^(1−α), f̃ = f − αp − (1−α)q, of one sign: negative for α < 1, positive for α > 1.
//! With e the larger of p and q and u = |ln p − ln q|, f = e·exp(−τu), where τ is 1−α where p is larger, else α, and
//! f̃ = e·[E(τu) − τ·E(u)] with E(t) = e^(−t) − 1 + t.
//!
//! S leaves the range of floats where p and q differ by hundreds of nats, while its logarithm stays a plain number, and
//! f̃ cancels where they have little in common (S below ½). Such rows are summed again, Σf relative to the largest class.

use super::{Class, Disjoint, DisjointView, Divergence, Infinite, Outer};
use crate::error::Error;
use crate::row::disjoint::DisjointPair;
use crate::row::pair::Pair;
use crate::simd::exp::{self, ScaledExp};
use crate::simd::{Lanes, Scalar};

#[derive(Clone, Copy)]
pub(crate) struct Renyi {
    alpha: f64,
    /// ln of the class that f is given relative to, once rescaled.
    ln_largest: Option<f64>,
}

impl Renyi {
    pub(crate) fn new(alpha: f64) -> Result<Self, Error> {
        if alpha > 0.0 && alpha.is_finite() && alpha != 1.0 {
            Ok(Renyi { alpha, ln_largest: None })
        } else {
            Err(Error::Parameter { name: "alpha", value: alpha, domain: "positive, finite and not 1" })
        }
    }

    /// τ of each lane.
    #[inline(always)]
    fn tau<V: Lanes>(self, pair: &Pair<V>) -> V {
        let token = pair.token();
        pair.where_p_larger(V::splat(token, 1.0 - self.alpha), V::splat(token, self.alpha))
    }
}

impl Divergence for Renyi {
    const HAS_OUTER: bool = true;

    #[inline(always)]
    fn class<V: Lanes>(self, pair: &Pair<V>) -> Class<V> {
        let token = pair.token();
        let alpha = V::splat(token, self.alpha);
        let complement = V::splat(token, 1.0 - self.alpha);
        if let Some(ln_largest) = self.ln_largest {
            // Slopes αf and (1−α)f: what is left out, αp and (1−α)q, drops out of the gradient of logits.
            let f = exp::exp(token, self.ln_class(pair) - V::splat(token, ln_largest));
            return Class { value: f, d_ln_p: alpha * f, d_ln_q: complement * f };
        }
        let tau = self.tau(pair);
        let exponent = tau * pair.u;
        let scaled = exp::Decay::new(token, exponent);
        // The two are equal; where u is large, the terms τu of the first would cancel.
        let near = scaled.excess - tau * pair.decay.excess;
        let far = scaled.expm1 - tau * pair.decay.expm1;
        let mut value = pair.larger * V::select(pair.u.lt(V::splat(token, 1.0)), near, far);
        // The decay saturates where e^(−τu) leaves the range of the lanes; the sum must not look finite there.
        if self.alpha > 1.0 {
            // A class that neither row has is not lost.
            let lost = exponent.lt(V::splat(token, -V::Scalar::EXP_FLOOR));
            let exists = V::splat(token, -0.5 * V::Scalar::HUGE).lt(pair.ln_larger);
            value = V::select(V::and(lost, exists), V::splat(token, f64::INFINITY), value);
        }
        // ∂f̃/∂ln p = α(f − p) and ∂f̃/∂ln q = (1−α)(f − q), from whichever of e^(−t) and e^(−t) − 1 is accurate.
        let zero = V::splat(token, 0.0);
        let one = V::splat(token, 1.0);
        let close = pair.u.lt(one);
        let f = V::select(close, scaled.expm1, scaled.exp);
        let larger = V::select(close, zero, one);
        let smaller = V::select(close, pair.decay.expm1, pair.decay.exp);
        let to_p = f - pair.where_p_larger(larger, smaller);
        let to_q = f - pair.where_p_larger(smaller, larger);
        Class { value, d_ln_p: alpha * pair.larger * to_p, d_ln_q: complement * pair.larger * to_q }
    }

    fn linear(self) -> (f64, f64) {
        if self.ln_largest.is_some() { (0.0, 0.0) } else { (self.alpha, 1.0 - self.alpha) }
    }

    #[inline(always)]
    fn given_slopes<V: Lanes>(self, pair: &Pair<V>, class: &Class<V>) -> (V, V) {
        if self.ln_largest.is_some() {
            return (class.d_ln_p, class.d_ln_q);
        }
        let token = pair.token();
        let f = pair.larger * exp::Decay::new(token, self.tau(pair) * pair.u).exp;
        (V::splat(token, self.alpha) * f, V::splat(token, 1.0 - self.alpha) * f)
    }

    type Disjoint = DisjointRenyi;

    fn for_disjoint_rows(self) -> Option<DisjointRenyi> {
        // Larger orders make more of the errors of f32 lanes.
        (self.alpha <= 4.0).then_some(DisjointRenyi { alpha: self.alpha })
    }

    fn infinite_where(self) -> Infinite {
        Infinite { q_zero: self.alpha > 1.0, p_zero: false }
    }

    fn slopes_at_zero(self) -> (f64, f64) {
        // α p^(α−1) q^(1−α) and (1−α) p^α q^(−α).
        if self.alpha < 1.0 { (f64::INFINITY, f64::INFINITY) } else { (0.0, f64::NEG_INFINITY) }
    }

    /// For α > 1 the exponent τu is not bounded by the weight of its class, and its rounding in f32 would show.
    fn needs_wide_lanes(self) -> bool {
        self.alpha > 1.0
    }

    fn finish(self, near: f64) -> Outer {
        let order = self.alpha - 1.0;
        if let Some(ln_largest) = self.ln_largest {
            return Outer { value: (ln_largest + near.ln()) / order, slope: 1.0 / (order * near) };
        }
        // S = 1 + near cancels for nearly disjoint rows, and so do the slopes f − p and f − q: to be summed again.
        if near <= -0.5 {
            return Outer { value: f64::INFINITY, slope: f64::NAN };
        }
        Outer { value: near.ln_1p() / order, slope: 1.0 / (order * (1.0 + near)) }
    }

    #[inline(always)]
    fn ln_class<V: Lanes>(self, pair: &Pair<V>) -> V {
        pair.ln_larger - self.tau(pair) * pair.u
    }

    fn rescaled(self, ln_largest: f64) -> Self {
        Renyi { ln_largest: Some(ln_largest), ..self }
    }
}

/// f = p^α q^(1−α) itself, with slopes αf and (1−α)f.
#[derive(Clone, Copy)]
pub(crate) struct DisjointRenyi {
    alpha: f64,
}

impl DisjointRenyi {
    /// Whether f is p times a power of p/q, else q times one: of the two, what is lost where a probability is below the
    /// smallest f32 is less than 1e-19 a class.
    fn is_of_p(self) -> bool {
        self.alpha >= 0.5
    }
}

impl Disjoint for DisjointRenyi {
    type View<V: Lanes> = DisjointRenyiView<V>;

    #[inline(always)]
    fn view<V: Lanes>(self, token: V::Token, inverse_temperature: f64, delta: f64) -> DisjointRenyiView<V> {
        /// Powers beyond 2^±100 are not told apart.
        const BITS: f64 = 100.0;
        // f = p·(p/q)^(α−1) = q·(p/q)^α.
        let order = if self.is_of_p() { self.alpha - 1.0 } else { self.alpha };
        let reach = BITS * std::f64::consts::LN_2 / order.abs();
        let splat = |value| V::splat(token, value);
        DisjointRenyiView {
            of_p: self.is_of_p(),
            alpha: splat(self.alpha),
            complement: splat(1.0 - self.alpha),
            power: ScaledExp::new(token, order * inverse_temperature, order * delta, 1.0),
            rate: splat(order * inverse_temperature),
            differences: (splat((delta - reach) / inverse_temperature), splat((delta + reach) / inverse_temperature)),
            largest_power: splat(if self.alpha > 1.0 { 66.0_f64.exp2() } else { f64::INFINITY }),
        }
    }

    fn finish(self, sum: f64) -> Option<Outer> {
        let order = self.alpha - 1.0;
        // Near 1 its logarithm cancels; far below, the classes lost weigh something.
        let accurate = sum.ln().abs() >= 0.35 && (1e-5..1e30).contains(&sum);
        accurate.then(|| Outer { value: sum.ln() / order, slope: 1.0 / (order * sum) })
    }
}

#[derive(Clone, Copy)]
pub(crate) struct DisjointRenyiView<V: Lanes> {
    of_p: bool,
    alpha: V,
    complement: V,
    /// The power of p/q, from x − y.
    power: ScaledExp<V>,
    /// Its derivative's factor.
    rate: V,
    /// The range of x − y.
    differences: (V, V),
    /// With larger ones, classes below the smallest f32 could matter: the sum becomes infinite, which is refused.
    largest_power: V,
}

impl<V: Lanes> DisjointView<V> for DisjointRenyiView<V> {
    #[inline(always)]
    fn class(&self, pair: &DisjointPair<V>) -> Class<V> {
        let (difference, error) = pair.difference;
        let power = self.power.at(difference.max(self.differences.0).min(self.differences.1));
        let f = if self.of_p { pair.p } else { pair.q } * power;
        let f = (f * error).mul_add_relaxed(self.rate, f);
        let infinity = V::splat(pair.token, f64::INFINITY);
        let value = V::select(self.largest_power.lt(power), infinity, f);
        Class { value, d_ln_p: self.alpha * f, d_ln_q: self.complement * f }
    }
}
