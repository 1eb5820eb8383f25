//! Sums of a divergence and of its slopes, which are kept where they are asked for.

use crate::divergence::Class;
use crate::row::divergence::kept_slopes::{Places, Sides};
use crate::row::divergence::second_pass::{Norms, Sums};
use crate::row::runs::{Step, pass};
use crate::rows::{Block, BlockMut, RowMut};
use crate::simd::{Isa, LaneKernel, Lanes, Narrow, Scalar, Wide};

/// What is computed of a class: value and slopes, and p and q or multiples of them.
#[derive(Clone, Copy)]
pub(crate) struct Terms<V> {
    pub(crate) class: Class<V>,
    pub(crate) probabilities: Sides<V>,
}

/// How it is computed of two numbers.
pub(crate) trait Formula<V: Lanes> {
    /// `#[inline(always)]`; what is not asked for is dropped by the compiler.
    fn terms(&mut self, x: V, y: V) -> Terms<V>;
}

/// A block of two rows with its formula.
pub(crate) trait Summed: Copy {
    /// Whether f64 lanes ever take it.
    const WIDE: bool;
    /// Whether there is a kernel for slopes of p alone; else they are found with those of q.
    const P_ALONE: bool;

    /// Of a vector of classes.
    type Formula<V: Lanes>: Formula<V>;

    /// To be read, padded with classes that add nothing.
    fn blocks<T: Scalar>(&self) -> [Block<'_, T>; 2];
    /// `#[inline(always)]`.
    fn formula<V: Lanes>(&self, token: V::Token) -> Self::Formula<V>;
    /// The sums, of which the formula may have units of its own; `None` where it was not for these classes. `#[inline(always)]`.
    fn found<V: Lanes>(&self, formula: Self::Formula<V>, sums: [f64; SUMS]) -> Option<Sums>;
}

/// Σf and, of the wanted sides, sums and norms of the slopes, which are written where there is a place for them.
pub(crate) fn sums_of_block<B: Summed>(
    block: B,
    classes: usize,
    isa: Isa,
    wide: bool,
    wanted: Sides<bool>,
    places: Places<'_>,
) -> Option<Sums> {
    match wanted {
        (false, false) => run::<B, _>(isa, wide, SumsKernel::<B, false, false, 0>(block, classes, [])),
        (false, true) => run::<B, _>(isa, wide, SumsKernel::<B, false, true, 1>(block, classes, [places.1])),
        (true, false) if B::P_ALONE => {
            run::<B, _>(isa, wide, SumsKernel::<B, true, false, 1>(block, classes, [places.0]))
        }
        (true, _) => run::<B, _>(isa, wide, SumsKernel::<B, true, true, 2>(block, classes, [places.0, places.1])),
    }
}

/// What f64 lanes never take is not compiled for them.
fn run<B: Summed, K: LaneKernel>(isa: Isa, wide: bool, kernel: K) -> K::Output {
    if B::WIDE && wide { isa.run(Wide(kernel)) } else { isa.run(Narrow(kernel)) }
}

/// Σf; Σa, Σa², Σa·p and Σp² for the slopes a of p; the same of q.
pub(crate) const SUMS: usize = 9;

/// Sums of a block of so many classes, with those of the slopes of p, of q, or both, which are written to the `W` outputs.
struct SumsKernel<'a, B, const P: bool, const Q: bool, const W: usize>(B, usize, [Option<RowMut<'a>>; W]);

/// Adds classes to the sums.
struct SumsStep<F, const P: bool, const Q: bool>(F);

impl<F, const P: bool, const Q: bool> SumsStep<F, P, Q> {
    #[inline(always)]
    fn add<V: Lanes>(&mut self, [x, y]: [V; 2], runs: &mut [V; SUMS]) -> Class<V>
    where
        F: Formula<V>,
    {
        let Terms { class, probabilities } = self.0.terms(x, y);
        runs[0] = runs[0] + class.value;
        if P {
            add_slope(runs, 1, class.d_ln_p, probabilities.0);
        }
        if Q {
            add_slope(runs, 5, class.d_ln_q, probabilities.1);
        }
        class
    }
}

macro_rules! sums_kernel {
    ($p:literal, $q:literal, $w:literal, |$class:ident| $kept:expr) => {
        impl<B: Summed> LaneKernel for SumsKernel<'_, B, $p, $q, $w> {
            type Output = Option<Sums>;

            #[inline(always)]
            fn run<V: Lanes>(self, token: V::Token) -> Option<Sums> {
                if V::Scalar::WIDE && !V::HAS_SHORT_CUTS {
                    return None;
                }
                let SumsKernel(block, classes, places) = self;
                let mut outputs = [None; $w];
                for (output, place) in outputs.iter_mut().zip(places) {
                    *output = place.map(BlockMut::new);
                }
                let mut step = SumsStep::<B::Formula<V>, $p, $q>(block.formula::<V>(token));
                let sums = pass(token, classes, block.blocks(), outputs, &mut step);
                block.found::<V>(step.0, sums)
            }
        }

        impl<V: Lanes, F: Formula<V>> Step<V, 2, $w, SUMS> for SumsStep<F, $p, $q> {
            const WRITES_LANES: bool = true;

            #[inline(always)]
            fn has_sum(at: usize) -> bool {
                [true, $p, $p, $p, $p, $q, $q, $q, $q][at]
            }

            #[inline(always)]
            fn step<const WHOLE: bool>(&mut self, _: usize, lanes: [V; 2], runs: &mut [V; SUMS]) -> [V; $w] {
                let $class = self.add(lanes, runs);
                $kept
            }
        }
    };
}

sums_kernel!(false, false, 0, |_class| []);
sums_kernel!(false, true, 1, |class| [class.d_ln_q]);
sums_kernel!(true, false, 1, |class| [class.d_ln_p]);
sums_kernel!(true, true, 2, |class| [class.d_ln_p, class.d_ln_q]);

/// What lanes summed of values and slopes in units of their own.
pub(crate) fn in_units(found: [f64; SUMS], of_values: f64, of_p: f64, of_q: f64) -> Sums {
    let norms = |at: usize, unit: f64| Norms {
        slopes: unit * unit * found[at],
        cross: unit * found[at + 1],
        probabilities: found[at + 2],
    };
    Sums {
        value: of_values * found[0],
        d_ln_p: of_p * found[1],
        p_norms: norms(2, of_p),
        d_ln_q: of_q * found[5],
        q_norms: norms(6, of_q),
        ..Sums::default()
    }
}

/// Adds a slope of a side, whose first sum is `at`.
#[inline(always)]
fn add_slope<V: Lanes>(runs: &mut [V; SUMS], at: usize, slope: V, probability: V) {
    runs[at] = runs[at] + slope;
    runs[at + 1] = slope.mul_add_relaxed(slope, runs[at + 1]);
    runs[at + 2] = slope.mul_add_relaxed(probability, runs[at + 2]);
    runs[at + 3] = probability.mul_add_relaxed(probability, runs[at + 3]);
}
