//! Views of a batch of rows: unit stride on the class axis, any strides on the batch axes.
//!
//! Elements are reached through raw pointers, so that the gradient may be written over the row it is computed
//! from; every access goes through [`Row::load`] and [`RowMut::store`], which check their bounds.

use std::marker::PhantomData;

use crate::element::{Dtype, Element};
use crate::error::Error;
use crate::memory;
use crate::simd::{Lanes, MAX_LANES, Scalar, Simd};

/// The batch axes of an array: their lengths and their strides in bytes.
#[derive(Clone, Debug)]
struct Axes {
    axes: Vec<(usize, isize)>,
    count: usize,
}

impl Axes {
    fn new(lengths: &[usize], strides: &[isize]) -> Self {
        assert!(lengths.len() == strides.len(), "each batch axis has a length and a stride");
        // More rows than can be counted are more than there is memory for, and are refused for that.
        let count =
            if lengths.contains(&0) { 0 } else { lengths.iter().fold(1, |n: usize, &len| n.saturating_mul(len)) };
        Axes { axes: lengths.iter().copied().zip(strides.iter().copied()).collect(), count }
    }

    /// Byte offset of row `index`, rows counted in C order.
    fn offset(&self, mut index: usize) -> isize {
        debug_assert!(index < self.count);
        let mut offset = 0;
        for &(length, stride) in self.axes.iter().rev() {
            offset += (index % length) as isize * stride;
            index /= length;
        }
        offset
    }

    /// Whether no two rows of `row_bytes` share a byte.
    fn disjoint(&self, row_bytes: usize) -> bool {
        if self.count <= 1 || row_bytes == 0 {
            return true;
        }
        let mut axes: Vec<(usize, usize)> = self
            .axes
            .iter()
            .filter(|axis| axis.0 > 1)
            .map(|&(length, stride)| (stride.unsigned_abs(), length))
            .collect();
        axes.sort_unstable();
        let (mut extent, mut nested) = (row_bytes, true);
        for (stride, length) in axes {
            nested &= stride >= extent;
            extent = extent.saturating_add(stride.saturating_mul(length - 1));
        }
        // Along the axes in order of stride, each step is at least as long as all that lies below it: what slices,
        // transposed and split axes are. Only made by hand are others, interleaved in more than one axis.
        nested || (self.count.saturating_mul(row_bytes) <= extent && self.neighbours_are_apart(row_bytes))
    }

    /// Whether each row ends before the next one in memory begins.
    fn neighbours_are_apart(&self, row_bytes: usize) -> bool {
        let Ok(mut offsets) = memory::collected((0..self.count).map(|index| self.offset(index))) else {
            // The extent is memory of the caller, for whose rows there would have been room.
            return false;
        };
        offsets.sort_unstable();
        offsets.windows(2).all(|pair| pair[0].abs_diff(pair[1]) >= row_bytes)
    }
}

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
        let stride = (classes * E::DTYPE.size()) as isize;
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
// distinct rows are distinct memory (checked by the constructors), and `row` is promised one user of a row.
unsafe impl Sync for RowsMut<'_> {}

impl<'a> RowsMut<'a> {
    /// Rows of `classes` elements each, one after the other in `data`.
    ///
    /// # Errors
    /// [`Error::NoClasses`] for `classes == 0`, [`Error::PartialRow`] if `data` does not divide into rows.
    pub fn new<E: Element>(data: &'a mut [E], classes: usize) -> Result<Self, Error> {
        let count = whole_rows(data.len(), classes)?;
        let stride = (classes * E::DTYPE.size()) as isize;
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

    /// How the elements are stored.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// The shape: batch axes, then classes.
    pub fn shape(&self) -> Vec<usize> {
        self.axes.axes.iter().map(|axis| axis.0).chain([self.classes]).collect()
    }

    /// # Safety
    /// No other [`RowMut`] of the same row is in use.
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

fn whole_rows(len: usize, classes: usize) -> Result<usize, Error> {
    if classes == 0 {
        return Err(Error::NoClasses { argument: "data", shape: vec![0] });
    }
    if !len.is_multiple_of(classes) {
        return Err(Error::PartialRow { len, classes });
    }
    Ok(len / classes)
}

/// One row, or a block of it, to read.
#[derive(Clone, Copy)]
pub(crate) struct Row<'a> {
    data: *const u8,
    dtype: Dtype,
    classes: usize,
    lifetime: PhantomData<&'a [u8]>,
}

// SAFETY: as for `Rows`.
unsafe impl Send for Row<'_> {}
// SAFETY: as for `Rows`.
unsafe impl Sync for Row<'_> {}

impl<'a> Row<'a> {
    pub(crate) fn dtype(self) -> Dtype {
        self.dtype
    }

