//! Views of a batch of rows: unit stride on the class axis, any strides on the batch axes.
//!
//! Elements are reached through raw pointers, so that the gradient may be written over the row it is computed
//! from; every access goes through [`Block`] and [`BlockMut`], which check their bounds.
//!
//! * [`axes`]: where rows lie in memory.
//! * [`row`]: one row as it is stored; [`block`]: a block of it as kernels see it; [`patched`]: one with numbers replaced.
//! * `ndarray`: rows of the arrays of that crate.

mod axes;
mod block;
#[cfg(feature = "ndarray")]
mod ndarray;
mod patched;
mod row;

pub(crate) use block::{
    AsBf16, AsF16, AsLanes, BLOCK, Block, BlockMut, CHUNK, Chunk, PastCaches, Store, Vectors, VectorsMut,
};
pub(crate) use patched::Patched;
pub(crate) use row::{Row, RowMut};

use std::marker::PhantomData;

use axes::Axes;

use crate::element::{Dtype, Element};
use crate::error::Error;

/// A batch of rows to read.
#[derive(Clone, Debug)]
pub struct Rows<'a> {
    data: *const u8,
    dtype: Dtype,
    classes: usize,
    axes: Axes,
    lifetime: PhantomData<&'a [u8]>,
}

// SAFETY: a view only reads, and `new` and `from_raw_parts` make it from memory that outlives it.
unsafe impl Send for Rows<'_> {}
// SAFETY: as above.
unsafe impl Sync for Rows<'_> {}

impl<'a> Rows<'a> {
    /// Rows of `classes` elements each, one after the other in `data`.
    ///
    /// # Errors
    /// [`Error::NoClasses`] for `classes == 0`, [`Error::PartialRow`] if `data` does not divide into rows.
    pub fn new<E: Element>(data: &'a [E], classes: usize) -> Result<Self, Error> {
        let count = whole_rows(data.len(), classes)?;
        let stride = stride_of::<E>(classes);
        // SAFETY: the slice holds `count` rows of `classes` elements at this stride.
        Ok(unsafe { Self::from_raw_parts(data.as_ptr().cast(), E::DTYPE, classes, &[count], &[stride]) })
    }

    /// Rows at `data + Σ index·stride` for all indices below `batch_shape`, strides in bytes.
    ///
    /// # Panics
    /// For a number of strides other than that of the lengths.
    ///
    /// # Safety
    /// For the lifetime `'a` every such row is valid for reads of `classes` elements of `dtype`, and changes only
    /// through a [`RowsMut`] over exactly the same rows, of elements of the same size, passed to the same call.
    pub unsafe fn from_raw_parts(
        data: *const u8,
        dtype: Dtype,
        classes: usize,
        batch_shape: &[usize],
        batch_strides: &[isize],
    ) -> Self {
        Rows { data, dtype, classes, axes: Axes::new(batch_shape, batch_strides), lifetime: PhantomData }
    }

    /// Number of rows.
    pub fn count(&self) -> usize {
        self.axes.count
    }

    /// Elements in a row.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// How the elements are stored.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// The shape: batch axes, then classes.
    pub fn shape(&self) -> Vec<usize> {
        self.axes.axes.iter().map(|axis| axis.0).chain([self.classes]).collect()
    }

    pub(crate) fn row(&self, index: usize) -> Row<'a> {
        assert!(index < self.count());
        Row {
            // SAFETY: row `index` lies within the memory that `from_raw_parts` was promised.
            data: unsafe { self.data.offset(self.axes.offset(index)) },
            dtype: self.dtype,
            classes: self.classes,
            lifetime: PhantomData,
        }
    }
}

/// A batch of rows to write.
#[derive(Debug)]
pub struct RowsMut<'a> {
    data: *mut u8,
    dtype: Dtype,
    classes: usize,
    axes: Axes,
    past_caches: bool,
    lifetime: PhantomData<&'a mut [u8]>,
}

// SAFETY: the memory is this view's alone, as a `&mut [E]` of an element that is `Send`.
unsafe impl Send for RowsMut<'_> {}
// SAFETY: what is public only asks a shared view for its shape: functions that write take views by value. In the crate,
// distinct rows are distinct memory (checked by the constructors), and `row` is promised one user of a class of a row.
unsafe impl Sync for RowsMut<'_> {}

