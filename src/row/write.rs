//! Writing a row of results, vector by vector.

use crate::element::Dtype;
use crate::rows::RowMut;
use crate::simd::{Lanes, Simd};

/// What is written, as a function of the class.
///
/// A trait and not a closure: what is called from several places is only inlined where it says `#[inline(always)]`.
pub(crate) trait Formula<V: Lanes> {
    /// The lanes from class `start` on; if `WHOLE`, all of them lie inside the row.
    fn lanes<const WHOLE: bool>(&self, start: usize) -> V;
}

/// Writes `formula` to `out`: past the caches if the row asks for it, which saves reading the memory first.
#[inline(always)]
pub(crate) fn write<V: Lanes>(token: V::Token, out: RowMut<'_>, formula: &impl Formula<V>) {
    match out.dtype() {
        _ if !V::KNOWN_DTYPES => write_known(token, out, formula),
        Dtype::F32 => write_known(token, out.known(Dtype::F32), formula),
        Dtype::Bf16 => write_known(token, out.known(Dtype::Bf16), formula),
        Dtype::F16 => write_known(token, out.known(Dtype::F16), formula),
        Dtype::F64 => write_known(token, out.known(Dtype::F64), formula),
    }
}

#[inline(always)]
fn write_known<V: Lanes>(token: V::Token, out: RowMut<'_>, formula: &impl Formula<V>) {
    let classes = out.classes();
    let mut start = 0;
    match out.first_aligned::<V>() {
        Some(first) if classes >= first + V::N => {
            // The first vector covers what comes before the first aligned one.
            out.set_vector(0, formula.lanes::<true>(0));
            start = first;
            while start + V::N <= classes {
                out.set_vector_past_caches(start, formula.lanes::<true>(start));
                start += V::N;
            }
            token.fence();
        }
        _ => {
            while start + V::N <= classes {
                out.set_vector(start, formula.lanes::<true>(start));
                start += V::N;
            }
        }
    }
    if start < classes {
        out.store(start, formula.lanes::<false>(start));
    }
}

/// What is written of the two sides of a pair of rows, as [`Formula`].
pub(crate) trait Formulas<V: Lanes>: Copy {
    /// The lanes of both from class `start` on.
    fn lanes<const WHOLE: bool>(&self, start: usize) -> (V, V);
}

/// One of the two; what only the other needs is not computed.
struct First<F>(F);
struct Second<F>(F);

impl<V: Lanes, F: Formulas<V>> Formula<V> for First<F> {
    #[inline(always)]
    fn lanes<const WHOLE: bool>(&self, start: usize) -> V {
        self.0.lanes::<WHOLE>(start).0
    }
}

impl<V: Lanes, F: Formulas<V>> Formula<V> for Second<F> {
    #[inline(always)]
    fn lanes<const WHOLE: bool>(&self, start: usize) -> V {
        self.0.lanes::<WHOLE>(start).1
    }
}

/// Writes the sides that there are.
#[inline(always)]
pub(crate) fn write_sides<V: Lanes>(
    token: V::Token,
    out: (Option<RowMut<'_>>, Option<RowMut<'_>>),
    formulas: &impl Formulas<V>,
) {
    match out {
        (Some(out), None) => write(token, out, &First(*formulas)),
        (None, Some(out)) => write(token, out, &Second(*formulas)),
        (Some(p_out), Some(q_out)) => {
            // Either may be the memory of a row: all of a class is read before it is written.
            let mut start = 0;
            while start < p_out.classes() {
                let (p, q) = formulas.lanes::<false>(start);
                p_out.store(start, p);
                q_out.store(start, q);
                start += V::N;
            }
        }
        (None, None) => {}
    }
}
