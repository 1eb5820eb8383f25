//! Entropy of one row, −Σ p ln p.

use crate::row::distribution::softmax::DistributionView;
use crate::row::distribution::{Distribution, LogSumExp, Space};
use crate::row::divergence::second_pass::Norms;
use crate::row::gradients::LARGEST_NARROW_SCALE;
use crate::row::runs::{self, Step};
use crate::rows::RowMut;
use crate::simd::{Isa, Kernel, Lanes, Scalar, Simd};
use crate::threads::Blocks;

/// The entropy; writes its gradient times `scale` to `out`.
///
/// That of logits is ln Σ e^(z − max z) + Σ p·b with b = max z − z over T, of terms ≥ 0 that nothing cancels in: f32 lanes will
/// do. So they will for the gradient, p·(b − Σ p·b), where it is no small difference.
pub(crate) fn entropy(p: Distribution<'_>, isa: Isa, blocks: &Blocks, gradient: Option<(f64, RowMut<'_>)>) -> f64 {
    let mut wide = !p.allows_narrow_lanes();
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
                (true, _) => isa.run(TermsKernel::<true, false> { p, sum }),
                (false, false) => isa.run(TermsKernel::<false, false> { p, sum }),
                (false, true) => isa.run(TermsKernel::<false, true> { p, sum }),
            }
        });
        parts.iter().fold(Terms::default(), |all, &part| all.merge(part))
    };
    let mut found = terms(sum, wide);
    // Adding 0 makes a zero positive.
    let value = if p.space == Space::Logits { sum.ln_sum() + found.sum } else { found.sum } + 0.0;
    if let Some((scale, out)) = gradient {
        if !wide && (found.norms.cancel(found.sum) || (scale * p.inverse_temperature).abs() > LARGEST_NARROW_SCALE) {
            wide = true;
            sum = p.statistics(isa, blocks, &mut wide);
            found = terms(sum, wide);
        }
        blocks.map(classes, |start, len| {
            let gradient =
                Gradient { p: p.block(start, len), sum, value, mean: found.sum, scale, out: out.block(start, len) };
            if wide { isa.run(WideGradient(gradient)) } else { isa.run(NarrowGradient(gradient)) }
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
struct TermsKernel<'a, const WIDE: bool, const NORMS: bool> {
    p: Distribution<'a>,
    sum: LogSumExp,
}

impl<const WIDE: bool, const NORMS: bool> Kernel for TermsKernel<'_, WIDE, NORMS> {
    type Output = Terms;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Terms {
        if WIDE { self.terms::<S::F64>(simd) } else { self.terms::<S::F32>(simd) }
    }
}

impl<const WIDE: bool, const NORMS: bool> TermsKernel<'_, WIDE, NORMS> {
    #[inline(always)]
    fn terms<V: Lanes>(&self, token: V::Token) -> Terms {
        let view = DistributionView::<V>::new(token, self.p, self.sum);
        let mut step = TermsStep::<V, NORMS> { token, p: self.p, view };
        let [sum, slopes, cross, probabilities] = runs::sums(token, self.p.row.classes(), &mut step);
        Terms { sum, norms: Norms { slopes, cross, probabilities } }
    }
}

struct TermsStep<'a, V: Lanes, const NORMS: bool> {
    token: V::Token,
    p: Distribution<'a>,
    view: DistributionView<V>,
}

impl<V: Lanes, const NORMS: bool> Step<V, 4> for TermsStep<'_, V, NORMS> {
    #[inline(always)]
    fn has_sum(at: usize) -> bool {
        at == 0 || NORMS
    }

    #[inline(always)]
    fn step<const WHOLE: bool>(&mut self, start: usize, runs: &mut [V; 4]) {
        let x = self.p.row.lanes::<V, WHOLE>(self.token, start, self.p.space.absent());
        let p = self.view.p(x);
        let logits = self.p.space == Space::Logits;
        let term = -if logits { p * self.view.below_largest(x) } else { self.view.p_ln_p(x, p) };
        runs[0] = runs[0] + term;
        if NORMS {
            runs[1] = term.mul_add_relaxed(term, runs[1]);
            runs[2] = term.mul_add_relaxed(p, runs[2]);
            runs[3] = p.mul_add_relaxed(p, runs[3]);
        }
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

struct NarrowGradient<'a>(Gradient<'a>);
struct WideGradient<'a>(Gradient<'a>);

impl Kernel for NarrowGradient<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        self.0.write::<S::F32>(simd);
    }
}

impl Kernel for WideGradient<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        self.0.write::<S::F64>(simd);
    }
}

impl Gradient<'_> {
    #[inline(always)]
    fn write<V: Lanes>(&self, token: V::Token) {
        let view = DistributionView::<V>::new(token, self.p, self.sum);
        let absent = V::splat(token, if self.p.space.is_logarithmic() { 0.0 } else { f64::INFINITY });
        // −p(ln p + H) for logits, −p(ln p + 1) for log-probabilities, −(ln p + 1) for probabilities, −(ln p + H)/Σw for
        // what is to be normalised.
        let rate =
            if self.p.space == Space::Unnormalized { (-self.sum.value(1.0)).exp() } else { self.p.inverse_temperature };
        let scale = V::splat(token, self.scale * rate);
        let mean = V::splat(token, -self.mean);
        let level = V::splat(token, if self.p.space.is_normalized() { self.value } else { 1.0 });
        let mut start = 0;
        while start < self.p.row.classes() {
            let x = self.p.row.load::<V>(token, start, self.p.space.absent());
            // For logits ln p + H, relative to the largest: nearly uniform rows have nothing but rounding in the sum itself.
            let slope =
                if self.p.space == Space::Logits { mean - view.below_largest(x) } else { -(view.ln_p(x) + level) };
            let gradient = if self.p.space.is_logarithmic() { view.p(x) * slope } else { slope };
            self.out.store(start, scale * V::select(view.has(x), gradient, absent));
            start += V::N;
        }
    }
}

/// Writes softmax times `scale` for one block: the gradient of log-sum-exp.
pub(crate) struct WriteSoftmax<'a, const WIDE: bool> {
    pub(crate) logits: Distribution<'a>,
    pub(crate) sum: LogSumExp,
    pub(crate) scale: f64,
    pub(crate) out: RowMut<'a>,
}

impl<const WIDE: bool> Kernel for WriteSoftmax<'_, WIDE> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        if WIDE { self.write::<S::F64>(simd) } else { self.write::<S::F32>(simd) }
    }
}

impl<const WIDE: bool> WriteSoftmax<'_, WIDE> {
    #[inline(always)]
    fn write<V: Lanes>(self, token: V::Token) {
        let view = DistributionView::<V>::new(token, self.logits, self.sum);
        let scale = V::splat(token, self.scale);
        debug_assert!(V::Scalar::WIDE == WIDE);
        let mut start = 0;
        while start < self.logits.row.classes() {
            let z = self.logits.row.load::<V>(token, start, f64::NEG_INFINITY);
            self.out.store(start, view.p(z) * scale);
            start += V::N;
        }
    }
}
