//! The upstream gradient for which gradients are computed before it is known.
//!
//! XLA asks for a value and its gradients first, and has the upstream gradient later. In 16 bits the product of the two would be
//! rounded twice, and so they are computed for that upstream gradient. A training step has the same one as the step before:
//! gradients are computed for the last one of such a call, and once more where it was another. No result depends on what is
//! remembered here, only its time.

use std::hash::{DefaultHasher, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};

use super::frame::Frame;

/// More than programs have losses. Those that share one compute gradients twice where they would do it once.
const COUNT: usize = 64;

/// The bits of each, and 0 of none.
static LAST: [AtomicU64; COUNT] = [const { AtomicU64::new(0) }; COUNT];

/// Where the last upstream gradient of calls with the same attributes and gradients is.
pub(super) struct Last(&'static AtomicU64);

impl Last {
    pub(super) fn of(frame: &Frame<'_>) -> Self {
        let mut hasher = DefaultHasher::new();
        frame.hash_of_loss(&mut hasher);
        Last(&LAST[hasher.finish() as usize % COUNT])
    }

    /// 1 before the first.
    pub(super) fn get(&self) -> f64 {
        match self.0.load(Ordering::Relaxed) {
            0 => 1.0,
            bits => f64::from_bits(bits),
        }
    }

    pub(super) fn set(&self, upstream: f64) {
        self.0.store(upstream.to_bits(), Ordering::Relaxed);
    }
}
