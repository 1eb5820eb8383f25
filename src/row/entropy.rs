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
    let (value, mean) = parts.iter().fold((0.0, 0.0), |all, part| (all.0 + part.0, all.1 + part.1));
    let value = value + 0.0;
    if let Some((scale, out)) = gradient {
        blocks.map(classes, |start, len| {
            isa.run(Gradient { p: p.block(start, len), sum, value, mean, scale, out: out.block(start, len) });
        });
    }
    value
}

/// Σ −p ln p of a block, and Σ p·(ln p − ln max p).
struct Value<'a> {
    p: Distribution<'a>,
    sum: LogSumExp,
}

impl Kernel for Value<'_> {
    type Output = (f64, f64);

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> (f64, f64) {
        let view = DistributionView::<S::F64>::new(simd, self.p, self.sum);
        let mut total = S::F64::splat(simd, 0.0);
        let mut mean = total;
        let zero = total;
        let mut start = 0;
        while start < self.p.row.classes() {
            let x = self.p.row.load::<S::F64>(simd, start, self.p.space.absent());
            let p = view.p(x);
            total = total - view.p_ln_p(x, p);
            mean = mean + S::F64::select(view.has(x), p * view.below_largest(x), zero);
            start += S::F64::N;
        }
        (total.sum(), mean.sum())
    }
}

struct Gradient<'a> {
    p: Distribution<'a>,
    sum: LogSumExp,
    value: f64,
    mean: f64,
    scale: f64,
    out: RowMut<'a>,
}

impl Kernel for Gradient<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let view = DistributionView::<S::F64>::new(simd, self.p, self.sum);
        let absent = S::F64::splat(simd, if self.p.space.is_logarithmic() { 0.0 } else { f64::INFINITY });
        // −p(ln p + H) for logits, −p(ln p + 1) for log-probabilities, −(ln p + 1) for probabilities, −(ln p + H)/Σw for
        // what is to be normalised.
        let rate =
            if self.p.space == Space::Unnormalized { (-self.sum.value(1.0)).exp() } else { self.p.inverse_temperature };
        let scale = S::F64::splat(simd, self.scale * rate);
        let mean = S::F64::splat(simd, self.mean);
        let level = S::F64::splat(simd, if self.p.space.is_normalized() { self.value } else { 1.0 });
        let mut start = 0;
        while start < self.p.row.classes() {
            let x = self.p.row.load::<S::F64>(simd, start, self.p.space.absent());
            // For logits ln p + H, relative to the largest: nearly uniform rows have nothing but rounding in the sum itself.
            let slope =
                if self.p.space == Space::Logits { mean - view.below_largest(x) } else { -(view.ln_p(x) + level) };
            let gradient = if self.p.space.is_logarithmic() { view.p(x) * slope } else { slope };
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
