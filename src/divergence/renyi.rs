//! Rényi's divergence of order α, ln(S) / (α − 1) with S = Σ p^α q^(1−α).
//!
//! What is summed is the alpha-divergence, (S − 1)/(α(α − 1)), whose limits for α → 1 and α → 0 are the two KL, so that
//! nothing grows or vanishes on the way there: f = p^α q^(1−α)/(α(α − 1)), f̃ = f − p/(α − 1) + q/α ≥ 0.
//!
//! Let e be the larger of p and q, s = e·e^(−u) the smaller, τ = 1 − α and τ′ = α where p is the larger, exchanged where q is:
//! τ + τ′ = 1, and p^α q^(1−α) = e·e^(−τu) = s·e^(τ′u). With E(t) = e^(−t) − 1 + t,
//!
//! f̃ = e·[E(u) − E(τu)/τ]/τ′ = [e·(1 − (1 + u)e^(−u)) − s·E(−τ′u)/τ′]/τ,
//! ∂f̃/∂ln e = −e·(e^(−τu) − 1)/τ and ∂f̃/∂ln s = −s·(e^(τ′u) − 1)/τ′,
//!
//! of which the first is for τ ≤ ½, the second for the others: what is divided by τ or τ′ is never the difference of things
//! much larger. Where u is large, the parts of first order in E cancel, and are left out.
//!
//! S leaves the range of floats where p and q differ by hundreds of nats, while its logarithm stays a plain number, and
//! f̃ cancels where they have little in common (S below ½). Such rows are summed again, p^α q^(1−α) relative to the largest.

use super::disjoint_pair::DisjointPair;
use super::pair::Pair;
use super::{Class, Disjoint, DisjointView, Divergence, Infinite, Outer};
use crate::simd::exp::{self, ScaledExp};
use crate::simd::{Lanes, Scalar};

#[derive(Clone, Copy)]
pub(crate) struct Renyi {
    alpha: f64,
    /// The largest score, once rescaled.
    largest: Option<f64>,
    /// ln S and more, once known: slopes per probability are relative to it.
    ln_sum: f64,
}

impl Renyi {
    pub(crate) fn new(alpha: f64) -> Self {
        Renyi { alpha, largest: None, ln_sum: 0.0 }
    }

    /// Of two numbers for 1 − α and α: that of τ, and that of τ′.
    #[inline(always)]
    fn by_larger<V: Lanes>(pair: &Pair<V>, complement: f64, alpha: f64) -> (V, V) {
        let (complement, alpha) = (V::splat(pair.token, complement), V::splat(pair.token, alpha));
        (pair.where_p_larger(complement, alpha), pair.where_p_larger(alpha, complement))
    }

    /// factor·e^exponent for classes that both rows have, else 0.
    #[inline(always)]
    fn slope<V: Lanes>(pair: &Pair<V>, exponent: V, factor: f64) -> V {
        let token = pair.token;
        let slope = V::splat(token, factor) * exp::saturating_exp(token, exponent);
        V::select(pair.shared(), slope, V::splat(token, 0.0))
    }

    /// −ln α of small orders, which bring slopes of the smallest probabilities back into range: taken out of their exponents.
    fn ln_inverse_order(self) -> f64 {
        (-self.alpha.ln()).clamp(0.0, 40.0)
    }

    /// What scores are multiplied by to be logarithms of p^α q^(1−α): large orders are taken out of them.
    fn unit(self) -> f64 {
        (self.alpha - 1.0).max(1.0)
    }

    /// p^α q^(1−α) relative to the largest; 0 for classes that one row lacks.
    #[inline(always)]
    fn relative<V: Lanes>(self, pair: &Pair<V>, largest: f64) -> V {
        let token = pair.token;
        let above = (self.score(pair) - V::splat(token, largest)) * V::splat(token, self.unit());
        V::select(pair.shared(), exp::exp(token, above), V::splat(token, 0.0))
    }
}

impl Divergence for Renyi {
    const HAS_OUTER: bool = true;
    const HAS_LONE_SLOPES: bool = true;

    #[cfg(test)]
    fn definition(self, ln_p: f64, ln_q: f64) -> (f64, f64, f64) {
        let (alpha, complement) = (self.alpha, 1.0 - self.alpha);
        let nothing = ln_p == f64::NEG_INFINITY || (ln_q == f64::NEG_INFINITY && alpha < 1.0);
        let power = if nothing { 0.0 } else { (alpha * ln_p + complement * ln_q).exp() };
        (power, alpha * power, complement * power)
    }

    #[cfg(test)]
    fn outer_definition(self, sum: f64) -> Outer {
        let rest = self.alpha - 1.0;
        Outer { value: sum.ln() / rest, slope: 1.0 / (rest * sum) }
    }

