//! Entropy of one row, −Σ p ln p.

use crate::row::distribution::softmax::DistributionView;
use crate::row::distribution::{Distribution, LogSumExp, Space};
use crate::row::runs::{self, Step};
use crate::rows::RowMut;
use crate::simd::{Isa, Kernel, Lanes, Scalar, Simd};
use crate::threads::Blocks;

/// The entropy; writes its gradient times `scale` to `out`.
///
/// That of logits is ln Σ e^(z − max z) + Σ p·(max z − z), of terms ≥ 0 that nothing cancels in: f32 lanes will do.
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
    let below = |sum, wide| {
        let parts = blocks.map(classes, |start, len| {
            let p = p.block(start, len);
            if wide { isa.run(Below::<true> { p, sum }) } else { isa.run(Below::<false> { p, sum }) }
        });
        parts.iter().sum::<f64>()
    };
    let mut mean = below(sum, wide);
    // Adding 0 makes a zero positive.
    let value = if p.space == Space::Logits { sum.ln_sum() + mean } else { mean } + 0.0;
    if let Some((scale, out)) = gradient {
        if !wide {
            // The gradient is a difference.
            sum = p.statistics(isa, blocks, &mut true);
            mean = below(sum, true);
        }
        blocks.map(classes, |start, len| {
            isa.run(Gradient { p: p.block(start, len), sum, value, mean, scale, out: out.block(start, len) });
        });
    }
    value
}

/// Σ p·(max z − z)/T of a block of logits; of other spaces Σ −p ln p.
struct Below<'a, const WIDE: bool> {
    p: Distribution<'a>,
    sum: LogSumExp,
}

impl<const WIDE: bool> Kernel for Below<'_, WIDE> {
    type Output = f64;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> f64 {
        if WIDE { self.sum::<S::F64>(simd) } else { self.sum::<S::F32>(simd) }
    }
}

impl<const WIDE: bool> Below<'_, WIDE> {
    #[inline(always)]
    fn sum<V: Lanes>(&self, token: V::Token) -> f64 {
        let view = DistributionView::<V>::new(token, self.p, self.sum);
        let [sum] = runs::sums(token, self.p.row.classes(), &mut BelowStep { token, p: self.p, view });
        sum
    }
}

struct BelowStep<'a, V: Lanes> {
    token: V::Token,
    p: Distribution<'a>,
    view: DistributionView<V>,
}

impl<V: Lanes> Step<V, 1> for BelowStep<'_, V> {
    #[inline(always)]
    fn step<const WHOLE: bool>(&mut self, start: usize, [sum]: &mut [V; 1]) {
        let x = self.p.row.lanes::<V, WHOLE>(self.token, start, self.p.space.absent());
        let p = self.view.p(x);
        let logits = self.p.space == Space::Logits;
        *sum = if logits { *sum - p * self.view.below_largest(x) } else { *sum - self.view.p_ln_p(x, p) };
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
        let mean = S::F64::splat(simd, -self.mean);
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
