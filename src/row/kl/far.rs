//! KL of two rows of logits that have little in common: plain sums, one exponential a logit, one pass.
//!
//! The value is Σp(x − y)/T less the difference of the two log-sum-exp. Its error is that of the exponentials, relative
//! to Σp|d| + 1 ≤ value + 3 (where q > p, p|d| ≤ q − p), so that it serves for large values only; smaller ones have
//! [`first_pass`](crate::row::divergence::first_pass). Where that difference is large, and where the gradient p·(d − value) is less than
//! a sixth of its terms, another pass finds the [`mean`](crate::row::kl::mean) again. The gradient q − p is taken where it is no smaller
//! than a quarter of its terms.
//!
//! Where only q − p is wanted, the exponentials are kept, relative to those of their block, and the gradient takes none.
//!
//! Other divergences of rows that have nothing in common take their probabilities from here.

use crate::row::distribution::scan::{PROBE, fits_narrow_lanes, largest, lowest_narrow_logit};
use crate::row::distribution::softmax::{AHEAD, REACH};
use crate::row::distribution::{Distribution, LogSumExp};
use crate::row::gradients::{Formulas, RowGradients, write_sides};
use crate::row::kl::difference::{Difference, Factored, Minuend};
use crate::row::kl::mean::mean_log_ratio;
use crate::row::pair::{Frame, LARGEST_NARROW_DELTA, LogRatio};
use crate::row::runs::{Step, pass};
use crate::row::scratch::{has_scratch, with_scratch};
use crate::row::two_floats::TwoFloats;
use crate::rows::{BLOCK, Block, BlockMut, Row, RowMut};
use crate::simd::exp::ScaledExp;
use crate::simd::{Isa, LaneKernel, Lanes, Narrow, Scalar, Wide};
use crate::threads::Blocks;

/// Values from here on are within the accuracy contract: the terms are at most eight times the value.
const SMALLEST_VALUE: f64 = 0.5;

/// What one pass finds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Far {
    pub(crate) value: f64,
    p: LogSumExp,
    q: LogSumExp,
    /// The largest logits.
    pub(crate) largest: (f64, f64),
    /// The difference of the two log-sum-exp.
    delta: f64,
    /// The mean of (x − y)/T over p, where it was found again.
    mean: Option<TwoFloats>,
    p_gradient_cancels: bool,
    q_gradient_cancels: bool,
}

/// Sums of a block, relative to its largest logits.
#[derive(Clone, Copy, Debug)]
struct BlockSums {
    p: LogSumExp,
    q: LogSumExp,
    /// The largest logits.
    largest: (f64, f64),
    /// Σp(x − y).
    cross: f64,
    norms: Norms,
}

/// Sums of squares and products of p, q and p(x − y).
#[derive(Clone, Copy, Debug, Default)]
struct Norms {
    pp: f64,
    qq: f64,
    pq: f64,
    cross_cross: f64,
    cross_p: f64,
}

impl Far {
    /// `None` for rows that are not far apart, or not for f32 lanes.
    pub(crate) fn new(
        p: Distribution<'_>,
        q: Distribution<'_>,
        isa: Isa,
        blocks: &Blocks,
        wide: bool,
        wanted: (bool, bool),
    ) -> Option<Self> {
        Self::is_likely(p, q, isa, wide).then_some(())?;
        let parts = blocks.map(p.row.classes(), |start, len| {
            let (p, q) = (p.block(start, len), q.block(start, len));
            match wanted {
                (false, false) => isa.run_lanes(wide, FarSums::<false, false> { p, q }),
                // In f64 lanes one gradient has the same bits, whether or not the other is wanted.
                _ if wide => isa.run(Wide(FarSums::<true, true> { p, q })),
                (false, true) => isa.run(Narrow(FarSums::<false, true> { p, q })),
                (true, false) => isa.run(Narrow(FarSums::<true, false> { p, q })),
                (true, true) => isa.run(Narrow(FarSums::<true, true> { p, q })),
            }
        });
        Self::merge(&parts, p.inverse_temperature)?.settled(p, q, isa, blocks, wide)
    }

