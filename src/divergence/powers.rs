//! Σ p^α q^(1−α), as the alpha-divergences and Rényi's sum it.
//!
//! What is summed is the alpha-divergence, (S − 1)/(α(α − 1)) with S = Σ p^α q^(1−α), whose limits for α → 1 and α → 0 are the
//! two KL, so that nothing grows or vanishes on the way there: f = p^α q^(1−α)/(α(α − 1)), f̃ = f − p/(α − 1) + q/α ≥ 0.
//!
//! Let e be the larger of p and q, s = e·e^(−u) the smaller, τ = 1 − α and τ′ = α where p is the larger, exchanged where q is:
//! τ + τ′ = 1, and p^α q^(1−α) = e·e^(−τu) = s·e^(τ′u). With E(t) = e^(−t) − 1 + t,
//!
//! f̃ = e·[E(u) − E(τu)/τ]/τ′ = [e·(1 − (1 + u)e^(−u)) − s·E(−τ′u)/τ′]/τ,
//! ∂f̃/∂ln e = −e·(e^(−τu) − 1)/τ and ∂f̃/∂ln s = −s·(e^(τ′u) − 1)/τ′,
//!
//! of which the first is for τ ≤ ½, the second for the others: what is divided by τ or τ′ is never the difference of things
//! much larger. Where u is large, the parts of first order in E cancel, and are left out. All of it holds for orders below 0
//! and above 1, where one of τ and τ′ is negative: those of α and 1 − α are each other's with p and q exchanged.
//!
//! S leaves the range of floats where p and q differ by hundreds of nats, and cancels in the sum of f̃ and of what makes f of it
//! for rows taken as given: then p^α q^(1−α) can be summed again relative to the largest.

use super::disjoint_pair::DisjointPair;
use super::pair::Pair;
use super::{Class, DisjointFacts, DisjointView, Infinite, Outer};
use crate::simd::exp::{self, ScaledExp};
use crate::simd::{Lanes, Scalar};

/// The sum of order α.
#[derive(Clone, Copy)]
pub(crate) struct Powers {
    pub(super) alpha: f64,
    /// The largest score, once rescaled.
    pub(super) largest: Option<f64>,
    /// ln S and more, where slopes per probability are to be relative to it.
    pub(super) ln_sum: f64,
    /// ln|α| and ln|α − 1|.
    pub(super) ln_factors: (f64, f64),
}

impl Powers {
    pub(super) fn new(alpha: f64) -> Self {
        Powers { alpha, largest: None, ln_sum: 0.0, ln_factors: (alpha.abs().ln(), (alpha - 1.0).abs().ln()) }
    }

    pub(super) fn rescaled(self, largest: f64) -> Self {
        Powers { largest: Some(largest), ..self }
    }

