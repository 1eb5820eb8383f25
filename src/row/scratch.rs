//! Memory for numbers of a row that one pass finds and another needs.

use std::cell::Cell;

thread_local! {
    /// Kept for the next row: to ask for it costs as much as a row.
    static SCRATCH: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// How many numbers there is memory for: 1 MiB, which is what a thread may have for itself, and stays in its caches.
const MOST: usize = 1 << 18;

/// Whether there is memory for so many numbers.
pub(crate) fn has_scratch(numbers: usize) -> bool {
    numbers <= MOST
}

/// Calls `run` with memory for so many numbers, which hold anything; [`has_scratch`] for them.
pub(crate) fn with_scratch<R>(numbers: usize, run: impl FnOnce(&mut [f32]) -> R) -> R {
    // Taken while it is used: where the blocks of a row are shared out, a thread of the caller's own pool may begin another
    // call before this one ends.
    debug_assert!(has_scratch(numbers));
    let mut memory = SCRATCH.take();
    if memory.len() < numbers {
        memory.resize(numbers, 0.0);
    }
    let result = run(&mut memory[..numbers]);
    SCRATCH.set(memory);
    result
}
