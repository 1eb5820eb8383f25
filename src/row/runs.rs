//! The loop over the vectors of blocks: everything that is computed of rows is a [`Step`] of it.
//!
//! It alone knows where numbers lie. Vectors are summed in runs of [`RUN`].

use std::ops::Range;

use crate::element::{Dtype, Element};
use crate::rows::{AsBf16, AsF16, AsLanes, Block, BlockMut, CHUNK, Chunk, PastCaches, Store, Vectors, VectorsMut};
use crate::simd::{Lanes, MAX_LANES, RUN, Scalar, Simd, Total};

/// What is done with one vector of each of `R` blocks: it gives one for each of `W` outputs, and `N` sums grow by it.
///
/// A trait and not a closure: what is called from several places is only inlined where it says `#[inline(always)]`.
pub(crate) trait Step<V: Lanes, const R: usize, const W: usize, const N: usize> {
    /// Steps that hide each other's latency: each gets its number, by which it may keep results apart.
    const CHAINS: usize = 1;
    /// Steps that are taken without a look at where the vectors end, if more than the chains: for short ones.
    const UNROLLED: usize = 1;
    /// Classes from a vector to what is asked for when it is read; 0 for nothing.
    const AHEAD: usize = 0;
    /// Whether half types are converted apart from the kernel: where that is little beside the step.
    const CONVERTS_APART: bool = false;
    /// Whether outputs are of the type of the lanes, but for what is rare: numbers that are kept for another pass.
    const WRITES_LANES: bool = false;
    /// Whether vectors that are padded are taken in another way; where not, the step is compiled once for all vectors.
    const PADDED_APART: bool = false;

    /// Whether there is a sum number `at`; the compiler drops the others.
    #[inline(always)]
    fn has_sum(at: usize) -> bool {
        let _ = at;
        true
    }

    /// Takes one vector of each block. `WHOLE` is false for padded vectors where they are taken apart, and only there.
    /// `#[inline(always)]`.
    fn step<const WHOLE: bool>(&mut self, chain: usize, lanes: [V; R], runs: &mut [V; N]) -> [V; W];
}

/// Bytes of a cache line.
const LINE: usize = 64;

/// Classes of a row that are left out of a block, which starts at one of its classes; they rise.
#[derive(Clone, Copy)]
pub(crate) struct Holes<'a> {
    pub(crate) classes: &'a [usize],
    pub(crate) start: usize,
}

impl Holes<'_> {
    pub(crate) const NONE: Self = Holes { classes: &[], start: 0 };

    /// Where they lie in the block.
    #[inline(always)]
    pub(crate) fn offsets(self) -> impl Iterator<Item = usize> {
        self.classes.iter().map(move |class| class - self.start)
    }
}

/// A step over one block of logits that finds some of its classes masked.
///
/// Vectors come in their order, each once: it is enough to count them.
pub(crate) struct Without<'a, K, S> {
    pub(crate) token: K,
    pub(crate) step: S,
    /// Those that are still to come.
    pub(crate) holes: Holes<'a>,
    pub(crate) at: usize,
}

impl<V: Lanes, S: Step<V, 1, 0, N>, const N: usize> Step<V, 1, 0, N> for Without<'_, V::Token, S> {
    const CHAINS: usize = S::CHAINS;
    const AHEAD: usize = S::AHEAD;
    const CONVERTS_APART: bool = S::CONVERTS_APART;
    const PADDED_APART: bool = S::PADDED_APART;

    #[inline(always)]
    fn has_sum(at: usize) -> bool {
        S::has_sum(at)
    }

    #[inline(always)]
    fn step<const WHOLE: bool>(&mut self, chain: usize, [mut lanes]: [V; 1], runs: &mut [V; N]) -> [V; 0] {
        let end = self.at + V::N;
        while let Some((&class, rest)) = self.holes.classes.split_first()
            && class - self.holes.start < end
        {
            let mut numbers = [0.0; MAX_LANES];
            for (number, lane) in numbers.iter_mut().zip(lanes.to_array()) {
                *number = lane.to_f64();
            }
            numbers[class - self.holes.start - self.at] = f64::NEG_INFINITY;
            lanes = V::from_array(self.token, &numbers);
            self.holes.classes = rest;
        }
        self.at = end;
        self.step.step::<WHOLE>(chain, [lanes], runs)
    }
}

