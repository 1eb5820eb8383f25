//! Value and gradients of a divergence of two rows.
//!
//! The first pass finds the statistics, the second the sums, a third writes the gradients; where the gradients need
//! no sum of their own, the second and the third are one.

use super::pair::{Frame, NoStatistics, Pair, PairView, Statistics};
use super::scan::first_at;
use super::softmax::{Distribution, LogSumExp};
use super::space::Space;
use crate::batch::Blocks;
use crate::divergence::Divergence;
use crate::element::Dtype;
use crate::rows::RowMut;
use crate::simd::{Isa, Kernel, Lanes, RUN, Scalar, Simd, Total};

/// Where to write the gradients of one row, and what to multiply them by.
#[derive(Clone, Copy)]
pub(crate) struct RowGradients<'a> {
    /// ∂L/∂value: upstream gradient, weight and the reduction's divisor.
    pub(crate) scale: f64,
    pub(crate) p: Option<RowMut<'a>>,
    pub(crate) q: Option<RowMut<'a>>,
}

impl RowGradients<'_> {
    /// Sets every gradient to `value`.
    pub(crate) fn fill(&self, value: f64) {
        for out in [self.p, self.q].into_iter().flatten() {
            out.fill(value);
        }
    }

    fn block(&self, start: usize, len: usize) -> Self {
        RowGradients {
            scale: self.scale,
            p: self.p.map(|out| out.block(start, len)),
            q: self.q.map(|out| out.block(start, len)),
        }
    }
}

/// The value of `divergence` between `p` and `q`; writes the gradients asked for.
pub(crate) fn divergence<D: Divergence>(
    divergence: D,
    p: Distribution<'_>,
    q: Distribution<'_>,
    isa: Isa,
    blocks: &Blocks,
    gradients: RowGradients<'_>,
) -> f64 {
    let mut wide = divergence.needs_wide_lanes()
        || !(p.allows_narrow_lanes() && q.allows_narrow_lanes() && p.inverse_temperature == q.inverse_temperature);
    // A value found in f32 lanes stays, so that asking for a gradient does not change its bits.
    let mut found = None;
    loop {
        let (p, q) = if wide { (p, q) } else { (p.at_narrow_rate(), q.at_narrow_rate()) };
        match Statistics::new(p, q, isa, blocks, wide, false) {
            Ok(statistics) => {
                let call = Call { divergence, p, q, isa, blocks, wide, statistics };
                match call.finish(gradients) {
                    Finished::Done(value) => return found.unwrap_or(value),
                    Finished::ValueOnly(value) => found = Some(value),
                    Finished::OutOfRange => {}
                }
                wide = true;
            }
            Err(NoStatistics::NeedsWideLanes) => wide = true,
            Err(NoStatistics::Invalid) => {
                gradients.fill(f64::NAN);
                return f64::NAN;
            }
        }
    }
}

/// How far f32 or f64 lanes came.
enum Finished {
    /// Value and gradients.
    Done(f64),
    /// The value; the gradients cancel too much for f32 lanes.
    ValueOnly(f64),
    /// Nothing: the sum leaves the range of f32 lanes.
    OutOfRange,
}

/// A divergence of two rows whose statistics are known.
struct Call<'a, D> {
    divergence: D,
    p: Distribution<'a>,
    q: Distribution<'a>,
    isa: Isa,
    blocks: &'a Blocks,
    wide: bool,
    statistics: Statistics,
}

