//! The first look at a block of two rows: some of its largest classes.

use crate::element::Element;
use crate::row::pair::LogRatio;
use crate::row::runs::{Step, sums};
use crate::row::two_floats::TwoFloats;
use crate::rows::{Block, Row};
use crate::simd::exp::exp;
use crate::simd::{Lanes, Scalar};

/// What some of the largest classes of a block tell about it.
pub(crate) struct Outlook {
    pub(crate) largest: f64,
    /// The smallest element of both rows.
    pub(crate) smallest: f64,
    /// For which the norm of p·t is least: it is at most about that of the gradient, p·d.
    pub(crate) center: TwoFloats,
    /// Whether x − y will do without its rounding error, which is as small against t, and e^(−t) − 1, as against x − y.
    pub(crate) steady: bool,
}

/// Looks at a block of which neither row lacks a class, with p as e^(x/T).
#[inline(always)]
pub(crate) fn outlook<V: Lanes>(token: V::Token, p: Row<'_>, q: Row<'_>, rate: f64) -> Outlook {
    Tops::<V>::new(token, p, q).outlook(token, rate)
}

/// How many times the norm of p·t that of p·c may be, squared, for differences without their rounding errors.
const STEADY: f64 = 16.0;

/// Pairs of numbers with the largest x so far, some dozens of them, and the smallest of all.
#[derive(Clone, Copy)]
struct Tops<V> {
    pairs: [(V, V); CHAINS],
    /// The smallest elements.
    smallest: [V; CHAINS],
}

/// Nats from the first difference to the mean from which the mean is found again, relative to itself.
const FAR: f64 = 1.0;

/// Chains of comparisons that hide each other's latency.
const CHAINS: usize = 4;

impl<V: Lanes> Tops<V> {
    /// The largest x of each lane and chain, and its y.
    #[inline(always)]
    fn new(token: V::Token, p: Row<'_>, q: Row<'_>) -> Self {
        let lowest = V::splat(token, -V::Scalar::HUGE);
        let mut tops = Tops { pairs: [(lowest, lowest); CHAINS], smallest: [V::splat(token, f64::INFINITY); CHAINS] };
        // The first class of the rows pads them: it is no smaller than the smallest.
        let blocks = [Block::new(p, p.get(0)), Block::new(q, q.get(0))];
        sums(token, p.classes(), blocks, &mut tops);
        tops
    }

    #[inline(always)]
    fn take_largest(&mut self, chain: usize, x: V, y: V) {
        let (top, partner) = self.pairs[chain];
        let larger = top.lt(x);
        self.pairs[chain] = (V::select(larger, x, top), V::select(larger, y, partner));
    }

    #[inline(always)]
    fn take_smallest(&mut self, chain: usize, x: V, y: V) {
        self.smallest[chain] = self.smallest[chain].min(x.min(y));
    }

    #[inline(always)]
    fn outlook(&self, token: V::Token, rate: f64) -> Outlook {
        let [a, b, c, d] = self.pairs;
        let largest = a.0.max(b.0).max(c.0.max(d.0)).largest();
        let [e, f, g, h] = self.smallest;
        let smallest = -(-e.min(f).min(g.min(h))).largest();
        let top = V::splat(token, largest);
        // Relative to one of the differences, so that the mean of equal ones is exact.
        let some = if a.0.to_array()[0].to_f64() > -V::Scalar::HUGE { a } else { b };
        let first = |lanes: V| lanes.to_array()[0].to_f64();
        let mut origin = TwoFloats::scaled_difference(first(some.0), first(some.1), rate);
        let mut moments = self.moments(token, rate, top, origin);
        // Of classes that are masked in one row only, the difference rounds those of all others.
        if moments.mean().abs() > FAR {
            origin = origin.plus(moments.mean());
            moments = self.moments(token, rate, top, origin);
        }
        let Moments { squares, cross, norm } = moments;
        let center = origin.plus(moments.mean());
        let parts = center.high * center.high * squares;
        let steady = parts <= STEADY * (norm - cross * moments.mean())
            && parts <= STEADY * self.bounded_norm(token, rate, top, center);
        Outlook { largest, smallest, center, steady }
    }

    /// Of the gradient of q, about: of a class that q has next to nothing of it is no more than p, however large t is.
    #[inline(always)]
    fn bounded_norm(&self, token: V::Token, rate: f64, top: V, center: TwoFloats) -> f64 {
        let log_ratio = LogRatio::new(token, rate, center);
        let mut norm = V::splat(token, 0.0);
        for (x, y) in self.pairs {
            let weight = exp(token, (x - top) * V::splat(token, rate));
            let moment = weight * log_ratio.of(x, y).min(V::splat(token, 1.0));
            norm = moment.mul_add_relaxed(moment, norm);
        }
        norm.sum()
    }

    /// Of log-ratios less `origin`.
    #[inline(always)]
    fn moments(&self, token: V::Token, rate: f64, top: V, origin: TwoFloats) -> Moments {
        let log_ratio = LogRatio::new(token, rate, origin);
        let zero = V::splat(token, 0.0);
        let [mut squares, mut cross, mut norm] = [zero; 3];
        for (x, y) in self.pairs {
            let weight = exp(token, (x - top) * V::splat(token, rate));
            let t = log_ratio.of(x, y);
            let moment = weight * t;
            squares = weight.mul_add_relaxed(weight, squares);
            cross = weight.mul_add_relaxed(moment, cross);
            norm = moment.mul_add_relaxed(moment, norm);
        }
        Moments { squares: squares.sum(), cross: cross.sum(), norm: norm.sum() }
    }
}

impl<V: Lanes> Step<V, 2, 0, 0> for Tops<V> {
    const CHAINS: usize = CHAINS;

    #[inline(always)]
    fn step<const WHOLE: bool>(&mut self, chain: usize, [x, y]: [V; 2], _: &mut [V; 0]) -> [V; 0] {
        self.take_largest(chain, x, y);
        self.take_smallest(chain, x, y);
        []
    }
}

/// Σw², Σw²t and Σw²t².
struct Moments {
    squares: f64,
    cross: f64,
    norm: f64,
}

impl Moments {
    fn mean(&self) -> f64 {
        self.cross / self.squares
    }
}
