//! The pass over the classes of two rows that sums values and slopes, or writes gradients, or both.

use crate::divergence::Divergence;
use crate::row::distribution::Distribution;
use crate::row::divergence::gradient_writer::{Rule, Writer};
use crate::row::gradients::RowGradients;
use crate::row::pair::{Frame, PairView};
use crate::row::runs::{Step, sums};
use crate::simd::{Kernel, Lanes, Scalar, Simd};

/// What a pass over the classes does; `MODE` of the kernels is its number.
#[derive(Clone, Copy)]
pub(crate) enum Mode {
    Sums = 0,
    SumsAndSlopes = 1,
    Gradients = 2,
    Both = 3,
    /// Like `SumsAndSlopes`, with the norms of one side only.
    SumsAndSlopesOfP = 4,
    SumsAndSlopesOfQ = 5,
    /// Like `Gradients` and `Both`, of one side only.
    GradientsOfP = 6,
    GradientsOfQ = 7,
    BothOfQ = 8,
}

impl Mode {
    /// For the sides whose gradients are to follow.
    pub(crate) fn before_gradients(wanted: (bool, bool)) -> Self {
        match wanted {
            (true, true) => Mode::SumsAndSlopes,
            (true, false) => Mode::SumsAndSlopesOfP,
            (false, true) => Mode::SumsAndSlopesOfQ,
            (false, false) => Mode::Sums,
        }
    }

    /// Writing the gradients of these sides.
    pub(crate) fn gradients(wanted: (bool, bool)) -> Self {
        match wanted {
            (true, false) => Mode::GradientsOfP,
            (false, true) => Mode::GradientsOfQ,
            _ => Mode::Gradients,
        }
    }
}

/// Whether a mode sums the slopes of p, and of q.
#[inline(always)]
const fn slopes_of(mode: u8) -> (bool, bool) {
    const BOTH: u8 = Mode::SumsAndSlopes as u8;
    (mode == BOTH || mode == Mode::SumsAndSlopesOfP as u8, mode == BOTH || mode == Mode::SumsAndSlopesOfQ as u8)
}

/// Whether a mode writes the gradient of p, and of q.
#[inline(always)]
const fn writes(mode: u8) -> (bool, bool) {
    const BOTH: [u8; 2] = [Mode::Gradients as u8, Mode::Both as u8];
    let both = mode == BOTH[0] || mode == BOTH[1];
    let q = mode == Mode::GradientsOfQ as u8 || mode == Mode::BothOfQ as u8;
    (both || mode == Mode::GradientsOfP as u8, both || q)
}

/// Whether a mode writes gradients and sums nothing but them.
#[inline(always)]
const fn only_writes(mode: u8) -> bool {
    mode == Mode::Gradients as u8 || mode == Mode::GradientsOfP as u8 || mode == Mode::GradientsOfQ as u8
}

/// Sums over the classes of a row or block.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sums {
    /// Σ f̃.
    pub(crate) value: f64,
    /// Σ ∂f̃/∂ln p; of a pass that writes gradients, their sum.
    pub(crate) d_ln_p: f64,
    /// Σ ∂f̃/∂ln q; of a pass that writes gradients, their sum.
    pub(crate) d_ln_q: f64,
    /// Σ(p − q).
    pub(crate) excess: f64,
    /// Σq.
    pub(crate) q: f64,
    pub(crate) p_norms: Norms,
    pub(crate) q_norms: Norms,
}

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

    /// Whether the gradient is less than a quarter of what it is the difference of: a row that few classes dominate.
    pub(crate) fn cancel(self, slope_sum: f64) -> bool {
        let parts = self.slopes + slope_sum * slope_sum * self.probabilities;
        let difference = parts - 2.0 * slope_sum * self.cross;
        parts > 16.0 * difference && parts > 0.0
    }
}

