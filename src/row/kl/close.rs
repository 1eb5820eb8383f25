//! KL of two rows of logits in one pass, however close they are: one exponential and a polynomial a class in f32 lanes.
//!
//! With t = (x − y)/T − c for any number c, and means E over p,
//!
//! KL = E t + ln E e^(−t) = E g(t) − [z − ln(1 + z)],  g(t) = e^(−t) − 1 + t,  z = E (e^(−t) − 1).
//!
//! Both parts are positive and of second order in t, so that nothing cancels but the second part against the first,
//! which is small where c is close to the difference δ of the two log-sum-exp. The exponential of y is needed for |t| > 1
//! only. Each block has a c of its own, found from some of its largest classes, and sums about different c are
//! brought to one exactly: for t = t′ + h
//!
//! E g(t) = e^(−h) E g(t′) + g(h) − (e^(−h) − 1) E t′,  E t′ = E g(t′) − z′.
//!
//! δ = c − ln(1 + z) comes out as precise as t, and serves the gradients p·(e^(−d) − 1) and p·(d − KL) with d = t + c − δ,
//! and the other divergences. Rows with a class that q lacks, or with very different logits, have
//! [`first_pass`](crate::row::divergence::first_pass).

use crate::row::distribution::{Distribution, LogSumExp};
use crate::row::gradients::RowGradients;
use crate::row::kl::close_gradients::CloseGradients;
use crate::row::kl::close_sums::{BlockSums, CloseSums, KeptSums, Norms};
use crate::row::kl::difference::{Difference, Factored, Minuend};
use crate::row::kl::mean::mean_log_ratio;
use crate::row::pair::Frame;
use crate::row::scratch::{has_scratch, with_scratch};
use crate::row::two_floats::TwoFloats;
use crate::rows::BLOCK;
use crate::simd::{Isa, Narrow};
use crate::threads::{Blocks, Partials};
use smallvec::SmallVec;

/// What the pass finds.
#[derive(Clone, Debug)]
pub(crate) struct Close {
    pub(crate) value: f64,
    /// Whether q may have classes that p lacks.
    pub(crate) p_lacks: bool,
    pub(crate) p: LogSumExp,
    delta: TwoFloats,
    /// δ + KL, the mean of (x − y)/T over p; known where the gradient of p is wanted.
    mean: TwoFloats,
    p_gradient_cancels: bool,
    /// Of each block about the largest |ln p − ln q|; 0 where none was seen that is more than about 1.
    pub(crate) spans: SmallVec<[f64; 64]>,
}

/// How many times the value its terms may be: the errors of the terms are about 1e-7 of them, most of it random.
const MOST_TERMS: f64 = 8.0;

/// Largest |δ − c| in f64 lanes, in nats.
const LARGEST_RATIO: f64 = 2.0;

/// Passes over rows whose first centers are too far off. The second knows δ.
const TRIES: usize = 3;

/// Largest δ − c in f32 lanes: e^(c − δ) is 1 + z, of whose error this is the logarithm of the factor in ln(1 + z).
const LARGEST_NARROW_RATIO: f64 = 1.0;

/// Largest |δ − c| where some t is larger: δ is rounded by 6·10⁻⁸ of it.
const LARGEST_SPREAD_RATIO: f64 = 0.01;

/// Of all blocks; `None` for those of other kinds of rows.
type Parts = Partials<Option<BlockSums>>;

impl Close {
    /// `None` for rows of other kinds.
    pub(crate) fn new(
        p: Distribution<'_>,
        q: Distribution<'_>,
        isa: Isa,
        blocks: &Blocks,
        wide: bool,
        p_gradient: bool,
    ) -> Option<Self> {
        let by_blocks = |center| {
            blocks.map(p.row.classes(), |start, len| {
                let (p, q) = (p.block(start, len), q.block(start, len));
                if p_gradient {
                    isa.run_lanes(wide, CloseSums::<true> { p, q, center })
                } else {
                    isa.run_lanes(wide, CloseSums::<false> { p, q, center })
                }
            })
        };
        Self::of_blocks(by_blocks, p.inverse_temperature, wide).map(|(close, _)| close)
    }