    #[inline(always)]
    pub(crate) fn classes(self) -> usize {
        self.classes
    }

    /// The row, if it holds f32 and the lanes gain from it, with a dtype that the compiler knows: loops over it have no
    /// branch for others.
    #[inline(always)]
    pub(crate) fn known_f32<V: Lanes>(self) -> Option<Self> {
        (V::KNOWN_DTYPES && self.dtype == Dtype::F32).then_some(Row { dtype: Dtype::F32, ..self })
    }

    /// The row with its dtype as a constant that the compiler knows: loops over it have no branch for others.
    #[inline(always)]
    pub(crate) fn known(self, dtype: Dtype) -> Self {
        assert!(self.dtype == dtype);
        Row { dtype, ..self }
    }

    /// The classes `start..start + len`.
    #[inline(always)]
    pub(crate) fn block(self, start: usize, len: usize) -> Row<'a> {
        assert!(start + len <= self.classes);
        // SAFETY: the block lies inside the row.
        Row { data: unsafe { self.data.add(start * self.dtype.size()) }, classes: len, ..self }
    }

    /// The memory of the row as f32, whatever it holds, but for the bytes of an incomplete last one.
    pub(crate) fn words(self) -> Self {
        Row { dtype: Dtype::F32, classes: self.classes * self.dtype.size() / Dtype::F32.size(), ..self }
    }

    /// Element `index`.
    #[inline]
    pub(crate) fn get(self, index: usize) -> f64 {
        assert!(index < self.classes);
        // SAFETY: the element lies inside the row; reads are unaligned.
        unsafe {
            let element = self.data.add(index * self.dtype.size());
            match self.dtype {
                Dtype::F64 => element.cast::<f64>().read_unaligned(),
                Dtype::F32 => element.cast::<f32>().read_unaligned().into(),
                Dtype::F16 => Element::to_f64(element.cast::<half::f16>().read_unaligned()),
                Dtype::Bf16 => Element::to_f64(element.cast::<half::bf16>().read_unaligned()),
            }
        }
    }

    /// The lanes `start..start + V::N`; those past the end hold `absent`, which every dtype can represent.
    #[inline(always)]
    pub(crate) fn load<V: Lanes>(self, token: V::Token, start: usize, absent: f64) -> V {
        if start + V::N <= self.classes {
            // SAFETY: the lanes lie inside the row.
            unsafe { V::load(token, self.data.add(start * self.dtype.size()), self.dtype) }
        } else {
            // SAFETY: the array has `MAX_LANES` ≥ `V::N` elements.
            unsafe { V::load(token, self.padded(start, absent).as_ptr().cast(), Dtype::F64) }
        }
    }

    /// Classes in whole vectors, from the first on; the rest is for [`Row::load`].
    #[inline(always)]
    pub(crate) fn whole<V: Lanes>(self) -> usize {
        self.classes / V::N * V::N
    }

    /// The lanes `start..start + V::N`, which lie inside the row. Loops read whole vectors this way, and call nothing
    /// that would cost their registers.
    #[inline(always)]
    pub(crate) fn vector<V: Lanes>(self, token: V::Token, start: usize) -> V {
        assert!(start + V::N <= self.classes);
        // SAFETY: the lanes lie inside the row.
        unsafe { V::load(token, self.data.add(start * self.dtype.size()), self.dtype) }
    }

