//! What moving the data of a call takes without computing anything: the limit that every function is held against.

use crate::error::Error;
use crate::row::runs::{Step, pass};
use crate::rows::{Block, BlockMut, Row, RowMut, Rows, RowsMut};
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
        driver.for_rows(first.count(), first.classes(), &|index, blocks| {
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
        let classes = self.first.classes();
        let first = Block::new(self.first, 0.0);
        let mut step = Larger::<S::F32>([S::F32::splat(simd, f64::NEG_INFINITY); CHAINS]);
        match (self.second.map(|row| Block::new(row, 0.0)), self.output.map(BlockMut::<f32>::new)) {
            (None, None) => pass(simd, classes, [first], [], &mut step),
            (Some(second), None) => pass(simd, classes, [first, second], [], &mut step),
            (None, output) => pass::<S::F32, _, 1, 1, 0>(simd, classes, [first], [output], &mut Copied),
            (Some(second), output) => pass::<S::F32, _, 2, 1, 0>(simd, classes, [first, second], [output], &mut Copied),
        };
        // Without a use of what was read the compiler would leave out the reading.
        for lanes in step.0 {
            black_box(lanes.to_array());
        }
    }
}

/// Keeps the largest of what is read.
struct Larger<V>([V; CHAINS]);

impl<V: Lanes, const R: usize> Step<V, R, 0, 0> for Larger<V> {
    const CHAINS: usize = CHAINS;

    #[inline(always)]
    fn step<const WHOLE: bool>(&mut self, chain: usize, lanes: [V; R], _: &mut [V; 0]) -> [V; 0] {
        for read in lanes {
            self.0[chain] = self.0[chain].max(read);
        }
        []
    }
}

/// Writes what is read, or the larger of two.
struct Copied;

impl<V: Lanes> Step<V, 1, 1, 0> for Copied {
    #[inline(always)]
    fn step<const WHOLE: bool>(&mut self, _: usize, lanes: [V; 1], _: &mut [V; 0]) -> [V; 1] {
        lanes
    }
}

impl<V: Lanes> Step<V, 2, 1, 0> for Copied {
    #[inline(always)]
    fn step<const WHOLE: bool>(&mut self, _: usize, [first, second]: [V; 2], _: &mut [V; 0]) -> [V; 1] {
        [first.max(second)]
    }
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
