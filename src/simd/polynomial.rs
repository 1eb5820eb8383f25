//! Polynomials by Horner's rule, which takes fewest instructions: for loops that have other things to wait with.

use super::vector::Lanes;

/// Coefficients in every lane.
#[inline(always)]
pub(crate) fn in_lanes<V: Lanes, const N: usize>(token: V::Token, coefficients: [f64; N]) -> [V; N] {
    let mut lanes = [V::splat(token, 0.0); N];
    for (lane, coefficient) in lanes.iter_mut().zip(coefficients) {
        *lane = V::splat(token, coefficient);
    }
    lanes
}

/// The polynomial with these coefficients, lowest degree first.
#[inline(always)]
pub(crate) fn horner<V: Lanes, const N: usize>(coefficients: &[V; N], x: V) -> V {
    let mut value = coefficients[N - 1];
    for &coefficient in coefficients[..N - 1].iter().rev() {
        value = value.mul_add_relaxed(x, coefficient);
    }
    value
}
