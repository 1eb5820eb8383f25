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

use crate::row::distribution::scan::{fits_narrow_lanes, holds_finite_below, largest, lowest_narrow_logit};
use crate::row::distribution::{Distribution, LogSumExp};
use crate::row::gradients::RowGradients;
use crate::row::kl::close_gradients::CloseGradients;
use crate::row::kl::difference::{Difference, Factored, Minuend};
use crate::row::kl::outlook::{Outlook, outlook};
use crate::row::pair::{Frame, LARGEST_NARROW_DELTA, LogRatio};
use crate::row::runs::{Step, pass};
use crate::row::scratch::{has_scratch, with_scratch};
use crate::row::two_floats::TwoFloats;
use crate::rows::{BLOCK, Block, BlockMut, RowMut};
use crate::simd::exp::{Decay, Excess, ScaledExp, exp};
use crate::simd::{Isa, Kernel, LaneKernel, Lanes, Narrow, Scalar, Simd};
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

/// Largest |t| of classes that both rows have, in nats.
const LARGEST_LOG_RATIO: f64 = 2e4;

/// Smallest t in f64 lanes, where e^(−t) is in range.
const SMALLEST_WIDE_LOG_RATIO: f64 = -690.0;

/// Largest ln(q/p) that f32 lanes take, relative to the largest p of the block, in nats.
const REACH_OF_Q: f64 = 80.0;

/// Largest δ − c in f32 lanes: e^(c − δ) is 1 + z, of whose error this is the logarithm of the factor in ln(1 + z).
const LARGEST_NARROW_RATIO: f64 = 1.0;

/// Largest t in f32 lanes for which the center is where most of p is: a class with the share w of it moves the center, of
/// squares, by w²t, and the gradient q − p is no smaller than w. Where t is as negative, w is next to nothing.
const LARGEST_STEADY_T: f64 = 16.0;

/// Largest |δ − c| where some t is larger: δ is rounded by 6·10⁻⁸ of it.
const LARGEST_SPREAD_RATIO: f64 = 0.01;

/// Part of the lowest logit of f32 lanes, which stands for −∞, that finite ones are above: with c and t in range, a class
/// that one row lacks is beyond [`LARGEST_LOG_RATIO`].
const LOWEST_SHARE: f64 = 0.6;

/// Largest |c| in f64 lanes, where two f64 hold it to far below what t is rounded by; in f32 lanes it is
/// [`LARGEST_NARROW_DELTA`].
const LARGEST_WIDE_CENTER: f64 = 1e5;

/// Sums of a block, weights w = e^((x − largest)/T) and t about the block's own center.
#[derive(Clone, Copy, Debug)]
struct BlockSums {
    p: LogSumExp,
    center: TwoFloats,
    /// Σ w·(e^(−t) − 1).
    difference: f64,
    /// Σ w·g(t).
    excess: f64,
    norms: Norms,
    p_lacks: bool,
    /// The largest |t|, in f32 lanes of those of vectors with some above 1, else 0.
    span: f64,
    /// Whether some t is so large that the center may be far from where most of p is.
    spread: bool,
}

impl BlockSums {
    /// The span about another center; what is 0 stays so.
    fn span_about(&self, center: TwoFloats) -> f64 {
        if self.span > 0.0 { self.span + self.center.minus(center).abs() } else { 0.0 }
    }
}

/// Of all blocks; `None` for those of other kinds of rows.
type Parts = Partials<Option<BlockSums>>;

/// Sums for the gradient of p.
#[derive(Clone, Copy, Debug, Default)]
struct Norms {
    /// Σ w·t; in f64 lanes always.
    cross: f64,
    /// Σ w².
    pp: f64,
    /// Σ w²·t.
    cross_p: f64,
    /// Σ w²·t².
    cross_cross: f64,
}

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

    /// Writes the gradients, unless that of p cancels.
    pub(crate) fn write(
        &self,
        p: Distribution<'_>,
        q: Distribution<'_>,
        isa: Isa,
        blocks: &Blocks,
        wide: bool,
        gradients: &RowGradients<'_>,
    ) -> bool {
        if gradients.p.is_some() && self.p_gradient_cancels {
            return false;
        }
        let (frame, mean) = (self.frame(p.inverse_temperature), self.mean);
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

/// Sums of a block, with the norms for the gradient of p if `P`.
struct CloseSums<'a, const P: bool> {
    p: Distribution<'a>,
    q: Distribution<'a>,
    /// If not the block's own.
    center: Option<TwoFloats>,
}

impl<const P: bool> LaneKernel for CloseSums<'_, P> {
    type Output = Option<BlockSums>;

    #[inline(always)]
    fn run<V: Lanes>(self, token: V::Token) -> Option<BlockSums> {
        self.over_classes::<V, 0>(token, [])
    }
}

