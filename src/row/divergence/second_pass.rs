//! The pass over the classes of two rows that sums values and slopes, and writes slopes or gradients.

use crate::divergence::{Class, Divergence, Pair};
use crate::row::distribution::Distribution;
use crate::row::divergence::gradient_writer::{Rule, Writer};
use crate::row::divergence::kept_slopes::Places;
use crate::row::pair::{Frame, PairView};
use crate::row::runs::{Step, pass};
use crate::rows::{Block, BlockMut};
use crate::simd::{Kernel, LaneKernel, Lanes, Scalar, Simd};

/// What a pass over the classes does.
pub(crate) type Mode = u8;

/// Σf̃.
pub(crate) const SUMS_OF_VALUES: Mode = 0;
/// Sums and norms of the slopes too, which are written.
pub(crate) const SLOPES: Mode = 1;
/// Gradients are written instead of the slopes of sides that have a rule; and sums for rows taken as given. The one mode of f64
/// lanes, where it costs little next to the class itself.
pub(crate) const EVERYTHING: Mode = 2;

/// Sums over the classes of a row or block.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sums {
    /// Σ f̃.
    pub(crate) value: f64,
    /// Σ ∂f̃/∂ln p; of a side whose gradient is written, its sum.
    pub(crate) d_ln_p: f64,
    /// Σ ∂f̃/∂ln q; of a side whose gradient is written, its sum.
    pub(crate) d_ln_q: f64,
    /// Σ(p − q).
    pub(crate) excess: f64,
    /// Σq.
    pub(crate) q: f64,
    pub(crate) p_norms: Norms,
    pub(crate) q_norms: Norms,
}

/// How many times the gradient its parts may be in f32 lanes, squared.
pub(crate) const LARGEST_PARTS: f64 = 16.0;

/// What tells how much of the gradient a − p·Σa of a side cancels.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Norms {
    /// Σa².
    pub(crate) slopes: f64,
    /// Σa·p.
    pub(crate) cross: f64,
    /// Σp².
    pub(crate) probabilities: f64,
}

impl Norms {
    pub(crate) fn merge(self, other: Self) -> Self {
        Norms {
            slopes: self.slopes + other.slopes,
            cross: self.cross + other.cross,
            probabilities: self.probabilities + other.probabilities,
        }
    }

    /// a/p of a single class; 0 where that is no number.
    pub(crate) fn slope_per_probability(self) -> f64 {
        let ratio = self.cross / self.probabilities;
        if ratio.is_finite() { ratio } else { 0.0 }
    }

    /// The squares of what a − p·Σa is the difference of, and its own.
    pub(crate) fn squares(self, slope_sum: f64) -> (f64, f64) {
        let parts = self.slopes + slope_sum * slope_sum * self.probabilities;
        (parts, parts - 2.0 * slope_sum * self.cross)
    }

    /// Whether what the gradient is the difference of is more than some number times it, squared: a row that few classes dominate.
    pub(crate) fn cancel(self, slope_sum: f64, most: f64) -> bool {
        let (parts, difference) = self.squares(slope_sum);
        // Not finite means that the squares left the range of f32.
        !(most * difference >= parts && parts.is_finite())
    }
}

impl Sums {
    /// Whether a wanted gradient cancels too much for f32 lanes.
    pub(crate) fn cancel(&self, wanted: (bool, bool), most: f64) -> bool {
        (wanted.0 && self.p_norms.cancel(self.d_ln_p, most)) || (wanted.1 && self.q_norms.cancel(self.d_ln_q, most))
    }

    pub(crate) fn merge(self, other: Self) -> Self {
        Sums {
            value: self.value + other.value,
            d_ln_p: self.d_ln_p + other.d_ln_p,
            d_ln_q: self.d_ln_q + other.d_ln_q,
            excess: self.excess + other.excess,
            q: self.q + other.q,
            p_norms: self.p_norms.merge(other.p_norms),
            q_norms: self.q_norms.merge(other.q_norms),
        }
    }
}

/// What is taken off the slopes per probability of a side, whose gradient of logits knows no multiple of p.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Gauge {
    /// This number.
    Number(f64),
    /// [`Divergence::lone_slopes`], without their difference.
    Lone,
}

impl Gauge {
    pub(crate) const NONE: Self = Gauge::Number(0.0);

