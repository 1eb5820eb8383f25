//! The loop over the vectors of a block.

use crate::simd::{Lanes, RUN, Total};

/// What is done with each vector of classes, which `N` sums grow by.
///
/// A trait and not a closure: what is called from several places is only inlined where it says `#[inline(always)]`.
pub(crate) trait Step<V: Lanes, const N: usize> {
    /// Whether there is a sum number `at`; the compiler drops the others.
    #[inline(always)]
    fn has_sum(at: usize) -> bool {
        let _ = at;
        true
    }

    /// Takes the lanes from class `start` on; if `WHOLE`, all of them lie inside the block. `#[inline(always)]`.
    fn step<const WHOLE: bool>(&mut self, start: usize, runs: &mut [V; N]);
}

/// Takes the step for every vector of a block, the last one in part; the sums. f32 lanes are summed over runs of [`RUN`]
/// vectors, and the runs in f64.
#[inline(always)]
pub(crate) fn sums<V: Lanes, S: Step<V, N>, const N: usize>(token: V::Token, classes: usize, step: &mut S) -> [f64; N] {
    let zero = V::splat(token, 0.0);
    let mut totals = [Total::<V>::zero(token); N];
    let whole = classes / V::N * V::N;
    let mut start = 0;
    while start < whole {
        let mut runs = [zero; N];
        let stop = whole.min(start + RUN * V::N);
        while start < stop {
            step.step::<true>(start, &mut runs);
            start += V::N;
        }
        add::<V, S, N>(token, &mut totals, runs);
    }
    if start < classes {
        let mut runs = [zero; N];
        step.step::<false>(start, &mut runs);
        add::<V, S, N>(token, &mut totals, runs);
    }
    Total::sums(totals)
}

#[inline(always)]
fn add<V: Lanes, S: Step<V, N>, const N: usize>(token: V::Token, totals: &mut [Total<V>; N], runs: [V; N]) {
    for (at, (total, run)) in totals.iter_mut().zip(runs).enumerate() {
        if S::has_sum(at) {
            total.add(token, run);
        }
    }
}