/// The same in f32 lanes, keeping w and w·(e^(−t) − 1).
struct KeptSums<'a, const P: bool>(CloseSums<'a, P>, [RowMut<'a>; 2]);

impl<const P: bool> Kernel for KeptSums<'_, P> {
    type Output = Option<BlockSums>;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Option<BlockSums> {
        let [of_p, difference] = self.1;
        self.0.over_classes::<S::F32, 2>(simd, [Some(BlockMut::new(of_p)), Some(BlockMut::new(difference))])
    }
}

impl<const P: bool> CloseSums<'_, P> {
    #[inline(always)]
    fn over_classes<V: Lanes, const W: usize>(
        self,
        token: V::Token,
        kept: [Option<BlockMut<'_, V::Scalar>>; W],
    ) -> Option<BlockSums>
    where
        CloseStep<V, P, true>: Step<V, 2, W, SUMS>,
        CloseStep<V, P, false>: Step<V, 2, W, SUMS>,
    {
        let CloseSums { p, q, center } = self;
        let (p, q, rate) = (p.row, q.row, p.inverse_temperature);
        let (top, center, steady) = if let Some(center) = center {
            // What a row holds was seen before.
            (largest::<V>(token, p), center, false)
        } else {
            let Outlook { largest, smallest, center, steady } = outlook::<V>(token, p, q, rate);
            let lowest = LOWEST_SHARE * lowest_narrow_logit(rate);
            let low = !V::Scalar::WIDE && smallest < lowest;
            if low && (holds_finite_below::<V>(token, p, lowest) || holds_finite_below::<V>(token, q, lowest)) {
                return None;
            }
            (largest, center, steady && !low)
        };
        // A masked block, NaN or ∞ where these show them; elsewhere the sums do.
        let in_range = if V::Scalar::WIDE {
            top.abs() < V::Scalar::HUGE && center.high.abs() <= LARGEST_WIDE_CENTER
        } else {
            fits_narrow_lanes(top, rate) && center.high.abs() <= LARGEST_NARROW_DELTA
        };
        if !in_range {
            return None;
        }
        let zero = V::splat(token, 0.0);
        let view = View {
            token,
            rate: V::splat(token, rate),
            top: V::splat(token, top),
            lowest: V::splat(token, -V::Scalar::HUGE),
            log_ratio: LogRatio::new(token, rate, center),
            exps: (
                ScaledExp::new(token, rate, top * rate, 1.0),
                ScaledExp::new(token, rate, top * rate - center.value(), 1.0),
            ),
            excess: Excess::new(token),
        };
        let extremes = Extremes { largest_t: zero, smallest_t: zero, largest_y: view.lowest };
        // Classes past the end have no weight, and t = 0: in f64 lanes as classes that neither row has.
        let absent = if V::Scalar::WIDE { f64::NEG_INFINITY } else { top - 2000.0 / rate };
        let blocks = [Block::new(p, absent), Block::new(q, absent - center.value() / rate)];
        let (found, extremes) = if steady {
            let mut step = CloseStep::<V, P, true> { view, extremes };
            (pass(token, p.classes(), blocks, kept, &mut step), step.extremes)
        } else {
            let mut step = CloseStep::<V, P, false> { view, extremes };
            (pass(token, p.classes(), blocks, kept, &mut step), step.extremes)
        };
        let [sum, difference, excess, cross, pp, cross_p, cross_cross] = found;
        let (largest_t, smallest_t) = (extremes.largest_t.largest(), -(-extremes.smallest_t).largest());
        let q_in_range = if V::Scalar::WIDE {
            smallest_t >= SMALLEST_WIDE_LOG_RATIO
        } else {
            (extremes.largest_y.largest() - top) * rate + center.value() <= REACH_OF_Q
        };
        let in_range = largest_t <= LARGEST_LOG_RATIO && q_in_range;
        // NaN makes a sum NaN.
        (in_range && sum.is_finite() && difference.is_finite() && excess.is_finite()).then_some(BlockSums {
            p: LogSumExp { largest: top, rest: sum - 1.0 },
            center,
            difference,
            excess,
            norms: Norms { cross, pp, cross_p, cross_cross },
            p_lacks: smallest_t < -LARGEST_LOG_RATIO,
            span: largest_t.max(-smallest_t),
            spread: largest_t > LARGEST_STEADY_T,
        })
    }
}

/// Number of sums: the first three, Σ w·t in f64 lanes, and all with norms.
const SUMS: usize = 7;

/// The largest and smallest t, and the largest y: in f32 lanes of vectors with some |t| > 1 only.
#[derive(Clone, Copy)]
struct Extremes<V> {
    largest_t: V,
    smallest_t: V,
    largest_y: V,
}

