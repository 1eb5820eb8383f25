//! A call, and its rows to threads.
//!
//! A row is always worked on in the same blocks of [`BLOCK`] classes whose partial results are merged in order, and
//! each row by itself, so that results have the same bits for any number of threads.

use std::sync::{Mutex, PoisonError};

use super::blocks::{Blocks, Workers};
use super::float_environment::{self, Caller};
use super::pool;
use crate::error::Error;
use crate::memory;
use crate::simd::Isa;

/// Rows × classes below which waking other threads costs more than it saves: 20 to 30 µs, in which one of them computes
/// kl of as many.
const SERIAL: usize = 1 << 16;

/// The same for the blocks of one row, which wakes them for each pass over it.
const SERIAL_ROW: usize = 1 << 17;

/// Rows × classes between two looks at `interrupted`: some tens of milliseconds.
const UNINTERRUPTED: usize = 1 << 24;

/// How to execute a call.
#[derive(Clone, Copy)]
pub struct Execution<'a> {
    /// The instruction set.
    pub isa: Isa,
    /// The number of threads, from 1 to [`crate::MAX_THREADS`].
    pub threads: usize,
    /// Asked now and then from the calling thread; `true` ends the call with [`Error::Interrupted`].
    pub interrupted: &'a (dyn Fn() -> bool + Sync),
}

impl Default for Execution<'_> {
    /// The fastest instruction set, [`crate::num_threads`] threads, no interruption.
    fn default() -> Self {
        Execution { isa: Isa::detect(), threads: pool::num_threads(), interrupted: &|| false }
    }
}

impl Execution<'_> {
    /// The body of a public function: what is done for every call is done here. Only the body has a [`Driver`], so that
    /// no row is computed outside of the standard floating-point environment.
    pub(crate) fn run<R>(&self, body: impl FnOnce(&Driver<'_>) -> Result<R, Error>) -> Result<R, Error> {
        float_environment::standard(|caller| {
            pool::check_num_threads(self.threads)?;
            body(&Driver { isa: self.isa, threads: self.threads, interrupted: self.interrupted, caller })
        })
    }
}

/// A call being executed.
pub(crate) struct Driver<'a> {
    pub(crate) isa: Isa,
    threads: usize,
    interrupted: &'a (dyn Fn() -> bool + Sync),
    caller: Caller,
}

impl Driver<'_> {
    /// The number of threads.
    pub(crate) fn threads(&self) -> usize {
        self.threads
    }

    /// `row(index, blocks)` for all rows; the results in order. The function is not a type parameter, as in [`Blocks`].
    pub(crate) fn for_rows<R>(
        &self,
        count: usize,
        classes: usize,
        row: &(dyn Fn(usize, &Blocks) -> R + Sync),
    ) -> Result<Vec<R>, Error>
    where
        R: Send + Clone + Default,
    {
        let mut results = memory::filled(count, R::default())?;
        let pool = if count.saturating_mul(classes) < SERIAL { None } else { pool::pool(self.threads) };
        let workers = pool.map(|pool| Workers { pool, caller: self.caller });
        // Of few rows, those that are left when each thread has had the same number are shared out in blocks.
        let shared = if count < 4 * self.threads && classes >= SERIAL_ROW { count % self.threads } else { 0 };
        let (whole_rows, shared_rows) = results.split_at_mut(count - shared);
        // Enough for all threads, however wide rows are.
        let group = (UNINTERRUPTED / classes.max(1)).max(4 * self.threads);
        for (index, group_results) in whole_rows.chunks_mut(group).enumerate() {
            self.look_for_interruption()?;
            let first = index * group;
            let workers = workers.filter(|_| group_results.len() > 1);
            let share = match workers {
                Some(_) => group_results.len().div_ceil(8 * self.threads),
                None => group_results.len(),
            };
            let run = |part: usize, part_results: &mut [R]| {
                let blocks = Blocks { workers: None };
                for (offset, result) in part_results.iter_mut().enumerate() {
                    *result = row(first + part * share + offset, &blocks);
                }
            };
            let Some(workers) = workers else {
                run(0, group_results);
                continue;
            };
            // Each is taken once.
            let parts: Vec<_> = group_results.chunks_mut(share).map(Mutex::new).collect();
            workers.for_each(parts.len(), &|part| {
                run(part, &mut parts[part].lock().unwrap_or_else(PoisonError::into_inner));
            });
        }
        for (index, result) in shared_rows.iter_mut().enumerate() {
            self.look_for_interruption()?;
            *result = row(count - shared + index, &Blocks { workers });
        }
        self.look_for_interruption()?;
        Ok(results)
    }

    fn look_for_interruption(&self) -> Result<(), Error> {
        if (self.interrupted)() { Err(Error::Interrupted) } else { Ok(()) }
    }
}
