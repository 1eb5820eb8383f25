//! The loop over the classes of a block of two rows that have much in common: what [`close`](super::close) merges.

use crate::row::distribution::scan::{fits_narrow_lanes, holds_finite_below, largest, lowest_narrow_logit};
use crate::row::distribution::{Distribution, LogSumExp};
use crate::row::kl::outlook::{Outlook, outlook};
use crate::row::pair::{LARGEST_NARROW_DELTA, LogRatio};
use crate::row::runs::{Step, pass};
use crate::row::two_floats::TwoFloats;
use crate::rows::{BLOCK, Block, BlockMut, RowMut};
use crate::simd::exp::{Decay, Excess, ScaledExp, exp};
use crate::simd::{Kernel, LaneKernel, Lanes, Scalar, Simd};

/// Largest |t| of classes that both rows have, in nats.
const LARGEST_LOG_RATIO: f64 = 2e4;

/// Smallest t in f64 lanes, where e^(−t) is in range.
const SMALLEST_WIDE_LOG_RATIO: f64 = -690.0;

/// Largest ln(q/p) that f32 lanes take, relative to the largest p of the block, in nats.
const REACH_OF_Q: f64 = 80.0;

/// Largest t in f32 lanes for which the center is where most of p is: a class with the share w of it moves the center, of
/// squares, by w²t, and the gradient q − p is no smaller than w. Where t is as negative, w is next to nothing.
const LARGEST_STEADY_T: f64 = 16.0;

/// Part of the lowest logit of f32 lanes, which stands for −∞, that finite ones are above: with c and t in range, a class
/// that one row lacks is beyond [`LARGEST_LOG_RATIO`].
const LOWEST_SHARE: f64 = 0.6;

/// Largest |c| in f64 lanes, where two f64 hold it to far below what t is rounded by; in f32 lanes it is
/// [`LARGEST_NARROW_DELTA`].
const LARGEST_WIDE_CENTER: f64 = 1e5;

/// Sums of a block, weights w = e^((x − largest)/T) and t about the block's own center.
#[derive(Clone, Copy, Debug)]
pub(super) struct BlockSums {
    pub(super) p: LogSumExp,
    pub(super) center: TwoFloats,
    /// Σ w·(e^(−t) − 1).
    pub(super) difference: f64,
    /// Σ w·g(t).
    pub(super) excess: f64,
    pub(super) norms: Norms,
    pub(super) p_lacks: bool,
    /// The largest |t|, in f32 lanes of those of vectors with some above 1, else 0.
    pub(super) span: f64,
    /// Whether some t is so large that the center may be far from where most of p is.
    pub(super) spread: bool,
}

impl BlockSums {
    /// The span about another center; what is 0 stays so.
    pub(super) fn span_about(&self, center: TwoFloats) -> f64 {
        if self.span > 0.0 { self.span + self.center.minus(center).abs() } else { 0.0 }
    }
}

/// Sums for the gradient of p.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Norms {
    /// Σ w·t; in f64 lanes always.
    pub(super) cross: f64,
    /// Σ w².
    pub(super) pp: f64,
    /// Σ w²·t.
    pub(super) cross_p: f64,
    /// Σ w²·t².
    pub(super) cross_cross: f64,
}

/// Sums of a block, with the norms for the gradient of p if `P`.
pub(super) struct CloseSums<'a, const P: bool> {
    pub(super) p: Distribution<'a>,
    pub(super) q: Distribution<'a>,
    /// If not the block's own.
    pub(super) center: Option<TwoFloats>,
}

impl<const P: bool> LaneKernel for CloseSums<'_, P> {
    type Output = Option<BlockSums>;

    #[inline(always)]
    fn run<V: Lanes>(self, token: V::Token) -> Option<BlockSums> {
        self.over_classes::<V, 0>(token, [])
    }
}

/// The same in f32 lanes, keeping w and w·(e^(−t) − 1).
pub(super) struct KeptSums<'a, const P: bool>(pub(super) CloseSums<'a, P>, pub(super) [RowMut<'a>; 2]);

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
        // f64 lanes have one way.
        let (found, extremes) = if steady && !V::Scalar::WIDE {
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
            const PADDED_APART: bool = STEADY;
            const WRITES_LANES: bool = true;

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
