//! KL(p‖m), m = αp + (1−α)q.
//!
//! With w = m/p − 1 = (1−α)(q/p − 1) and L(w) = w − ln(1 + w) ≥ 0, f = −p·ln(1 + w) and f̃ = p·L(w) = f + m − p, so that
//! λ = 1 − α = −μ. Of the slopes b = ∂f̃/∂ln q = (1−α)·w·pq/m has one product, and a = ∂f̃/∂ln p is f̃ − b, since f̃ is
//! homogeneous: where p is the larger, w and b are negative, and nothing cancels; where q is and w < 1, f̃ is at most half of b;
//! beyond, f̃ = m − p − p·ln(1 + w) and a = p·(α(m−p)/m − ln(1 + w)).
//!
//! Of pairs in f32 lanes α is from 0.05 to ½, and one logarithm does: with e the larger of p and q, e(1 + v) the smaller, γ its weight in
//! m = e(1 + γv), u = −ln(1 + v) and h = v + u, it is of 1 + w where p is the larger, whose w is γv, or w < 1, and of 1 + γv
//! elsewhere, where f̃ is e·[(1−α)v² − e^(−u)(h − L(γv))]. Of close rows that would be four parts less three.
//!
//! What is left of the slopes less those of a class that the other row lacks, −ln α − (1−α) and 1 − α, is
//! −p·L(−(1−α)q/m) and −(1−α)pq/m.

use super::disjoint_pair::DisjointPair;
use super::jensen_shannon::{Mixture, SMALLEST_SHARE, TINY, is_even_enough, ln_ratio_of_weights};
use super::pair::Pair;
#[cfg(test)]
use super::times;
use super::{Class, Disjoint, DisjointFacts, DisjointView, Divergence, Infinite, Outer};
use crate::simd::ln::Log1p;
use crate::simd::{Lanes, Scalar};

#[derive(Clone, Copy)]
pub(crate) struct SkewKl {
    alpha: f64,
    /// 0 for α = 1, where m is p and the divergence vanishes; else 1.
    factor: f64,
}

impl SkewKl {
    pub(crate) fn new(alpha: f64) -> Self {
        // Any other weight keeps ln m finite.
        if alpha == 1.0 { SkewKl { alpha: 0.5, factor: 0.0 } } else { SkewKl { alpha, factor: 1.0 } }
    }

    /// 1 − α.
    fn rest(self) -> f64 {
        1.0 - self.alpha
    }

    /// The class in f32 lanes.
    #[inline(always)]
    fn narrow_class<V: Lanes>(self, pair: &Pair<V>) -> Class<V> {
        let token = pair.token;
        let (alpha, rest) = (V::splat(token, self.alpha), V::splat(token, self.rest()));
        let (v, exp) = (pair.decay.expm1, pair.decay.exp);
        let (of_larger, gamma) = (pair.where_p_larger(alpha, rest), pair.where_p_larger(rest, alpha));
        let product = -(rest * v);
        let near = product.lt(exp);
        let (zero, one) = (V::splat(token, 0.0), V::splat(token, 1.0));
        let w = V::select(near, product, zero) / V::select(near, exp, one);
        let log = Log1p::new(token, pair.where_p_larger(gamma * v, V::select(near, w, gamma * v)));
        let change = -(rest * v) / gamma.mul_add(exp, of_larger);
        let slope = rest * change;
        let of_smaller = slope * exp;
        let far_value = rest * v * v - exp * (pair.decay.excess - log.deficit);
        let value = V::select(near, exp * log.deficit, far_value);
        let far_slope = exp * (alpha * change - (pair.bounded_u() + log.ln));
        let d_ln_p = V::select(near, value - slope, far_slope);
        Class {
            value: pair.larger * pair.where_p_larger(log.deficit, value).max(zero),
            d_ln_p: pair.larger * pair.where_p_larger(log.deficit + of_smaller, d_ln_p),
            d_ln_q: pair.larger * pair.where_p_larger(-of_smaller, slope),
        }
    }

    /// pq/m relative to the larger of p and q.
    #[inline(always)]
    fn product<V: Lanes>(self, pair: &Pair<V>) -> V {
        let (alpha, rest) = (V::splat(pair.token, self.alpha), V::splat(pair.token, self.rest()));
        let (of_larger, of_smaller) = (pair.where_p_larger(alpha, rest), pair.where_p_larger(rest, alpha));
        pair.decay.exp / of_smaller.mul_add(pair.decay.exp, of_larger)
    }
}

