//! Cross-entropy of one row, −Σ mᵢ ln qᵢ with masses mᵢ from a class index, a distribution, or both smoothed.
//!
//! mᵢ = wᵢ·((1 − ε)·tᵢ + ε/C) for class weights w, label smoothing ε over C classes, and t the target: 1 at the
//! index and 0 elsewhere, or as given.

use crate::row::distribution::softmax::DistributionView;
use crate::row::distribution::{Distribution, LogSumExp, Space};
use crate::row::gradients::LARGEST_NARROW_SCALE;
use crate::row::runs::{Step, pass, sums};
use crate::rows::{Block, BlockMut, Row, RowMut};
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
            if wide || beyond { isa.run(block) } else { isa.run(PointGradient(block)) }
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

    /// Targets and weights of classes, to read; past the end the weights are 0.
    #[inline(always)]
    fn blocks(&self) -> [Block<'_, f64>; 2] {
        [Block::or(self.given, 0.0, 0.0), Block::or(self.class_weights, 1.0, 0.0)]
    }

    /// mᵢ of classes with these targets and weights.
    #[inline(always)]
    fn of<V: Lanes>(&self, token: V::Token, given: V, weights: V) -> V {
        weights * given.mul_add(V::splat(token, self.own), V::splat(token, self.uniform))
    }

    /// Numbers with the signs of mᵢ, also where a product falls below the smallest number.
    #[inline(always)]
    fn signs<V: Lanes>(&self, token: V::Token, given: V, weights: V) -> V {
        let (zero, uniform) = (V::splat(token, 0.0), V::splat(token, self.uniform));
        let smoothed = if self.uniform == 0.0 { given } else { given.mul_add(V::splat(token, self.own), uniform) };
        V::select(zero.lt(weights), smoothed, zero)
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
        let zero = S::F64::splat(simd, 0.0);
        let mut step = SpreadStep::<S::F64> {
            token: simd,
            view: DistributionView::new(simd, self.q, self.sum),
            masses: self.masses,
            lost: (zero, zero),
        };
        let [given, weights] = self.masses.blocks();
        let q = Block::new(self.q.row, self.q.space.absent());
        let [loss, mass] = sums(simd, self.q.row.classes(), [q, given, weights], &mut step);
        let lost = step.lost;
        SpreadSums { loss, mass, lost: (lost.0.largest() > 0.0, (-lost.1).largest() > 0.0) }
    }
}

struct SpreadStep<'a, V: Lanes> {
    token: V::Token,
    view: DistributionView<V>,
    masses: Masses<'a>,
    /// The extremes of the masses on classes of probability 0.
    lost: (V, V),
}

impl<V: Lanes> Step<V, 3, 0, 2> for SpreadStep<'_, V> {
    #[inline(always)]
    fn step<const WHOLE: bool>(&mut self, _: usize, [z, given, weights]: [V; 3], [loss, mass]: &mut [V; 2]) -> [V; 0] {
        let (token, zero) = (self.token, V::splat(self.token, 0.0));
        let (z, _) = self.view.capped(z);
        let m = self.masses.of(token, given, weights);
        let signs = self.masses.signs(token, given, weights);
        let has = self.view.has(z);
        let on_nothing = V::select(has, zero, signs);
        self.lost = (self.lost.0.max(on_nothing), self.lost.1.min(on_nothing));
        *loss = *loss - V::select(has, m, zero) * self.view.ln_p(z);
        *mass = *mass + m;
        []
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

impl Kernel for LogitGradient<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let mut step = LogitStep::<S::F64> {
            token: simd,
            view: DistributionView::new(simd, self.q, self.sum),
            space: self.q.space,
            masses: self.spread.then_some(self.masses),
            pull: S::F64::splat(simd, self.pull),
            scale: S::F64::splat(simd, self.scale),
        };
        let raw = Block::new(self.q.row, self.q.space.absent());
        let [given, weights] = self.masses.blocks();
        let added = Block::or(self.added, 0.0, 0.0);
        let out = [Some(BlockMut::new(self.out))];
        pass(simd, self.q.row.classes(), [raw, given, weights, added], out, &mut step);
    }
}