    /// Whether p^α q^(1−α) is at most max(p, q).
    pub(super) fn is_mean(self) -> bool {
        (0.0..=1.0).contains(&self.alpha)
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
    pub(super) fn ln_inverse_order(self) -> f64 {
        (-self.alpha.abs().ln()).clamp(0.0, 40.0)
    }

    /// What scores are multiplied by to be logarithms of p^α q^(1−α): large orders are taken out of them.
    pub(super) fn unit(self) -> f64 {
        (self.alpha - 1.0).max(-self.alpha).max(1.0)
    }

    /// p^α q^(1−α) relative to the largest; 0 for classes that one row lacks.
    #[inline(always)]
    fn relative<V: Lanes>(self, pair: &Pair<V>, largest: f64) -> V {
        let token = pair.token;
        let above = (self.score(pair) - V::splat(token, largest)) * V::splat(token, self.unit());
        V::select(pair.shared(), exp::exp(token, above), V::splat(token, 0.0))
    }

    #[inline(always)]
    pub(super) fn class<V: Lanes>(self, pair: &Pair<V>) -> Class<V> {
        let token = pair.token;
        if let Some(largest) = self.largest {
            // Slopes of ln S, α·f and (1−α)·f over α − 1: what is left out, a multiple of p and of q, drops out of the gradient of logits.
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
        let value = V::select(close, near, far);
        // Of a class that one row lacks f is 0, whatever the order does to u.
        let lone = pair.lone();
        // e^(−τu) − 1, and e^(−τu) − e^(−u).
        let to_larger = V::select(first, scaled.expm1, of_smaller + decay.expm1);
        let difference = V::select(close, scaled.expm1 - decay.expm1, scaled.exp - decay.exp);
        let to_smaller = V::select(first, difference, of_smaller);
        let slope_of_smaller = V::select(lone, zero, -(to_smaller * inverse_rest));
        let slope_of_larger = V::select(lone, inverse_tau, -(to_larger * inverse_tau));
        let value = V::select(lone, inverse_tau, value);
        let (d_larger, d_smaller) = (pair.larger * slope_of_larger, pair.larger * slope_of_smaller);
        let class = Class {
            value: pair.larger * value,
            d_ln_p: pair.where_p_larger(d_larger, d_smaller),
            d_ln_q: pair.where_p_larger(d_smaller, d_larger),
        };
        if self.is_mean() { class } else { self.with_large_powers(pair, -exponent, class) }
    }

    /// The class, by the logarithm of p^α q^(1−α) where e^growth, or max(p, q) times it, leaves the range of f64: nothing else is
    /// left there of f̃ and its slopes.
    #[inline(always)]
    fn with_large_powers<V: Lanes>(self, pair: &Pair<V>, growth: V, class: Class<V>) -> Class<V> {
        /// ln e, below which e has few digits or none, and growth that makes something of it.
        const SMALL: (f64, f64) = (-700.0, 300.0);
        let splat = |value| V::splat(pair.token, value);
        let small = V::and(pair.ln_larger.lt(splat(SMALL.0)), splat(SMALL.1).lt(growth));
        let large = V::and(pair.shared(), V::or(splat(V::Scalar::EXP_FLOOR).lt(growth), small));
        let [value, d_ln_p, d_ln_q] = self.by_logarithm(pair.token, pair.ln_larger + growth);
        Class {
            value: V::select(large, value, class.value),
            d_ln_p: V::select(large, d_ln_p, class.d_ln_p),
            d_ln_q: V::select(large, d_ln_q, class.d_ln_q),
        }
    }

    /// f, ∂f/∂ln p and ∂f/∂ln q, each in range where it is, from ln(p^α q^(1−α)).
    #[inline(always)]
    fn by_logarithm<V: Lanes>(self, token: V::Token, ln_power: V) -> [V; 3] {
        let (ln_alpha, ln_order) = self.ln_factors;
        let (of_alpha, of_order) = (self.alpha.signum(), (self.alpha - 1.0).signum());
        [
            Self::power(token, ln_power, of_alpha * of_order, ln_alpha + ln_order),
            Self::power(token, ln_power, of_order, ln_order),
            Self::power(token, ln_power, -of_alpha, ln_alpha),
        ]
    }

    /// A power less the logarithm of what divides it, with a sign.
    #[inline(always)]
    fn power<V: Lanes>(token: V::Token, ln_power: V, sign: f64, ln_divisor: f64) -> V {
        V::splat(token, sign) * exp::saturating_exp(token, ln_power - V::splat(token, ln_divisor))
    }

    pub(super) fn linear(self) -> (f64, f64) {
        if self.largest.is_some() { (0.0, 0.0) } else { (1.0 / (self.alpha - 1.0), -1.0 / self.alpha) }
    }

    pub(super) fn linear_sum(self) -> f64 {
        if self.largest.is_some() { 0.0 } else { 1.0 / (self.alpha - 1.0) / self.alpha }
    }

    #[inline(always)]
    pub(super) fn given_slopes<V: Lanes>(self, pair: &Pair<V>, class: &Class<V>) -> (V, V) {
        if self.largest.is_some() {
            return (class.d_ln_p, class.d_ln_q);
        }
        let token = pair.token;
        let (tau, _) = Self::by_larger(pair, 1.0 - self.alpha, self.alpha);
        let zero = V::splat(token, 0.0);
        let exponent = -(tau * pair.u);
        // Where e is below all numbers, or what it is multiplied by above them, by its logarithm.
        let f = pair.larger * exp::saturating_exp(token, exponent);
        let usual = V::and(zero.lt(pair.larger), exponent.lt(V::splat(token, V::Scalar::EXP_FLOOR)));
        let [_, to_p, to_q] = self.by_logarithm(token, pair.ln_larger + exponent);
        let to_p = V::select(usual, f * V::splat(token, 1.0 / (self.alpha - 1.0)), to_p);
        let to_q = V::select(usual, f * V::splat(token, -1.0 / self.alpha), to_q);
        (V::select(pair.shared(), to_p, zero), V::select(pair.shared(), to_q, zero))
    }

    #[inline(always)]
    pub(super) fn slopes_per_probability<V: Lanes>(self, pair: &Pair<V>) -> (V, V) {
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

    pub(super) fn lone_slopes(self) -> (f64, f64) {
        // What is summed again has them taken off already.
        if self.largest.is_some() { (0.0, 0.0) } else { (1.0 / (1.0 - self.alpha), 1.0 / self.alpha) }
    }

    pub(super) fn infinite_where(self) -> Infinite {
        Infinite { q_zero: self.alpha > 1.0, p_zero: self.alpha < 0.0 }
    }

    /// Those of f for p → 0, p^(α−1) q^(1−α)/(α − 1), and for q → 0, −p^α q^(−α)/α.
    pub(super) fn slopes_at_zero(self) -> (f64, f64) {
        (if self.alpha < 1.0 { f64::NEG_INFINITY } else { 0.0 }, if self.alpha > 0.0 { f64::NEG_INFINITY } else { 0.0 })
    }

    /// For α > 1 and α < 0 the exponent τu is not bounded by the weight of its class, and its rounding in f32 would show; f32 has no
    /// room for the inverses of orders next to 0 and 1.
    pub(super) fn needs_wide_lanes(self) -> bool {
        !(1e-3..=0.999).contains(&self.alpha)
    }

    #[inline(always)]
    pub(super) fn score<V: Lanes>(self, pair: &Pair<V>) -> V {
        let token = pair.token;
        let unit = self.unit();
        let (tau, _) = Self::by_larger(pair, (1.0 - self.alpha) / unit, self.alpha / unit);
        pair.ln_larger * V::splat(token, 1.0 / unit) - tau * pair.u
    }

    pub(super) fn cancels_of_given_rows(self, near: f64, excess: f64, above_one: f64) -> bool {
        /// How many times S its parts may be.
        const MOST: f64 = 4.0;
        let parts = [self.alpha * ((self.alpha - 1.0) * near), self.alpha * excess, above_one];
        let size: f64 = parts.iter().map(|part| part.abs()).sum();
        let accurate = size <= MOST * (1.0 + parts.iter().sum::<f64>());
        // Large orders multiply the rounding of the sums; identical rows have nothing to lose.
        self.largest.is_none() && ((self.unit() > 1.0 && near != 0.0) || !accurate)
    }

    /// Slopes with respect to ln p and ln q, infinite where a missing class makes the value so.
    #[inline(always)]
    pub(super) fn or_infinite<V: Lanes>(self, pair: &Pair<V>, slopes: (V, V)) -> (V, V) {
        if self.is_mean() {
            return slopes;
        }
        // Of a class that only p has, for α > 1, and of one that only q has, for α < 0.
        let (has, sign) = if self.alpha > 1.0 { (pair.has.0, 1.0) } else { (pair.has.1, -1.0) };
        let infinite = V::and(pair.lone(), has);
        let infinity = V::splat(pair.token, sign * f64::INFINITY);
        (V::select(infinite, infinity, slopes.0), V::select(infinite, -infinity, slopes.1))
    }

    /// (S − 1)/(α(α − 1)) of what was summed: that itself, or S relative to the largest term, of which no gradient is asked.
    pub(super) fn alpha_divergence(self, near: f64) -> Outer {
        /// e^x is near the end of the range of f64.
        const LARGE: f64 = 700.0;
        let Some(largest) = self.largest else {
            return Outer { value: near, slope: 1.0 };
        };
        let (alpha, order) = (self.alpha, self.alpha - 1.0);
        let ln_sum = largest * self.unit() + near.ln();
        let (ln_alpha, ln_order) = self.ln_factors;
        let value = if ln_sum > LARGE {
            // Its division brings back into range what is not.
            alpha.signum() * order.signum() * (ln_sum - ln_alpha - ln_order).exp()
        } else {
            ln_sum.exp_m1() / alpha / order
        };
        Outer { value, slope: 1.0 }
    }
}

/// p^α q^(1−α).
#[cfg(test)]
pub(super) fn definition(alpha: f64, ln_p: f64, ln_q: f64) -> f64 {
    let nothing = (ln_p == f64::NEG_INFINITY && alpha >= 0.0) || (ln_q == f64::NEG_INFINITY && alpha <= 1.0);
    if nothing { 0.0 } else { (alpha * ln_p + (1.0 - alpha) * ln_q).exp() }
}

/// f = p^α q^(1−α) itself, with slopes αf and (1−α)f.
#[derive(Clone, Copy)]
pub(crate) struct DisjointPowers {
    pub(super) alpha: f64,
}

impl DisjointPowers {
    /// Whether f is p times a power of p/q, else q times one: of the two, what is lost where a probability is below the
    /// smallest f32 is less than 1e-19 a class.
    fn is_of_p(self) -> bool {
        self.alpha >= 0.5
    }

    /// Whether f32 lanes do for the sum: where it is small, the classes lost weigh something.
    pub(super) fn holds(sum: f64) -> bool {
        (1e-5..1e30).contains(&sum)
    }

    #[inline(always)]
    pub(super) fn view<V: Lanes>(self, token: V::Token, rows: DisjointFacts) -> DisjointPowersView<V> {
        /// Powers beyond 2^±100 are not told apart.
        const BITS: f64 = 100.0;
        let DisjointFacts { inverse_temperature, delta, .. } = rows;
        // f = p·(p/q)^(α−1) = q·(p/q)^α.
        let order = if self.is_of_p() { self.alpha - 1.0 } else { self.alpha };
        let reach = BITS * std::f64::consts::LN_2 / order.abs();
        let splat = |value| V::splat(token, value);
        DisjointPowersView {
            of_p: self.is_of_p(),
            alpha: splat(self.alpha),
            complement: splat(1.0 - self.alpha),
            power: ScaledExp::new(token, order * inverse_temperature, order * delta, 1.0),
            rate: splat(order * inverse_temperature),
            differences: (splat((delta - reach) / inverse_temperature), splat((delta + reach) / inverse_temperature)),
            largest_power: splat(if (0.0..=1.0).contains(&self.alpha) { f64::INFINITY } else { 66.0_f64.exp2() }),
        }
    }
}

#[derive(Clone, Copy)]
pub(crate) struct DisjointPowersView<V: Lanes> {
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

impl<V: Lanes> DisjointView<V> for DisjointPowersView<V> {
    #[inline(always)]
    fn class(&self, pair: &DisjointPair<V>) -> Class<V> {
        let (difference, error) = pair.difference;
        let power = self.power.within_range(difference.max(self.differences.0).min(self.differences.1));
        let f = if self.of_p { pair.p } else { pair.q } * power;
        let f = (f * error).mul_add_relaxed(self.rate, f);
        let infinity = V::splat(pair.token, f64::INFINITY);
        let value = V::select(self.largest_power.lt(power), infinity, f);
        Class { value, d_ln_p: self.alpha * f, d_ln_q: self.complement * f }
    }
}
