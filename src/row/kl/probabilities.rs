//! KL of two rows of probabilities taken as given, in one pass: Σ p·ln(p/q).
//!
//! With s = (p − q)/(p + q) and ln(p/q) = 2 atanh s = 2s + 2s³A(s²), a class contributes p·ln(p/q) + q − p =
//! (p − q)·s + 2p·s³A, of second order where p and q are close; and Σ(p − q), whose terms are exact there, is summed in
//! f64. Where p and q differ by more than a factor of two, a power of two is taken out of their ratio first: in f32 lanes by
//! their exponents, which subnormal numbers do not show. Rows with such go to f64 lanes, where f32 has none, and to
//! [`first_pass`](crate::row::divergence::first_pass).

use crate::element::Dtype;
use crate::row::distribution::scan::{PROBE, scan};
use crate::row::distribution::softmax::AHEAD;
use crate::row::distribution::{Distribution, Space};
use crate::row::runs::{self, Step};
use crate::rows::{Block, Row};
use crate::simd::ln::{RoughLogRatio, assemble, atanh_tail_on_third, reduced_ratio};
use crate::simd::{Isa, Kernel, LaneKernel, Lanes, Scalar, Simd, Total};
use crate::threads::Blocks;

/// Values from here on, relative to Σp + Σq, are accurate as plain sums.
const SMALLEST_SHARE: f64 = 0.25;

/// Largest p/q of f32 lanes, which scale by powers of two, and divide by q.
const LARGEST_RATIO: f64 = 8.507_059_173_023_462e37; // 2^126

/// The value; `None` for rows that need a closer look (NaN, a negative number, sums that cancel).
pub(crate) fn kl(p: Distribution<'_>, q: Distribution<'_>, isa: Isa, blocks: &Blocks) -> Option<f64> {
    if p.space != Space::Probs || q.space != Space::Probs {
        return None;
    }
    let wide = p.row.dtype() == Dtype::F64 || q.row.dtype() == Dtype::F64;
    if !wide && let Some(value) = far(p.row, q.row, isa, blocks) {
        return Some(value);
    }
    let parts = blocks.map(p.row.classes(), |start, len| {
        let (p, q) = (p.row.block(start, len), q.row.block(start, len));
        isa.run_lanes(wide, GivenKl { p, q })
    });
    let (mut near, mut excess) = (0.0, 0.0);
    for part in parts.iter() {
        let part = (*part)?;
        near += part.0;
        excess += part.1;
    }
    // Rows that do not quite sum to one: the two parts may cancel.
    let value = near + excess;
    (value.abs() >= 0.5 * near).then_some(value + 0.0)
}

/// The value of rows that have little in common, as the plain sum of p·ln(p/q), whose errors are about 1e-7 of
/// Σp|ln(p/q)| + Σp ≤ value + Σp + 2Σq (where q > p, p·ln(q/p) ≤ q − p).
fn far(p: Row<'_>, q: Row<'_>, isa: Isa, blocks: &Blocks) -> Option<f64> {
    let block = |start, len| isa.run(FarKl { p: p.block(start, len), q: q.block(start, len) });
    let is_far = |sums: PlainSums| sums.value >= SMALLEST_SHARE * (sums.p + sums.q);
    // Rows that are close are mostly close in their first classes already.
    block(0, p.classes().min(PROBE)).filter(|&sums| is_far(sums))?;
    let parts = blocks.map(p.classes(), block);
    let mut sums = PlainSums::default();
    for part in parts.iter() {
        let part = (*part)?;
        sums = PlainSums { value: sums.value + part.value, p: sums.p + part.p, q: sums.q + part.q };
    }
    is_far(sums).then_some(sums.value)
}

/// Σp·ln(p/q), Σp and Σq.
#[derive(Clone, Copy, Debug, Default)]
struct PlainSums {
    value: f64,
    p: f64,
    q: f64,
}

/// The sums of a block, if all its numbers are ordinary ones.
struct FarKl<'a> {
    p: Row<'a>,
    q: Row<'a>,
}

impl Kernel for FarKl<'_> {
    type Output = Option<PlainSums>;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Option<PlainSums> {
        let FarKl { p, q } = self;
        let smallest = S::F32::splat(simd, f64::INFINITY);
        let mut step = FarStep::<S::F32> { log_ratio: RoughLogRatio::new(simd), smallest };
        // What pads adds nothing to the value, and a little to Σq.
        let blocks = [Block::new(p, 0.0), Block::new(q, 1e-30)];
        let [value, p_sum, q_sum] = runs::sums(simd, p.classes(), blocks, &mut step);
        let smallest = step.smallest;
        let smallest = -(-smallest).largest();
        // No 1/q that is a number takes such a p out of range.
        let in_range = p_sum <= 0.5
            || p_sum <= LARGEST_RATIO * smallest
            || p_sum <= LARGEST_RATIO * scan::<S::F32>(simd, q, Space::Probs).smallest;
        // NaN and ∞ make the value NaN or infinite.
        (value.is_finite() && smallest >= 0.0 && in_range).then_some(PlainSums { value, p: p_sum, q: q_sum })
    }
}

/// Adds classes to Σp·ln(p/q), Σp and Σq, and finds the smallest number.
struct FarStep<V: Lanes> {
    log_ratio: RoughLogRatio<V>,
    smallest: V,
}

impl<V: Lanes> Step<V, 2, 0, 3> for FarStep<V> {
    #[inline(always)]
    fn step<const WHOLE: bool>(&mut self, _: usize, [p, q]: [V; 2], runs: &mut [V; 3]) -> [V; 0] {
        self.smallest = self.smallest.min(p.min(q));
        runs[0] = p.mul_add_relaxed(self.log_ratio.of(p, q), runs[0]);
        runs[1] = runs[1] + p;
        runs[2] = runs[2] + q;
        []
    }
}