    /// Rows that are close are mostly close in their first classes already.
    fn is_likely(p: Distribution<'_>, q: Distribution<'_>, isa: Isa, wide: bool) -> bool {
        let first = p.row.classes().min(PROBE);
        let (p, q) = (p.block(0, first), q.block(0, first));
        let found = isa.run_lanes(wide, FarSums::<false, false> { p, q });
        Self::merge(&[found], p.inverse_temperature).is_some_and(|far| far.value >= SMALLEST_VALUE)
    }

    /// The same in f32 lanes for rows that are not too wide, and writes the gradient of q unless it cancels: whether it did.
    pub(crate) fn with_gradient_of_q(
        p: Distribution<'_>,
        q: Distribution<'_>,
        isa: Isa,
        blocks: &Blocks,
        out: RowMut<'_>,
        scale: f64,
    ) -> Option<(Self, bool)> {
        Self::is_likely(p, q, isa, false).then_some(())?;
        let (classes, rate) = (p.row.classes(), p.inverse_temperature);
        // Of wider rows, those of p only.
        let both = has_scratch(2 * classes, false);
        with_scratch(if both { 2 * classes } else { classes }, false, |memory| {
            let of_p = memory.block(0, classes);
            let of_q = both.then(|| memory.block(classes, classes));
            let parts = blocks.map(classes, |start, len| {
                let (p, q) = (p.block(start, len), q.block(start, len));
                let of_p = of_p.block(start, len);
                match of_q {
                    Some(of_q) => isa.run(Narrow(KeptSums { p, q, kept: [of_p, of_q.block(start, len)] })),
                    None => isa.run(Narrow(KeptSums { p, q, kept: [of_p] })),
                }
            });
            let far = Self::merge(&parts, rate)?.settled(p, q, isa, blocks, false)?;
            if far.q_gradient_cancels {
                return Some((far, false));
            }
            blocks.map(classes, |start, len| {
                let Some(Some(block)) = parts.get(start / BLOCK) else { return };
                let weight =
                    |block: LogSumExp, row: LogSumExp| ((block.largest - row.largest) * rate - row.ln_sum()).exp();
                let from = match of_q {
                    Some(of_q) => Minuend::Kept(Factored(of_q.written().block(start, len), weight(block.q, far.q))),
                    None => Minuend::ExpOf(q.row.block(start, len), rate, far.q.value(rate)),
                };
                let less = Factored(of_p.written().block(start, len), weight(block.p, far.p));
                isa.run(Narrow(Difference { from, less, scale: scale * rate, out: out.block(start, len) }));
            });
            Some((far, true))
        })
    }

    /// Whether rows of so many classes are not too wide for that.
    pub(crate) fn keeps(classes: usize) -> bool {
        has_scratch(classes, false)
    }

    fn merge(parts: &[Option<BlockSums>], rate: f64) -> Option<Self> {
        if parts.iter().any(Option::is_none) {
            return None;
        }
        let blocks = parts.iter().flatten();
        let p = LogSumExp::merge(blocks.clone().map(|block| block.p), rate);
        let q = LogSumExp::merge(blocks.clone().map(|block| block.q), rate);
        let (mut largest, mut cross) = ((f64::NEG_INFINITY, f64::NEG_INFINITY), 0.0);
        let mut norms = Norms::default();
        for block in blocks {
            largest = (largest.0.max(block.largest.0), largest.1.max(block.largest.1));
            let p_weight = ((block.p.largest - p.largest) * rate - p.ln_sum()).exp();
            let q_weight = ((block.q.largest - q.largest) * rate - q.ln_sum()).exp();
            cross += p_weight * rate * block.cross;
            norms.pp += p_weight * p_weight * block.norms.pp;
            norms.qq += q_weight * q_weight * block.norms.qq;
            norms.pq += p_weight * q_weight * block.norms.pq;
            norms.cross_cross += p_weight * p_weight * rate * rate * block.norms.cross_cross;
            norms.cross_p += p_weight * p_weight * rate * block.norms.cross_p;
        }
        let delta = (p.largest - q.largest) * rate + (p.ln_sum() - q.ln_sum());
        let value = cross - delta;
        let offset = value + delta;
        let cancels = |first: f64, second: f64, product: f64, most: f64| {
            let parts = first + second;
            // Not finite means that the squares left the range of f32.
            !(most * (parts - 2.0 * product) >= parts && parts.is_finite())
        };
        Some(Far {
            value,
            p,
            q,
            largest,
            delta,
            mean: None,
            p_gradient_cancels: cancels(norms.cross_cross, offset * offset * norms.pp, offset * norms.cross_p, 36.0),
            q_gradient_cancels: cancels(norms.pp, norms.qq, norms.pq, 16.0),
        })
    }

