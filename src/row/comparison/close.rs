//! Rows that have much in common, in f32 lanes: what KL of such rows finds, and one more pass.
//!
//! With t = ln p − ln q, which is as precise as close rows need it, the terms of a class with |t| ≤ 1 are p times functions of t
//! that vanish with it: t² − g(t)·(1 + t) for KL(q‖p), g(t) = e^(−t) − 1 + t, and a polynomial for Jensen–Shannon. Those of
//! other classes are taken from p and q. Entropies and surprises are sums of terms ≥ 0, for which the classes below the
//! largest are summed by themselves.

use super::{RowComparison, first_largest, is_accurate};
use crate::row::distribution::Distribution;
use crate::row::kl::close::Close;
use crate::row::pair::{Frame, LogRatio};
use crate::row::runs::{Step, sums};
use crate::rows::{Block, Row};
use crate::simd::exp::{Excess, ScaledExp};
use crate::simd::ln::LN_1P_QUOTIENT;
use crate::simd::polynomial::{horner, in_lanes};
use crate::simd::{Isa, Kernel, Lanes, Simd};
use crate::threads::Blocks;

/// Compares two rows; `None` for those that have not so much in common, or of which f32 lanes lose something.
pub(super) fn compare(
    p: Distribution<'_>,
    q: Distribution<'_>,
    label: Option<usize>,
    isa: Isa,
    blocks: &Blocks,
) -> Option<RowComparison> {
    let close = Close::new(p, q, isa, blocks, false, false)?;
    if close.p_lacks {
        return None;
    }
    let (classes, rate) = (p.row.classes(), p.inverse_temperature);
    let frame = close.frame(rate);
    let parts = blocks.map(classes, |start, len| {
        isa.run(BlockSums { p: p.row.block(start, len), q: q.row.block(start, len), rate, frame })
    });
    let mut totals = [0.0; SUMS];
    for part in parts.iter() {
        for (total, sum) in totals.iter_mut().zip(part.sums) {
            *total += sum;
        }
    }
    let [reverse_kl, jensen_shannon, total_variation, below, p_mean, q_mean] = totals;
    if frame.hides(total_variation) || !totals.iter().all(|total| total.is_finite()) {
        return None;
    }
    // 1/Σ of the exponentials, relative to the largest, is what the classes below it leave, shared by those that have it: few
    // digits of it where they leave little, and all of the logarithm where they are little.
    let share = 1.0 - below;
    let ln_sum = if share < 0.5 {
        close.p.ln_sum()
    } else {
        (share * close.p.ln_sum().exp()).round().max(1.0).ln() - (-below).ln_1p()
    };
    let entropy_p = ln_sum + p_mean * rate;
    // Of q with the surprises of p.
    let crossed = ln_sum + q_mean * rate;
    let entropy_q = crossed - reverse_kl;
    if !is_accurate(entropy_q, [crossed, reverse_kl]) {
        return None;
    }
    let log_ratio = |class: usize| (p.row.get(class) - q.row.get(class)) * rate - frame.delta.value();
    let surprise = |class: usize| {
        let of_p = ln_sum + (close.p.largest - p.row.get(class)) * rate;
        (of_p, of_p + log_ratio(class))
    };
    let (nll_p, nll_q) = match label {
        Some(class) => {
            let (of_p, of_q) = surprise(class);
            if !is_accurate(of_q, [of_p, log_ratio(class)]) {
                return None;
            }
            (of_p, of_q)
        }
        None => (0.0, 0.0),
    };
    let top1_p = first_largest(p.row, parts.iter().map(|part| part.largest.0), isa)?;
    let top1_q = first_largest(q.row, parts.iter().map(|part| part.largest.1), isa)?;
    Some(RowComparison {
        kl: close.value,
        reverse_kl,
        jensen_shannon,
        total_variation,
        entropy_p,
        entropy_q,
        top1_p: top1_p as i64,
        top1_q: top1_q as i64,
        confidence_p: (-surprise(top1_p).0).exp(),
        confidence_q: (-surprise(top1_q).1).exp(),
        nll_p,
        nll_q,
    })
}

/// Number of sums: those of KL(q‖p), Jensen–Shannon and total variation; Σp of the classes below the largest of p; and the means
/// over p and q of how far they are below it.
const SUMS: usize = 6;