impl Sums {
    /// Whether a wanted gradient cancels too much for f32 lanes.
    pub(crate) fn cancel(&self, wanted: (bool, bool)) -> bool {
        (wanted.0 && self.p_norms.cancel(self.d_ln_p)) || (wanted.1 && self.q_norms.cancel(self.d_ln_q))
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
    pub(crate) gradients: Option<(RowGradients<'a>, Rule)>,
}

impl<D: Copy> SecondPass<'_, D> {
    /// The pass, if everything it reads and writes is f32, with dtypes that the compiler knows.
    #[inline(always)]
    fn known_f32<V: Lanes>(&self) -> Option<Self> {
        let p = Distribution { row: self.p.row.known_f32::<V>()?, ..self.p };
        let q = Distribution { row: self.q.row.known_f32::<V>()?, ..self.q };
        let gradients = match self.gradients {
            None => None,
            Some((out, rule)) => {
                let p = match out.p {
                    Some(out) => Some(out.known_f32::<V>()?),
                    None => None,
                };
                let q = match out.q {
                    Some(out) => Some(out.known_f32::<V>()?),
                    None => None,
                };
                Some((RowGradients { p, q, ..out }, rule))
            }
        };
        Some(SecondPass { p, q, gradients, ..*self })
    }
}

pub(crate) struct Narrow<'a, D, const MODE: u8>(pub(super) SecondPass<'a, D>);
pub(crate) struct Wide<'a, D, const MODE: u8>(pub(super) SecondPass<'a, D>);

impl<D: Divergence, const MODE: u8> Kernel for Narrow<'_, D, MODE> {
    type Output = Sums;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Sums {
        match self.0.known_f32::<S::F32>() {
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
    let (p, q) = slopes_of(mode);
    match at {
        0 => !only_writes(mode),
        1 => p || (only_writes(mode) && wide),
        2 => q || (only_writes(mode) && wide),
        3 | 4 => !only_writes(mode) && wide,
        5..8 => p && !wide,
        _ => q && !wide,
    }
}

#[inline(always)]
fn second_pass<V: Lanes, D: Divergence, const MODE: u8>(token: V::Token, pass: &SecondPass<'_, D>) -> Sums {
    let view = PairView::<V>::new(token, pass.p, pass.q, &pass.frame);
    let (mut p_writer, mut q_writer) = (None, None);
    if let Some((out, rule)) = pass.gradients {
        if let Some(out) = out.p {
            p_writer = Some(Writer::new(token, out, rule.p));
        }
        if let Some(out) = out.q {
            q_writer = Some(Writer::new(token, out, rule.q));
        }
    }
    let mut step = SecondStep::<V, D, MODE> {
        token,
        pass,
        view,
        p_writer,
        q_writer,
        gauges: (V::splat(token, -pass.gauge.0.number()), V::splat(token, -pass.gauge.1.number())),
        beyond_lone: (pass.gauge.0 == Gauge::Lone, pass.gauge.1 == Gauge::Lone),
    };
    let totals = sums(token, pass.p.row.classes(), &mut step);
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

/// Number of sums of a pass, of which each mode has some ([`sums_at`]).
const SUMS: usize = 11;

/// What a pass does with each vector of classes.
struct SecondStep<'a, V: Lanes, D, const MODE: u8> {
    token: V::Token,
    pass: &'a SecondPass<'a, D>,
    view: PairView<V>,
    p_writer: Option<Writer<'a, V>>,
    q_writer: Option<Writer<'a, V>>,
    gauges: (V, V),
    beyond_lone: (bool, bool),
}

impl<V: Lanes, D: Divergence, const MODE: u8> Step<V, SUMS> for SecondStep<'_, V, D, MODE> {
    #[inline(always)]
    fn has_sum(at: usize) -> bool {
        sums_at(MODE, V::Scalar::WIDE, at)
    }

    #[inline(always)]
    fn step<const WHOLE: bool>(&mut self, start: usize, runs: &mut [V; SUMS]) {
        let (token, pass) = (self.token, self.pass);
        let sums = !only_writes(MODE);
        let (p_writes, q_writes) = writes(MODE);
        let (p_slopes, q_slopes) = slopes_of(MODE);
        // Gradients written together with the sums have none to take off.
        let centered = only_writes(MODE);
        let x = pass.p.row.lanes::<V, WHOLE>(token, start, pass.p.space.absent());
        let y = pass.q.row.lanes::<V, WHOLE>(token, start, pass.q.space.absent());
        let pair = self.view.pair(x, y);
        let mut class = pass.divergence.class(&pair);
        if V::Scalar::WIDE {
            let (p, q) = (pair.p.mul_add(self.gauges.0, class.d_ln_p), pair.q.mul_add(self.gauges.1, class.d_ln_q));
            if D::HAS_LONE_SLOPES && (self.beyond_lone.0 || self.beyond_lone.1) {
                let beyond = pass.divergence.slopes_beyond_lone(&pair, &class);
                class.d_ln_p = if self.beyond_lone.0 { beyond.0 } else { p };
                class.d_ln_q = if self.beyond_lone.1 { beyond.1 } else { q };
            } else {
                (class.d_ln_p, class.d_ln_q) = (p, q);
            }
        }
        if sums {
            runs[0] = runs[0] + class.value;
            if p_slopes {
                runs[1] = runs[1] + class.d_ln_p;
            }
            if q_slopes {
                runs[2] = runs[2] + class.d_ln_q;
            }
            if p_slopes && !V::Scalar::WIDE {
                add_norms(runs, 5, class.d_ln_p, pair.p);
            }
            if q_slopes && !V::Scalar::WIDE {
                add_norms(runs, 8, class.d_ln_q, pair.q);
            }
            if V::Scalar::WIDE {
                runs[3] = runs[3] + pair.difference();
                runs[4] = runs[4] + pair.q;
            }
        }
        if p_writes || q_writes {
            if let (true, Some(writer)) = (p_writes, &self.p_writer) {
                let gradient = writer.write::<D, false, WHOLE>(start, pass.divergence, &pair, &class, centered);
                if centered && V::Scalar::WIDE {
                    runs[1] = runs[1] + gradient;
                }
            }
            if let (true, Some(writer)) = (q_writes, &self.q_writer) {
                let gradient = writer.write::<D, true, WHOLE>(start, pass.divergence, &pair, &class, centered);
                if centered && V::Scalar::WIDE {
                    runs[2] = runs[2] + gradient;
                }
            }
        }
    }
}

