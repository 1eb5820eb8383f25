//! Kernels over two rows whose dtype the compiler knows.

use crate::element::Dtype;
use crate::rows::Row;
use crate::simd::{Lanes, Scalar};

/// What is computed of two rows in one kind of lanes.
pub(crate) trait PairKernel {
    type Output;

    /// `#[inline(always)]` in every implementation.
    fn run<V: Lanes>(self, token: V::Token, p: Row<'_>, q: Row<'_>) -> Self::Output;
}

/// Runs `kernel` in the lanes `V`: compiled once for each dtype they are for, which loops over two rows of that dtype
/// have as a constant, and once for mixtures; once for all where the lanes gain nothing from it.
#[inline(always)]
pub(crate) fn run_known<V: Lanes, K: PairKernel>(token: V::Token, p: Row<'_>, q: Row<'_>, kernel: K) -> K::Output {
    match (p.dtype(), q.dtype()) {
        _ if !V::KNOWN_DTYPES => kernel.run::<V>(token, p, q),
        (Dtype::F64, Dtype::F64) if V::Scalar::WIDE => kernel.run::<V>(token, p.known(Dtype::F64), q.known(Dtype::F64)),
        _ if V::Scalar::WIDE => kernel.run::<V>(token, p, q),
        (Dtype::F32, Dtype::F32) => kernel.run::<V>(token, p.known(Dtype::F32), q.known(Dtype::F32)),
        (Dtype::Bf16, Dtype::Bf16) => kernel.run::<V>(token, p.known(Dtype::Bf16), q.known(Dtype::Bf16)),
        (Dtype::F16, Dtype::F16) => kernel.run::<V>(token, p.known(Dtype::F16), q.known(Dtype::F16)),
        _ => kernel.run::<V>(token, p, q),
    }
}