impl<D: Divergence> Call<'_, D> {
    fn finish(&self, gradients: RowGradients<'_>) -> Finished {
        let wanted = (gradients.p.is_some(), gradients.q.is_some());
        let at_once = |wanted: bool, side: Distribution<'_>, slope_sum_is_zero: bool| {
            !wanted || side.space != Space::Logits || slope_sum_is_zero
        };
        let fused = !D::HAS_OUTER
            && at_once(wanted.0, self.p, self.slope_sum_is_zero().0)
            && at_once(wanted.1, self.q, self.slope_sum_is_zero().1);
        if fused && (wanted.0 || wanted.1) {
            let rule = self.gradient_rule(&gradients, &Sums::default(), 1.0);
            let sums = self.pass(Some((&gradients, rule)), Mode::Both, (0.0, 0.0));
            let value = self.value(&sums).0;
            self.mend_infinite(value, &gradients);
            return Finished::Done(value);
        }
        let mode = if wanted.0 || wanted.1 { Mode::SumsAndSlopes } else { Mode::Sums };
        let gauge = self.gauge(wanted);
        let sums = self.pass(None, mode, gauge);
        let (value, slope) = self.value(&sums);
        if D::HAS_OUTER && !value.is_finite() && !self.is_infinite() {
            return if self.wide { Finished::Done(self.rescaled(gradients)) } else { Finished::OutOfRange };
        }
        if wanted.0 || wanted.1 {
            let cancels =
                (wanted.0 && sums.p_norms.cancel(sums.d_ln_p)) || (wanted.1 && sums.q_norms.cancel(sums.d_ln_q));
            if cancels && !self.wide {
                return Finished::ValueOnly(value);
            }
            self.write_gradients(&gradients, &sums, gauge, value, slope);
        }
        Finished::Done(value)
    }

    fn write_gradients(&self, gradients: &RowGradients<'_>, sums: &Sums, gauge: (f64, f64), value: f64, slope: f64) {
        let rule = self.gradient_rule(gradients, sums, slope);
        let dominant = self.dominant(gradients);
        let left = self.pass(Some((gradients, rule)), Mode::Gradients, gauge);
        for (top, left) in dominant.into_iter().zip([left.d_ln_p, left.d_ln_q]) {
            if let Some((out, class)) = top {
                out.set(class, out.get(class) - left);
            }
        }
        self.mend_infinite(value, gradients);
    }

    /// The slope per probability of the most probable class of each side, for gradients of logits in f64 lanes.
    ///
    /// A multiple of p added to the slopes drops out of a − p·Σa. Taking off the leading class's own leaves Σa to the
    /// others, and classes that share its slope (those of one sign in total variation) with exactly nothing.
    fn gauge(&self, wanted: (bool, bool)) -> (f64, f64) {
        /// Up to this sum of the others, a probability of 1/10: below it a class's slope is not typical of the row's.
        const LEADING: f64 = 9.0;
        // Where Σa is known to be 0 it is for the slopes as they are.
        let known = self.slope_sum_is_zero();
        let slopes = |wanted: bool, known: bool, side: Distribution<'_>, sum: LogSumExp| {
            if !(wanted && !known && self.wide && side.space == Space::Logits && sum.rest < LEADING) {
                return (0.0, 0.0);
            }
            first_at(side.row, sum.largest, self.isa).map_or((0.0, 0.0), |class| {
                let numbers = (self.p.row.get(class), self.q.row.get(class));
                let Call { divergence, p, q, .. } = *self;
                self.isa.run(SlopesAt { divergence, p, q, frame: self.statistics.frame, numbers })
            })
        };
        (slopes(wanted.0, known.0, self.p, self.statistics.p).0, slopes(wanted.1, known.1, self.q, self.statistics.q).1)
    }

    /// The class that dominates each side whose gradient is written in f64, if one does.
    ///
    /// The gradient of logits sums to zero, and such a row loses digits in that class only, which is mended by what is
    /// left of the sum. In narrower outputs the loss does not show.
    fn dominant<'a>(&self, gradients: &RowGradients<'a>) -> [Option<(RowMut<'a>, usize)>; 2] {
        let sides = [(gradients.p, self.p, self.statistics.p), (gradients.q, self.q, self.statistics.q)];
        sides.map(|(out, side, sum)| {
            let out = out.filter(|out| out.dtype() == Dtype::F64 && side.space == Space::Logits && sum.rest < 1.0)?;
            Some((out, first_at(side.row, sum.largest, self.isa)?))
        })
    }

    /// Again, relative to the largest class, where the sum of an outer function leaves the range of f64.
    fn rescaled(&self, gradients: RowGradients<'_>) -> f64 {
        let kernel = |start, len| LargestClass {
            divergence: self.divergence,
            p: self.p.block(start, len),
            q: self.q.block(start, len),
            frame: self.statistics.frame,
        };
        let parts = self.blocks.map(self.p.row.classes(), |start, len| self.isa.run(kernel(start, len)));
        let ln_largest = parts.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let divergence = self.divergence.rescaled(ln_largest);
        // No class has both p and q, only numbers that stand for infinite logarithms, and the sum is 0.
        if ln_largest < -1e200 {
            gradients.fill(f64::NAN);
            return f64::INFINITY;
        }
        let call = Call { divergence, blocks: self.blocks, ..*self };
        let gauge = call.gauge((gradients.p.is_some(), gradients.q.is_some()));
        let sums = call.pass(None, Mode::SumsAndSlopes, gauge);
        let (value, slope) = call.value(&sums);
        call.write_gradients(&gradients, &sums, gauge, value, slope);
        value
    }

    /// Known for rows that sum to one; measured for rows taken as given.
    fn slope_sum_is_zero(&self) -> (bool, bool) {
        let known = D::SLOPE_SUM_IS_ZERO;
        (known.0 && self.both_normalized(), known.1 && self.both_normalized())
    }

    fn both_normalized(&self) -> bool {
        self.p.space == Space::Logits && self.q.space == Space::Logits
    }

    fn is_infinite(&self) -> bool {
        let infinite = self.divergence.infinite_where();
        let support = self.statistics.support;
        (infinite.q_zero && support.q_zero) || (infinite.p_zero && support.p_zero)
    }

    /// φ and φ′.
    fn value(&self, sums: &Sums) -> (f64, f64) {
        if self.is_infinite() {
            return (f64::INFINITY, 1.0);
        }
        let mut near = sums.value;
        if !self.both_normalized() {
            let (lambda, mu) = self.divergence.linear();
            near += lambda * sums.excess + (lambda + mu) * (sums.q - 1.0);
        }
        let outer = self.divergence.finish(near);
        // Adding 0 makes a zero positive.
        let value = if self.both_normalized() { outer.value.max(0.0) } else { outer.value };
        (value + 0.0, outer.slope)
    }

    /// Where the value is infinite, so is the slope of a side's missing classes, and with logits nothing is left of
    /// the gradient; but a side whose slopes sum to zero has a finite one (kl's q − p).
    fn mend_infinite(&self, value: f64, gradients: &RowGradients<'_>) {
        if value != f64::INFINITY {
            return;
        }
        let sides =
            [(gradients.p, self.p.space, D::SLOPE_SUM_IS_ZERO.0), (gradients.q, self.q.space, D::SLOPE_SUM_IS_ZERO.1)];
        for (out, space, finite) in sides {
            if let Some(out) = out
                && (D::HAS_OUTER || (space == Space::Logits && !finite))
            {
                out.fill(f64::NAN);
            }
        }
    }

    fn gradient_rule(&self, gradients: &RowGradients<'_>, sums: &Sums, slope: f64) -> Rule {
        let limits = self.divergence.slopes_at_zero();
        let infinite = self.is_infinite();
        let known = self.slope_sum_is_zero();
        let side = |distribution: Distribution<'_>, slope_sum, known: bool, finite: bool, limit: f64| SideRule {
            space: distribution.space,
            scale: gradients.scale * slope * distribution.inverse_temperature,
            slope_sum: if known { 0.0 } else { slope_sum },
            limit,
            infinite: infinite && !finite,
        };
        Rule {
            p: side(self.p, sums.d_ln_p, known.0, D::SLOPE_SUM_IS_ZERO.0, limits.0),
            q: side(self.q, sums.d_ln_q, known.1, D::SLOPE_SUM_IS_ZERO.1, limits.1),
        }
    }

    fn pass(&self, gradients: Option<(&RowGradients<'_>, Rule)>, mode: Mode, gauge: (f64, f64)) -> Sums {
        let parts = self.blocks.map(self.p.row.classes(), |start, len| {
            let block = SecondPass {
                divergence: self.divergence,
                p: self.p.block(start, len),
                q: self.q.block(start, len),
                frame: self.statistics.frame,
                gauge,
                gradients: gradients.map(|(outputs, rule)| (outputs.block(start, len), rule)),
            };
            match (self.wide, mode) {
                (false, Mode::Sums) => self.isa.run(Narrow::<D, 0>(block)),
                (false, Mode::SumsAndSlopes) => self.isa.run(Narrow::<D, 1>(block)),
                (false, Mode::Gradients) => self.isa.run(Narrow::<D, 2>(block)),
                (false, Mode::Both) => self.isa.run(Narrow::<D, 3>(block)),
                (true, Mode::Gradients) => self.isa.run(Wide::<D, 2>(block)),
                (true, Mode::Both) => self.isa.run(Wide::<D, 3>(block)),
                (true, Mode::Sums | Mode::SumsAndSlopes) => self.isa.run(Wide::<D, 1>(block)),
            }
        });
        parts.iter().fold(Sums::default(), |all, &part| all.merge(part))
    }
}