impl<'a> RowsMut<'a> {
    /// Rows of `classes` elements each, one after the other in `data`.
    ///
    /// # Errors
    /// [`Error::NoClasses`] for `classes == 0`, [`Error::PartialRow`] if `data` does not divide into rows.
    pub fn new<E: Element>(data: &'a mut [E], classes: usize) -> Result<Self, Error> {
        let count = whole_rows(data.len(), classes)?;
        let stride = stride_of::<E>(classes);
        // SAFETY: the slice holds `count` rows of `classes` elements at this stride, borrowed for `'a`.
        unsafe { Self::from_raw_parts(data.as_mut_ptr().cast(), E::DTYPE, classes, &[count], &[stride], "out") }
    }

    /// Rows at `data + Σ index·stride` for all indices below `batch_shape`, strides in bytes.
    ///
    /// # Errors
    /// [`Error::OverlappingOutput`], naming `argument`, if rows share memory with each other.
    ///
    /// # Panics
    /// For a number of strides other than that of the lengths.
    ///
    /// # Safety
    /// For the lifetime `'a` every such row is valid for reads and writes of `classes` elements of `dtype`, and nothing
    /// else reads or writes it but [`Rows`] over exactly the same rows, of elements of the same size, passed to the same
    /// call.
    pub unsafe fn from_raw_parts(
        data: *mut u8,
        dtype: Dtype,
        classes: usize,
        batch_shape: &[usize],
        batch_strides: &[isize],
        argument: &'static str,
    ) -> Result<Self, Error> {
        let axes = Axes::new(batch_shape, batch_strides);
        if !axes.disjoint(classes.saturating_mul(dtype.size())) {
            return Err(Error::OverlappingOutput { argument });
        }
        Ok(RowsMut { data, dtype, classes, axes, past_caches: false, lifetime: PhantomData })
    }

    /// Number of rows.
    pub fn count(&self) -> usize {
        self.axes.count
    }

    /// Elements in a row.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// How the elements are stored.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// The shape: batch axes, then classes.
    pub fn shape(&self) -> Vec<usize> {
        self.axes.axes.iter().map(|axis| axis.0).chain([self.classes]).collect()
    }

    /// # Safety
    /// No other [`RowMut`] is in use for the same classes of the same row.
    pub(crate) unsafe fn row(&self, index: usize) -> RowMut<'_> {
        assert!(index < self.count());
        RowMut {
            // SAFETY: row `index` lies within the memory that `from_raw_parts` was promised.
            data: unsafe { self.data.offset(self.axes.offset(index)) },
            dtype: self.dtype,
            classes: self.classes,
            past_caches: self.past_caches,
            lifetime: PhantomData,
        }
    }

    /// Lets rows be written past the caches, if they are more than the caches hold and none of `inputs` is the same
    /// memory (whose lines are in the caches anyway).
    pub(crate) fn prefer_past_caches(&mut self, inputs: &[&Rows<'_>]) {
        /// Bytes of output of which the next to read it would find little in the caches.
        const LARGE: usize = 1 << 24;
        // Vectors of 16-bit numbers are half a line, which costs more than it saves (kl: 16.9 ms instead of 16.2).
        let bytes = self.count().saturating_mul(self.classes).saturating_mul(self.dtype.size());
        self.past_caches =
            bytes >= LARGE && self.dtype.size() >= 4 && inputs.iter().all(|rows| !std::ptr::eq(rows.data, self.data));
    }
}

/// Bytes from a row to the next. Without a row, the number of classes can be one whose bytes cannot be counted.
fn stride_of<E: Element>(classes: usize) -> isize {
    classes.wrapping_mul(E::DTYPE.size()) as isize
}

fn whole_rows(len: usize, classes: usize) -> Result<usize, Error> {
    if classes == 0 {
        return Err(Error::NoClasses { argument: "data", shape: vec![0] });
    }
    if !len.is_multiple_of(classes) {
        return Err(Error::PartialRow { len, classes });
    }
    Ok(len / classes)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn rows_are_counted_in_c_order() {
        let data: Vec<f64> = (0..24).map(f64::from).collect();
        // Two rows of two classes backwards, by three forwards.
        // SAFETY: the rows start at the elements asserted below, of 24.
        let rows = unsafe { Rows::from_raw_parts(data.as_ptr().add(12).cast(), Dtype::F64, 2, &[2, 3], &[-96, 16]) };
        assert_eq!(rows.shape(), [2, 3, 2]);
        let firsts: Vec<f64> = (0..rows.count()).map(|row| rows.row(row).get(0)).collect();
        assert_eq!(firsts, [12.0, 14.0, 16.0, 0.0, 2.0, 4.0]);
    }

    #[test]
    #[should_panic(expected = "start + len <= self.classes")]
    fn a_block_lies_inside_its_row() {
        Rows::new(&[0.0_f32; 8], 4).unwrap().row(0).block(3, 2);
    }
}