/// Adds to the three sums of [`Norms`] from `at` on.
#[inline(always)]
fn add_norms<V: Lanes>(runs: &mut [V; SUMS], at: usize, slope: V, probability: V) {
    runs[at] = slope.mul_add_relaxed(slope, runs[at]);
    runs[at + 1] = slope.mul_add_relaxed(probability, runs[at + 1]);
    runs[at + 2] = probability.mul_add_relaxed(probability, runs[at + 2]);
}

/// ∂f̃/∂ln p per p and ∂f̃/∂ln q per q of one class, given its numbers; 0 where that is no number.
pub(crate) struct SlopesAt<'a, D> {
    pub(crate) divergence: D,
    pub(crate) p: Distribution<'a>,
    pub(crate) q: Distribution<'a>,
    pub(crate) frame: Frame,
    pub(crate) numbers: (f64, f64),
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
        (per(class.d_ln_p, pair.p), per(class.d_ln_q, pair.q))
    }
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
        let view = PairView::<S::F64>::new(simd, self.p, self.q, &self.frame);
        let lowest = S::F64::splat(simd, f64::NEG_INFINITY);
        let mut largest = lowest;
        let mut start = 0;
        while start < self.p.row.classes() {
            let x = self.p.row.load::<S::F64>(simd, start, self.p.space.absent());
            let y = self.q.row.load::<S::F64>(simd, start, self.q.space.absent());
            let pair = view.pair(x, y);
            let score = self.divergence.score(&pair);
            largest = largest.max(S::F64::select(pair.shared(), score, lowest));
            start += S::F64::N;
        }
        largest.largest()
    }
}
