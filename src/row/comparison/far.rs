//! Rows that have little in common, in f32 lanes: two passes, and two exponentials a class.
//!
//! The first takes the exponentials of both rows relative to numbers about as large as the largest of each block, keeps those of
//! rows that are not too wide, and sums them and their products with the logits; both KL and both entropies are sums and differences of these. The second knows
//! the probabilities: with a = max(p, q), b = min(p, q), r = b/a and u = −ln r, total variation is ½Σ(a − b) and Jensen–Shannon
//! ln 2 − ½Σ[(a + b)·ln(1 + r) + b·u].

use super::{RowComparison, first_largest, is_accurate};
use crate::row::distribution::scan::{PROBE, fits_narrow_lanes, lowest_narrow_logit};
use crate::row::distribution::softmax::{AHEAD, REACH};
use crate::row::distribution::{Distribution, LogSumExp};
use crate::row::kl::far;
use crate::row::runs::{Step, pass, sums};
use crate::row::scratch::{has_scratch, with_scratch};
use crate::rows::{BLOCK, Block, BlockMut, Row, RowMut};
use crate::simd::exp::ScaledExp;
use crate::simd::ln::LN_1P_QUOTIENT;
use crate::simd::polynomial::{horner, in_lanes};
use crate::simd::{Isa, Kernel, Lanes, Simd};
use crate::threads::Blocks;

/// Both KL are to be as large.
const SMALLEST_KL: f64 = 0.5;

/// Every other number is to be as large: sums of about 1 are right to 1e-7.
const SMALLEST: f64 = 0.25;

/// Compares two rows; `None` for those that are not far apart, or of which f32 lanes lose something.
pub(super) fn compare(
    p: Distribution<'_>,
    q: Distribution<'_>,
    label: Option<usize>,
    isa: Isa,
    blocks: &Blocks,
) -> Option<RowComparison> {
    let classes = p.row.classes();
    if !has_scratch(2 * classes, false) {
        return compare_keeping(None, p, q, label, isa, blocks);
    }
    with_scratch(2 * classes, false, |memory| {
        let places = [memory.block(0, classes), memory.block(classes, classes)];
        compare_keeping(Some(places), p, q, label, isa, blocks)
    })
}

/// The same, with memory for the exponentials of both rows, if there is any.
fn compare_keeping(
    places: Option<[RowMut<'_>; 2]>,
    p: Distribution<'_>,
    q: Distribution<'_>,
    label: Option<usize>,
    isa: Isa,
    blocks: &Blocks,
) -> Option<RowComparison> {
    let (classes, rate) = (p.row.classes(), p.inverse_temperature);
    let block = |start, len| {
        let (p, q) = (p.row.block(start, len), q.row.block(start, len));
        match places {
            Some(places) => {
                let kept = places.map(|place| Some(BlockMut::new(place.block(start, len))));
                isa.run(FirstSums::<2> { p, q, rate, kept })
            }
            None => isa.run(FirstSums::<0> { p, q, rate, kept: [] }),
        }
    };
    // Rows that are close are mostly close in their first classes already.
    Moments::merge(&[block(0, classes.min(PROBE))], rate).filter(|probe| probe.kl() >= SMALLEST_KL)?;
    let parts = blocks.map(classes, block);
    let found = Moments::merge(&parts, rate)?;
    let (kl, reverse_kl) = (found.kl(), found.reverse_kl());
    let (entropy_p, entropy_q) = (found.p.entropy(), found.q.entropy());
    let accurate = kl >= SMALLEST_KL
        && reverse_kl >= SMALLEST_KL
        && is_accurate(kl, [found.p.parts(), found.crosses.0 + found.q.sum.ln_sum()])
        && is_accurate(reverse_kl, [found.q.parts(), found.crosses.1 + found.p.sum.ln_sum()])
        && entropy_p.min(entropy_q) >= SMALLEST
        && is_accurate(entropy_p, [found.p.parts(), 0.0])
        && is_accurate(entropy_q, [found.q.parts(), 0.0]);
    if !accurate {
        return None;
    }
    let surprise = |row: Row<'_>, side: Side, class: usize| {
        let (below, ln_sum) = ((side.sum.largest - row.get(class)) * rate, side.sum.ln_sum());
        let surprise = below + ln_sum;
        (surprise >= SMALLEST && is_accurate(surprise, [below, ln_sum])).then_some(surprise)
    };
    let (nll_p, nll_q) = match label {
        Some(class) => (surprise(p.row, found.p, class)?, surprise(q.row, found.q, class)?),
        None => (0.0, 0.0),
    };
    let parts_of = |side: fn(&BlockSums) -> f64| parts.iter().flatten().map(side);
    let top1_p = first_largest(p.row, parts_of(|block| block.largest.0), isa)?;
    let top1_q = first_largest(q.row, parts_of(|block| block.largest.1), isa)?;
    let confidence = |row: Row<'_>, side: Side, class: usize| (-side.sum.surprise(row.get(class), rate)).exp();
    let kept = places.map(|[of_p, of_q]| (of_p.written(), of_q.written()));
    let second = |start, len| {
        let Some(Some(BlockSums { references, .. })) = parts.get(start / BLOCK) else { return [f64::NAN; 2] };
        let (p, q) = (p.row.block(start, len), q.row.block(start, len));
        let kept = kept.map(|kept| (kept.0.block(start, len), kept.1.block(start, len)));
        isa.run(SecondSums { p, q, kept, references: *references, rate, sums: (found.p.sum, found.q.sum) })
    };
    let mut totals = [0.0; 2];
    for part in blocks.map(classes, second).iter() {
        for (total, sum) in totals.iter_mut().zip(part) {
            *total += sum;
        }
    }
    let scale = 0.5 * (-found.p.sum.ln_sum()).exp();
    let (jensen_shannon, total_variation) = (std::f64::consts::LN_2 - scale * totals[0], scale * totals[1]);
    if jensen_shannon.is_nan() || jensen_shannon < SMALLEST || total_variation < SMALLEST {
        return None;
    }
    Some(RowComparison {
        kl,
        reverse_kl,
        jensen_shannon,
        total_variation,
        entropy_p,
        entropy_q,
        top1_p: top1_p as i64,
        top1_q: top1_q as i64,
        confidence_p: confidence(p.row, found.p, top1_p),
        confidence_q: confidence(q.row, found.q, top1_q),
        nll_p,
        nll_q,
    })
}