/// What a pass over the classes does; `MODE` of the kernels is its number.
#[derive(Clone, Copy)]
enum Mode {
    Sums = 0,
    SumsAndSlopes = 1,
    Gradients = 2,
    Both = 3,
}

/// Sums over the classes of a row or block.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    /// Σ f̃.
    value: f64,
    /// Σ ∂f̃/∂ln p; of a pass that writes gradients, their sum.
    d_ln_p: f64,
    /// Σ ∂f̃/∂ln q; of a pass that writes gradients, their sum.
    d_ln_q: f64,
    /// Σ(p − q).
    excess: f64,
    /// Σq.
    q: f64,
    p_norms: Norms,
    q_norms: Norms,
}

/// What tells how much of the gradient a − p·Σa of a side cancels.
#[derive(Clone, Copy, Debug, Default)]
struct Norms {
    /// Σa².
    slopes: f64,
    /// Σa·p.
    cross: f64,
    /// Σp².
    probabilities: f64,
}

impl Norms {
    fn merge(self, other: Self) -> Self {
        Norms {
            slopes: self.slopes + other.slopes,
            cross: self.cross + other.cross,
            probabilities: self.probabilities + other.probabilities,
        }
    }

    /// Whether the gradient is less than a quarter of what it is the difference of: a row that few classes dominate.
    fn cancel(self, slope_sum: f64) -> bool {
        let parts = self.slopes + slope_sum * slope_sum * self.probabilities;
        let difference = parts - 2.0 * slope_sum * self.cross;
        parts > 16.0 * difference && parts > 0.0
    }
}

