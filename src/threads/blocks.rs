//! The blocks of a row, and the threads that work on them.

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
    /// Runs `work` on them, and waits. A thread of another pool, of the caller's, meanwhile does what that pool has to do.
    pub(super) fn run<R: Send>(self, work: impl FnOnce() -> R + Send) -> R {
        self.caller.lend(|| self.pool.install(work))
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
    /// `block(start, len)` for all blocks of a row of at least one class; the results in order.
    pub(crate) fn map<T: Send>(&self, classes: usize, block: impl Fn(usize, usize) -> T + Sync) -> Partials<T> {
        if classes <= BLOCK {
            return Partials::One([block(0, classes)]);
        }
        Partials::Many(self.map_many(classes, &block))
    }

    /// Of more than one block. The function is not a type parameter: what is compiled for each is threads and queues.
    fn map_many<T: Send>(&self, classes: usize, block: &(dyn Fn(usize, usize) -> T + Sync)) -> SmallVec<[T; 64]> {
        let count = classes.div_ceil(BLOCK);
        let run = |index: usize| block(index * BLOCK, BLOCK.min(classes - index * BLOCK));
        match self.workers {
            Some(workers) => SmallVec::from_vec(workers.run(|| (0..count).into_par_iter().map(run).collect())),
            None => (0..count).map(run).collect(),
        }
    }
}
