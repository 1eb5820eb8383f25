//! Vectors with an element for each row of a batch, which may be more than there is memory for.

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