impl Sums {
    fn merge(self, other: Self) -> Self {
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

/// How the slopes of a class become the gradient of what was passed.
#[derive(Clone, Copy)]
struct SideRule {
    space: Space,
    /// Upstream gradient, φ′ and 1/T.
    scale: f64,
    /// Σ of the slopes, for logits.
    slope_sum: f64,
    /// The slope at probability 0, for probabilities.
    limit: f64,
    /// Whether classes that make the value infinite have an infinite slope on this side.
    infinite: bool,
}

#[derive(Clone, Copy)]
struct Rule {
    p: SideRule,
    q: SideRule,
}

struct SecondPass<'a, D> {
    divergence: D,
    p: Distribution<'a>,
    q: Distribution<'a>,
    frame: Frame,
    /// Taken off ∂f̃/∂ln p per p and ∂f̃/∂ln q per q, in f64 lanes.
    gauge: (f64, f64),
    gradients: Option<(RowGradients<'a>, Rule)>,
}

impl<D: Copy> SecondPass<'_, D> {
    /// The pass, if everything it reads and writes is f32, with dtypes that the compiler knows.
    #[inline(always)]
    fn known_f32(&self) -> Option<Self> {
        let p = Distribution { row: self.p.row.known_f32()?, ..self.p };
        let q = Distribution { row: self.q.row.known_f32()?, ..self.q };
        let gradients = match self.gradients {
            None => None,
            Some((out, rule)) => {
                let p = match out.p {
                    Some(out) => Some(out.known_f32()?),
                    None => None,
                };
                let q = match out.q {
                    Some(out) => Some(out.known_f32()?),
                    None => None,
                };
                Some((RowGradients { p, q, ..out }, rule))
            }
        };
        Some(SecondPass { p, q, gradients, ..*self })
    }
}

struct Narrow<'a, D, const MODE: u8>(SecondPass<'a, D>);
struct Wide<'a, D, const MODE: u8>(SecondPass<'a, D>);

impl<D: Divergence, const MODE: u8> Kernel for Narrow<'_, D, MODE> {
    type Output = Sums;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Sums {
        match self.0.known_f32() {
            Some(pass) => second_pass::<S::F32, D, MODE>(simd, &pass),
            None => second_pass::<S::F32, D, MODE>(simd, &self.0),
        }
    }
}