    /// [`Row::vector`] if `WHOLE`, else [`Row::load`].
    #[inline(always)]
    pub(crate) fn lanes<V: Lanes, const WHOLE: bool>(self, token: V::Token, start: usize, absent: f64) -> V {
        if WHOLE { self.vector(token, start) } else { self.load(token, start, absent) }
    }

    /// Asks for what follows `ahead` elements after `start`, in this row or beyond it.
    #[inline(always)]
    pub(crate) fn prefetch<S: Simd>(self, simd: S, start: usize, ahead: usize) {
        simd.prefetch(self.data.wrapping_add((start + ahead) * self.dtype.size()));
    }

    /// The elements from `start` on, and `absent` past the end.
    #[cold]
    #[inline(never)]
    fn padded(self, start: usize, absent: f64) -> [f64; MAX_LANES] {
        let mut padded = [absent; MAX_LANES];
        for (lane, index) in padded.iter_mut().zip(start..self.classes) {
            *lane = self.get(index);
        }
        padded
    }
}

/// One row, or a block of it, to write.
#[derive(Clone, Copy)]
pub(crate) struct RowMut<'a> {
    data: *mut u8,
    dtype: Dtype,
    classes: usize,
    past_caches: bool,
    lifetime: PhantomData<&'a mut [u8]>,
}

// SAFETY: blocks handed to different threads do not overlap (`batch::Blocks`).
unsafe impl Send for RowMut<'_> {}
// SAFETY: as above.
unsafe impl Sync for RowMut<'_> {}

