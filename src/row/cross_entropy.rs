//! Cross-entropy of one row, −Σ mᵢ ln qᵢ with masses mᵢ from a class index, a distribution, or both smoothed.
//!
//! mᵢ = wᵢ·((1 − ε)·tᵢ + ε/C) for class weights w, label smoothing ε over C classes, and t the target: 1 at the
//! index and 0 elsewhere, or as given.

use crate::element::Dtype;
use crate::row::distribution::softmax::DistributionView;
use crate::row::distribution::{Distribution, LogSumExp, Space};
use crate::row::gradients::LARGEST_NARROW_SCALE;
use crate::row::write::{Formula, write};
use crate::rows::{Row, RowMut};
use crate::simd::exp::ScaledExp;
use crate::simd::{Isa, Kernel, Lanes, Simd};
use crate::threads::Blocks;

/// What the row is compared with.
#[derive(Clone, Copy)]
pub(crate) enum Target<'a> {
    /// A class index, in range.
    Class(usize),
    /// A distribution over the classes, as given.
    Distribution(Row<'a>),
}

/// The terms of the loss that are the same for all rows.
#[derive(Clone, Copy)]
pub(crate) struct Terms<'a> {
    pub(crate) label_smoothing: f64,
    /// Weights of the classes.
    pub(crate) class_weights: Option<Row<'a>>,
    /// Coefficient of lse².
    pub(crate) z_loss: f64,
    /// Whether the result is f64 whatever the dtype of the row.
    pub(crate) wide: bool,
}

impl Terms<'_> {
    fn class_weight(&self, class: usize) -> f64 {
        self.class_weights.map_or(1.0, |weights| weights.get(class))
    }
}

/// Where to write the gradients of one row, and what to multiply them by.
#[derive(Clone, Copy)]
pub(crate) struct LossGradients<'a> {
    pub(crate) scale: f64,
    pub(crate) logits: Option<RowMut<'a>>,
    pub(crate) targets: Option<RowMut<'a>>,
    /// Added to the gradient of the logits.
    pub(crate) added: Option<Row<'a>>,
}

impl LossGradients<'_> {
    pub(crate) fn fill(&self, value: f64) {
        for out in [self.logits, self.targets].into_iter().flatten() {
            out.fill(value);
        }
    }
}

/// The loss of one row; writes the gradients asked for.
pub(crate) fn cross_entropy(
    q: Distribution<'_>,
    target: Target<'_>,
    terms: &Terms<'_>,
    isa: Isa,
    blocks: &Blocks,
    gradients: LossGradients<'_>,
) -> f64 {
    let classes = q.row.classes();
    let index = match target {
        Target::Class(class) => Some(class),
        Target::Distribution(_) => None,
    };
    let spread = index.is_none() || terms.label_smoothing != 0.0;
    let mut wide = spread || terms.wide || !q.allows_narrow_lanes();
    let sum = q.statistics(isa, blocks, &mut wide);
    if sum.is_nan() || sum.is_empty() {
        gradients.fill(f64::NAN);
        return f64::NAN;
    }
    let lse = sum.value(q.inverse_temperature);
    let own = 1.0 - terms.label_smoothing;
    let masses = Masses {
        given: match target {
            Target::Class(_) => None,
            Target::Distribution(row) => Some(row),
        },
        own,
        uniform: terms.label_smoothing / classes as f64,
        class_weights: terms.class_weights,
    };
    let mut value = terms.z_loss * lse * lse;
    let mut spread_mass = 0.0;
    if spread {
        let parts = blocks.map(classes, |start, len| {
            isa.run(SpreadSum { q: q.block(start, len), sum, masses: masses.block(start, len) })
        });
        let sums = parts.iter().fold(SpreadSums::default(), |all, &part| all.merge(part));
        value += sums.loss();
        spread_mass = sums.mass;
    }
    let mut point = Point::default();
    if let Some(class) = index {
        point = Point::new(q, class, sum, own * terms.class_weight(class), isa);
        value += point.loss();
    }
    if value.is_nan() {
        gradients.fill(f64::NAN);
        return value;
    }
    if let Some(out) = gradients.targets {
        blocks.map(classes, |start, len| {
            let out = out.block(start, len);
            isa.run(TargetGradient {
                q: q.block(start, len),
                sum,
                masses: masses.block(start, len),
                scale: gradients.scale,
                out,
            });
        });
    }
    if let Some(out) = gradients.logits {
        let scale = gradients.scale * q.inverse_temperature;
        let beside = spread_mass + 2.0 * terms.z_loss * lse;
        let pull = point.mass + beside;
        let beyond = (pull * scale).abs() > LARGEST_NARROW_SCALE;
        // Everything about the target class is read before it may be overwritten.
        let at_point = index.map(|class| {
            let added = gradients.added.map_or(0.0, |row| row.get(class));
            (class, point.gradient(q, class, beside, &masses) * scale + added)
        });
        blocks.map(classes, |start, len| {
            let block = LogitGradient {
                q: q.block(start, len),
                sum,
                masses: masses.block(start, len),
                spread,
                pull,
                scale,
                added: gradients.added.map(|row| row.block(start, len)),
                out: out.block(start, len),
            };
            if wide || beyond { isa.run(WideGradient(block)) } else { isa.run(NarrowGradient(block)) }
        });
        if let Some((class, gradient)) = at_point {
            out.set(class, gradient);
        }
    }
    value + 0.0
}