    #[inline(always)]
    fn class<V: Lanes>(self, pair: &Pair<V>) -> Class<V> {
        let token = pair.token;
        if let Some(largest) = self.largest {
            // Slopes of ln S, α·f and (1−α)·f over α − 1: what is left out, a multiple of p and of q, drops out of the
            // gradient of logits.
            let f = self.relative(pair, largest);
            return Class { value: f, d_ln_p: V::splat(token, self.alpha / (self.alpha - 1.0)) * f, d_ln_q: -f };
        }
        let zero = V::splat(token, 0.0);
        let complement = 1.0 - self.alpha;
        let (tau, rest) = Self::by_larger(pair, complement, self.alpha);
        let (inverse_tau, inverse_rest) = Self::by_larger(pair, 1.0 / complement, 1.0 / self.alpha);
        let (u, decay) = (pair.u, &pair.decay);
        let first = tau.le(V::splat(token, 0.5));
        let close = u.lt(V::splat(token, 1.0));
        // Of τu, or of −τ′u.
        let exponent = V::select(first, tau * u, -(rest * u));
        let scaled = exp::Decay::new(token, exponent);
        // Products with e^(−u) first: it is 0 where the others are large.
        let of_smaller = decay.exp * scaled.expm1;
        let near = V::select(
            first,
            (decay.excess - scaled.excess * inverse_tau) * inverse_rest,
            (decay.deficit(token, u) - decay.exp * scaled.excess * inverse_rest) * inverse_tau,
        );
        let far = V::select(
            first,
            (decay.expm1 - scaled.expm1 * inverse_tau) * inverse_rest,
            -(of_smaller * inverse_rest + decay.expm1) * inverse_tau,
        );
        let mut value = V::select(close, near, far);
        // Of a class that one row lacks f is 0, whatever the order does to u.
        let lone = pair.lone();
        let mut no_slope = lone;
        // The decay saturates where e^(−τu) leaves the range of the lanes; the sum must not look finite there, unless p is so
        // small that nothing is left of p^α q^(1−α).
        if self.alpha > 1.0 {
            let floor = V::splat(token, -V::Scalar::EXP_FLOOR);
            let lost = V::and(exponent.lt(floor), pair.shared());
            let nothing = (pair.ln_larger - exponent).lt(floor);
            value = V::select(lost, V::select(nothing, zero, V::splat(token, f64::INFINITY)), value);
            no_slope = V::or(lone, V::and(lost, nothing));
        }
        // e^(−τu) − 1, and e^(−τu) − e^(−u).
        let to_larger = V::select(first, scaled.expm1, of_smaller + decay.expm1);
        let difference = V::select(close, scaled.expm1 - decay.expm1, scaled.exp - decay.exp);
        let to_smaller = V::select(first, difference, of_smaller);
        let slope_of_larger = V::select(no_slope, zero, -(to_larger * inverse_tau));
        let slope_of_smaller = V::select(no_slope, zero, -(to_smaller * inverse_rest));
        let slope_of_larger = V::select(lone, inverse_tau, slope_of_larger);
        let value = V::select(lone, inverse_tau, value);
        let (d_larger, d_smaller) = (pair.larger * slope_of_larger, pair.larger * slope_of_smaller);
        Class {
            value: pair.larger * value,
            d_ln_p: pair.where_p_larger(d_larger, d_smaller),
            d_ln_q: pair.where_p_larger(d_smaller, d_larger),
        }
    }

    fn linear(self) -> (f64, f64) {
        if self.largest.is_some() { (0.0, 0.0) } else { (1.0 / (self.alpha - 1.0), -1.0 / self.alpha) }
    }

    fn linear_sum(self) -> f64 {
        if self.largest.is_some() { 0.0 } else { 1.0 / (self.alpha - 1.0) / self.alpha }
    }

    #[inline(always)]
    fn given_slopes<V: Lanes>(self, pair: &Pair<V>, class: &Class<V>) -> (V, V) {
        if self.largest.is_some() {
            return (class.d_ln_p, class.d_ln_q);
        }
        let token = pair.token;
        let (tau, _) = Self::by_larger(pair, 1.0 - self.alpha, self.alpha);
        let zero = V::splat(token, 0.0);
        let exponent = -(tau * pair.u);
        // Where e is below all numbers, by its logarithm.
        let product = pair.larger * exp::saturating_exp(token, exponent);
        let f = V::select(zero.lt(pair.larger), product, exp::saturating_exp(token, pair.ln_larger + exponent));
        let f = V::select(pair.shared(), f, zero);
        (f * V::splat(token, 1.0 / (self.alpha - 1.0)), f * V::splat(token, -1.0 / self.alpha))
    }