/// Σ(p·ln(p/q) + q − p) and Σ(p − q) of a block.
struct GivenKl<'a> {
    p: Row<'a>,
    q: Row<'a>,
}

impl LaneKernel for GivenKl<'_> {
    type Output = Option<(f64, f64)>;

    #[inline(always)]
    fn run<V: Lanes>(self, token: V::Token) -> Option<(f64, f64)> {
        // Few rows have a probability of exactly 0.
        match sums::<V, false>(token, self.p, self.q) {
            None => sums::<V, true>(token, self.p, self.q),
            found => found,
        }
    }
}

/// `None` where a number is negative or NaN, or 0 unless `ZEROS`; and in f32 lanes, where one is subnormal or a ratio out of
/// range.
#[inline(always)]
fn sums<V: Lanes, const ZEROS: bool>(token: V::Token, p: Row<'_>, q: Row<'_>) -> Option<(f64, f64)> {
    let infinity = V::splat(token, f64::INFINITY);
    let range = Range { smallest: infinity, smallest_positive: infinity, largest: V::splat(token, 0.0) };
    let mut step = NearStep::<V, ZEROS> { token, excess: Total::zero(token), range };
    let [near] = runs::sums(token, p.classes(), [Block::new(p, 1.0), Block::new(q, 1.0)], &mut step);
    let (excess, range) = (step.excess.sum(), step.range);
    // NaN and +∞ make the excess NaN or infinite; q = 0 < p makes the other sum infinite.
    (excess.is_finite() && !near.is_nan() && range.fits::<ZEROS>()).then_some((near, excess))
}

/// Adds classes to Σ(p·ln(p/q) + q − p); and to Σ(p − q), whose terms are exact where p and q are close, in f64.
struct NearStep<V: Lanes, const ZEROS: bool> {
    token: V::Token,
    excess: Total<V>,
    range: Range<V>,
}

impl<V: Lanes, const ZEROS: bool> Step<V, 2, 0, 1> for NearStep<V, ZEROS> {
    const AHEAD: usize = AHEAD;

    #[inline(always)]
    fn step<const WHOLE: bool>(&mut self, _: usize, [p, q]: [V; 2], [near]: &mut [V; 1]) -> [V; 0] {
        self.range.take::<ZEROS>(self.token, p, q);
        self.excess.add(self.token, p - q);
        *near = *near + term::<V, ZEROS>(self.token, p, q);
        []
    }
}

/// What tells whether the lanes can take the numbers of two rows.
struct Range<V> {
    smallest: V,
    /// Of rows with zeros.
    smallest_positive: V,
    /// The largest p, in f32 lanes.
    largest: V,
}

impl<V: Lanes> Range<V> {
    #[inline(always)]
    fn take<const ZEROS: bool>(&mut self, token: V::Token, p: V, q: V) {
        self.smallest = self.smallest.min(p.min(q));
        if V::Scalar::WIDE {
            return;
        }
        self.largest = self.largest.max(p);
        if ZEROS {
            let (zero, infinity) = (V::splat(token, 0.0), V::splat(token, f64::INFINITY));
            let (p, q) = (V::select(zero.lt(p), p, infinity), V::select(zero.lt(q), q, infinity));
            self.smallest_positive = self.smallest_positive.min(p.min(q));
        }
    }

    #[inline(always)]
    fn fits<const ZEROS: bool>(self) -> bool {
        let smallest = -(-self.smallest).largest();
        let positive = smallest > 0.0 || (ZEROS && smallest == 0.0);
        if V::Scalar::WIDE {
            return positive;
        }
        let normal = if ZEROS { -(-self.smallest_positive).largest() } else { smallest };
        positive && normal >= V::Scalar::MIN_POSITIVE && self.largest.largest() <= LARGEST_RATIO * normal
    }
}

/// p·ln(p/q) + q − p: q where p = 0, and +∞ where q = 0 < p, if `ZEROS`; else both are positive.
#[inline(always)]
fn term<V: Lanes, const ZEROS: bool>(token: V::Token, p: V, q: V) -> V {
    if !ZEROS {
        return positive_term(token, p, q);
    }
    let zero = V::splat(token, 0.0);
    let one = V::splat(token, 1.0);
    let both = V::and(zero.lt(p), zero.lt(q));
    let alone = V::select(zero.lt(p), V::splat(token, f64::INFINITY), q);
    V::select(both, positive_term(token, V::select(both, p, one), V::select(both, q, one)), alone)
}

#[inline(always)]
fn positive_term<V: Lanes>(token: V::Token, p: V, q: V) -> V {
    let zero = V::splat(token, 0.0);
    if V::Scalar::WIDE {
        let (k, s, tail) = reduced_ratio(token, p, q);
        let difference = p - q;
        let near = difference.mul_add_relaxed(s, p * (tail + tail));
        let far = p.mul_add_relaxed(assemble(token, k, s, tail), -difference);
        return V::select(k.abs().le(zero), near, far);
    }
    let difference = p - q;
    let close = (difference.abs() * V::splat(token, 3.0)).le(p + q);
    let k = V::select(close, zero, p.exponent() - q.exponent());
    let scaled = q.scale(k);
    let s = (p - scaled).divide_relaxed(p + scaled);
    let tail = atanh_tail_on_third(token, s);
    let ln = k.mul_add_relaxed(V::splat(token, std::f64::consts::LN_2), s + s) + tail;
    let near = difference.mul_add_relaxed(s, p * tail);
    let far = p.mul_add_relaxed(ln, -difference);
    V::select(close, near, far)
}