    fn number(self) -> f64 {
        match self {
            Gauge::Number(number) => number,
            Gauge::Lone => 0.0,
        }
    }
}

pub(crate) struct SecondPass<'a, D> {
    pub(crate) divergence: D,
    pub(crate) p: Distribution<'a>,
    pub(crate) q: Distribution<'a>,
    pub(crate) frame: Frame,
    /// What slopes are relative to, in f64 lanes.
    pub(crate) gauge: (Gauge, Gauge),
    /// Where slopes go, or gradients.
    pub(crate) outputs: Places<'a>,
    /// Of gradients.
    pub(crate) rule: Option<Rule>,
    /// Whether to sum norms, too: where the kernel does not know.
    pub(crate) norms: bool,
}

/// The pass in one mode.
pub(crate) struct InMode<'a, D, const MODE: Mode>(pub(super) SecondPass<'a, D>);

impl<D: Divergence, const MODE: Mode> LaneKernel for InMode<'_, D, MODE> {
    type Output = Sums;

    #[inline(always)]
    fn run<V: Lanes>(self, token: V::Token) -> Sums {
        let SecondPass { divergence, p, q, frame, gauge, outputs, rule, norms } = self.0;
        let writers = rule.filter(|_| MODE == EVERYTHING).map_or((None, None), |rule| {
            (outputs.0.map(|_| Writer::new(token, rule.p)), outputs.1.map(|_| Writer::new(token, rule.q)))
        });
        let mut step = SecondStep::<V, D, MODE> {
            divergence,
            view: PairView::new(token, p, q, &frame),
            writers,
            norms,
            gauges: (V::splat(token, -gauge.0.number()), V::splat(token, -gauge.1.number())),
            beyond_lone: (gauge.0 == Gauge::Lone, gauge.1 == Gauge::Lone),
        };
        let (classes, absent) = (p.row.classes(), (p.space.absent(), q.space.absent()));
        let blocks = [Block::new(p.row, absent.0), Block::new(q.row, absent.1)];
        let totals = if MODE == SUMS_OF_VALUES {
            pass::<V, _, 2, 0, SUMS>(token, classes, blocks, [], &mut step)
        } else {
            let outputs = [outputs.0.map(BlockMut::new), outputs.1.map(BlockMut::new)];
            pass::<V, _, 2, 2, SUMS>(token, classes, blocks, outputs, &mut step)
        };
        let norms = |at: usize| Norms { slopes: totals[at], cross: totals[at + 1], probabilities: totals[at + 2] };
        Sums {
            value: totals[0],
            d_ln_p: totals[1],
            d_ln_q: totals[2],
            excess: totals[3],
            q: totals[4],
            p_norms: norms(5),
            q_norms: norms(8),
        }
    }
}

/// Whether a pass has anything to add to total number `at`: Σf̃, the sums of slopes or gradients, those of rows taken
/// as given, the norms. Known to the compiler, which drops the others.
#[inline(always)]
const fn sums_at(mode: Mode, at: usize) -> bool {
    match at {
        0 => true,
        3 | 4 => mode == EVERYTHING,
        _ => mode != SUMS_OF_VALUES,
    }
}

/// Number of sums of a pass, of which each mode has some ([`sums_at`]).
const SUMS: usize = 11;

/// What a pass does with each vector of classes.
struct SecondStep<V: Lanes, D, const MODE: Mode> {
    divergence: D,
    view: PairView<V>,
    /// Of the gradients that are wanted.
    writers: (Option<Writer<V>>, Option<Writer<V>>),
    norms: bool,
    gauges: (V, V),
    beyond_lone: (bool, bool),
}

