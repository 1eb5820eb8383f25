//! Logits of hidden states: the product of rows with the rows of a matrix.

use crate::element::Dtype;
use crate::error::Error;
use crate::memory;
use crate::row::runs::{Step, pass};
use crate::rows::{Block, BlockMut, Row, RowMut, Rows, RowsMut};
use crate::simd::{Isa, Kernel, Lanes, Simd};
use crate::threads::Execution;
use std::ops::Range;

/// Rows whose products are taken together, a lane each.
const ROWS: usize = 24;

/// Classes that a thread takes at a time.
const CLASSES: usize = 120;

/// Features that are taken before going on to the next rows: as f64, those of the classes are 240 KiB, of a panel 48 KiB.
const FEATURES: usize = 256;

/// Panels that a thread takes at a time, at most: with the weights as f64, and with the sums, they are in a second-level cache.
const PANELS: usize = 8;

/// The products of every row of `input` with every row of `weight`: element c of row i of `out` is the sum over k of
/// `input[i][k] * weight[c][k]`.
///
/// Products are added up in f64, in the order of k, each with one rounding. So a number depends on its two rows alone: it has
/// the same bits for any number of rows and threads, and on any instruction set. Beside the result there are `input` as f64,
/// and half a MiB a thread.
///
/// # Errors
/// [`Error::ShapeMismatch`], [`Error::NoClasses`], [`Error::Memory`] and [`Error::Interrupted`]. After one nothing has been
/// written, except after the last two.
///
/// # Examples
/// ```
/// use kldiv::{Execution, Rows, RowsMut, linear};
///
/// let (input, weight) = ([1.0_f32, 2.0], [3.0_f64, 0.0, 0.0, 4.0, 1.0, 1.0]);
/// let mut out = [0.0_f64; 3];
/// linear(&Rows::new(&input, 2)?, &Rows::new(&weight, 2)?, RowsMut::new(&mut out, 3)?, &Execution::default())?;
/// assert_eq!(out, [3.0, 8.0, 3.0]);
/// # Ok::<(), kldiv::Error>(())
/// ```
#[expect(clippy::needless_pass_by_value, reason = "an output is handed over: nobody else may hold it meanwhile")]
pub fn linear(input: &Rows<'_>, weight: &Rows<'_>, out: RowsMut<'_>, execution: &Execution<'_>) -> Result<(), Error> {
    execution.run(|driver| {
        let features = weight.classes();
        if input.classes() != features {
            return Err(Error::ShapeMismatch {
                first: "input",
                first_shape: input.shape(),
                second: "weight",
                second_shape: weight.shape(),
            });
        }
        if features == 0 {
            return Err(Error::NoClasses { argument: "weight", shape: weight.shape() });
        }
        let shape = vec![input.count(), weight.count()];
        if [out.count(), out.classes()] != shape[..] {
            return Err(Error::ShapeMismatch {
                first: "the output",
                first_shape: out.shape(),
                second: "the product",
                second_shape: shape,
            });
        }
        let panels = panels(input)?;
        let product = Product { panels: &panels, weight, out: &out, isa: driver.isa };
        // As many panels in each tile, or nearly.
        let count = panels.len() / ROWS.saturating_mul(features);
        let down = count.div_ceil(PANELS).max(1);
        let height = count.div_ceil(down);
        // A multiplication takes a hundredth of the time of a class elsewhere.
        let work = (CLASSES * ROWS * height).saturating_mul(features) / 128;
        let found = driver.for_rows(down * weight.count().div_ceil(CLASSES), work, &|tile, _| {
            let first = tile % down * height;
            product.tile(first..count.min(first + height), tile / down * CLASSES).err()
        })?;
        found.into_iter().flatten().next().map_or(Ok(()), Err)
    })
}

/// All rows as f64, in panels of [`ROWS`]: of each panel the first feature of every row, then the second, and so on. Rows past
/// the end are 0.
fn panels(input: &Rows<'_>) -> Result<Vec<f64>, Error> {
    let features = input.classes();
    let mut panels = memory::filled(input.count().next_multiple_of(ROWS).saturating_mul(features), 0.0)?;
    for (panel, numbers) in panels.chunks_exact_mut(ROWS.saturating_mul(features)).enumerate() {
        let first = panel * ROWS;
        for index in first..input.count().min(first + ROWS) {
            let row = input.row(index);
            for (feature, numbers) in numbers.chunks_exact_mut(ROWS).enumerate() {
                numbers[index - first] = row.get(feature);
            }
        }
    }
    Ok(panels)
}

