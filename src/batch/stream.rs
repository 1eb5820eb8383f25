//! What moving the data of a call takes without computing anything: the limit that every function is held against.

use crate::error::Error;
use crate::row::write::Formula;
use crate::row::write::write;
use crate::rows::{Row, RowMut, Rows, RowsMut};
use crate::simd::{Kernel, Lanes, Simd};
use crate::threads::Execution;
use std::hint::black_box;

/// Vectors whose maxima are kept apart, so that none waits for the one before.
const CHAINS: usize = 4;

/// What is read and written, in arrays of one shape and dtype.
#[derive(Debug)]
pub struct Stream<'a> {
    /// One or two arrays to read.
    pub inputs: (Rows<'a>, Option<Rows<'a>>),
    /// The array to write.
    pub output: Option<RowsMut<'a>>,
    /// Whether it is written past the caches.
    pub past_caches: bool,
}

/// Reads and writes every byte once, on the threads and in the blocks of any other function; what is written is the
/// larger of what was read.
///
/// # Errors
/// [`Error::Option`] for arrays of different shapes or element sizes, [`Error::Parameter`] for a number of threads out of
/// range, [`Error::Interrupted`].
///
/// # Examples
/// ```
/// #![forbid(unsafe_code)]
/// use kldiv::{Execution, Rows, RowsMut, Stream, stream};
///
/// let (input, mut memory) = ([1.0_f32, 2.0, 3.0], [0.0_f32; 3]);
/// let inputs = (Rows::new(&input, 3)?, None);
/// let call = Stream { inputs, output: Some(RowsMut::new(&mut memory, 3)?), past_caches: false };
/// std::thread::scope(|scope| {
///     scope.spawn(move || stream(call, &Execution::default()));
/// });
/// assert_eq!(memory, input);
/// # Ok::<(), kldiv::Error>(())
/// ```
///
/// One output is one thread's:
///
/// ```compile_fail,E0382
/// #![forbid(unsafe_code)]
/// use kldiv::{Execution, Rows, RowsMut, Stream, stream};
///
/// let (input, mut memory) = ([1.0_f32, 2.0, 3.0], [0.0_f32; 3]);
/// let inputs = (Rows::new(&input, 3)?, None);
/// let call = Stream { inputs, output: Some(RowsMut::new(&mut memory, 3)?), past_caches: false };
/// std::thread::scope(|scope| {
///     scope.spawn(move || stream(call, &Execution::default()));
///     scope.spawn(move || stream(call, &Execution::default()));
/// });
/// # Ok::<(), kldiv::Error>(())
/// ```
#[expect(clippy::needless_pass_by_value, reason = "an output is handed over: nobody else may hold it meanwhile")]
pub fn stream(call: Stream<'_>, execution: &Execution<'_>) -> Result<(), Error> {
    execution.run(|driver| {
        let (first, second) = (&call.inputs.0, call.inputs.1.as_ref());
        let shape = first.shape();
        let others = [second.map(Rows::shape), call.output.as_ref().map(RowsMut::shape)];
        if others.into_iter().flatten().any(|other| other != shape) {
            return Err(Error::Option { reason: "arrays to stream have one shape" });
        }
        let size = first.dtype().size();
        let sizes = [second.map(|rows| rows.dtype().size()), call.output.as_ref().map(|rows| rows.dtype().size())];
        if sizes.into_iter().flatten().any(|other| other != size) {
            return Err(Error::Option { reason: "arrays to stream have one dtype" });
        }
        driver.for_rows(first.count(), first.classes(), |index, blocks| {
            let (first, second) = (first.row(index), second.map(|rows| rows.row(index)));
            // SAFETY: the driver hands out every index once.
            let output = call.output.as_ref().map(|rows| unsafe { rows.row(index) });
            blocks.map(first.classes(), |start, len| {
                driver.isa.run(Pass {
                    first: first.block(start, len).words(),
                    second: second.map(|row| row.block(start, len).words()),
                    output: output.map(|row| row.block(start, len).words().with_past_caches(call.past_caches)),
                });
            });
        })?;
        Ok(())
    })
}

struct Pass<'a> {
    first: Row<'a>,
    second: Option<Row<'a>>,
    output: Option<RowMut<'a>>,
}

impl Kernel for Pass<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Pass { first, second, output } = self;
        // A closure for each loop, since one that has a single caller is inlined.
        match (second, output) {
            (None, None) => read::<S>(simd, first.classes(), |start| first.load(simd, start, 0.0)),
            (Some(second), None) => {
                read::<S>(simd, first.classes(), |start| larger::<S>(simd, first, second, start));
            }
            (None, Some(output)) => write::<S::F32>(simd, output, &Copy { simd, first }),
            (Some(second), Some(output)) => write::<S::F32>(simd, output, &Larger { simd, first, second }),
        }
    }
}

struct Copy<'a, S> {
    simd: S,
    first: Row<'a>,
}

impl<S: Simd> Formula<S::F32> for Copy<'_, S> {
    #[inline(always)]
    fn lanes<const WHOLE: bool>(&self, start: usize) -> S::F32 {
        self.first.lanes::<S::F32, WHOLE>(self.simd, start, 0.0)
    }
}

struct Larger<'a, S> {
    simd: S,
    first: Row<'a>,
    second: Row<'a>,
}

impl<S: Simd> Formula<S::F32> for Larger<'_, S> {
    #[inline(always)]
    fn lanes<const WHOLE: bool>(&self, start: usize) -> S::F32 {
        let first = self.first.lanes::<S::F32, WHOLE>(self.simd, start, 0.0);
        first.max(self.second.lanes::<S::F32, WHOLE>(self.simd, start, 0.0))
    }
}

#[inline(always)]
fn larger<S: Simd>(simd: S, first: Row<'_>, second: Row<'_>, start: usize) -> S::F32 {
    first.load::<S::F32>(simd, start, 0.0).max(second.load(simd, start, 0.0))
}

#[inline(always)]
fn read<S: Simd>(simd: S, len: usize, lanes: impl Fn(usize) -> S::F32) {
    let mut largest = [S::F32::splat(simd, 0.0); CHAINS];
    let mut start = 0;
    while start < len {
        for (chain, largest) in largest.iter_mut().enumerate() {
            let at = start + chain * S::F32::N;
            if at < len {
                *largest = largest.max(lanes(at));
            }
        }
        start += CHAINS * S::F32::N;
    }
    // Without a use of what was read the compiler would leave out the reading.
    black_box(largest.map(Lanes::to_array));
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::simd::Isa;

    #[test]
    fn every_element_is_written_once_all_are_read() {
        for isa in Isa::available() {
            let execution = Execution { isa, ..Execution::default() };
            for classes in [1, 15, 16, 17, 100, 4096, 4099, 50_257] {
                for (past_caches, two) in [(false, false), (true, false), (false, true), (true, true)] {
                    let p: Vec<f32> = (0..3 * classes).map(|i| (i % 1009) as f32).collect();
                    let q: Vec<f32> = (0..3 * classes).map(|i| (i % 911) as f32).collect();
                    let mut out = vec![-1.0_f32; 3 * classes];
                    let call = Stream {
                        inputs: (Rows::new(&p, classes).unwrap(), two.then(|| Rows::new(&q, classes).unwrap())),
                        output: Some(RowsMut::new(&mut out, classes).unwrap()),
                        past_caches,
                    };
                    stream(call, &execution).unwrap();
                    for ((&out, &p), &q) in out.iter().zip(&p).zip(&q) {
                        assert_eq!(out.to_bits(), if two { p.max(q) } else { p }.to_bits());
                    }
                }
            }
        }
    }
}