    /// Whether slopes are better taken relative to those of rows that have nothing in common.
    pub(crate) fn is_disjoint(&self) -> bool {
        self.value >= 2.0 && self.delta.abs() <= LARGEST_NARROW_DELTA
    }

    /// The log-sum-exp of p.
    pub(crate) fn p(&self) -> LogSumExp {
        self.p
    }

    /// How the two rows become probabilities.
    pub(crate) fn frame(&self, inverse_temperature: f64) -> Frame {
        Frame::of(self.p, self.q, inverse_temperature)
    }

    /// The same where the value is large; where the rows have a large offset that cancels in it, found again. f64 lanes have the digits
    /// that an offset takes, up to one of 33 times the value.
    fn settled(self, p: Distribution<'_>, q: Distribution<'_>, isa: Isa, blocks: &Blocks, wide: bool) -> Option<Self> {
        let is_large = |value: f64| value.is_finite() && value >= SMALLEST_VALUE;
        let share = if wide { 0.03 } else { 0.5 };
        if !is_large(self.value) || self.value >= share * self.delta.abs() {
            return is_large(self.value).then_some(self);
        }
        let frame = self.frame(p.inverse_temperature);
        let mean = mean_log_ratio(p, q, frame, frame.delta.plus(self.value), isa, blocks, wide)?;
        let value = mean.minus(frame.delta);
        is_large(value).then_some(Far { value, mean: Some(mean), p_gradient_cancels: false, ..self })
    }

    /// Writes the gradients, unless that of q cancels, or f32 lanes lose that of p.
    pub(crate) fn write(
        &self,
        p: Distribution<'_>,
        q: Distribution<'_>,
        isa: Isa,
        blocks: &Blocks,
        wide: bool,
        gradients: &RowGradients<'_>,
    ) -> bool {
        // A gradient without norms is not known to.
        if self.q_gradient_cancels {
            return false;
        }
        let (rate, frame) = (p.inverse_temperature, self.frame(p.inverse_temperature));
        let mut mean = self.mean.unwrap_or(frame.delta.plus(self.value));
        if self.p_gradient_cancels {
            match mean_log_ratio(p, q, frame, mean, isa, blocks, wide) {
                Some(found) => mean = found,
                None => return false,
            }
        }
        blocks.map(p.row.classes(), |start, len| {
            isa.run_lanes(
                wide,
                FarGradients {
                    p: p.block(start, len),
                    q: q.block(start, len),
                    ln_divisors: (self.p.value(rate), self.q.value(rate)),
                    mean,
                    gradients: gradients.block(start, len),
                },
            );
        });
        true
    }
}

/// Sums of a block, with the norms for the gradients of p, of q, or both.
struct FarSums<'a, const P: bool, const Q: bool> {
    p: Distribution<'a>,
    q: Distribution<'a>,
}

impl<const P: bool, const Q: bool> LaneKernel for FarSums<'_, P, Q> {
    type Output = Option<BlockSums>;

    #[inline(always)]
    fn run<V: Lanes>(self, token: V::Token) -> Option<BlockSums> {
        sums_of_block::<V, P, Q, 0>(token, self.p, self.q, [])
    }
}

/// The same for the gradient of q, keeping the exponentials of p, or of both rows.
struct KeptSums<'a, const W: usize> {
    p: Distribution<'a>,
    q: Distribution<'a>,
    kept: [RowMut<'a>; W],
}

impl LaneKernel for KeptSums<'_, 1> {
    type Output = Option<BlockSums>;

    #[inline(always)]
    fn run<V: Lanes>(self, token: V::Token) -> Option<BlockSums> {
        let [of_p] = self.kept;
        sums_of_block::<V, false, true, 1>(token, self.p, self.q, [Some(BlockMut::new(of_p))])
    }
}

