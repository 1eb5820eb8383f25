//! Two rows seen class by class, with the accuracy that close rows need.
//!
//! * [`frame`]: how two rows become probabilities.
//! * [`log_ratio`]: ln p − ln q of two vectors.
//! * [`view`]: two vectors as [`Pair`](crate::divergence::Pair)s.
//! * [`support`]: the classes that only one of two rows has.

mod frame;
mod log_ratio;
mod support;
mod view;

pub(crate) use frame::{Frame, SideFrame};
pub(crate) use log_ratio::{LARGEST_NARROW_DELTA, LogRatio, NARROW_ROUNDING};
pub(crate) use support::{FindSupport, Support};
pub(crate) use view::PairView;
