//! How fast memory can be read: the limit that every function here is held against.

use std::time::Instant;

use super::driver::{Execution, for_rows};
use crate::error::Error;
use crate::row::scan::scan;
use crate::row::space::Space;
use crate::rows::{Row, Rows};
use crate::simd::{Kernel, Simd};

/// Elements in a row: as many as in a large vocabulary.
const CLASSES: usize = 131_072;

/// Bytes per second at which the threads together read `bytes` of f32 (rounded up to whole rows): the best of three.
pub(crate) fn read_bandwidth(bytes: usize, execution: &Execution<'_>) -> Result<f64, Error> {
    let rows = bytes.div_ceil(4 * CLASSES).max(1);
    let data = vec![1.0_f32; rows * CLASSES];
    let view = Rows::new(&data, CLASSES)?;
    let mut best = 0.0_f64;
    for _ in 0..3 {
        let start = Instant::now();
        for_rows(execution, rows, CLASSES, |index, blocks| {
            let row = view.row(index);
            let parts = blocks.map(CLASSES, |start, len| execution.isa.run(Read { row: row.block(start, len) }));
            parts.iter().copied().fold(0.0, f64::max)
        })?;
        best = best.max((4 * rows * CLASSES) as f64 / start.elapsed().as_secs_f64());
    }
    Ok(best)
}

struct Read<'a> {
    row: Row<'a>,
}

impl Kernel for Read<'_> {
    type Output = f64;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> f64 {
        scan::<S::F32>(simd, self.row, Space::Logits).largest
    }
}
