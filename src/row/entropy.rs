//! Entropy of one row, −Σ p ln p.

use super::softmax::{Distribution, DistributionView, LogSumExp};
use super::space::Space;
use crate::batch::Blocks;
use crate::rows::RowMut;
use crate::simd::{Isa, Kernel, Lanes, Scalar, Simd};

/// The entropy; writes its gradient times `scale` to `out`.
pub(crate) fn entropy(p: Distribution<'_>, isa: Isa, blocks: &Blocks, gradient: Option<(f64, RowMut<'_>)>) -> f64 {
    let mut wide = true;
    let sum = p.statistics(isa, blocks, &mut wide);
    if sum.is_nan() || sum.is_empty() {
        if let Some((_, out)) = gradient {
            out.fill(f64::NAN);
        }
        return f64::NAN;
    }
    let classes = p.row.classes();
    let parts = blocks.map(classes, |start, len| isa.run(Value { p: p.block(start, len), sum }));
    let value = parts.iter().sum::<f64>() + 0.0;
    if let Some((scale, out)) = gradient {
        blocks.map(classes, |start, len| {
            isa.run(Gradient { p: p.block(start, len), sum, value, scale, out: out.block(start, len) });
        });
    }
    value
}

struct Value<'a> {
    p: Distribution<'a>,
    sum: LogSumExp,
}

impl Kernel for Value<'_> {
    type Output = f64;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> f64 {
        let view = DistributionView::<S::F64>::new(simd, self.p, self.sum);
        let mut total = S::F64::splat(simd, 0.0);
        let mut start = 0;
        while start < self.p.row.classes() {
            let x = self.p.row.load::<S::F64>(simd, start, self.p.space.absent());
            total = total - view.p_ln_p(x);
            start += S::F64::N;
        }
        total.sum()
    }
}

struct Gradient<'a> {
    p: Distribution<'a>,
    sum: LogSumExp,
    value: f64,
    scale: f64,
    out: RowMut<'a>,
}

impl Kernel for Gradient<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let view = DistributionView::<S::F64>::new(simd, self.p, self.sum);
        let absent = S::F64::splat(simd, if self.p.space == Space::Probs { f64::INFINITY } else { 0.0 });
        let scale = S::F64::splat(simd, self.scale * self.p.inverse_temperature);
        // −p(ln p + H) for logits, −p(ln p + 1) for log-probabilities, −(ln p + 1) for probabilities.
        let level = S::F64::splat(simd, if self.p.space == Space::Logits { self.value } else { 1.0 });
        let mut start = 0;
        while start < self.p.row.classes() {
            let x = self.p.row.load::<S::F64>(simd, start, self.p.space.absent());
            let slope = -(view.ln_p(x) + level);
            let gradient = if self.p.space == Space::Probs { slope } else { view.p(x) * slope };
            self.out.store(start, scale * S::F64::select(view.has(x), gradient, absent));
            start += S::F64::N;
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