impl Divergence for SkewKl {
    const HAS_LONE_SLOPES: bool = true;

    #[cfg(test)]
    fn definition(self, ln_p: f64, ln_q: f64) -> (f64, f64, f64) {
        let (p, q, alpha) = (ln_p.exp(), ln_q.exp(), self.alpha);
        let m = alpha * p + (1.0 - alpha) * q;
        if m == 0.0 {
            return (0.0, 0.0, 0.0);
        }
        let f = self.factor * times(p, ln_p - m.ln());
        let slope = self.factor * (1.0 - alpha) * p * q / m;
        (f, f + slope, -slope)
    }

    #[inline(always)]
    fn class<V: Lanes>(self, pair: &Pair<V>) -> Class<V> {
        if !V::Scalar::WIDE {
            return self.narrow_class(pair);
        }
        let token = pair.token;
        let m = Mixture::new(self.alpha, pair);
        let (alpha, rest) = (V::splat(token, self.alpha), V::splat(token, self.rest()));
        let exp = pair.decay.exp;
        // |m − p|/m relative to the larger of p and q.
        let change = -(rest * pair.decay.expm1) / m.share;
        let slope = rest * change;
        let of_smaller = slope * exp;
        let near = exp * m.deficit_of_smaller;
        let far = -(rest * pair.decay.expm1) - exp * m.to_smaller;
        let value = V::select(m.near_smaller, near, far);
        let far_slope = exp * (alpha * change - m.to_smaller);
        let d_ln_p = V::select(m.near_smaller, near - slope, far_slope);
        let larger = pair.larger * V::splat(token, self.factor);
        Class {
            value: larger * pair.where_p_larger(m.deficit_of_larger, value).max(V::splat(token, 0.0)),
            d_ln_p: larger * pair.where_p_larger(m.deficit_of_larger + of_smaller, d_ln_p),
            d_ln_q: larger * pair.where_p_larger(-of_smaller, slope),
        }
    }

    #[inline(always)]
    fn given_slopes<V: Lanes>(self, pair: &Pair<V>, class: &Class<V>) -> (V, V) {
        let rest = V::splat(pair.token, self.factor * self.rest());
        (pair.p.mul_add(rest, class.d_ln_p), -(rest * pair.larger * self.product(pair)))
    }

    #[inline(always)]
    fn slopes_per_probability<V: Lanes>(self, pair: &Pair<V>) -> (V, V) {
        let token = pair.token;
        let m = Mixture::new(self.alpha, pair);
        let one = V::splat(token, 1.0);
        let (alpha, rest) = (V::splat(token, self.alpha), V::splat(token, self.rest()));
        let factor = V::splat(token, self.factor);
        let exp = pair.decay.exp;
        let change = -(rest * pair.decay.expm1) / m.share;
        let w = m.growth_of_smaller;
        let near = m.deficit_of_smaller - w * (w + rest) / (one + w);
        let smaller = V::select(m.near_smaller, near, alpha * change - m.to_smaller);
        let of_p = pair.where_p_larger(m.deficit_of_larger + rest * change * exp, smaller) + rest;
        // (1−α)/(m/e) first: e^(−u) may be below the normal range.
        let of_q = -(rest / m.share * pair.where_p_larger(one, exp));
        (factor * of_p, factor * of_q)
    }

    fn linear(self) -> (f64, f64) {
        let lambda = self.factor * self.rest();
        (lambda, -lambda)
    }

    fn lone_slopes(self) -> (f64, f64) {
        let rest = self.rest();
        // L(−(1−α)), by its series where that would cancel.
        let of_p = if rest < 0.1 {
            rest * rest * (2..20).rev().fold(0.0, |sum, k| sum * rest + 1.0 / f64::from(k))
        } else {
            -self.alpha.ln() - rest
        };
        (self.factor * of_p, self.factor * rest)
    }