/// The class a target index names.
#[derive(Clone, Copy, Default)]
struct Point {
    mass: f64,
    /// −ln q.
    surprise: f64,
    /// q.
    probability: f64,
    /// q − 1.
    minus_one: f64,
    /// The derivative of the cap.
    cap_slope: f64,
}

impl Point {
    fn new(q: Distribution<'_>, class: usize, sum: LogSumExp, mass: f64, isa: Isa) -> Self {
        let (z, cap_slope) = q.capped(class, isa);
        let surprise = q.surprise(class, sum, isa);
        let minus_one = match q.space {
            Space::Logits => sum.probability_minus_one(z, q.inverse_temperature),
            Space::LogProbs | Space::Probs | Space::Unnormalized => (-surprise).exp_m1(),
        };
        Point { mass, surprise, probability: (-surprise).exp(), minus_one, cap_slope }
    }

    fn loss(&self) -> f64 {
        if self.mass == 0.0 { 0.0 } else { self.mass * self.surprise }
    }

    /// The gradient at this class, before the scale. `beside` is what the coefficient of softmax is beside the mass of
    /// this class, which may be far less.
    fn gradient(&self, q: Distribution<'_>, class: usize, beside: f64, masses: &Masses<'_>) -> f64 {
        let spread = masses.at(class, None);
        match q.space {
            Space::Logits => self.cap_slope * (self.mass * self.minus_one + beside * self.probability - spread),
            Space::LogProbs => -(self.mass + spread),
            Space::Probs | Space::Unnormalized => {
                let mass = self.mass + spread;
                if mass == 0.0 { 0.0 } else { -mass / q.row.get(class) }
            }
        }
    }
}

/// The masses mᵢ of a row or block, without those of a class index.
#[derive(Clone, Copy)]
struct Masses<'a> {
    given: Option<Row<'a>>,
    own: f64,
    uniform: f64,
    class_weights: Option<Row<'a>>,
}

impl Masses<'_> {
    fn block(self, start: usize, len: usize) -> Self {
        Masses {
            given: self.given.map(|row| row.block(start, len)),
            class_weights: self.class_weights.map(|row| row.block(start, len)),
            ..self
        }
    }

    fn at(&self, class: usize, given: Option<f64>) -> f64 {
        let weight = self.class_weights.map_or(1.0, |weights| weights.get(class));
        weight * (self.own * given.unwrap_or(0.0) + self.uniform)
    }

    /// wᵢ of the classes at `start`.
    #[inline(always)]
    fn weights<V: Lanes>(&self, token: V::Token, start: usize) -> V {
        match self.class_weights {
            Some(weights) => weights.load(token, start, 0.0),
            None => V::splat(token, 1.0),
        }
    }

    /// mᵢ of the classes at `start`.
    #[inline(always)]
    fn load<V: Lanes>(&self, token: V::Token, start: usize) -> V {
        let uniform = V::splat(token, self.uniform);
        let smoothed = match self.given {
            Some(given) => given.load::<V>(token, start, 0.0).mul_add(V::splat(token, self.own), uniform),
            None => uniform,
        };
        self.weights::<V>(token, start) * smoothed
    }

    /// Numbers with the signs of mᵢ at `start`, also where a product falls below the smallest number.
    #[inline(always)]
    fn signs<V: Lanes>(&self, token: V::Token, start: usize) -> V {
        let zero = V::splat(token, 0.0);
        let smoothed = match self.given {
            Some(given) if self.uniform == 0.0 => given.load::<V>(token, start, 0.0),
            Some(given) => {
                given.load::<V>(token, start, 0.0).mul_add(V::splat(token, self.own), V::splat(token, self.uniform))
            }
            None => V::splat(token, self.uniform),
        };
        V::select(zero.lt(self.weights::<V>(token, start)), smoothed, zero)
    }
}

