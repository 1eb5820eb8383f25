//! A block of a row with some of its numbers replaced.

use std::marker::PhantomData;
use std::mem::MaybeUninit;

use super::{BLOCK, Row, RowMut};

/// A copy of a block in which numbers can be set. It stays in the first-level cache.
pub(crate) struct Patched {
    /// As many bytes as a block of the widest dtype has.
    memory: [MaybeUninit<u64>; BLOCK],
}

impl Patched {
    #[expect(clippy::large_stack_arrays, reason = "a block, which the kernel that reads it next finds in the cache")]
    #[inline]
    pub(crate) const fn new() -> Self {
        Patched { memory: [const { MaybeUninit::uninit() }; BLOCK] }
    }

    /// `block` with `value` in place of the numbers `at`.
    pub(crate) fn patch(&mut self, block: Row<'_>, at: impl Iterator<Item = usize>, value: f64) -> Row<'_> {
        assert!(block.classes <= BLOCK && block.dtype.size() <= size_of::<u64>());
        let data: *mut u8 = self.memory.as_mut_ptr().cast();
        // SAFETY: the block can be read, and is no longer than this memory, which is nobody else's.
        unsafe { std::ptr::copy_nonoverlapping(block.data, data, block.classes * block.dtype.size()) };
        let whole =
            RowMut { data, dtype: block.dtype, classes: block.classes, past_caches: false, lifetime: PhantomData };
        for index in at {
            whole.set(index, value);
        }
        Row { data: data.cast_const(), dtype: block.dtype, classes: block.classes, lifetime: PhantomData }
    }
}