    #[inline(always)]
    fn slopes_beyond_lone<V: Lanes>(self, pair: &Pair<V>, class: &Class<V>) -> (V, V) {
        let token = pair.token;
        let half = V::splat(token, 0.5);
        let larger = pair.larger * V::splat(token, self.factor);
        let (of_p, _) = self.lone_slopes();
        let share = V::splat(token, self.rest()) * self.product(pair);
        // (1−α)q/m, where that is at most ½ and p the larger.
        let little = V::and(pair.p_larger, share.le(half));
        let log = Log1p::new(token, V::select(little, -share, -half));
        let difference = pair.p.mul_add(V::splat(token, -of_p), class.d_ln_p);
        (V::select(little, -(larger * log.deficit), difference), -(larger * share))
    }

    fn for_disjoint_rows(self) -> Option<impl Disjoint> {
        (self.factor == 1.0 && is_even_enough(self.alpha)).then_some(DisjointSkewKl { alpha: self.alpha })
    }

    fn infinite_where(self) -> Infinite {
        Infinite { q_zero: false, p_zero: false }
    }

    /// Below, 1 − (1−α) is rounded too much against α; above, the terms of f̃ cancel.
    fn needs_wide_lanes(self) -> bool {
        self.factor == 0.0 || !(0.05..=0.5).contains(&self.alpha)
    }

    fn slopes_at_zero(self) -> (f64, f64) {
        // ln(p/m) + (1−α)q/m and −(1−α)p/m.
        if self.factor == 0.0 { (0.0, 0.0) } else { (f64::NEG_INFINITY, -self.rest() / self.alpha) }
    }
}

/// −ln α less Σp·ln(1 + b/a) with a = αp and b = (1−α)q: terms that vanish where either row lacks the class. What is summed
/// is α times that.
///
/// Let t be −min(a, b)/m. ln(1 + t) is ln(a/m) where a is the larger, else ln(b/m), which is ln(a/m) + ln(b/a). Slopes are
/// a·[ln(a/m) + b/m] and −a·b/m, where a is the larger −a·(t − ln(1 + t)) and a·t.
#[derive(Clone, Copy)]
pub(crate) struct DisjointSkewKl {
    alpha: f64,
}

impl Disjoint for DisjointSkewKl {
    type View<V: Lanes> = DisjointSkewKlView<V>;

    // Of the student, in skew_reverse_kl.
    const P_ALONE: bool = true;

    // Two exponentials, a quotient and a logarithm are in each slope.
    const LARGEST_PARTS: f64 = 4.0;

    fn weights(self) -> (f64, f64) {
        (self.alpha, 1.0 - self.alpha)
    }

    #[inline(always)]
    fn view<V: Lanes>(self, token: V::Token, rows: DisjointFacts) -> DisjointSkewKlView<V> {
        let splat = |value| V::splat(token, value);
        DisjointSkewKlView {
            rate: splat(rows.inverse_temperature),
            offset: splat(ln_ratio_of_weights(self.alpha) - rows.relative_delta),
            zero: splat(0.0),
            one: splat(1.0),
            tiny: splat(TINY),
        }
    }

    fn finish(self, sum: f64) -> Option<Outer> {
        let of_nothing_shared = -self.alpha.ln();
        let slope = 1.0 / self.alpha;
        let value = of_nothing_shared + slope * sum;
        (value >= SMALLEST_SHARE * of_nothing_shared).then_some(Outer { value, slope })
    }
}

#[derive(Clone, Copy)]
pub(crate) struct DisjointSkewKlView<V> {
    rate: V,
    /// What is added to (x − y)/T of relative logits to give ln(a/b).
    offset: V,
    zero: V,
    one: V,
    tiny: V,
}

impl<V: Lanes> DisjointView<V> for DisjointSkewKlView<V> {
    #[inline(always)]
    fn class(&self, pair: &DisjointPair<V>) -> Class<V> {
        let (a, b) = (pair.p, pair.q);
        let t = -a.min(b).divide_relaxed((a + b).max(self.tiny));
        let log = Log1p::of_at_least_half(pair.token, t);
        // b/m.
        let share = V::select(b.le(a), -t, self.one + t);
        // The smaller of ln(a/b) and 0, with the rounding of x − y.
        let beyond = pair.relative_difference.mul_add_relaxed(self.rate, self.offset).min(self.zero);
        Class {
            value: a * (log.ln + beyond),
            // t and −t add to nothing.
            d_ln_p: a * ((t + share) - log.deficit + beyond),
            d_ln_q: -(a * share),
        }
    }
}
