//! The blocks of a row, and the threads that work on them.

use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;
use smallvec::SmallVec;

use super::float_environment::Caller;
use crate::rows::BLOCK;

/// The threads of a call.
#[derive(Clone, Copy)]
pub(super) struct Workers {
    pub(super) pool: &'static rayon::ThreadPool,
    pub(super) caller: Caller,
}

impl Workers {
    /// `part(index)` of all parts, on them, and waits. A thread of another pool, of the caller's, meanwhile does what that pool
    /// has to do.
    ///
    /// The function is not a type parameter, and gives nothing back: what would be compiled for each is threads and queues.
    pub(super) fn for_each(self, parts: usize, part: &(dyn Fn(usize) + Sync)) {
        self.caller.lend(|| self.pool.install(|| (0..parts).into_par_iter().for_each(part)));
    }
}

/// Runs what is done to the blocks of one row.
pub(crate) struct Blocks {
    pub(super) workers: Option<Workers>,
}

/// Results of the blocks of a row, in order; on the stack for rows of up to 262,144 classes on one thread.
pub(crate) enum Partials<T> {
    One([T; 1]),
    Many(SmallVec<[T; 64]>),
}

impl<T> std::ops::Deref for Partials<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self {
            Partials::One(one) => one,
            Partials::Many(many) => many,
        }
    }
}

impl Blocks {
    #[cfg(test)]
    pub(crate) const OF_ONE_THREAD: Self = Blocks { workers: None };

    /// `block(start, len)` for all blocks of a row of at least one class; the results in order.
    pub(crate) fn map<T: Send>(&self, classes: usize, block: impl Fn(usize, usize) -> T + Sync) -> Partials<T> {
        if classes <= BLOCK {
            return Partials::One([block(0, classes)]);
        }
        Partials::Many(self.map_many(classes, &block))
    }

    /// Of more than one block.
    fn map_many<T: Send>(&self, classes: usize, block: &(dyn Fn(usize, usize) -> T + Sync)) -> SmallVec<[T; 64]> {
        let count = classes.div_ceil(BLOCK);
        let run = |index: usize| block(index * BLOCK, BLOCK.min(classes - index * BLOCK));
        let Some(workers) = self.workers else {
            return (0..count).map(run).collect();
        };
        let results: Vec<Mutex<Option<T>>> = (0..count).map(|_| Mutex::new(None)).collect();
        workers.for_each(count, &|index| {
            let result = run(index);
            *results[index].lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
        });
        let of_all = results.into_iter().map(|result| result.into_inner().unwrap_or_else(PoisonError::into_inner));
        let found: SmallVec<[T; 64]> = of_all.flatten().collect();
        debug_assert_eq!(found.len(), count, "a panic in one is one here");
        found
    }
}
