//! How a call is executed: its rows, and the blocks of a wide row, on threads.
//!
//! * [`driver`] runs a function over rows: rows in parallel, or the blocks of one wide row.
//! * [`blocks`]: the blocks of a row.
//! * [`pool`]: the threads of the process; [`process`]: which process this is.
//! * [`float_environment`]: the rounding mode and the like that calls compute in.

mod blocks;
mod driver;
pub(crate) mod float_environment;
mod pool;
mod process;

pub(crate) use blocks::{Blocks, Partials};
pub(crate) use driver::Driver;
pub use driver::Execution;
#[cfg(feature = "python")]
pub(crate) use pool::no_number_of_threads;
pub use pool::{MAX_THREADS, num_threads, set_num_threads};