impl LaneKernel for KeptSums<'_, 2> {
    type Output = Option<BlockSums>;

    #[inline(always)]
    fn run<V: Lanes>(self, token: V::Token) -> Option<BlockSums> {
        let [of_p, of_q] = self.kept;
        let kept = [Some(BlockMut::new(of_p)), Some(BlockMut::new(of_q))];
        sums_of_block::<V, false, true, 2>(token, self.p, self.q, kept)
    }
}

#[inline(always)]
fn sums_of_block<V: Lanes, const P: bool, const Q: bool, const W: usize>(
    token: V::Token,
    p: Distribution<'_>,
    q: Distribution<'_>,
    kept: [Option<BlockMut<'_, V::Scalar>>; W],
) -> Option<BlockSums>
where
    FarStep<V, P, Q>: Step<V, 2, W, SUMS>,
{
    let (p, q, rate) = (p.row, q.row, p.inverse_temperature);
    let mut references = (first_largest::<V>(token, p), first_largest::<V>(token, q));
    let within = |largest: f64, reference: f64| (largest - reference) * rate <= REACH;
    let mut again = false;
    loop {
        let (found, largest) = BlockAt::<V> { token, p, q, rate, references }.run::<P, Q, W>(kept);
        if again || (within(largest.0, references.0) && within(largest.1, references.1)) {
            return found;
        }
        (references, again) = (largest, true);
    }
}

/// A block whose exponentials are taken relative to two numbers about as large as its largest.
struct BlockAt<'a, V: Lanes> {
    token: V::Token,
    p: Row<'a>,
    q: Row<'a>,
    rate: f64,
    references: (f64, f64),
}

impl<V: Lanes> BlockAt<'_, V> {
    /// The sums, and the largest logits.
    #[inline(always)]
    fn run<const P: bool, const Q: bool, const W: usize>(
        &self,
        kept: [Option<BlockMut<'_, V::Scalar>>; W],
    ) -> (Option<BlockSums>, (f64, f64))
    where
        FarStep<V, P, Q>: Step<V, 2, W, SUMS>,
    {
        let BlockAt { token, p, q, rate, references } = *self;
        // A masked block, or NaN and +∞ where the maximum shows them; elsewhere the sums do.
        if V::Scalar::WIDE && !V::HAS_SHORT_CUTS {
            return (None, references);
        }
        let fits = |reference: f64| {
            if V::Scalar::WIDE {
                (reference * rate).abs() <= LARGEST_WIDE_NUMBER
            } else {
                fits_narrow_lanes(reference, rate)
            }
        };
        if !(fits(references.0) && fits(references.1)) {
            return (None, references);
        }
        // Pads the last vector: both exponentials and the difference are 0.
        let lowest = lowest_narrow_logit(rate);
        let exps = (
            ScaledExp::<V>::new(token, rate, references.0 * rate, 1.0),
            ScaledExp::<V>::new(token, rate, references.1 * rate, 1.0),
        );
        let lowest_lanes = V::splat(token, lowest);
        let mut step = FarStep::<V, P, Q> { exps, largest: (lowest_lanes, lowest_lanes) };
        let blocks = [Block::new(p, lowest), Block::new(q, lowest)];
        let [p_sum, q_sum, cross, pp, qq, pq, cross_cross, cross_p] = pass(token, p.classes(), blocks, kept, &mut step);
        let largest = (step.largest.0.largest(), step.largest.1.largest());
        // −∞ and NaN make a sum NaN.
        let found = (p_sum.is_finite() && q_sum.is_finite() && cross.is_finite()).then_some(BlockSums {
            p: LogSumExp { largest: references.0, rest: p_sum - 1.0 },
            q: LogSumExp { largest: references.1, rest: q_sum - 1.0 },
            largest,
            cross,
            norms: Norms { pp, qq, pq, cross_cross, cross_p },
        });
        (found, largest)
    }
}

/// Largest reference in f64 lanes, in nats: its product with 1/T is rounded by 1e-14, and so are all exponentials of a block.
const LARGEST_WIDE_NUMBER: f64 = 100.0;

