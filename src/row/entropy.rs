//! Entropy of one row, −Σ p ln p.

use crate::row::distribution::softmax::DistributionView;
use crate::row::distribution::{Distribution, LogSumExp, Space};
use crate::row::divergence::second_pass::{LARGEST_PARTS, Norms};
use crate::row::gradients::LARGEST_NARROW_SCALE;
use crate::row::runs::{self, Step};
use crate::rows::{Block, BlockMut, RowMut};
use crate::simd::{Isa, LaneKernel, Lanes, Narrow, Wide};
use crate::threads::Blocks;

/// The entropy; writes its gradient times `scale` to `out`.
///
/// That of logits is ln Σ e^(z − max z) + Σ p·b with b = max z − z over T, of terms ≥ 0 that nothing cancels in: f32 lanes will
/// do. So they will for the gradient, p·(b − Σ p·b), where it is no small difference.
pub(crate) fn entropy(p: Distribution<'_>, isa: Isa, blocks: &Blocks, gradient: Option<(f64, RowMut<'_>)>) -> f64 {
    let mut wide = !p.allows_narrow_lanes() || p.is_smoothed(isa, blocks);
    let mut sum = p.statistics(isa, blocks, &mut wide);
    if sum.is_nan() || sum.is_empty() {
        if let Some((_, out)) = gradient {
            out.fill(f64::NAN);
        }
        return f64::NAN;
    }
    let classes = p.row.classes();
    let terms = |sum, wide| {
        let parts = blocks.map(classes, |start, len| {
            let p = p.block(start, len);
            match (wide, gradient.is_some()) {
                (true, _) => isa.run(Wide(TermsKernel::<false> { p, sum })),
                (false, false) => isa.run(Narrow(TermsKernel::<false> { p, sum })),
                (false, true) => isa.run(Narrow(TermsKernel::<true> { p, sum })),
            }
        });
        parts.iter().fold(Terms::default(), |all, &part| all.merge(part))
    };
    let mut found = terms(sum, wide);
    // Adding 0 makes a zero positive.
    let value = if p.space == Space::Logits { sum.ln_sum() + found.sum } else { found.sum } + 0.0;
    if let Some((scale, out)) = gradient {
        if !wide
            && (found.norms.cancel(found.sum, LARGEST_PARTS)
                || (scale * p.inverse_temperature).abs() > LARGEST_NARROW_SCALE)
        {
            wide = true;
            sum = p.statistics(isa, blocks, &mut wide);
            found = terms(sum, wide);
        }
        blocks.map(classes, |start, len| {
            let gradient =
                Gradient { p: p.block(start, len), sum, value, mean: found.sum, scale, out: out.block(start, len) };
            isa.run_lanes(wide, gradient);
        });
    }
    value
}

/// Σ p·b of a row or block of logits, and what tells how much of p·b − p·Σ p·b cancels; of other spaces Σ −p ln p.
#[derive(Clone, Copy, Default)]
struct Terms {
    sum: f64,
    norms: Norms,
}

impl Terms {
    fn merge(self, other: Self) -> Self {
        Terms { sum: self.sum + other.sum, norms: self.norms.merge(other.norms) }
    }
}

/// The terms of a block, with norms if `NORMS`.
struct TermsKernel<'a, const NORMS: bool> {
    p: Distribution<'a>,
    sum: LogSumExp,
}

impl<const NORMS: bool> LaneKernel for TermsKernel<'_, NORMS> {
    type Output = Terms;

    #[inline(always)]
    fn run<V: Lanes>(self, token: V::Token) -> Terms {
        let TermsKernel { p, sum } = self;
        let mut step = TermsStep::<V, NORMS> { space: p.space, view: DistributionView::new(token, p, sum) };
        let [sum, slopes, cross, probabilities] =
            runs::sums(token, p.row.classes(), [Block::new(p.row, p.space.absent())], &mut step);
        Terms { sum, norms: Norms { slopes, cross, probabilities } }
    }
}

struct TermsStep<V: Lanes, const NORMS: bool> {
    space: Space,
    view: DistributionView<V>,
}

impl<V: Lanes, const NORMS: bool> Step<V, 1, 0, 4> for TermsStep<V, NORMS> {
    #[inline(always)]
    fn has_sum(at: usize) -> bool {
        at == 0 || NORMS
    }