/// What the masses of a row or block sum to.
#[derive(Clone, Copy, Default)]
struct SpreadSums {
    /// Σ −mᵢ ln qᵢ over the classes with qᵢ > 0.
    loss: f64,
    /// Σ mᵢ.
    mass: f64,
    /// Whether a class of probability 0 has a positive mass, and whether one has a negative mass.
    lost: (bool, bool),
}

impl SpreadSums {
    fn merge(self, other: Self) -> Self {
        SpreadSums {
            loss: self.loss + other.loss,
            mass: self.mass + other.mass,
            lost: (self.lost.0 || other.lost.0, self.lost.1 || other.lost.1),
        }
    }

    /// Σ −mᵢ ln qᵢ, to which any mass on a class of probability 0 adds ±∞.
    fn loss(self) -> f64 {
        if self.mass.is_nan() {
            return f64::NAN;
        }
        let mut loss = self.loss;
        if self.lost.0 {
            loss += f64::INFINITY;
        }
        if self.lost.1 {
            loss -= f64::INFINITY;
        }
        loss
    }
}

struct SpreadSum<'a> {
    q: Distribution<'a>,
    sum: LogSumExp,
    masses: Masses<'a>,
}

impl Kernel for SpreadSum<'_> {
    type Output = SpreadSums;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> SpreadSums {
        let view = DistributionView::<S::F64>::new(simd, self.q, self.sum);
        let zero = S::F64::splat(simd, 0.0);
        let classes = self.q.row.classes();
        let (mut loss, mut mass) = (zero, zero);
        // The extremes of the masses on classes of probability 0.
        let mut lost = (zero, zero);
        let mut start = 0;
        while start < classes {
            let (z, _) = view.capped(self.q.row.load::<S::F64>(simd, start, self.q.space.absent()));
            let mut m = self.masses.load::<S::F64>(simd, start);
            let mut signs = self.masses.signs::<S::F64>(simd, start);
            if start + S::F64::N > classes {
                // Uniform masses must not reach past the end of the row.
                m = m.keep_first(simd, classes - start);
                signs = signs.keep_first(simd, classes - start);
            }
            let has = view.has(z);
            let on_nothing = S::F64::select(has, zero, signs);
            lost = (lost.0.max(on_nothing), lost.1.min(on_nothing));
            loss = loss - S::F64::select(has, m, zero) * view.ln_p(z);
            mass = mass + m;
            start += S::F64::N;
        }
        SpreadSums { loss: loss.sum(), mass: mass.sum(), lost: (lost.0.largest() > 0.0, (-lost.1).largest() > 0.0) }
    }
}

/// Writes ∂L/∂z, ∂L/∂ln q or ∂L/∂q of a block.
struct LogitGradient<'a> {
    q: Distribution<'a>,
    sum: LogSumExp,
    masses: Masses<'a>,
    /// Whether there are masses other than that of a class index.
    spread: bool,
    /// The coefficient of softmax: Σ mᵢ and the slope of the z-loss.
    pull: f64,
    scale: f64,
    added: Option<Row<'a>>,
    out: RowMut<'a>,
}

struct NarrowGradient<'a>(LogitGradient<'a>);
struct WideGradient<'a>(LogitGradient<'a>);

impl Kernel for NarrowGradient<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        match self.0.q.row.dtype() {
            _ if !S::F32::KNOWN_DTYPES => self.0.write_softmax::<S::F32>(simd, self.0.q.row),
            Dtype::F32 => self.0.write_softmax::<S::F32>(simd, self.0.q.row.known(Dtype::F32)),
            Dtype::Bf16 => self.0.write_softmax::<S::F32>(simd, self.0.q.row.known(Dtype::Bf16)),
            Dtype::F16 => self.0.write_softmax::<S::F32>(simd, self.0.q.row.known(Dtype::F16)),
            Dtype::F64 => self.0.write_softmax::<S::F32>(simd, self.0.q.row),
        }
    }
}