struct Product<'a> {
    panels: &'a [f64],
    weight: &'a Rows<'a>,
    out: &'a RowsMut<'a>,
    isa: Isa,
}

impl Product<'_> {
    /// The products of some panels with the classes from `start` on.
    fn tile(&self, panels: Range<usize>, start: usize) -> Result<(), Error> {
        let features = self.weight.classes();
        let classes = CLASSES.min(self.weight.count() - start);
        let mut weights = memory::filled(CLASSES * FEATURES.min(features), 0.0)?;
        let mut sums = memory::filled(panels.len() * ROWS * CLASSES, 0.0)?;
        for feature in (0..features).step_by(FEATURES) {
            let len = FEATURES.min(features - feature);
            let converted = RowsMut::new(&mut weights[..CLASSES * len], len)?;
            for class in 0..classes {
                // SAFETY: the only view of this row.
                let to = unsafe { converted.row(class) };
                self.isa.run(Convert { from: self.weight.row(start + class).block(feature, len), to });
            }
            drop(converted);
            for (panel, sums) in panels.clone().zip(sums.chunks_exact_mut(ROWS * CLASSES)) {
                let numbers = &self.panels[(panel * features + feature) * ROWS..][..ROWS * len];
                self.isa.run(Accumulate { numbers, weights: &weights[..CLASSES * len], classes, sums });
            }
        }
        for (panel, sums) in panels.zip(sums.chunks_exact(ROWS * CLASSES)) {
            self.put(panel * ROWS, start, classes, sums)?;
        }
        Ok(())
    }

    /// Writes the sums of a panel's rows, of so many classes.
    fn put(&self, row: usize, start: usize, classes: usize, sums: &[f64]) -> Result<(), Error> {
        let mut numbers = [0.0; CLASSES];
        for index in 0..ROWS.min(self.out.count() - row) {
            for (number, sums) in numbers.iter_mut().zip(sums.chunks_exact(ROWS)) {
                *number = sums[index];
            }
            let from = Rows::new(&numbers[..classes], classes)?.row(0);
            // SAFETY: these classes of all rows are one tile's.
            let to = unsafe { self.out.row(row + index) }.block(start, classes);
            self.isa.run(Convert { from, to });
        }
        Ok(())
    }
}

/// Writes a row in another dtype.
struct Convert<'a> {
    from: Row<'a>,
    to: RowMut<'a>,
}

impl Kernel for Convert<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Convert { from, to } = self;
        let blocks = ([Block::new(from, 0.0)], [Some(BlockMut::new(to))]);
        pass::<S::F64, _, 1, 1, 0>(simd, from.classes(), blocks.0, blocks.1, &mut Same);
    }
}

/// Writes what is read.
struct Same;

impl<V: Lanes> Step<V, 1, 1, 0> for Same {
    #[inline(always)]
    fn step<const WHOLE: bool>(&mut self, _: usize, lanes: [V; 1], _: &mut [V; 0]) -> [V; 1] {
        lanes
    }
}

/// Adds the products of some features to the sums of a panel.
struct Accumulate<'a> {
    /// Of each feature that of every row.
    numbers: &'a [f64],
    /// Of each of [`CLASSES`] its features.
    weights: &'a [f64],
    /// Classes in use.
    classes: usize,
    /// Of each class that of every row.
    sums: &'a mut [f64],
}

impl Kernel for Accumulate<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        // Accumulators are in registers, 16 or 32, with the numbers of the rows and one of a class.
        if S::F64::N < 8 {
            self.all::<S::F64, 6, 2>(simd);
        } else {
            self.all::<S::F64, 8, 3>(simd);
        }
    }
}

impl Accumulate<'_> {
    #[inline(always)]
    fn all<V: Lanes, const N: usize, const VECTORS: usize>(self, token: V::Token) {
        assert!(ROWS.is_multiple_of(VECTORS * V::N) && CLASSES.is_multiple_of(N));
        let len = self.numbers.len() / ROWS;
        for class in (0..self.classes).step_by(N) {
            let weights = &self.weights[class * len..][..N * len];
            let sums = &mut self.sums[class * ROWS..][..N * ROWS];
            for row in (0..ROWS).step_by(VECTORS * V::N) {
                // SAFETY: `len` features of `ROWS` rows and of `N` classes, and sums of `ROWS` rows for these; the last row of
                // the vectors is below `ROWS`, as `row` is a multiple of what divides it.
                unsafe { of_vectors::<V, N, VECTORS>(token, len, self.numbers, weights, sums, row) }
            }
        }
    }
}