/// How two vectors of numbers become w and t.
#[derive(Clone, Copy)]
struct View<V: Lanes> {
    token: V::Token,
    rate: V,
    top: V,
    lowest: V,
    log_ratio: LogRatio<V>,
    /// w, and w·e^(−t) from y; in f32 lanes.
    exps: (ScaledExp<V>, ScaledExp<V>),
    /// g.
    excess: Excess<V>,
}

/// Adds classes to the sums.
struct CloseStep<V: Lanes, const P: bool, const STEADY: bool> {
    view: View<V>,
    extremes: Extremes<V>,
}

impl<V: Lanes, const P: bool, const STEADY: bool> CloseStep<V, P, STEADY> {
    /// Adds them; w, and w·(e^(−t) − 1).
    #[inline(always)]
    fn add<const WHOLE: bool>(&mut self, [x, y]: [V; 2], runs: &mut [V; SUMS]) -> [V; 2] {
        if WHOLE {
            self.view.add::<P, STEADY>(runs, &mut self.extremes, x, y)
        } else {
            // Of few classes, none of whose rounding another makes up for.
            self.view.add::<P, false>(runs, &mut self.extremes, x, y)
        }
    }
}

macro_rules! step_keeping {
    ($w:literal, |$found:ident| $kept:expr) => {
        impl<V: Lanes, const P: bool, const STEADY: bool> Step<V, 2, $w, SUMS> for CloseStep<V, P, STEADY> {
            // The next block, whose scan has nothing to compute while it waits for memory.
            const AHEAD: usize = BLOCK;

            #[inline(always)]
            fn has_sum(at: usize) -> bool {
                P || at < 3 || (at == 3 && V::Scalar::WIDE)
            }

            #[inline(always)]
            fn step<const WHOLE: bool>(&mut self, _: usize, lanes: [V; 2], runs: &mut [V; SUMS]) -> [V; $w] {
                let $found = self.add::<WHOLE>(lanes, runs);
                $kept
            }
        }
    };
}

step_keeping!(0, |_found| []);
step_keeping!(2, |found| found);

impl<V: Lanes> View<V> {
    #[inline(always)]
    fn add<const P: bool, const STEADY: bool>(
        &self,
        runs: &mut [V; SUMS],
        extremes: &mut Extremes<V>,
        x: V,
        y: V,
    ) -> [V; 2] {
        if V::Scalar::WIDE {
            // Not the complement: NaN must stay NaN.
            let absent = V::and(x.le(self.lowest), y.le(self.lowest));
            let (x, y) = (x.at_least(self.lowest), y.at_least(self.lowest));
            let t = V::select(absent, V::splat(self.token, 0.0), self.log_ratio.of(x, y));
            extremes.largest_t = extremes.largest_t.max(t);
            extremes.smallest_t = extremes.smallest_t.min(t);
            let w = exp(self.token, (x - self.top) * self.rate);
            let decay = Decay::new(self.token, t);
            let difference = w * decay.expm1;
            Self::add_terms::<P>(runs, w, w * t, difference, w * decay.excess);
            return [w, difference];
        }
        let one = V::splat(self.token, 1.0);
        // Steady blocks have no −∞.
        let (x, y) = if STEADY { (x, y) } else { (self.exps.0.bounded(x), self.exps.1.bounded(y)) };
        let t = if STEADY { self.log_ratio.without_error(x, y) } else { self.log_ratio.of(x, y) };
        let w = self.exps.0.at(x);
        let cross = w * t;
        // |t| ≤ 1 where t² ≤ 1.
        let squared = t * t;
        let mut excess = w * (squared * self.excess.quotient(t));
        let mut difference = excess - cross;
        if V::any(one.lt(squared)) {
            let (near, apart) = (squared.le(one), self.exps.1.at(y) - w);
            difference = V::select(near, difference, apart);
            excess = V::select(near, excess, apart + cross);
            extremes.largest_t = extremes.largest_t.max(t);
            extremes.smallest_t = extremes.smallest_t.min(t);
            extremes.largest_y = extremes.largest_y.max(y);
        }
        Self::add_terms::<P>(runs, w, cross, difference, excess);
        [w, difference]
    }

    /// Adds w, w·(e^(−t) − 1) and w·g(t), and norms made of w and w·t.
    #[inline(always)]
    fn add_terms<const P: bool>(runs: &mut [V; SUMS], w: V, cross: V, difference: V, excess: V) {
        runs[0] = runs[0] + w;
        runs[1] = runs[1] + difference;
        runs[2] = runs[2] + excess;
        if P || V::Scalar::WIDE {
            runs[3] = runs[3] + cross;
        }
        if P {
            runs[4] = w.mul_add_relaxed(w, runs[4]);
            runs[5] = w.mul_add_relaxed(cross, runs[5]);
            runs[6] = cross.mul_add_relaxed(cross, runs[6]);
        }
    }
}