impl Kernel for WideGradient<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        self.0.write_wide::<S::F64>(simd);
    }
}

impl LogitGradient<'_> {
    /// In f32 lanes, where the masses are those of a class index: softmax everywhere else.
    #[inline(always)]
    fn write_softmax<V: Lanes>(&self, token: V::Token, row: Row<'_>) {
        let rate = self.q.inverse_temperature;
        let exp = ScaledExp::new(token, rate, self.sum.value(rate), 1.0);
        let softmax = Softmax { token, row, exp, factor: V::splat(token, self.pull * self.scale) };
        match self.added {
            None => write(token, self.out, &softmax),
            Some(added) => write(token, self.out, &Sum { token, first: softmax, added }),
        }
    }

    #[inline(always)]
    fn write_wide<V: Lanes>(&self, token: V::Token) {
        let view = DistributionView::<V>::new(token, self.q, self.sum);
        let zero = V::splat(token, 0.0);
        let pull = V::splat(token, self.pull);
        let scale = V::splat(token, self.scale);
        let mut start = 0;
        while start < self.q.row.classes() {
            let raw = self.q.row.load::<V>(token, start, self.q.space.absent());
            let m = if self.spread { self.masses.load::<V>(token, start) } else { zero };
            let gradient = match self.q.space {
                Space::Logits => {
                    let (z, slope) = view.capped(raw);
                    slope * (view.p(z) * pull - m)
                }
                Space::LogProbs => -m,
                Space::Probs | Space::Unnormalized => {
                    // Any mass on probability 0 is of infinite slope.
                    let m = if self.spread {
                        V::select(zero.lt(raw), m, self.masses.signs::<V>(token, start))
                    } else {
                        zero
                    };
                    V::select(m.lt(zero), -m / raw, V::select(zero.lt(m), -m / raw, zero))
                }
            };
            let mut gradient = scale * gradient;
            if let Some(added) = self.added {
                gradient = gradient + added.load(token, start, 0.0);
            }
            self.out.store(start, gradient);
            start += V::N;
        }
    }
}

/// The sum of something and a row.
struct Sum<'a, V: Lanes, F> {
    token: V::Token,
    first: F,
    added: Row<'a>,
}

impl<V: Lanes, F: Formula<V>> Formula<V> for Sum<'_, V, F> {
    #[inline(always)]
    fn lanes<const WHOLE: bool>(&self, start: usize) -> V {
        self.first.lanes::<WHOLE>(start) + self.added.lanes::<V, WHOLE>(self.token, start, 0.0)
    }
}

/// softmax times a factor.
struct Softmax<'a, V: Lanes> {
    token: V::Token,
    row: Row<'a>,
    exp: ScaledExp<V>,
    factor: V,
}

impl<V: Lanes> Formula<V> for Softmax<'_, V> {
    #[inline(always)]
    fn lanes<const WHOLE: bool>(&self, start: usize) -> V {
        let z = self.row.lanes::<V, WHOLE>(self.token, start, f64::NEG_INFINITY);
        self.factor * self.exp.at(self.exp.bounded(z))
    }
}

/// Writes ∂L/∂t = −(1 − ε)·w·ln q of a block.
struct TargetGradient<'a> {
    q: Distribution<'a>,
    sum: LogSumExp,
    masses: Masses<'a>,
    scale: f64,
    out: RowMut<'a>,
}

impl Kernel for TargetGradient<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let view = DistributionView::<S::F64>::new(simd, self.q, self.sum);
        let zero = S::F64::splat(simd, 0.0);
        let factor = S::F64::splat(simd, self.scale * self.masses.own);
        let infinite = S::F64::splat(simd, f64::NEG_INFINITY);
        let own = S::F64::splat(simd, self.masses.own);
        let mut start = 0;
        while start < self.q.row.classes() {
            let (z, _) = view.capped(self.q.row.load::<S::F64>(simd, start, self.q.space.absent()));
            let ln_q = S::F64::select(view.has(z), view.ln_p(z), infinite);
            let weight = self.masses.weights::<S::F64>(simd, start);
            let gradient = -(factor * weight * ln_q);
            // A target that has no part in the loss has no gradient, however improbable its class.
            self.out.store(start, S::F64::select(zero.lt(own * weight), gradient, zero));
            start += S::F64::N;
        }
    }
}
