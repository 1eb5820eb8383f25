//! One row, read and written through pointers that are checked.

use std::marker::PhantomData;

use crate::element::{Dtype, Element};
use crate::simd::{Lanes, MAX_LANES, Scalar, Simd};

/// One row, or a block of it, to read.
#[derive(Clone, Copy)]
pub(crate) struct Row<'a> {
    pub(super) data: *const u8,
    pub(super) dtype: Dtype,
    pub(super) classes: usize,
    pub(super) lifetime: PhantomData<&'a [u8]>,
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
    pub(super) data: *mut u8,
    pub(super) dtype: Dtype,
    pub(super) classes: usize,
    pub(super) past_caches: bool,
    pub(super) lifetime: PhantomData<&'a mut [u8]>,
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