    /// The same in f32 lanes, and writes the gradients, unless that of p cancels: whether it did. Of rows of so many classes that
    /// their weights and differences are kept.
    ///
    /// With t = d + h, the gradient of q is made of what was summed: e^(−h)·w·(e^(−t) − 1) + (e^(−h) − 1)·w, but for Σw. Neither of
    /// the two is much larger than their sum, as the center is where p·t is least.
    pub(crate) fn with_gradients(
        p: Distribution<'_>,
        q: Distribution<'_>,
        isa: Isa,
        blocks: &Blocks,
        gradients: &RowGradients<'_>,
    ) -> Option<(Self, bool)> {
        let (classes, rate) = (p.row.classes(), p.inverse_temperature);
        with_scratch(2 * classes, false, |memory| {
            let places = [memory.block(0, classes), memory.block(classes, classes)];
            let by_blocks = |center| {
                blocks.map(classes, |start, len| {
                    let (p, q) = (p.block(start, len), q.block(start, len));
                    let kept = places.map(|place| place.block(start, len));
                    if gradients.p.is_some() {
                        isa.run(KeptSums(CloseSums::<true> { p, q, center }, kept))
                    } else {
                        isa.run(KeptSums(CloseSums::<false> { p, q, center }, kept))
                    }
                })
            };
            let (close, parts) = Self::of_blocks(by_blocks, rate, false)?;
            // First what needs the logits, which the other may be written over.
            let of_p = RowGradients { q: None, ..*gradients };
            if of_p.p.is_some() && !close.write(p, q, isa, blocks, false, &of_p) {
                return Some((close, false));
            }
            if let Some(out) = gradients.q {
                blocks.map(classes, |start, len| {
                    let Some(Some(block)) = parts.get(start / BLOCK) else { return };
                    let weight = ((block.p.largest - close.p.largest) * rate - close.p.ln_sum()).exp();
                    let h = block.center.minus(close.delta);
                    let [weights, differences] = places.map(|place| place.written().block(start, len));
                    isa.run(Narrow(Difference {
                        from: Minuend::Kept(Factored(differences, weight * (-h).exp())),
                        less: Factored(weights, -weight * (-h).exp_m1()),
                        scale: gradients.scale * rate,
                        out: out.block(start, len),
                    }));
                });
            }
            Some((close, true))
        })
    }

    /// Whether there is memory for that.
    pub(crate) fn keeps(classes: usize) -> bool {
        has_scratch(2 * classes, false)
    }

    /// Passes over all blocks, about centers of their own and then about better ones.
    fn of_blocks(by_blocks: impl Fn(Option<TwoFloats>) -> Parts, rate: f64, wide: bool) -> Option<(Self, Parts)> {
        let mut center = None;
        for _ in 0..TRIES {
            let parts = by_blocks(center);
            match Self::merge(&parts, rate, wide)? {
                Found::Accurate(close) => return Some((close, parts)),
                Found::Delta(delta) => center = Some(delta),
            }
        }
        None
    }