impl<V: Lanes, D: Divergence, const MODE: Mode> SecondStep<V, D, MODE> {
    /// The class, its slopes relative to the gauges, and what there is to sum of it.
    #[inline(always)]
    fn take(&self, [x, y]: [V; 2], runs: &mut [V; SUMS]) -> (Pair<V>, Class<V>) {
        let has_sum = |at| sums_at(MODE, at);
        let pair = self.view.pair(x, y);
        let mut class = self.divergence.class(&pair);
        if V::Scalar::WIDE {
            let (p, q) = (pair.p.mul_add(self.gauges.0, class.d_ln_p), pair.q.mul_add(self.gauges.1, class.d_ln_q));
            if D::HAS_LONE_SLOPES && (self.beyond_lone.0 || self.beyond_lone.1) {
                let beyond = self.divergence.slopes_beyond_lone(&pair, &class);
                class.d_ln_p = if self.beyond_lone.0 { beyond.0 } else { p };
                class.d_ln_q = if self.beyond_lone.1 { beyond.1 } else { q };
            } else {
                (class.d_ln_p, class.d_ln_q) = (p, q);
            }
        }
        runs[0] = runs[0] + class.value;
        if has_sum(3) {
            runs[3] = runs[3] + pair.difference();
            runs[4] = runs[4] + pair.q;
        }
        if has_sum(5) && (MODE == SLOPES || self.norms) {
            add_norms(runs, 5, class.d_ln_p, pair.p);
            add_norms(runs, 8, class.d_ln_q, pair.q);
        }
        (pair, class)
    }
}

impl<V: Lanes, D: Divergence, const MODE: Mode> Step<V, 2, 0, SUMS> for SecondStep<V, D, MODE> {
    const CONVERTS_APART: bool = true;

    #[inline(always)]
    fn has_sum(at: usize) -> bool {
        sums_at(MODE, at)
    }

    #[inline(always)]
    fn step<const WHOLE: bool>(&mut self, _: usize, lanes: [V; 2], runs: &mut [V; SUMS]) -> [V; 0] {
        self.take(lanes, runs);
        []
    }
}

impl<V: Lanes, D: Divergence, const MODE: Mode> Step<V, 2, 2, SUMS> for SecondStep<V, D, MODE> {
    const CONVERTS_APART: bool = true;

    #[inline(always)]
    fn has_sum(at: usize) -> bool {
        sums_at(MODE, at)
    }

    #[inline(always)]
    fn step<const WHOLE: bool>(&mut self, _: usize, lanes: [V; 2], runs: &mut [V; SUMS]) -> [V; 2] {
        let (pair, class) = self.take(lanes, runs);
        let (mut p, mut q) = (class.d_ln_p, class.d_ln_q);
        if let Some(writer) = &self.writers.0 {
            p = writer.gradient::<D, false>(self.divergence, &pair, &class);
        }
        if let Some(writer) = &self.writers.1 {
            q = writer.gradient::<D, true>(self.divergence, &pair, &class);
        }
        runs[1] = runs[1] + p;
        runs[2] = runs[2] + q;
        [p, q]
    }
}

/// Adds to the three sums of [`Norms`] from `at` on.
#[inline(always)]
fn add_norms<V: Lanes>(runs: &mut [V; SUMS], at: usize, slope: V, probability: V) {
    runs[at] = slope.mul_add_relaxed(slope, runs[at]);
    runs[at + 1] = slope.mul_add_relaxed(probability, runs[at + 1]);
    runs[at + 2] = probability.mul_add_relaxed(probability, runs[at + 2]);
}

/// The largest [`Divergence::score`] of a block, of the classes that both rows have; −∞ where there is none.
pub(crate) struct LargestClass<'a, D> {
    pub(crate) divergence: D,
    pub(crate) p: Distribution<'a>,
    pub(crate) q: Distribution<'a>,
    pub(crate) frame: Frame,
}

impl<D: Divergence> Kernel for LargestClass<'_, D> {
    type Output = f64;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> f64 {
        let LargestClass { divergence, p, q, frame } = self;
        let lowest = S::F64::splat(simd, f64::NEG_INFINITY);
        let mut step =
            LargestStep::<S::F64, D> { divergence, view: PairView::new(simd, p, q, &frame), lowest, largest: lowest };
        let blocks = [Block::new(p.row, p.space.absent()), Block::new(q.row, q.space.absent())];
        pass(simd, p.row.classes(), blocks, [], &mut step);
        step.largest.largest()
    }
}

struct LargestStep<V: Lanes, D> {
    divergence: D,
    view: PairView<V>,
    lowest: V,
    largest: V,
}

impl<V: Lanes, D: Divergence> Step<V, 2, 0, 0> for LargestStep<V, D> {
    #[inline(always)]
    fn step<const WHOLE: bool>(&mut self, _: usize, [x, y]: [V; 2], _: &mut [V; 0]) -> [V; 0] {
        let pair = self.view.pair(x, y);
        let score = self.divergence.score(&pair);
        self.largest = self.largest.max(V::select(pair.shared(), score, self.lowest));
        []
    }
}