/// One row.
#[derive(Clone, Copy)]
struct Side {
    sum: LogSumExp,
    /// The mean of (x − x₀)/T over the row itself, x₀ what `sum` is relative to.
    mean: f64,
}

impl Side {
    fn entropy(self) -> f64 {
        self.sum.ln_sum() - self.mean
    }

    /// What the entropy, and KL, is the difference of.
    fn parts(self) -> f64 {
        self.sum.ln_sum().abs() + self.mean.abs()
    }
}

/// Two rows.
struct Moments {
    p: Side,
    q: Side,
    /// The mean of (y − y₀)/T over p, and of (x − x₀)/T over q.
    crosses: (f64, f64),
}

impl Moments {
    fn kl(&self) -> f64 {
        (self.q.sum.ln_sum() - self.crosses.0) - self.p.entropy()
    }

    fn reverse_kl(&self) -> f64 {
        (self.p.sum.ln_sum() - self.crosses.1) - self.q.entropy()
    }

    fn merge(parts: &[Option<BlockSums>], rate: f64) -> Option<Self> {
        if parts.iter().any(Option::is_none) {
            return None;
        }
        let blocks = parts.iter().flatten();
        let side = |part: fn(&BlockSums) -> (f64, f64)| {
            let sums = blocks.clone().map(part).map(|(largest, sum)| LogSumExp { largest, rest: sum - 1.0 });
            LogSumExp::merge(sums, rate)
        };
        let p = side(|block| (block.references.0, block.p[0]));
        let q = side(|block| (block.references.1, block.q[0]));
        let mut means = [0.0; 4];
        for block in blocks {
            let (x, y) = (block.references.0 - p.largest, block.references.1 - q.largest);
            let p_weight = rate * (x * rate - p.ln_sum()).exp();
            let q_weight = rate * (y * rate - q.ln_sum()).exp();
            means[0] += p_weight * (block.p[1] + x * block.p[0]);
            means[1] += p_weight * (block.p[2] + y * block.p[0]);
            means[2] += q_weight * (block.q[1] + x * block.q[0]);
            means[3] += q_weight * (block.q[2] + y * block.q[0]);
        }
        let [of_p, p_cross, q_cross, of_q] = means;
        means.iter().all(|mean| mean.is_finite()).then_some(Moments {
            p: Side { sum: p, mean: of_p },
            q: Side { sum: q, mean: of_q },
            crosses: (p_cross, q_cross),
        })
    }
}