/// Adds the products of `N` classes and `VECTORS` vectors of rows, from `row` on.
///
/// # Safety
/// `numbers` has [`ROWS`] for each of `len` features, `weights` `len` for each of `N` classes, `sums` [`ROWS`] for each of
/// these; `row + VECTORS * V::N <= ROWS`.
#[inline(always)]
unsafe fn of_vectors<V: Lanes, const N: usize, const VECTORS: usize>(
    token: V::Token,
    len: usize,
    numbers: &[f64],
    weights: &[f64],
    sums: &mut [f64],
    row: usize,
) {
    let mut totals = [[V::splat(token, 0.0); VECTORS]; N];
    for (class, totals) in totals.iter_mut().enumerate() {
        for (vector, total) in totals.iter_mut().enumerate() {
            // SAFETY: the vector is one of `sums`, by the contract.
            *total =
                unsafe { V::load(token, sums.as_ptr().add(class * ROWS + row + vector * V::N).cast(), Dtype::F64) };
        }
    }
    for feature in 0..len {
        let mut lanes = [V::splat(token, 0.0); VECTORS];
        for (vector, lanes) in lanes.iter_mut().enumerate() {
            // SAFETY: the vector is one of `numbers`, by the contract.
            *lanes = unsafe {
                V::load(token, numbers.as_ptr().add(feature * ROWS + row + vector * V::N).cast(), Dtype::F64)
            };
        }
        for (class, totals) in totals.iter_mut().enumerate() {
            // SAFETY: one of `weights`, by the contract.
            let weight = V::splat(token, unsafe { *weights.get_unchecked(class * len + feature) });
            for (total, lanes) in totals.iter_mut().zip(lanes) {
                *total = weight.mul_add(lanes, *total);
            }
        }
    }
    for (class, totals) in totals.into_iter().enumerate() {
        for (vector, total) in totals.into_iter().enumerate() {
            // SAFETY: as when it was read.
            unsafe { total.store(sums.as_mut_ptr().add(class * ROWS + row + vector * V::N).cast(), Dtype::F64) };
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use half::bf16;

    use super::*;
    use crate::element::Element;

    /// Numbers of every size and sign, whose products and sums are rounded.
    fn numbers<E: Element>(count: usize, seed: u64) -> Vec<E> {
        (0..count as u64)
            .map(|at| {
                let bits = (at + 1).wrapping_mul(seed).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
                E::from_f64((bits as f64 / 8_388_608.0 - 1.0) * [1.0, 1e-3, 40.0][(at % 3) as usize])
            })
            .collect()
    }

    fn check<I: Element, W: Element>(rows: usize, classes: usize, features: usize) {
        let (input, weight) = (numbers::<I>(rows * features, 3), numbers::<W>(classes * features, 7));
        for isa in Isa::available() {
            for threads in [1, 3] {
                let execution = Execution { isa, threads, ..Execution::default() };
                let mut out = vec![f64::NAN; rows * classes];
                let (x, w) = (Rows::new(&input, features).unwrap(), Rows::new(&weight, features).unwrap());
                linear(&x, &w, RowsMut::new(&mut out, classes).unwrap(), &execution).unwrap();
                for (at, found) in out.into_iter().enumerate() {
                    let (x, w) = (&input[at / classes * features..], &weight[at % classes * features..]);
                    let expected =
                        x[..features].iter().zip(w).fold(0.0, |sum, (x, w)| w.to_f64().mul_add(x.to_f64(), sum));
                    assert_eq!(found.to_bits(), expected.to_bits(), "{isa:?}, {threads}, {at}");
                }
            }
        }
    }

    #[test]
    fn sums_of_fused_products_in_order() {
        check::<f32, bf16>(1, 1, 1);
        check::<f64, f32>(25, 131, 300);
        check::<bf16, bf16>(24, 120, 256);
        check::<f32, f64>(ROWS * PANELS + 1, 9, 257);
    }

    #[test]
    fn shapes_that_do_not_fit() {
        let numbers = [1.0_f64; 6];
        let rows = |classes| Rows::new(&numbers, classes).unwrap();
        let mut out = [7.0_f64; 6];
        let mut call = |input, weight, classes| {
            linear(&rows(input), &rows(weight), RowsMut::new(&mut out, classes).unwrap(), &Execution::default())
                .unwrap_err()
                .to_string()
        };
        assert_eq!(call(2, 3, 2), "input has shape (3, 2) but weight has shape (2, 3)");
        assert_eq!(call(2, 2, 2), "the output has shape (3, 2) but the product has shape (3, 3)");
        assert_eq!(out, [7.0; 6]);
    }
}