/// Number of sums; without norms the first three.
const SUMS: usize = 8;

/// The largest of the first vectors of a block.
#[inline(always)]
pub(crate) fn first_largest<V: Lanes>(token: V::Token, row: Row<'_>) -> f64 {
    largest::<V>(token, row.block(0, row.classes().min(2 * V::N)))
}

/// Adds classes to the sums.
struct FarStep<V: Lanes, const P: bool, const Q: bool> {
    exps: (ScaledExp<V>, ScaledExp<V>),
    largest: (V, V),
}

impl<V: Lanes, const P: bool, const Q: bool> FarStep<V, P, Q> {
    /// Adds them; the exponentials.
    #[inline(always)]
    fn add(&mut self, [x, y]: [V; 2], runs: &mut [V; SUMS]) -> [V; 2] {
        self.largest = (self.largest.0.max(x), self.largest.1.max(y));
        let (p, q, difference) = (self.exps.0.at(x), self.exps.1.at(y), x - y);
        runs[0] = runs[0] + p;
        runs[1] = runs[1] + q;
        runs[2] = p.mul_add_relaxed(difference, runs[2]);
        if P || Q {
            runs[3] = p.mul_add_relaxed(p, runs[3]);
        }
        if Q {
            runs[4] = q.mul_add_relaxed(q, runs[4]);
            runs[5] = p.mul_add_relaxed(q, runs[5]);
        }
        if P {
            let cross = p * difference;
            runs[6] = cross.mul_add_relaxed(cross, runs[6]);
            runs[7] = p.mul_add_relaxed(cross, runs[7]);
        }
        [p, q]
    }
}

macro_rules! step_keeping {
    ($w:literal, |$exponentials:ident| $kept:expr) => {
        impl<V: Lanes, const P: bool, const Q: bool> Step<V, 2, $w, SUMS> for FarStep<V, P, Q> {
            const UNROLLED: usize = 2;
            const AHEAD: usize = AHEAD;
            const WRITES_LANES: bool = true;

            #[inline(always)]
            fn has_sum(at: usize) -> bool {
                [true, true, true, P || Q, Q, Q, P, P][at]
            }

            #[inline(always)]
            fn step<const WHOLE: bool>(&mut self, _: usize, lanes: [V; 2], runs: &mut [V; SUMS]) -> [V; $w] {
                let $exponentials = self.add(lanes, runs);
                $kept
            }
        }
    };
}

step_keeping!(0, |_exponentials| []);
step_keeping!(1, |exponentials| [exponentials[0]]);
step_keeping!(2, |exponentials| exponentials);

struct FarGradients<'a> {
    p: Distribution<'a>,
    q: Distribution<'a>,
    ln_divisors: (f64, f64),
    /// δ + KL, the mean of (x − y)/T over p.
    mean: TwoFloats,
    gradients: RowGradients<'a>,
}

impl LaneKernel for FarGradients<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Lanes>(self, token: V::Token) {
        let rate = self.p.inverse_temperature;
        let formulas = KlGradients::<V> {
            p_exp: ScaledExp::new(token, rate, self.ln_divisors.0, 1.0),
            q_exp: ScaledExp::new(token, rate, self.ln_divisors.1, 1.0),
            scale: V::splat(token, self.gradients.scale * rate),
            from_mean: LogRatio::new(token, rate, self.mean),
        };
        let lowest = lowest_narrow_logit(rate);
        let blocks = [Block::new(self.p.row, lowest), Block::new(self.q.row, lowest)];
        write_sides(token, blocks, &self.gradients, formulas);
    }
}

struct KlGradients<V: Lanes> {
    p_exp: ScaledExp<V>,
    q_exp: ScaledExp<V>,
    scale: V,
    from_mean: LogRatio<V>,
}

impl<V: Lanes> Formulas<V> for KlGradients<V> {
    /// p·(d − value) and q − p.
    #[inline(always)]
    fn of(&self, x: V, y: V) -> (V, V) {
        let (p, q) = (self.p_exp.at(x), self.q_exp.at(y));
        (self.scale * p * self.from_mean.of(x, y), self.scale * (q - p))
    }
}