/// Of a block, with exponentials and logits relative to `references`.
#[derive(Clone, Copy)]
struct BlockSums {
    references: (f64, f64),
    largest: (f64, f64),
    /// Σp, Σp(x − x₀), Σp(y − y₀).
    p: [f64; 3],
    /// Σq, Σq(x − x₀), Σq(y − y₀).
    q: [f64; 3],
}

struct FirstSums<'a, const W: usize> {
    p: Row<'a>,
    q: Row<'a>,
    rate: f64,
    /// Where the exponentials are to be kept: of both rows, or of none.
    kept: [Option<BlockMut<'a, f32>>; W],
}

impl Kernel for FirstSums<'_, 0> {
    type Output = Option<BlockSums>;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Option<BlockSums> {
        self.sums(simd)
    }
}

impl Kernel for FirstSums<'_, 2> {
    type Output = Option<BlockSums>;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Option<BlockSums> {
        self.sums(simd)
    }
}

impl<const W: usize> FirstSums<'_, W> {
    #[inline(always)]
    fn sums<S: Simd>(self, simd: S) -> Option<BlockSums>
    where
        FirstStep<S::F32>: Step<S::F32, 2, W, 6>,
    {
        let FirstSums { p, q, rate, kept } = self;
        let mut references = (far::first_largest::<S::F32>(simd, p), far::first_largest::<S::F32>(simd, q));
        let within = |largest: f64, reference: f64| (largest - reference) * rate <= REACH;
        let mut tries = 0;
        loop {
            // A masked block, or NaN and +∞ where the maximum shows them; elsewhere the sums do.
            if !(fits_narrow_lanes(references.0, rate) && fits_narrow_lanes(references.1, rate)) {
                return None;
            }
            let lowest = lowest_narrow_logit(rate);
            let lowest_lanes = S::F32::splat(simd, lowest);
            let mut step = FirstStep {
                exps: (
                    ScaledExp::<S::F32>::new(simd, rate, references.0 * rate, 1.0),
                    ScaledExp::<S::F32>::new(simd, rate, references.1 * rate, 1.0),
                ),
                references: (S::F32::splat(simd, references.0), S::F32::splat(simd, references.1)),
                largest: (lowest_lanes, lowest_lanes),
            };
            let blocks = [Block::new(p, lowest), Block::new(q, lowest)];
            let [p_sum, p_x, p_y, q_sum, q_x, q_y] = pass(simd, p.classes(), blocks, kept, &mut step);
            let largest = (step.largest.0.largest(), step.largest.1.largest());
            if tries == 0 && !(within(largest.0, references.0) && within(largest.1, references.1)) {
                references = largest;
                tries = 1;
                continue;
            }
            // −∞ and NaN make a sum NaN or infinite.
            let (p, q) = ([p_sum, p_x, p_y], [q_sum, q_x, q_y]);
            let finite = p.iter().chain(&q).all(|sum| sum.is_finite());
            return finite.then_some(BlockSums { references, largest, p, q });
        }
    }
}

struct FirstStep<V: Lanes> {
    exps: (ScaledExp<V>, ScaledExp<V>),
    references: (V, V),
    largest: (V, V),
}

impl<V: Lanes> FirstStep<V> {
    /// Adds them; the exponentials.
    #[inline(always)]
    fn add(&mut self, [x, y]: [V; 2], runs: &mut [V; 6]) -> [V; 2] {
        self.largest = (self.largest.0.max(x), self.largest.1.max(y));
        let (p, q) = (self.exps.0.at(x), self.exps.1.at(y));
        let (x, y) = (x - self.references.0, y - self.references.1);
        runs[0] = runs[0] + p;
        runs[1] = p.mul_add_relaxed(x, runs[1]);
        runs[2] = p.mul_add_relaxed(y, runs[2]);
        runs[3] = runs[3] + q;
        runs[4] = q.mul_add_relaxed(x, runs[4]);
        runs[5] = q.mul_add_relaxed(y, runs[5]);
        [p, q]
    }
}

impl<V: Lanes> Step<V, 2, 0, 6> for FirstStep<V> {
    const AHEAD: usize = AHEAD;

    #[inline(always)]
    fn step<const WHOLE: bool>(&mut self, _: usize, lanes: [V; 2], runs: &mut [V; 6]) -> [V; 0] {
        self.add(lanes, runs);
        []
    }
}

impl<V: Lanes> Step<V, 2, 2, 6> for FirstStep<V> {
    const AHEAD: usize = AHEAD;
    const WRITES_LANES: bool = true;

