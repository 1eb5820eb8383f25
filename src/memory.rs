//! Vectors with an element for each row of a batch, which may be more than there is memory for; memory with a part for each.

use std::marker::PhantomData;

use crate::error::Error;

/// One of `item` for each of `rows`.
pub(crate) fn filled<T: Clone>(rows: usize, item: T) -> Result<Vec<T>, Error> {
    let mut items = reserved(rows)?;
    items.resize(rows, item);
    Ok(items)
}

/// What the iterator has, one for each row.
pub(crate) fn collected<T>(of_rows: impl ExactSizeIterator<Item = T>) -> Result<Vec<T>, Error> {
    let mut items = reserved(of_rows.len())?;
    items.extend(of_rows);
    Ok(items)
}

fn reserved<T>(rows: usize) -> Result<Vec<T>, Error> {
    let mut items = Vec::new();
    items.try_reserve_exact(rows).map_err(|_| Error::Memory { rows, bytes: rows.saturating_mul(size_of::<T>()) })?;
    Ok(items)
}

/// A slice in parts of equal length, each written by one thread.
pub(crate) struct Parts<'a, T> {
    data: *mut T,
    count: usize,
    len: usize,
    lifetime: PhantomData<&'a mut [T]>,
}

// SAFETY: the memory is this view's alone, and `part` is promised one user of a part.
unsafe impl<T: Send> Sync for Parts<'_, T> {}

impl<'a, T> Parts<'a, T> {
    /// Parts of `len` elements each; what is left over belongs to none.
    pub(crate) fn new(slice: &'a mut [T], len: usize) -> Self {
        Parts { data: slice.as_mut_ptr(), count: slice.len() / len.max(1), len, lifetime: PhantomData }
    }

    /// # Safety
    /// The part is not in use elsewhere.
    #[expect(clippy::mut_from_ref, reason = "the caller promises to be the only user")]
    pub(crate) unsafe fn part(&self, index: usize) -> &mut [T] {
        assert!(index < self.count);
        // SAFETY: the part lies inside the slice.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(index * self.len), self.len) }
    }
}
