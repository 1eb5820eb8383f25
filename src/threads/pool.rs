//! Threads: how many, and what happens after `fork()`.
//!
//! Pools are kept per thread count in slots without locks, each with the process that made it: a child of `fork()`
//! has the parent's memory but none of its threads, and a lock that another thread held at that moment would never
//! be released. A child therefore finds a pool of another process, and makes its own.

use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use rayon::ThreadPool;

use super::float_environment;
use super::process::Process;
use crate::error::Error;

/// Largest number of threads that can be asked for.
pub const MAX_THREADS: usize = 256;

struct Pool {
    process: Process,
    threads: ThreadPool,
}

/// Slot n − 1 holds the pool of n threads. Pools are never freed: a call may still use one while another thread asks
/// for a different number, and idle pools only cost their sleeping threads.
static POOLS: [AtomicPtr<Pool>; MAX_THREADS] = [const { AtomicPtr::new(std::ptr::null_mut()) }; MAX_THREADS];

/// 0 until set: then the number of CPUs available to the process.
static NUM_THREADS: AtomicUsize = AtomicUsize::new(0);

/// The number of threads used by calls that do not say otherwise.
pub fn num_threads() -> usize {
    match NUM_THREADS.load(Ordering::Relaxed) {
        0 => {
            let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
            let count = cpus.min(MAX_THREADS);
            NUM_THREADS.store(count, Ordering::Relaxed);
            count
        }
        count => count,
    }
}

/// Sets the number of threads for this process. Results do not depend on it, to the last bit.
///
/// # Errors
/// [`Error::Parameter`] unless 1 ≤ `count` ≤ [`MAX_THREADS`].
pub fn set_num_threads(count: usize) -> Result<(), Error> {
    check_num_threads(count)?;
    NUM_THREADS.store(count, Ordering::Relaxed);
    Ok(())
}

/// What a number of threads may be, of the process or of one call.
pub(crate) fn check_num_threads(count: usize) -> Result<(), Error> {
    if (1..=MAX_THREADS).contains(&count) { Ok(()) } else { Err(no_number_of_threads(count as f64)) }
}

pub(crate) fn no_number_of_threads(value: f64) -> Error {
    Error::Parameter { name: "number of threads", value, domain: "an integer from 1 to 256" }
}

/// The pool of `count` threads of this process, a number that was checked; `None` for one thread, or where the system
/// refuses more threads.
pub(crate) fn pool(count: usize) -> Option<&'static ThreadPool> {
    if count <= 1 {
        return None;
    }
    let slot = &POOLS[count - 1];
    let process = Process::current();
    loop {
        let current = slot.load(Ordering::Acquire);
        // SAFETY: a non-null slot holds a leaked box, which is never freed or changed.
        if let Some(pool) = unsafe { current.as_ref() }
            && pool.process == process
        {
            return Some(&pool.threads);
        }
        let threads = rayon::ThreadPoolBuilder::new()
            .num_threads(count)
            .thread_name(|index| format!("kldiv-{index}"))
            .start_handler(|_| float_environment::set_standard())
            .build()
            .ok()?;
        let fresh = Box::into_raw(Box::new(Pool { process, threads }));
        if slot.compare_exchange(current, fresh, Ordering::AcqRel, Ordering::Acquire).is_err() {
            // SAFETY: `fresh` came from `Box::into_raw` above and was published to no one.
            drop(unsafe { Box::from_raw(fresh) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_are_kept_per_count() {
        assert!(pool(1).is_none());
        let two = pool(2).map(std::ptr::from_ref);
        assert!(two.is_some());
        assert_eq!(two, pool(2).map(std::ptr::from_ref));
        assert_ne!(two, pool(3).map(std::ptr::from_ref));
    }

    #[test]
    fn zero_threads_are_refused() {
        assert!(set_num_threads(0).is_err());
        assert!(set_num_threads(MAX_THREADS + 1).is_err());
    }
}