    fn merge(parts: &[Option<BlockSums>], rate: f64, wide: bool) -> Option<Found> {
        if parts.iter().any(Option::is_none) {
            return None;
        }
        let blocks = parts.iter().flatten();
        let p = LogSumExp::merge(blocks.clone().map(|block| block.p), rate);
        // The center of the block with the largest logit.
        let center = blocks.clone().find(|block| block.p.largest == p.largest)?.center;
        // z, E g(t), and the size of what that is made of.
        let (mut z, mut excess, mut terms) = (0.0, 0.0, 0.0);
        let mut norms = Norms::default();
        let (mut p_lacks, mut spread) = (false, false);
        for block in blocks.clone() {
            let weight = ((block.p.largest - p.largest) * rate - p.ln_sum()).exp();
            let h = block.center.minus(center);
            let share = weight * (1.0 + block.p.rest);
            let (decay, scale) = ((-h).exp_m1(), (-h).exp() * weight);
            z += scale * block.difference + share * decay;
            // Σ w·t, and what it is the difference of.
            let (own, parts) = if wide {
                (block.norms.cross, block.norms.cross.abs())
            } else {
                (block.excess - block.difference, block.excess + block.difference.abs())
            };
            let positive = scale * block.excess + share * excess_of(h, decay);
            excess += positive - weight * own * decay;
            terms += positive + (weight * parts * decay).abs();
            norms.cross += weight * block.norms.cross + h * share;
            let (pp, cross_p) = (weight * weight * block.norms.pp, weight * weight * block.norms.cross_p);
            norms.pp += pp;
            norms.cross_p += cross_p + h * pp;
            norms.cross_cross += weight * weight * block.norms.cross_cross + h * (2.0 * cross_p + h * pp);
            p_lacks |= block.p_lacks;
            spread |= block.spread;
        }
        let second_order = deficit_of(z);
        let (mut value, mut terms) = (excess - second_order, terms + second_order);
        let ratio = -z.ln_1p();
        let delta = center.plus(ratio);
        if !(terms.is_finite() && ratio.is_finite()) {
            return None;
        }
        if wide && terms > MOST_TERMS * value {
            // E t + ln E e^(−t), for rows far apart.
            (value, terms) = (norms.cross - ratio, norms.cross.abs() + ratio.abs());
        }
        // In f64 lanes δ is to be as precise as t is, which the logarithm of a large mean is not.
        let imprecise = if wide {
            ratio.abs() > LARGEST_RATIO
        } else {
            ratio > LARGEST_NARROW_RATIO || (spread && ratio.abs() > LARGEST_SPREAD_RATIO)
        };
        if terms > MOST_TERMS * value || imprecise {
            return Some(Found::Delta(delta));
        }
        let cross = norms.cross;
        let mean = center.plus(cross);
        // The gradient p·(t − E t) is the difference of what its square is the difference of.
        let difference = norms.cross_cross + cross * (cross * norms.pp - 2.0 * norms.cross_p);
        let p_gradient_cancels = 36.0 * difference < norms.cross_cross + cross * cross * norms.pp;
        Some(Found::Accurate(Close {
            value: value.max(0.0),
            p_lacks,
            p,
            delta,
            mean,
            p_gradient_cancels,
            spans: blocks.map(|block| block.span_about(delta)).collect(),
        }))
    }

    /// Both log-sum-exp as that of p, and δ taken off the reference of q.
    pub(crate) fn frame(&self, inverse_temperature: f64) -> Frame {
        let q = LogSumExp { largest: self.p.largest - self.delta.value() / inverse_temperature, rest: self.p.rest };
        Frame { delta: self.delta, ..Frame::of(self.p, q, inverse_temperature) }
    }

    /// Writes the gradients; whether it could.
    pub(crate) fn write(
        &self,
        p: Distribution<'_>,
        q: Distribution<'_>,
        isa: Isa,
        blocks: &Blocks,
        wide: bool,
        gradients: &RowGradients<'_>,
    ) -> bool {
        let (frame, mut mean) = (self.frame(p.inverse_temperature), self.mean);
        if gradients.p.is_some() && self.p_gradient_cancels {
            match mean_log_ratio(p, q, frame, mean, isa, blocks, wide) {
                Some(found) => mean = found,
                None => return false,
            }
        }
        blocks.map(p.row.classes(), |start, len| {
            let (p, q, gradients) = (p.block(start, len), q.block(start, len), gradients.block(start, len));
            isa.run_lanes(wide, CloseGradients { p, q, frame, mean, gradients });
        });
        true
    }
}

/// What a pass with given centers leads to.
#[expect(clippy::large_enum_variant, reason = "there is one of them for a row")]
enum Found {
    Accurate(Close),
    /// A better center.
    Delta(TwoFloats),
}

/// e^(−h) − 1 + h, given e^(−h) − 1.
fn excess_of(h: f64, decay: f64) -> f64 {
    if h.abs() < 0.1 { alternating(h, |degree| (2..=degree).map(f64::from).product()) } else { decay + h }
}

/// z − ln(1 + z).
fn deficit_of(z: f64) -> f64 {
    if z.abs() < 0.1 { alternating(z, f64::from) } else { z - z.ln_1p() }
}

/// Σ (−z)^k / divisor(k) from k = 2 on, for |z| < 0.1.
fn alternating(z: f64, divisor: impl Fn(u32) -> f64) -> f64 {
    /// 0.1^18 is below the last bit.
    const LAST: u32 = 20;
    (2..=LAST).rev().fold(0.0, |sum, degree| 1.0 / divisor(degree) - z * sum) * z * z
}
