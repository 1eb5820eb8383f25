//! Which process this is.

use std::sync::atomic::{AtomicUsize, Ordering};

/// A process. A child of `fork()` has the memory of its parent, and tells itself from it by this.
///
/// In a new PID namespace it may also have the number of its parent, so that forks are counted; and a child made by a
/// bare `clone`, which nobody counts, has another number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Process {
    id: u32,
    forks: usize,
}

/// Forks from the first process with this memory to this one.
static FORKS: AtomicUsize = AtomicUsize::new(0);

impl Process {
    /// This one.
    pub(crate) fn current() -> Self {
        count_forks();
        Process { id: std::process::id(), forks: FORKS.load(Ordering::Relaxed) }
    }
}

/// Has `fork()` count itself in every child from now on.
#[cfg(unix)]
fn count_forks() {
    use std::ffi::c_int;
    use std::sync::atomic::AtomicBool;

    unsafe extern "C" {
        /// POSIX; the C library of every program has it.
        fn pthread_atfork(
            prepare: Option<extern "C" fn()>,
            parent: Option<extern "C" fn()>,
            child: Option<extern "C" fn()>,
        ) -> c_int;
    }

    extern "C" fn in_child() {
        FORKS.fetch_add(1, Ordering::Relaxed);
    }

    static ASKED: AtomicBool = AtomicBool::new(false);

    // Not a `Once`, for which a child would wait if it was forked during the call. Threads that come here together ask
    // twice, and then a fork counts two. Without memory for the request processes are still told apart by number.
    if !ASKED.load(Ordering::Relaxed) {
        // SAFETY: the handler may run in a child at any moment: it does nothing but add to a number.
        unsafe { pthread_atfork(None, None, Some(in_child)) };
        ASKED.store(true, Ordering::Relaxed);
    }
}

/// There is no `fork()`.
#[cfg(not(unix))]
fn count_forks() {}