struct LogitStep<'a, V: Lanes> {
    token: V::Token,
    view: DistributionView<V>,
    space: Space,
    masses: Option<Masses<'a>>,
    pull: V,
    scale: V,
}

impl<V: Lanes> Step<V, 4, 1, 0> for LogitStep<'_, V> {
    #[inline(always)]
    fn step<const WHOLE: bool>(&mut self, _: usize, [raw, given, weights, added]: [V; 4], _: &mut [V; 0]) -> [V; 1] {
        let (token, zero) = (self.token, V::splat(self.token, 0.0));
        let m = match &self.masses {
            Some(masses) => masses.of(token, given, weights),
            None => zero,
        };
        let gradient = match self.space {
            Space::Logits => {
                let (z, slope) = self.view.capped(raw);
                slope * (self.view.p(z) * self.pull - m)
            }
            Space::LogProbs => -m,
            Space::Probs | Space::Unnormalized => {
                // Any mass on probability 0 is of infinite slope.
                let m = match &self.masses {
                    Some(masses) => V::select(zero.lt(raw), m, masses.signs(token, given, weights)),
                    None => zero,
                };
                V::select(m.lt(zero), -m / raw, V::select(zero.lt(m), -m / raw, zero))
            }
        };
        [self.scale * gradient + added]
    }
}

/// The same in f32 lanes, where the masses are those of a class index: softmax everywhere else.
struct PointGradient<'a>(LogitGradient<'a>);

impl Kernel for PointGradient<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let LogitGradient { q, sum, pull, scale, added, out, .. } = self.0;
        let rate = q.inverse_temperature;
        let exp = ScaledExp::<S::F32>::new(simd, rate, sum.value(rate), 1.0);
        let mut step = Softmax { exp, factor: S::F32::splat(simd, pull * scale) };
        let z = Block::new(q.row, f64::NEG_INFINITY);
        let out = [Some(BlockMut::new(out))];
        match added {
            None => pass(simd, q.row.classes(), [z], out, &mut step),
            Some(added) => pass(simd, q.row.classes(), [z, Block::new(added, 0.0)], out, &mut step),
        };
    }
}

/// softmax times a factor, and the sum of it and another row.
struct Softmax<V: Lanes> {
    exp: ScaledExp<V>,
    factor: V,
}

impl<V: Lanes> Step<V, 1, 1, 0> for Softmax<V> {
    const UNROLLED: usize = 2;

    #[inline(always)]
    fn step<const WHOLE: bool>(&mut self, _: usize, [z]: [V; 1], _: &mut [V; 0]) -> [V; 1] {
        [self.factor * self.exp.of(z)]
    }
}

impl<V: Lanes> Step<V, 2, 1, 0> for Softmax<V> {
    #[inline(always)]
    fn step<const WHOLE: bool>(&mut self, _: usize, [z, added]: [V; 2], _: &mut [V; 0]) -> [V; 1] {
        [self.factor * self.exp.of(z) + added]
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
        let splat = |value| S::F64::splat(simd, value);
        let own = self.masses.own;
        let mut step = TargetStep::<S::F64> {
            token: simd,
            view: DistributionView::new(simd, self.q, self.sum),
            factor: splat(self.scale * own),
            own: splat(own),
        };
        let q = Block::new(self.q.row, self.q.space.absent());
        let [_, weights] = self.masses.blocks();
        pass(simd, self.q.row.classes(), [q, weights], [Some(BlockMut::new(self.out))], &mut step);
    }
}

struct TargetStep<V: Lanes> {
    token: V::Token,
    view: DistributionView<V>,
    factor: V,
    own: V,
}

impl<V: Lanes> Step<V, 2, 1, 0> for TargetStep<V> {
    #[inline(always)]
    fn step<const WHOLE: bool>(&mut self, _: usize, [z, weight]: [V; 2], _: &mut [V; 0]) -> [V; 1] {
        let (zero, infinite) = (V::splat(self.token, 0.0), V::splat(self.token, f64::NEG_INFINITY));
        let (z, _) = self.view.capped(z);
        let ln_q = V::select(self.view.has(z), self.view.ln_p(z), infinite);
        let gradient = -(self.factor * weight * ln_q);
        // A target that has no part in the loss has no gradient, however improbable its class.
        [V::select(zero.lt(self.own * weight), gradient, zero)]
    }
}