impl RowMut<'_> {
    /// The row, if it holds f32 and the lanes gain from it, with a dtype that the compiler knows: loops over it have no
    /// branch for others.
    #[inline(always)]
    pub(crate) fn known_f32<V: Lanes>(self) -> Option<Self> {
        (V::KNOWN_DTYPES && self.dtype == Dtype::F32).then_some(RowMut { dtype: Dtype::F32, ..self })
    }

    /// The row with its dtype as a constant that the compiler knows: loops over it have no branch for others.
    #[inline(always)]
    pub(crate) fn known(self, dtype: Dtype) -> Self {
        assert!(self.dtype == dtype);
        RowMut { dtype, ..self }
    }

    /// The classes `start..start + len`.
    #[inline(always)]
    pub(crate) fn block(self, start: usize, len: usize) -> Self {
        assert!(start + len <= self.classes);
        // SAFETY: the block lies inside the row.
        RowMut { data: unsafe { self.data.add(start * self.dtype.size()) }, classes: len, ..self }
    }

    pub(crate) fn dtype(self) -> Dtype {
        self.dtype
    }

    pub(crate) fn classes(self) -> usize {
        self.classes
    }

    /// The memory of the row as f32, as [`Row::words`].
    pub(crate) fn words(self) -> Self {
        RowMut { dtype: Dtype::F32, classes: self.classes * self.dtype.size() / Dtype::F32.size(), ..self }
    }

    /// Element `index`.
    pub(crate) fn get(self, index: usize) -> f64 {
        Row { data: self.data, dtype: self.dtype, classes: self.classes, lifetime: PhantomData }.get(index)
    }

    /// Sets element `index`.
    #[inline]
    pub(crate) fn set(self, index: usize, value: f64) {
        assert!(index < self.classes);
        // SAFETY: the element lies inside the row; writes are unaligned.
        unsafe {
            let element = self.data.add(index * self.dtype.size());
            match self.dtype {
                Dtype::F64 => element.cast::<f64>().write_unaligned(value),
                Dtype::F32 => element.cast::<f32>().write_unaligned(value as f32),
                Dtype::F16 => element.cast::<half::f16>().write_unaligned(Element::from_f64(value)),
                Dtype::Bf16 => element.cast::<half::bf16>().write_unaligned(Element::from_f64(value)),
            }
        }
    }

    /// Sets every element.
    pub(crate) fn fill(self, value: f64) {
        for index in 0..self.classes {
            self.set(index, value);
        }
    }

    /// Writes the lanes to `start..start + V::N`, which lie inside the row.
    #[inline(always)]
    pub(crate) fn set_vector<V: Lanes>(self, start: usize, lanes: V) {
        assert!(start + V::N <= self.classes);
        // SAFETY: the lanes lie inside the row.
        unsafe { lanes.store(self.data.add(start * self.dtype.size()), self.dtype) }
    }

    /// Writes the lanes to `start..start + V::N`, leaving out those past the end.
    #[inline(always)]
    pub(crate) fn store<V: Lanes>(self, start: usize, lanes: V) {
        if start + V::N <= self.classes {
            // SAFETY: the lanes lie inside the row.
            unsafe { lanes.store(self.data.add(start * self.dtype.size()), self.dtype) }
        } else {
            self.set_from(start, &lanes.to_array());
        }
    }

    /// Whether the row is to be written past the caches.
    pub(crate) fn with_past_caches(self, past_caches: bool) -> Self {
        RowMut { past_caches, ..self }
    }

    /// The first class whose vector is aligned, for a row that is to be written past the caches; `None` for others.
    #[inline(always)]
    pub(crate) fn first_aligned<V: Lanes>(self) -> Option<usize> {
        let size = self.dtype.size();
        let bytes = self.data.align_offset(V::N * size);
        (self.past_caches && bytes.is_multiple_of(size)).then_some(bytes / size)
    }

    /// Like [`RowMut::set_vector`], past the caches, for aligned vectors; [`Simd::fence`] comes before any other access.
    #[inline(always)]
    pub(crate) fn set_vector_past_caches<V: Lanes>(self, start: usize, lanes: V) {
        assert!(start + V::N <= self.classes);
        // SAFETY: the lanes lie inside the row.
        let data = unsafe { self.data.add(start * self.dtype.size()) };
        assert!(data.addr().is_multiple_of(V::N * self.dtype.size()));
        // SAFETY: the lanes lie inside the row, and are aligned; ordering them is the caller's.
        unsafe { lanes.store_past_caches(data, self.dtype) }
    }

    /// Sets the elements from `start` on.
    #[cold]
    #[inline(never)]
    fn set_from<T: Scalar>(self, start: usize, lanes: &[T]) {
        for (index, lane) in (start..self.classes).zip(lanes) {
            self.set(index, lane.to_f64());
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::simd::{Isa, Kernel, Simd};

    /// Copies a row vector by vector, the tails padded.
    struct Copy<'a> {
        from: Row<'a>,
        to: RowMut<'a>,
        absent: f64,
    }

    impl Kernel for Copy<'_> {
        type Output = ();

        #[inline(always)]
        fn run<S: Simd>(self, simd: S) {
            let mut start = 0;
            while start < self.from.classes() {
                let lanes = self.from.load::<S::F32>(simd, start, self.absent).to_array();
                assert!(
                    lanes[..S::F32::N]
                        .iter()
                        .skip(self.from.classes() - start)
                        .all(|&lane| f64::from(lane) == self.absent)
                );
                self.to.store(start, self.from.load::<S::F32>(simd, start, self.absent));
                start += S::F32::N;
            }
        }
    }

    #[test]
    fn tails_are_padded_and_nothing_is_written_past_them() {
        let data: Vec<f32> = (0..120).map(|i| i as f32 - 7.5).collect();
        for isa in Isa::available() {
            for (start, len) in (1..40).map(|len| (len % 5, len)) {
                for absent in [f64::NEG_INFINITY, 0.0] {
                    let mut out = vec![9.0_f32; 120];
                    {
                        let from = Rows::new(&data, 60).unwrap();
                        let to = RowsMut::new(&mut out, 60).unwrap();
                        // SAFETY: the only view of this row.
                        let to = unsafe { to.row(1) }.block(start, len);
                        isa.run(Copy { from: from.row(1).block(start, len), to, absent });
                    }
                    let inside = 60 + start..60 + start + len;
                    assert_eq!(out[inside.clone()], data[inside.clone()], "{}", isa.name());
                    out[inside].fill(9.0);
                    assert_eq!(out, [9.0; 120], "{} {start} {len}", isa.name());
                }
            }
        }
    }

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
