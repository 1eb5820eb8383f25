//! KL element by element, of rows taken as given, as torch defines it: Σ p (ln p − ln q) with q given by its logarithm.
//!
//! | | p given | ln p given |
//! | --- | --- | --- |
//! | term | p ln p − p ln q, of which the first is 0 where p = 0 | p (ln p − ln q) |
//! | ∂/∂ ln q | −p | −p |
//! | ∂ | ∂/∂p = ln p + p/p − ln q | ∂/∂ ln p = p (ln p + 1 − ln q) |
//!
//! Unlike the divergences of this crate these take what floating-point arithmetic makes of infinities: 0·∞ is NaN.

use crate::element::Element;
use crate::row::gradients::RowGradients;
use crate::row::runs::{Step, pass};
use crate::rows::{Block, BlockMut, Row};
use crate::simd::exp::exp;
use crate::simd::ln::ln;
use crate::simd::{Kernel, Lanes, MAX_LANES, Simd};

/// The sum over a block; writes the gradients asked for.
pub(crate) struct PointwiseKl<'a> {
    pub(crate) p: Row<'a>,
    pub(crate) ln_q: Row<'a>,
    /// Whether `p` holds logarithms.
    pub(crate) log_p: bool,
    pub(crate) gradients: RowGradients<'a>,
}

impl Kernel for PointwiseKl<'_> {
    type Output = f64;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> f64 {
        if self.log_p { self.sum::<S::F64, true>(simd) } else { self.sum::<S::F64, false>(simd) }
    }
}

impl PointwiseKl<'_> {
    #[inline(always)]
    fn sum<V: Lanes<Scalar = f64>, const LOG_P: bool>(&self, token: V::Token) -> f64 {
        let mut step = PointwiseStep::<V, LOG_P> { token, scale: V::splat(token, self.gradients.scale) };
        // Of classes past the end the term is 0.
        let blocks = [Block::new(self.p, if LOG_P { 0.0 } else { 1.0 }), Block::new(self.ln_q, 0.0)];
        let outputs = [self.gradients.p.map(BlockMut::new), self.gradients.q.map(BlockMut::new)];
        let [sum] = pass(token, self.p.classes(), blocks, outputs, &mut step);
        sum
    }
}

struct PointwiseStep<V: Lanes, const LOG_P: bool> {
    token: V::Token,
    scale: V,
}

impl<V: Lanes, const LOG_P: bool> Step<V, 2, 2, 1> for PointwiseStep<V, LOG_P> {
    #[inline(always)]
    fn step<const WHOLE: bool>(&mut self, _: usize, [p, ln_q]: [V; 2], [sum]: &mut [V; 1]) -> [V; 2] {
        let [term, d_p, d_ln_q] = elements::<V, LOG_P>(self.token, p, ln_q);
        *sum = *sum + term;
        [self.scale * d_p, self.scale * d_ln_q]
    }
}

/// The terms, and their derivatives with respect to p (or ln p) and ln q.
#[inline(always)]
fn elements<V: Lanes, const LOG_P: bool>(token: V::Token, p: V, ln_q: V) -> [V; 3] {
    // The exponential stays in range.
    let (lowest, highest) = if LOG_P { (-700.0, 700.0) } else { (0.0, f64::MAX) };
    let in_range = V::and(V::splat(token, lowest).lt(p), p.lt(V::splat(token, highest)));
    if !V::all(V::and(in_range, ln_q.abs().lt(V::splat(token, f64::MAX)))) {
        return special_elements::<V, LOG_P>(token, p, ln_q);
    }
    let (p, ln_p) = if LOG_P { (exp(token, p), p) } else { (p, ln(token, p)) };
    let log_ratio = ln_p - ln_q;
    let slope = log_ratio + V::splat(token, 1.0);
    [p * log_ratio, if LOG_P { p * slope } else { slope }, -p]
}

/// The same for vectors with zeros, infinities, NaN or very small numbers among them.
#[inline(always)]
fn special_elements<V: Lanes, const LOG_P: bool>(token: V::Token, p: V, ln_q: V) -> [V; 3] {
    let (p, ln_q) = (p.to_array(), ln_q.to_array());
    let mut lanes = [[0.0; MAX_LANES]; 3];
    for lane in 0..V::N {
        let (given, ln_q) = (p[lane].to_f64(), ln_q[lane].to_f64());
        let (p, ln_p) = if LOG_P { (given.exp(), given) } else { (given, given.ln()) };
        [lanes[0][lane], lanes[1][lane], lanes[2][lane]] = if LOG_P {
            [p * (ln_p - ln_q), p * (ln_p + 1.0 - ln_q), -p]
        } else {
            let own = if p == 0.0 { 0.0 } else { p * ln_p };
            // The 1 is p/p.
            let one = if p == 0.0 || p.is_infinite() { f64::NAN } else { 1.0 };
            [own - p * ln_q, ln_p + one - ln_q, -p]
        };
    }
    // `map` of an array is a call, in which lanes go through memory.
    [V::from_array(token, &lanes[0]), V::from_array(token, &lanes[1]), V::from_array(token, &lanes[2])]
}