    #[inline(always)]
    fn step<const WHOLE: bool>(&mut self, _: usize, [x]: [V; 1], runs: &mut [V; 4]) -> [V; 0] {
        let p = self.view.p(x);
        let logits = self.space == Space::Logits;
        let term = -if logits { p * self.view.below_largest(x) } else { self.view.p_ln_p(x, p) };
        runs[0] = runs[0] + term;
        if NORMS {
            runs[1] = term.mul_add_relaxed(term, runs[1]);
            runs[2] = term.mul_add_relaxed(p, runs[2]);
            runs[3] = p.mul_add_relaxed(p, runs[3]);
        }
        []
    }
}

/// Writes the gradient of a block.
struct Gradient<'a> {
    p: Distribution<'a>,
    sum: LogSumExp,
    value: f64,
    /// Σ p·b of logits.
    mean: f64,
    scale: f64,
    out: RowMut<'a>,
}

impl LaneKernel for Gradient<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Lanes>(self, token: V::Token) {
        let (p, space) = (self.p, self.p.space);
        // −p(ln p + H) for logits, −p(ln p + 1) for log-probabilities, −(ln p + 1) for probabilities, −(ln p + H)/Σw for
        // what is to be normalised.
        let rate = if space == Space::Unnormalized { (-self.sum.value(1.0)).exp() } else { p.inverse_temperature };
        let mut step = GradientStep::<V> {
            space,
            view: DistributionView::new(token, p, self.sum),
            scale: V::splat(token, self.scale * rate),
            mean: V::splat(token, -self.mean),
            level: V::splat(token, if space.is_normalized() { self.value } else { 1.0 }),
            absent: V::splat(token, if space.is_logarithmic() { 0.0 } else { f64::INFINITY }),
        };
        let x = Block::new(p.row, space.absent());
        runs::pass(token, p.row.classes(), [x], [Some(BlockMut::new(self.out))], &mut step);
    }
}

struct GradientStep<V: Lanes> {
    space: Space,
    view: DistributionView<V>,
    scale: V,
    mean: V,
    level: V,
    absent: V,
}

impl<V: Lanes> Step<V, 1, 1, 0> for GradientStep<V> {
    #[inline(always)]
    fn step<const WHOLE: bool>(&mut self, _: usize, [x]: [V; 1], _: &mut [V; 0]) -> [V; 1] {
        let view = &self.view;
        // For logits ln p + H, relative to the largest: nearly uniform rows have nothing but rounding in the sum itself.
        let slope =
            if self.space == Space::Logits { self.mean - view.below_largest(x) } else { -(view.ln_p(x) + self.level) };
        let gradient = if self.space.is_logarithmic() { view.p(x) * slope } else { slope };
        [self.scale * V::select(view.has(x), gradient, self.absent)]
    }
}

/// Writes softmax times `scale`, less a number, for one block: the gradient of log-sum-exp, and of losses with the same mass on
/// all classes.
pub(crate) struct WriteSoftmax<'a> {
    pub(crate) logits: Distribution<'a>,
    pub(crate) sum: LogSumExp,
    pub(crate) scale: f64,
    pub(crate) less: f64,
    pub(crate) out: RowMut<'a>,
}

impl LaneKernel for WriteSoftmax<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Lanes>(self, token: V::Token) {
        let view = DistributionView::<V>::new(token, self.logits, self.sum);
        let z = Block::new(self.logits.row, f64::NEG_INFINITY);
        let mut step = Softmax { view, scale: V::splat(token, self.scale), less: V::splat(token, self.less) };
        runs::pass(token, self.out.classes(), [z], [Some(BlockMut::new(self.out))], &mut step);
    }
}

struct Softmax<V: Lanes> {
    view: DistributionView<V>,
    scale: V,
    less: V,
}

impl<V: Lanes> Step<V, 1, 1, 0> for Softmax<V> {
    #[inline(always)]
    fn step<const WHOLE: bool>(&mut self, _: usize, [z]: [V; 1], _: &mut [V; 0]) -> [V; 1] {
        [self.view.p(z) * self.scale - self.less]
    }
}