impl<D: Divergence, const MODE: u8> Kernel for Wide<'_, D, MODE> {
    type Output = Sums;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Sums {
        second_pass::<S::F64, D, MODE>(simd, &self.0)
    }
}

/// Whether a pass has anything to add to total number `at`: Σf̃, the sums of slopes or gradients, those of rows taken
/// as given, the norms. Known to the compiler, which drops the others.
#[inline(always)]
const fn sums_at(mode: u8, wide: bool, at: usize) -> bool {
    const SLOPES: u8 = Mode::SumsAndSlopes as u8;
    const GRADIENTS: u8 = Mode::Gradients as u8;
    match at {
        0 => mode != GRADIENTS,
        1 | 2 => mode == SLOPES || (mode == GRADIENTS && wide),
        3 | 4 => mode != GRADIENTS && wide,
        _ => mode == SLOPES && !wide,
    }
}

#[inline(always)]
fn second_pass<V: Lanes, D: Divergence, const MODE: u8>(token: V::Token, pass: &SecondPass<'_, D>) -> Sums {
    let sums = MODE != Mode::Gradients as u8;
    let slopes = MODE == Mode::SumsAndSlopes as u8;
    // Gradients written together with the sums have none to take off.
    let centered = MODE == Mode::Gradients as u8;
    let view = PairView::<V>::new(token, pass.p, pass.q, &pass.frame);
    let writers = pass.gradients.map(|(out, rule)| {
        (out.p.map(|out| Writer::new(token, out, rule.p)), out.q.map(|out| Writer::new(token, out, rule.q)))
    });
    let (p_writer, q_writer) = writers.unwrap_or((None, None));
    let zero = V::splat(token, 0.0);
    let (p_gauge, q_gauge) = (V::splat(token, -pass.gauge.0), V::splat(token, -pass.gauge.1));
    let mut totals = [Total::<V>::zero(token); 11];
    let classes = pass.p.row.classes();
    let mut start = 0;
    while start < classes {
        let mut runs = [zero; 11];
        let stop = classes.min(start + RUN * V::N);
        while start < stop {
            let x = pass.p.row.load::<V>(token, start, pass.p.space.absent());
            let y = pass.q.row.load::<V>(token, start, pass.q.space.absent());
            let pair = view.pair(x, y);
            let mut class = pass.divergence.class(&pair);
            if V::Scalar::WIDE {
                class.d_ln_p = pair.p().mul_add(p_gauge, class.d_ln_p);
                class.d_ln_q = pair.q().mul_add(q_gauge, class.d_ln_q);
            }
            if sums {
                runs[0] = runs[0] + class.value;
                if slopes {
                    runs[1] = runs[1] + class.d_ln_p;
                    runs[2] = runs[2] + class.d_ln_q;
                }
                if slopes && !V::Scalar::WIDE {
                    for (side, (slope, probability)) in
                        [(class.d_ln_p, pair.p()), (class.d_ln_q, pair.q())].into_iter().enumerate()
                    {
                        let at = 5 + 3 * side;
                        runs[at] = slope.mul_add_relaxed(slope, runs[at]);
                        runs[at + 1] = slope.mul_add_relaxed(probability, runs[at + 1]);
                        runs[at + 2] = probability.mul_add_relaxed(probability, runs[at + 2]);
                    }
                }
                if V::Scalar::WIDE {
                    runs[3] = runs[3] + pair.difference();
                    runs[4] = runs[4] + pair.q();
                }
            }
            if MODE >= Mode::Gradients as u8 {
                let given = if V::Scalar::WIDE { pass.divergence.given_slopes(&pair, &class) } else { (zero, zero) };
                if let Some(writer) = &p_writer {
                    let gradient = writer.write(start, &pair, class.d_ln_p, given.0, pair.p(), centered);
                    if centered && V::Scalar::WIDE {
                        runs[1] = runs[1] + gradient;
                    }
                }
                if let Some(writer) = &q_writer {
                    let gradient = writer.write(start, &pair, class.d_ln_q, given.1, pair.q(), centered);
                    if centered && V::Scalar::WIDE {
                        runs[2] = runs[2] + gradient;
                    }
                }
            }
            start += V::N;
        }
        for (at, (total, run)) in totals.iter_mut().zip(runs).enumerate() {
            if sums_at(MODE, V::Scalar::WIDE, at) {
                total.add(token, run);
            }
        }
    }
    let totals = totals.map(Total::sum);
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

/// Writes the gradient of one side.
#[derive(Clone, Copy)]
struct Writer<'a, V: Lanes> {
    out: RowMut<'a>,
    rule: SideRule,
    token: V::Token,
    scale: V,
    slope_sum: V,
    limit: V,
}

