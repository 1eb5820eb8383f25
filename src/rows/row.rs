//! One row as it is stored, of whichever dtype.

use std::marker::PhantomData;

use crate::element::{Dtype, Element};

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

impl<'a, E: Element> From<&'a [E]> for Row<'a> {
    fn from(data: &'a [E]) -> Self {
        Row { data: data.as_ptr().cast(), dtype: E::DTYPE, classes: data.len(), lifetime: PhantomData }
    }
}

impl<'a> Row<'a> {
    pub(crate) fn dtype(self) -> Dtype {
        self.dtype
    }

    pub(crate) fn classes(self) -> usize {
        self.classes
    }

    /// The classes `start..start + len`.
    #[inline]
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
}

impl<'a, E: Element> From<&'a mut [E]> for RowMut<'a> {
    fn from(data: &'a mut [E]) -> Self {
        RowMut {
            data: data.as_mut_ptr().cast(),
            dtype: E::DTYPE,
            classes: data.len(),
            past_caches: false,
            lifetime: PhantomData,
        }
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

// SAFETY: blocks handed to different threads do not overlap (`Blocks`).
unsafe impl Send for RowMut<'_> {}
// SAFETY: as above.
unsafe impl Sync for RowMut<'_> {}

impl<'a> RowMut<'a> {
    /// What was written, to read while nobody writes.
    pub(crate) fn written(self) -> Row<'a> {
        Row { data: self.data, dtype: self.dtype, classes: self.classes, lifetime: PhantomData }
    }

    /// The classes `start..start + len`.
    #[inline]
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

    /// Whether the row is to be written past the caches.
    pub(crate) fn with_past_caches(self, past_caches: bool) -> Self {
        RowMut { past_caches, ..self }
    }

    /// Element `index`.
    pub(crate) fn get(self, index: usize) -> f64 {
        self.written().get(index)
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
        if value.to_bits() == 0 {
            // SAFETY: the bytes are those of the row; all of a zero of any dtype are 0.
            unsafe { self.data.write_bytes(0, self.classes * self.dtype.size()) };
            return;
        }
        for index in 0..self.classes {
            self.set(index, value);
        }
    }
}