/// The sums over blocks of as many classes.
#[inline(always)]
pub(crate) fn sums<V: Lanes, S: Step<V, R, 0, N>, const R: usize, const N: usize>(
    token: V::Token,
    classes: usize,
    blocks: [Block<'_, V::Scalar>; R],
    step: &mut S,
) -> [f64; N] {
    pass(token, classes, blocks, [], step)
}

/// Takes the step for every vector, the last one padded; the sums. f32 lanes are summed over runs of [`RUN`] vectors, and the
/// runs in f64.
///
/// An output that is to be written past the caches is, which saves reading its memory first, if there is no other and
/// nothing to sum.
#[inline(always)]
pub(crate) fn pass<V: Lanes, S: Step<V, R, W, N>, const R: usize, const W: usize, const N: usize>(
    token: V::Token,
    classes: usize,
    blocks: [Block<'_, V::Scalar>; R],
    outputs: [Option<BlockMut<'_, V::Scalar>>; W],
    step: &mut S,
) -> [f64; N] {
    let memory = Memory { of_blocks: [const { Chunk::new() }; R], of_outputs: [const { Chunk::new() }; W] };
    let mut pass = Pass { token, blocks, outputs, memory, totals: [Total::<V>::zero(token); N] };
    // What is only written is stored as it is to be, without a detour.
    if const { V::HAS_SHORT_CUTS && N == 0 && W == 1 } {
        match outputs[0].map(BlockMut::dtype) {
            // Of f64 lanes that is rare.
            Some(Dtype::Bf16) if !V::Scalar::WIDE => pass.runs::<S, AsBf16>(0..classes, step),
            Some(Dtype::F16) if !V::Scalar::WIDE => pass.runs::<S, AsF16>(0..classes, step),
            _ => {
                let aligned = outputs[0].and_then(BlockMut::first_aligned::<V>).filter(|first| first + V::N <= classes);
                let past_caches =
                    aligned.map_or(classes..classes, |first| first..first + (classes - first) / V::N * V::N);
                let (first, last) = (past_caches.start, past_caches.end);
                // What comes before the first aligned vector, and after the last, is written as any row.
                for (index, classes) in [0..first, past_caches, last..classes].into_iter().enumerate() {
                    if index == 1 {
                        pass.runs::<S, PastCaches>(classes, step);
                        if aligned.is_some() {
                            token.fence();
                        }
                    } else {
                        pass.runs::<S, AsLanes>(classes, step);
                    }
                }
            }
        }
    } else {
        pass.runs::<S, AsLanes>(0..classes, step);
    }
    Total::sums(pass.totals)
}

/// A pass over blocks.
struct Pass<'a, V: Lanes, const R: usize, const W: usize, const N: usize> {
    token: V::Token,
    blocks: [Block<'a, V::Scalar>; R],
    outputs: [Option<BlockMut<'a, V::Scalar>>; W],
    memory: Memory<V::Scalar, R, W>,
    totals: [Total<V>; N],
}

/// Where vectors of blocks and outputs go that are of another type than the lanes, or padded.
struct Memory<T, const R: usize, const W: usize> {
    of_blocks: [Chunk<T>; R],
    of_outputs: [Chunk<T>; W],
}

impl<V: Lanes, const R: usize, const W: usize, const N: usize> Pass<'_, V, R, W, N> {
    /// Takes the step for all vectors of these classes, the last one padded.
    #[inline(always)]
    fn runs<S: Step<V, R, W, N>, O: Store>(&mut self, classes: Range<usize>, step: &mut S) {
        // At once where nothing is widened or narrowed.
        let is_written = |output: &Option<BlockMut<'_, V::Scalar>>| {
            output.is_some_and(|output| O::IN_PLACE.is_some() || output.is_plain())
        };
        let plain = self.blocks.iter().all(Block::is_plain) && self.outputs.iter().all(is_written);
        let longest = if plain { classes.len() } else { CHUNK * V::N };
        let Range { mut start, end } = classes;
        while start < end {
            let left = end - start;
            let piece = if left < V::N {
                Piece { start, classes: left, is_padded: true }
            } else {
                Piece { start, classes: left.min(longest) / V::N * V::N, is_padded: false }
            };
            debug_assert!(!(piece.is_padded && O::PAST_CACHES));
            if S::PADDED_APART && piece.is_padded {
                self.run::<S, O, false>(piece, step);
            } else {
                self.run::<S, O, true>(piece, step);
            }
            start += piece.classes;
        }
    }

    /// Takes the step for vectors that are read, and written, at once.
    #[inline(always)]
    fn run<S: Step<V, R, W, N>, O: Store, const WHOLE: bool>(&mut self, piece: Piece, step: &mut S) {
        let (token, Piece { start, classes, is_padded }) = (self.token, piece);
        let len = if is_padded { V::N } else { classes };
        let mut vectors = [Vectors::NONE; R];
        let mut ahead = [std::ptr::null(); R];
        for (r, chunk) in self.memory.of_blocks.iter_mut().enumerate() {
            vectors[r] = if is_padded {
                self.blocks[r].padded(start, classes, chunk)
            } else {
                self.blocks[r].read::<V>(token, start, len, chunk, !S::CONVERTS_APART)
            };
            ahead[r] = self.blocks[r].ahead(start, S::AHEAD);
        }
        let mut places = [const { VectorsMut::NONE }; W];
        for (w, chunk) in self.memory.of_outputs.iter_mut().enumerate() {
            places[w] = match self.outputs[w] {
                Some(output) if !is_padded => output.place::<V, O>(start, len, chunk),
                _ => VectorsMut::of_chunk(chunk, len),
            };
        }
        let mut vectors = Run { token, vectors, ahead, places };
        // Each of two chains has sums of its own.
        let summed = if N == 0 { len } else { S::CHAINS.min(2) * RUN * V::N };
        let mut at = 0;
        while at < len {
            let end = len.min(at + summed);
            let taken = const { if S::UNROLLED > S::CHAINS { S::UNROLLED } else { S::CHAINS } };
            let unrolled = at + (end - at) / (taken * V::N) * (taken * V::N);
            let mut runs = [V::splat(token, 0.0); N];
            while WHOLE && taken > 1 && at < unrolled {
                for index in 0..taken {
                    // SAFETY: the vectors end before `unrolled`, which is at most `len`, what was asked for; the first place past
                    // the caches is aligned.
                    unsafe { vectors.take::<V, S, N, WHOLE>(index, at + index * V::N, step, &mut runs) }
                }
                at += taken * V::N;
            }
            while at < end {
                // SAFETY: as above; `len` is whole vectors.
                unsafe { vectors.take::<V, S, N, WHOLE>(0, at, step, &mut runs) }
                at += V::N;
            }
            for (index, (total, run)) in self.totals.iter_mut().zip(runs).enumerate() {
                if S::has_sum(index) {
                    total.add(token, run);
                }
            }
        }
        for (w, chunk) in self.memory.of_outputs.iter_mut().enumerate() {
            if let Some(output) = self.outputs[w] {
                // SAFETY: every vector of the run was written.
                unsafe {
                    if is_padded {
                        output.emit_padded::<O>(start, classes, chunk);
                    } else {
                        output.emit::<V, O>(token, start, len, chunk, !S::CONVERTS_APART && !S::WRITES_LANES);
                    }
                }
            }
        }
    }
}

/// Classes that are read, and written, at once: whole vectors, or fewer than one, which are padded.
#[derive(Clone, Copy)]
struct Piece {
    start: usize,
    classes: usize,
    is_padded: bool,
}

/// The vectors of a run.
struct Run<'a, T, K, O, const R: usize, const W: usize> {
    token: K,
    vectors: [Vectors<'a, T>; R],
    ahead: [*const u8; R],
    places: [VectorsMut<'a, T, O>; W],
}

impl<K: Simd, T: Scalar, O: Store, const R: usize, const W: usize> Run<'_, T, K, O, R, W> {
    /// Takes the step for the vectors at `at`, the `index`th of those taken at once.
    ///
    /// # Safety
    /// They lie inside.
    #[inline(always)]
    unsafe fn take<V, S, const N: usize, const WHOLE: bool>(
        &mut self,
        index: usize,
        at: usize,
        step: &mut S,
        runs: &mut [V; N],
    ) where
        V: Lanes<Token = K, Scalar = T>,
        S: Step<V, R, W, N>,
    {
        let mut lanes = [V::splat(self.token, 0.0); R];
        for (r, lanes) in lanes.iter_mut().enumerate() {
            // Once a line.
            if S::AHEAD > 0 && (index * V::N * size_of::<T>()).is_multiple_of(LINE) {
                self.token.prefetch(self.ahead[r].wrapping_add(at * size_of::<T>()));
            }
            // SAFETY: the caller's.
            *lanes = unsafe { self.vectors[r].get_unchecked(self.token, at) };
        }
        let written = step.step::<WHOLE>(index % S::CHAINS, lanes, runs);
        for (place, written) in self.places.iter_mut().zip(written) {
            // SAFETY: the caller's.
            unsafe { O::set(place, at, written) }
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use half::{bf16, f16};

    use super::*;
    use crate::element::Element;
    use crate::rows::{Row, RowMut, Rows, RowsMut};
    use crate::simd::{Isa, LaneKernel};

    /// Copies a block, and counts the lanes that hold what pads.
    struct Copy<'a> {
        from: Row<'a>,
        to: RowMut<'a>,
        absent: f64,
    }

    struct CopyStep<V> {
        absent: V,
        zero: V,
        one: V,
    }

    impl<V: Lanes> Step<V, 1, 1, 1> for CopyStep<V> {
        #[inline(always)]
        fn step<const WHOLE: bool>(&mut self, _: usize, [x]: [V; 1], [padding]: &mut [V; 1]) -> [V; 1] {
            *padding = *padding + V::select(V::and(x.le(self.absent), self.absent.le(x)), self.one, self.zero);
            [x]
        }
    }

    impl LaneKernel for Copy<'_> {
        type Output = usize;

        #[inline(always)]
        fn run<V: Lanes>(self, token: V::Token) -> usize {
            let Copy { from, to, absent } = self;
            let splat = |value| V::splat(token, value);
            let mut step = CopyStep { absent: splat(absent), zero: splat(0.0), one: splat(1.0) };
            let output = [Some(BlockMut::new(to))];
            let [padding] = pass(token, from.classes(), [Block::new(from, absent)], output, &mut step);
            assert_eq!((from.classes() + padding as usize) % V::N, 0);
            padding as usize
        }
    }

    /// From rows of one dtype to rows of another.
    fn check<From: Element, To: Element>(wide: bool) {
        const WIDTH: usize = 400;
        // What every dtype can hold.
        let data: Vec<From> = (0..2 * WIDTH).map(|i| From::from_f64(i as f64 - 7.5)).collect();
        let nine = To::from_f64(9.0).to_f64();
        for isa in Isa::available() {
            for (start, len) in (1..WIDTH - 5).map(|len| (len % 5, len)) {
                for absent in [f64::NEG_INFINITY, 0.0] {
                    let mut out = vec![To::from_f64(9.0); 2 * WIDTH];
                    {
                        let from = Rows::new(&data, WIDTH).unwrap().row(1).block(start, len);
                        let to = RowsMut::new(&mut out, WIDTH).unwrap();
                        // SAFETY: the only view of this row.
                        let to = unsafe { to.row(1) }.block(start, len);
                        assert!(isa.run_lanes(wide, Copy { from, to, absent }) < 16);
                    }
                    for (index, (out, data)) in out.iter().zip(&data).enumerate() {
                        let inside = (WIDTH + start..WIDTH + start + len).contains(&index);
                        let expected = if inside { To::from_f64(data.to_f64()).to_f64() } else { nine };
                        assert!(out.to_f64() == expected, "{} {start} {len} {index}", isa.name());
                    }
                }
            }
        }
    }

    #[test]
    fn tails_are_padded_and_nothing_is_written_past_them() {
        check::<f32, f32>(false);
        check::<bf16, f16>(false);
        check::<f16, bf16>(false);
        check::<f32, f64>(false);
        check::<f64, f64>(true);
        check::<f32, f32>(true);
        check::<bf16, bf16>(true);
        check::<f16, f16>(true);
    }
}