    #[inline(always)]
    fn slopes_per_probability<V: Lanes>(self, pair: &Pair<V>) -> (V, V) {
        let token = pair.token;
        let (order, d) = (self.alpha - 1.0, pair.log_ratio);
        // f/p and f/q as exponentials of their own.
        let (exponents, factors) = if let Some(largest) = self.largest {
            let ln_f = (self.score(pair) - V::splat(token, largest)) * V::splat(token, self.unit());
            let ln_p = pair.where_p_larger(pair.ln_larger, pair.ln_larger + d);
            let small = self.ln_inverse_order();
            let factor = self.alpha * small.exp() / order;
            ((ln_f - ln_p - V::splat(token, small), ln_f - (ln_p - d)), (factor, -1.0))
        } else {
            let ln_sum = V::splat(token, -self.ln_sum);
            let of_p = d.mul_add(V::splat(token, order), ln_sum);
            let of_q = d.mul_add(V::splat(token, self.alpha), ln_sum);
            ((of_p, of_q), (1.0 / order, -1.0 / self.alpha))
        };
        (Self::slope(pair, exponents.0, factors.0), Self::slope(pair, exponents.1, factors.1))
    }

    fn lone_slopes(self) -> (f64, f64) {
        // What is summed again has them taken off already.
        if self.largest.is_some() { (0.0, 0.0) } else { (1.0 / (1.0 - self.alpha), 1.0 / self.alpha) }
    }

    #[inline(always)]
    fn slopes_beyond_lone<V: Lanes>(self, pair: &Pair<V>, class: &Class<V>) -> (V, V) {
        self.given_slopes(pair, class)
    }

    fn for_disjoint_rows(self) -> Option<impl Disjoint> {
        // Larger orders make more of the errors of f32 lanes.
        (self.alpha <= 4.0).then_some(DisjointRenyi { alpha: self.alpha })
    }

    fn infinite_where(self) -> Infinite {
        Infinite { q_zero: self.alpha > 1.0, p_zero: false }
    }

    fn slopes_at_zero(self) -> (f64, f64) {
        // p^(α−1) q^(1−α)/(α − 1) and −p^α q^(−α)/α, times φ′ > 0.
        (if self.alpha < 1.0 { f64::NEG_INFINITY } else { 0.0 }, f64::NEG_INFINITY)
    }

    /// For α > 1 the exponent τu is not bounded by the weight of its class, and its rounding in f32 would show; f32 has no
    /// room for the inverses of orders next to 0 and 1.
    fn needs_wide_lanes(self) -> bool {
        !(1e-3..=0.999).contains(&self.alpha)
    }

    fn finish(self, near: f64) -> Outer {
        let order = self.alpha - 1.0;
        if let Some(largest) = self.largest {
            return Outer { value: largest * (self.unit() / order) + near.ln() / order, slope: 1.0 / near };
        }
        // S − 1; products in this order stay in range.
        let above = self.alpha * (order * near);
        // S cancels for nearly disjoint rows, and so do the slopes: to be summed again.
        if above <= -0.5 {
            return Outer { value: f64::INFINITY, slope: f64::NAN };
        }
        Outer { value: above.ln_1p() / order, slope: self.alpha / (1.0 + above) }
    }

    #[inline(always)]
    fn score<V: Lanes>(self, pair: &Pair<V>) -> V {
        let token = pair.token;
        let unit = self.unit();
        let (tau, _) = Self::by_larger(pair, (1.0 - self.alpha) / unit, self.alpha / unit);
        pair.ln_larger * V::splat(token, 1.0 / unit) - tau * pair.u
    }

    fn at_sum(self, near: f64) -> (Self, f64) {
        if self.largest.is_some() {
            return (self, 1.0);
        }
        let above = self.alpha * ((self.alpha - 1.0) * near);
        if self.alpha < 1.0 {
            let ln_sum = above.ln_1p() + self.ln_inverse_order();
            return (Renyi { ln_sum, ..self }, (1.0 + above) * self.ln_inverse_order().exp());
        }
        if above <= 0.0 {
            return (self, 1.0);
        }
        (Renyi { ln_sum: above.ln_1p(), ..self }, 1.0 + above)
    }

    fn cancels_of_given_rows(self, near: f64, excess: f64, above_one: f64) -> bool {
        /// How many times S its parts may be.
        const MOST: f64 = 4.0;
        let parts = [self.alpha * ((self.alpha - 1.0) * near), self.alpha * excess, above_one];
        let size: f64 = parts.iter().map(|part| part.abs()).sum();
        let accurate = size <= MOST * (1.0 + parts.iter().sum::<f64>());
        // Large orders multiply the rounding of the sums; identical rows have nothing to lose.
        self.largest.is_none() && ((self.alpha > 2.0 && near != 0.0) || !accurate)
    }

    fn rescaled(self, largest: f64) -> Self {
        Renyi { largest: Some(largest), ..self }
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