    #[inline(always)]
    fn step<const WHOLE: bool>(&mut self, _: usize, lanes: [V; 2], runs: &mut [V; 6]) -> [V; 2] {
        self.add(lanes, runs)
    }
}

/// Σ[(a + b)·ln(1 + r) + b·u] and Σ(a − b) of a block, times the sum of the exponentials of p.
struct SecondSums<'a> {
    p: Row<'a>,
    q: Row<'a>,
    /// The exponentials, relative to `references`, if they were kept.
    kept: Option<(Row<'a>, Row<'a>)>,
    references: (f64, f64),
    rate: f64,
    sums: (LogSumExp, LogSumExp),
}

impl Kernel for SecondSums<'_> {
    type Output = [f64; 2];

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> [f64; 2] {
        let SecondSums { p, q, kept, references, rate, sums: (p_sum, q_sum) } = self;
        let splat = |value| S::F32::splat(simd, value);
        // ln q is (y − y₀)/T + δ less what ln p is short of (x − x₀)/T, for a y₀ with a small δ, which costs no digits.
        let delta = p_sum.ln_sum() - q_sum.ln_sum();
        let own = q_sum.largest - delta / rate;
        let reference = f64::from(own as f32);
        let mut step = SecondStep::<S::F32> {
            exps: (
                ScaledExp::new(simd, rate, references.0 * rate, 1.0),
                ScaledExp::new(simd, rate, references.1 * rate, 1.0),
            ),
            weights: (
                splat(((references.0 - p_sum.largest) * rate).exp()),
                splat(((references.1 - q_sum.largest) * rate + delta).exp()),
            ),
            references: (splat(p_sum.largest), splat(reference)),
            rate: splat(rate),
            delta: splat((own - reference) * rate),
            tiny: splat(TINY),
            ln_1p: in_lanes(simd, std::hint::black_box(LN_1P_QUOTIENT)),
        };
        let lowest = lowest_narrow_logit(rate);
        let (x, y) = (Block::new(p, lowest), Block::new(q, lowest));
        match kept {
            Some(kept) => {
                let blocks = [x, y, Block::new(kept.0, 0.0), Block::new(kept.1, 0.0)];
                sums(simd, p.classes(), blocks, &mut step)
            }
            None => sums(simd, p.classes(), [x, y], &mut step),
        }
    }
}

/// Smaller exponentials are nothing in a sum.
const TINY: f64 = 1e-37;

struct SecondStep<V: Lanes> {
    /// Those that are kept, where they are not.
    exps: (ScaledExp<V>, ScaledExp<V>),
    /// What makes the kept exponentials probabilities, times the sum of those of p.
    weights: (V, V),
    references: (V, V),
    rate: V,
    delta: V,
    tiny: V,
    /// [`LN_1P_QUOTIENT`] from memory: as constants its coefficients are moved from register to register, twenty a vector.
    ln_1p: [V; LN_1P_QUOTIENT.len()],
}

impl<V: Lanes> SecondStep<V> {
    #[inline(always)]
    fn add(&self, [x, y, p, q]: [V; 4], runs: &mut [V; 2]) {
        let (p, q) = (p * self.weights.0, q * self.weights.1);
        let (a, b) = (p.max(q), p.min(q));
        let r = b.divide_relaxed(a.max(self.tiny));
        let apart = (x - self.references.0) - (y - self.references.1);
        let u = apart.mul_add_relaxed(self.rate, self.delta).abs();
        runs[0] = ((a + b) * r).mul_add_relaxed(horner(&self.ln_1p, r), runs[0]);
        runs[0] = b.mul_add_relaxed(u, runs[0]);
        runs[1] = runs[1] + (a - b);
    }
}

impl<V: Lanes> Step<V, 4, 0, 2> for SecondStep<V> {
    #[inline(always)]
    fn step<const WHOLE: bool>(&mut self, _: usize, lanes: [V; 4], runs: &mut [V; 2]) -> [V; 0] {
        self.add(lanes, runs);
        []
    }
}

impl<V: Lanes> Step<V, 2, 0, 2> for SecondStep<V> {
    #[inline(always)]
    fn step<const WHOLE: bool>(&mut self, _: usize, [x, y]: [V; 2], runs: &mut [V; 2]) -> [V; 0] {
        self.add([x, y, self.exps.0.at(x), self.exps.1.at(y)], runs);
        []
    }
}
