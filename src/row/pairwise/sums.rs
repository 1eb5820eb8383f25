//! The loop over the classes of a pair of rows of probabilities and their logarithms.

use crate::divergence::{Divergence, OfProbabilities, Pair, Probabilities};
use crate::row::runs::{self, Step};
use crate::rows::{Block, Row};
use crate::simd::exp::Decay;
use crate::simd::ln::{LARGEST_S, atanh_tail};
use crate::simd::{Isa, Kernel, Lanes, Scalar, Simd};

/// Sums over the classes of a pair, or a block of it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PairSums {
    /// Σf̃.
    pub(crate) near: f64,
    /// Σ|p − q|.
    pub(crate) gap: f64,
    /// Σ(p − q).
    pub(crate) excess: f64,
    /// Σp of classes that q lacks, Σq of classes that p lacks.
    pub(crate) lone_p: f64,
    pub(crate) lone_q: f64,
}

impl PairSums {
    /// Of a block of two rows, of which each is probabilities and their logarithms; `full` if they have every class.
    pub(crate) fn of<D: Divergence>(divergence: D, p: [Row<'_>; 2], q: [Row<'_>; 2], full: bool, isa: Isa) -> Self {
        match divergence.for_many_pairs() {
            Some(terms) => Self::of_terms(ByProbabilities(terms), p, q, full, isa),
            None => Self::of_terms(ByPair(divergence), p, q, full, isa),
        }
    }

    fn of_terms<T: Terms>(terms: T, p: [Row<'_>; 2], q: [Row<'_>; 2], full: bool, isa: Isa) -> Self {
        if full {
            isa.run(SumsKernel::<T, true> { terms, p, q })
        } else {
            isa.run(SumsKernel::<T, false> { terms, p, q })
        }
    }

    pub(crate) fn merge(self, other: Self) -> Self {
        PairSums {
            near: self.near + other.near,
            gap: self.gap + other.gap,
            excess: self.excess + other.excess,
            lone_p: self.lone_p + other.lone_p,
            lone_q: self.lone_q + other.lone_q,
        }
    }
}

/// How f̃ is found of the probabilities and logarithms of a class.
trait Terms: Copy {
    /// f̃; if `FULL`, both rows have the class.
    fn near<V: Lanes, const FULL: bool>(self, token: V::Token, lanes: [V; 4]) -> V;
}

#[derive(Clone, Copy)]
struct ByPair<D>(D);

impl<D: Divergence> Terms for ByPair<D> {
    #[inline(always)]
    fn near<V: Lanes, const FULL: bool>(self, token: V::Token, lanes: [V; 4]) -> V {
        self.0.class(&pair::<V, FULL>(token, lanes)).value
    }
}

#[derive(Clone, Copy)]
struct ByProbabilities<T>(T);

impl<T: OfProbabilities> Terms for ByProbabilities<T> {
    #[inline(always)]
    fn near<V: Lanes, const FULL: bool>(self, token: V::Token, [p, ln_p, q, ln_q]: [V; 4]) -> V {
        let (zero, one) = (V::splat(token, 0.0), V::splat(token, 1.0));
        let sum = p + q;
        let sum = if FULL { sum } else { V::select(zero.lt(sum), sum, one) };
        self.0.class(&Probabilities { token, sum, sigma: (p - q).abs() / sum, u: (ln_p - ln_q).abs() })
    }
}

struct SumsKernel<'a, T, const FULL: bool> {
    terms: T,
    p: [Row<'a>; 2],
    q: [Row<'a>; 2],
}

impl<T: Terms, const FULL: bool> Kernel for SumsKernel<'_, T, FULL> {
    type Output = PairSums;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> PairSums {
        let SumsKernel { terms, p: [p, ln_p], q: [q, ln_q] } = self;
        let mut step = SumsStep::<S::F64, T, FULL> { token: simd, terms };
        // Rows are whole vectors, and nothing pads them.
        let blocks = [Block::new(p, 0.0), Block::new(ln_p, 0.0), Block::new(q, 0.0), Block::new(ln_q, 0.0)];
        let [near, gap, excess, lone_p, lone_q] = runs::sums(simd, p.classes(), blocks, &mut step);
        PairSums { near, gap, excess, lone_p, lone_q }
    }
}

struct SumsStep<V: Lanes, T, const FULL: bool> {
    token: V::Token,
    terms: T,
}

impl<V: Lanes, T: Terms, const FULL: bool> Step<V, 4, 0, 5> for SumsStep<V, T, FULL> {
    #[inline(always)]
    fn has_sum(at: usize) -> bool {
        !FULL || at < 3
    }

    #[inline(always)]
    fn step<const WHOLE: bool>(&mut self, _: usize, lanes: [V; 4], sums: &mut [V; 5]) -> [V; 0] {
        let [p, _, q, _] = lanes;
        sums[0] = sums[0] + self.terms.near::<V, FULL>(self.token, lanes);
        let difference = p - q;
        sums[1] = sums[1] + difference.abs();
        sums[2] = sums[2] + difference;
        if !FULL {
            let zero = V::splat(self.token, 0.0);
            sums[3] = sums[3] + V::select(zero.lt(q), zero, p);
            sums[4] = sums[4] + V::select(zero.lt(p), zero, q);
        }
        []
    }
}

/// A pair of the probabilities and logarithms of a class.
///
/// With σ = |p − q|/(p + q), u is 2 atanh σ, and e^(−u) − 1 = −2σ/(1 + σ), whose sum is 2σ²/(1 + σ) + 2(atanh σ − σ): relatively
/// accurate for p and q as they are. Where they are not close, logarithms do.
#[inline(always)]
fn pair<V: Lanes, const FULL: bool>(token: V::Token, [p, ln_p, q, ln_q]: [V; 4]) -> Pair<V> {
    let splat = |value| V::splat(token, value);
    let (zero, one) = (splat(0.0), splat(1.0));
    let has = if FULL { (zero.le(zero), zero.le(zero)) } else { (zero.lt(p), zero.lt(q)) };
    let (larger, smaller) = (p.max(q), p.min(q));
    let or_one = |divisor| if FULL { divisor } else { V::select(V::or(has.0, has.1), divisor, one) };
    let inverse = one / or_one(larger);
    let (exp, expm1) = (smaller * inverse, (smaller - larger) * inverse);
    let sigma = (larger - smaller) / or_one(larger + smaller);
    let near = sigma.le(splat(LARGEST_S));
    let tail = atanh_tail(token, sigma);
    let far = (ln_p - ln_q).abs();
    let far = if FULL { far } else { V::select(V::xor(has.0, has.1), splat(V::Scalar::HUGE), far) };
    let u = V::select(near, (sigma + tail) + (sigma + tail), far);
    let near_excess = (sigma * sigma).mul_add(one + exp, tail + tail);
    let p_larger = q.le(p);
    Pair {
        token,
        p_larger,
        has,
        p,
        q,
        larger,
        ln_larger: V::select(p_larger, ln_p, ln_q),
        u,
        log_ratio: V::select(p_larger, u, -u),
        decay: Decay { exp, expm1, excess: V::select(near, near_excess, expm1 + u) },
    }
}
