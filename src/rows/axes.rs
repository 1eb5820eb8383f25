//! Where the rows of an array lie in memory.

use crate::memory;

/// The batch axes of an array: their lengths and their strides in bytes.
#[derive(Clone, Debug)]
pub(super) struct Axes {
    pub(super) axes: Vec<(usize, isize)>,
    pub(super) count: usize,
}

impl Axes {
    pub(super) fn new(lengths: &[usize], strides: &[isize]) -> Self {
        assert!(lengths.len() == strides.len(), "each batch axis has a length and a stride");
        // More rows than can be counted are more than there is memory for, and are refused for that.
        let count =
            if lengths.contains(&0) { 0 } else { lengths.iter().fold(1, |n: usize, &len| n.saturating_mul(len)) };
        Axes { axes: lengths.iter().copied().zip(strides.iter().copied()).collect(), count }
    }

    /// Byte offset of row `index`, rows counted in C order.
    pub(super) fn offset(&self, mut index: usize) -> isize {
        debug_assert!(index < self.count);
        let mut offset = 0;
        for &(length, stride) in self.axes.iter().rev() {
            offset += (index % length) as isize * stride;
            index /= length;
        }
        offset
    }

    /// Whether no two rows of `row_bytes` share a byte.
    pub(super) fn disjoint(&self, row_bytes: usize) -> bool {
        if self.count <= 1 || row_bytes == 0 {
            return true;
        }
        let mut axes: Vec<(usize, usize)> = self
            .axes
            .iter()
            .filter(|axis| axis.0 > 1)
            .map(|&(length, stride)| (stride.unsigned_abs(), length))
            .collect();
        axes.sort_unstable();
        let (mut extent, mut nested) = (row_bytes, true);
        for (stride, length) in axes {
            nested &= stride >= extent;
            extent = extent.saturating_add(stride.saturating_mul(length - 1));
        }
        // Along the axes in order of stride, each step is at least as long as all that lies below it: what slices,
        // transposed and split axes are. Only made by hand are others, interleaved in more than one axis.
        nested || (self.count.saturating_mul(row_bytes) <= extent && self.neighbours_are_apart(row_bytes))
    }

    /// Whether each row ends before the next one in memory begins.
    fn neighbours_are_apart(&self, row_bytes: usize) -> bool {
        let Ok(mut offsets) = memory::collected((0..self.count).map(|index| self.offset(index))) else {
            // The extent is memory of the caller, for whose rows there would have been room.
            return false;
        };
        offsets.sort_unstable();
        offsets.windows(2).all(|pair| pair[0].abs_diff(pair[1]) >= row_bytes)
    }
}