impl<'a, V: Lanes> Writer<'a, V> {
    #[inline(always)]
    fn new(token: V::Token, out: RowMut<'a>, rule: SideRule) -> Self {
        Writer {
            out,
            rule,
            token,
            scale: V::splat(token, rule.scale),
            slope_sum: V::splat(token, rule.slope_sum),
            limit: V::splat(token, rule.limit),
        }
    }

    /// Gives back what it writes.
    #[inline(always)]
    fn write(&self, start: usize, pair: &Pair<V>, slope: V, given: V, probability: V, centered: bool) -> V {
        let gradient = if !V::Scalar::WIDE || self.rule.space == Space::Logits {
            self.scale * if centered { slope - probability * self.slope_sum } else { slope }
        } else {
            self.scale * self.given(pair, given, probability)
        };
        self.out.store(start, gradient);
        gradient
    }

    /// ∂f/∂ln p, or ∂f/∂p where the space is probabilities.
    #[inline(always)]
    fn given(&self, pair: &Pair<V>, slope: V, probability: V) -> V {
        let zero = V::splat(self.token, 0.0);
        let one = V::splat(self.token, 1.0);
        let lost = V::splat(self.token, 0.5 * V::Scalar::HUGE);
        let mut slope = slope;
        if self.rule.infinite {
            let infinite = slope * V::splat(self.token, f64::INFINITY);
            let has_slope = zero.lt(slope.abs());
            slope = V::select(lost.le(pair.u), V::select(has_slope, infinite, slope), slope);
        }
        if self.rule.space != Space::Probs {
            return slope;
        }
        let positive = zero.lt(probability);
        let inside = slope / V::select(positive, probability, one);
        // A class that neither row has does not exist.
        let exists = zero.lt(pair.larger);
        V::select(positive, inside, V::select(exists, self.limit, zero))
    }
}

/// ∂f̃/∂ln p per p and ∂f̃/∂ln q per q of one class, given its numbers; 0 where that is no number.
struct SlopesAt<'a, D> {
    divergence: D,
    p: Distribution<'a>,
    q: Distribution<'a>,
    frame: Frame,
    numbers: (f64, f64),
}

impl<D: Divergence> Kernel for SlopesAt<'_, D> {
    type Output = (f64, f64);

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> (f64, f64) {
        let view = PairView::<S::F64>::new(simd, self.p, self.q, &self.frame);
        let pair = view.pair(S::F64::splat(simd, self.numbers.0), S::F64::splat(simd, self.numbers.1));
        let class = self.divergence.class(&pair);
        let per = |slope: S::F64, probability: S::F64| {
            let ratio = (slope / probability).to_array()[0];
            if ratio.is_finite() { ratio } else { 0.0 }
        };
        (per(class.d_ln_p, pair.p()), per(class.d_ln_q, pair.q()))
    }
}

/// The largest ln f of a block.
struct LargestClass<'a, D> {
    divergence: D,
    p: Distribution<'a>,
    q: Distribution<'a>,
    frame: Frame,
}

impl<D: Divergence> Kernel for LargestClass<'_, D> {
    type Output = f64;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> f64 {
        let view = PairView::<S::F64>::new(simd, self.p, self.q, &self.frame);
        let mut largest = S::F64::splat(simd, f64::NEG_INFINITY);
        let mut start = 0;
        while start < self.p.row.classes() {
            let x = self.p.row.load::<S::F64>(simd, start, self.p.space.absent());
            let y = self.q.row.load::<S::F64>(simd, start, self.q.space.absent());
            largest = largest.max(self.divergence.ln_class(&view.pair(x, y)));
            start += S::F64::N;
        }
        largest.largest()
    }
}