/// What a block is found to hold.
struct BlockFound {
    sums: [f64; SUMS],
    largest: (f64, f64),
}

struct BlockSums<'a> {
    p: Row<'a>,
    q: Row<'a>,
    rate: f64,
    frame: Frame,
}

impl Kernel for BlockSums<'_> {
    type Output = BlockFound;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> BlockFound {
        let BlockSums { p, q, rate, frame } = self;
        let lowest = S::F32::splat(simd, f64::NEG_INFINITY);
        let mut step = CloseStep::<S::F32> {
            token: simd,
            exps: (frame.p.exp(simd, rate), frame.q.exp(simd, rate)),
            log_ratio: LogRatio::new(simd, rate, frame.delta),
            top: S::F32::splat(simd, frame.p.reference),
            largest: (lowest, lowest),
            excess: Excess::new(simd),
            shannon: in_lanes(simd, std::hint::black_box(JENSEN_SHANNON)),
        };
        let blocks = [Block::new(p, f64::NEG_INFINITY), Block::new(q, f64::NEG_INFINITY)];
        let sums = sums(simd, p.classes(), blocks, &mut step);
        BlockFound { sums, largest: (step.largest.0.largest(), step.largest.1.largest()) }
    }
}

struct CloseStep<V: Lanes> {
    token: V::Token,
    exps: (ScaledExp<V>, ScaledExp<V>),
    log_ratio: LogRatio<V>,
    top: V,
    largest: (V, V),
    /// g, over t².
    excess: Excess<V>,
    shannon: [V; JENSEN_SHANNON.len()],
}

/// Jensen–Shannon of a class with log-ratio t over p·t², |t| ≤ 1, lowest degree first: minimax in absolute error, 1.6e-9.
const JENSEN_SHANNON: [f64; 7] = [
    0.125,
    -0.062_499_988_480_114_45,
    0.015_624_998_584_655_8,
    -0.002_604_268_083_600_465_6,
    0.000_434_039_884_245_89,
    -8.654_656_801_854_157e-5,
    1.082_173_518_583_122_8e-5,
];

impl<V: Lanes> Step<V, 2, 0, SUMS> for CloseStep<V> {
    #[inline(always)]
    fn step<const WHOLE: bool>(&mut self, _: usize, [x, y]: [V; 2], runs: &mut [V; SUMS]) -> [V; 0] {
        let token = self.token;
        let splat = |value| V::splat(token, value);
        let (zero, half, one) = (splat(0.0), splat(0.5), splat(1.0));
        self.largest = (self.largest.0.max(x), self.largest.1.max(y));
        // Classes that neither row has, and those past the end.
        let (x, y) = (self.exps.0.bounded(x), self.exps.1.bounded(y));
        let t = self.log_ratio.of(x, y);
        let p = self.exps.0.at(x);
        let squared = t * t;
        let excess = squared * self.excess.quotient(t);
        let difference = p * (excess - t);
        let mut q = p + difference;
        let mut variation = half * difference.abs();
        let mut reverse = p * (-excess).mul_add_relaxed(one + t, squared);
        let mut shannon = p * squared * horner(&self.shannon, t);
        // |t| ≤ 1 where t² ≤ 1.
        if V::any(one.lt(squared)) {
            let (near, u) = (squared.le(one), t.abs());
            let far_q = self.exps.1.at(y);
            let (larger, smaller) = (p.max(far_q), p.min(far_q));
            let r = smaller / larger.max(splat(1e-37));
            let logarithm = r * horner(&in_lanes(token, LN_1P_QUOTIENT), r);
            let far_shannon = half * ((larger + smaller) * (splat(std::f64::consts::LN_2) - logarithm) - smaller * u);
            q = V::select(near, q, far_q);
            variation = V::select(near, variation, half * (larger - smaller));
            reverse = V::select(near, reverse, (p - far_q) - far_q * t);
            shannon = V::select(near, shannon, far_shannon);
        }
        let b = self.top - x;
        runs[0] = runs[0] + reverse;
        runs[1] = runs[1] + shannon;
        runs[2] = runs[2] + variation;
        runs[3] = runs[3] + V::select(x.lt(self.top), p, zero);
        runs[4] = p.mul_add_relaxed(b, runs[4]);
        runs[5] = q.mul_add_relaxed(b, runs[5]);
        []
    }
}
