//! The rows of a batch that are kept, one by one, with where their results go.

use crate::error::Error;
use crate::reduction::Reducer;
use crate::rows::{RowMut, Rows, RowsMut};
use crate::threads::{Blocks, Driver};

/// One row that is kept.
pub(super) struct KeptRow<'a, const N: usize> {
    pub(super) index: usize,
    pub(super) blocks: &'a Blocks,
    /// ∂L/∂(value of the row).
    pub(super) scale: f64,
    /// The row of every output that there is.
    pub(super) outputs: [Option<RowMut<'a>>; N],
}

/// The value of every row of `rows`, as `value` has it; 0 of rows not kept, whose outputs become 0.
pub(super) fn for_kept_rows<R: Send + Clone + Default, const N: usize>(
    driver: &Driver<'_>,
    rows: &Rows<'_>,
    reducer: &Reducer<'_>,
    outputs: [Option<&RowsMut<'_>>; N],
    value: impl Fn(KeptRow<'_, N>) -> R + Sync,
) -> Result<Vec<R>, Error> {
    driver.for_rows(rows.count(), rows.classes(), &|index, blocks| {
        // SAFETY: the driver hands out every index once.
        let outputs = outputs.map(|out| out.map(|out| unsafe { out.row(index) }));
        if reducer.keeps(index) {
            return value(KeptRow { index, blocks, scale: reducer.scale(index), outputs });
        }
        for out in outputs.into_iter().flatten() {
            out.fill(0.0);
        }
        R::default()
    })
}
