//! Memory for numbers of a row that one pass finds and another needs.

use std::cell::Cell;

thread_local! {
    /// Kept for the next row: to ask for it costs as much as a row.
    static SCRATCH: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Calls `run` with memory for so many numbers, which hold anything.
pub(crate) fn with_scratch<R>(numbers: usize, run: impl FnOnce(&mut [f32]) -> R) -> R {
    // Taken while it is used: where the blocks of a row are shared out, a thread of the caller's own pool may begin another
    // call before this one ends.
    let mut memory = SCRATCH.take();
    if memory.len() < numbers {
        memory.resize(numbers, 0.0);
    }
    let result = run(&mut memory[..numbers]);
    SCRATCH.set(memory);
    result
}
