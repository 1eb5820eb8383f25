//! Memory for numbers of a row that one pass finds and another needs.

use std::cell::Cell;

use crate::rows::RowMut;

thread_local! {
    /// Kept for the next row: to ask for it costs as much as a row.
    static SCRATCH: Cell<Vec<f64>> = const { Cell::new(Vec::new()) };
}

/// How many bytes there are: what a thread may have for itself, and stays in its caches.
const MOST: usize = 1 << 20;

/// Of a number of f32 lanes, or of f64 lanes.
fn size(wide: bool) -> usize {
    if wide { size_of::<f64>() } else { size_of::<f32>() }
}

/// Whether there is memory for so many numbers of f32 or f64 lanes.
pub(crate) fn has_scratch(numbers: usize, wide: bool) -> bool {
    numbers * size(wide) <= MOST
}

/// Calls `run` with memory for so many numbers of f32 or f64 lanes, which hold anything; [`has_scratch`] for them.
pub(crate) fn with_scratch<R>(numbers: usize, wide: bool, run: impl FnOnce(RowMut<'_>) -> R) -> R {
    // Taken while it is used: where the blocks of a row are shared out, a thread of the caller's own pool may begin another
    // call before this one ends.
    debug_assert!(has_scratch(numbers, wide));
    let mut memory = SCRATCH.take();
    let doubles = (numbers * size(wide)).div_ceil(size_of::<f64>());
    if memory.len() < doubles {
        memory.resize(doubles, 0.0);
    }
    let doubles = RowMut::from(&mut memory[..doubles]);
    let result = run(if wide { doubles } else { doubles.words() }.block(0, numbers));
    SCRATCH.set(memory);
    result
}
