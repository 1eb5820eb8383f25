//! Blocks of a row as kernels see them: vectors of f32 or f64, whatever the dtype of the row.
//!
//! A kernel asks for as many classes as fit a [`Chunk`]. Where the row has the type of the lanes, it reads them where they are;
//! else they are widened into the chunk first, which stays in the first-level cache, and what it writes is narrowed from
//! one. A kernel is therefore compiled for two number types, and not for every combination of dtypes.
//!
//! A gradient may be written over the row it is computed from: all of a chunk is read before it is written, or, where both
//! are the row itself, all of a vector.

use std::marker::PhantomData;
use std::mem::MaybeUninit;

use super::{Row, RowMut};
use crate::element::{Dtype, Element};
use crate::simd::{LaneKernel, Lanes, MAX_LANES, Narrow, RUN, Scalar, Simd, Wide};

/// Vectors that a [`Chunk`] has room for: two runs, of the sums of two chains.
pub(crate) const CHUNK: usize = 2 * RUN;

/// Classes per block: 16 KiB of f32, half of a first-level cache, so that two rows of it fit. Sums are f32 within a
/// block and f64 across blocks.
pub(crate) const BLOCK: usize = 4096;

/// Memory for some vectors, aligned to the widest.
#[repr(align(64))]
pub(crate) struct Chunk<T>([MaybeUninit<T>; CHUNK * MAX_LANES]);

impl<T> Chunk<T> {
    #[inline(always)]
    pub(crate) const fn new() -> Self {
        Chunk([const { MaybeUninit::uninit() }; CHUNK * MAX_LANES])
    }

    fn data(&mut self) -> *mut T {
        self.0.as_mut_ptr().cast()
    }
}

/// A block to read as numbers of the type `T`, and what stands for the classes past its end.
#[derive(Clone, Copy)]
pub(crate) struct Block<'a, T> {
    /// All its numbers are `fill` where there is no row.
    row: Option<Row<'a>>,
    fill: f64,
    absent: f64,
    lanes: PhantomData<T>,
}

impl<'a, T: Scalar> Block<'a, T> {
    /// `absent`, which every dtype can hold, pads the last vector.
    #[inline(always)]
    pub(crate) fn new(row: Row<'a>, absent: f64) -> Self {
        Block { row: Some(row), fill: absent, absent, lanes: PhantomData }
    }

    /// Of `fill` only where there is no row.
    #[inline(always)]
    pub(crate) fn or(row: Option<Row<'a>>, fill: f64, absent: f64) -> Self {
        Block { row, fill, absent, lanes: PhantomData }
    }

    /// Whether it is read where it lies.
    #[inline(always)]
    pub(crate) fn is_plain(&self) -> bool {
        self.row.is_some_and(|row| row.dtype == T::DTYPE)
    }

    /// The classes `start..start + len`, which are whole vectors, and at most [`CHUNK`] of them unless the block is plain. If
    /// `inlined`, conversions that are frequent are compiled into the kernel; a constant where it is called.
    #[inline(always)]
    pub(crate) fn read<'b, V: Lanes<Scalar = T>>(
        self,
        token: V::Token,
        start: usize,
        len: usize,
        chunk: &'b mut Chunk<T>,
        inlined: bool,
    ) -> Vectors<'b, T>
    where
        'a: 'b,
    {
        let Some(row) = self.row else {
            assert!(len <= CHUNK * V::N && len.is_multiple_of(V::N));
            let fill = V::splat(token, self.fill);
            for at in (0..len).step_by(V::N) {
                // SAFETY: the chunk has `CHUNK * MAX_LANES` ≥ `len` elements.
                unsafe { fill.store(chunk.data().add(at).cast(), T::DTYPE) }
            }
            return Vectors { data: chunk.data(), len, lifetime: PhantomData };
        };
        assert!(start + len <= row.classes);
        // SAFETY: the classes lie inside the row.
        let data = unsafe { row.data.add(start * row.dtype.size()) };
        if row.dtype == T::DTYPE {
            return Vectors { data: data.cast(), len, lifetime: PhantomData };
        }
        assert!(len <= CHUNK * V::N && len.is_multiple_of(V::N));
        let to: (*mut u8, Dtype) = (chunk.data().cast(), T::DTYPE);
        let inlined = inlined && const { converts_inline::<V>() };
        match row.dtype {
            // SAFETY: `len` elements lie inside the row, and fit the chunk.
            Dtype::Bf16 if inlined => unsafe { convert::<V>(token, (data, Dtype::Bf16), to, len) },
            // SAFETY: as above.
            Dtype::F16 if inlined => unsafe { convert::<V>(token, (data, Dtype::F16), to, len) },
            dtype => in_lanes_of::<T, _, _>(token, Widening { from: (data, dtype), chunk: to.0, len }),
        }
        Vectors { data: chunk.data(), len, lifetime: PhantomData }
    }

    /// The `len` classes from `start` on, fewer than a vector, as a vector that is padded.
    #[cold]
    #[inline(never)]
    pub(crate) fn padded(self, start: usize, len: usize, chunk: &mut Chunk<T>) -> Vectors<'_, T> {
        let numbers = (start..start + len).map(|index| T::from_f64(self.row.map_or(self.fill, |row| row.get(index))));
        let padding = std::iter::repeat(T::from_f64(self.absent));
        for (lane, number) in chunk.0[..MAX_LANES].iter_mut().zip(numbers.chain(padding)) {
            lane.write(number);
        }
        Vectors { data: chunk.data(), len: MAX_LANES, lifetime: PhantomData }
    }

    /// Where the class `ahead` of `start` lies in the row, or would lie beyond it.
    #[inline(always)]
    pub(crate) fn ahead(self, start: usize, ahead: usize) -> *const u8 {
        self.row.map_or(std::ptr::null(), |row| row.data.wrapping_add((start + ahead) * row.dtype.size()))
    }
}

/// Vectors to read.
#[derive(Clone, Copy)]
pub(crate) struct Vectors<'a, T> {
    data: *const T,
    len: usize,
    lifetime: PhantomData<&'a [T]>,
}

impl<T: Scalar> Vectors<'_, T> {
    /// None.
    pub(crate) const NONE: Self = Vectors { data: std::ptr::null(), len: 0, lifetime: PhantomData };

    /// The lanes `at..at + V::N`.
    #[inline(always)]
    pub(crate) fn get<V: Lanes<Scalar = T>>(self, token: V::Token, at: usize) -> V {
        assert!(at + V::N <= self.len);
        // SAFETY: the lanes lie inside.
        unsafe { self.get_unchecked(token, at) }
    }

    /// The same without a look at the length, which a loop over all vectors does not get rid of: two instructions of twenty.
    ///
    /// # Safety
    /// The lanes lie inside.
    #[inline(always)]
    pub(crate) unsafe fn get_unchecked<V: Lanes<Scalar = T>>(self, token: V::Token, at: usize) -> V {
        debug_assert!(at + V::N <= self.len);
        // SAFETY: the caller's.
        unsafe { V::load(token, self.data.add(at).cast(), T::DTYPE) }
    }
}

/// A block to write as numbers of the type `T`.
#[derive(Clone, Copy)]
pub(crate) struct BlockMut<'a, T> {
    row: RowMut<'a>,
    lanes: PhantomData<T>,
}

impl<'a, T: Scalar> BlockMut<'a, T> {
    #[inline(always)]
    pub(crate) fn new(row: RowMut<'a>) -> Self {
        BlockMut { row, lanes: PhantomData }
    }

    /// Whether it is written where it lies.
    #[inline(always)]
    pub(crate) fn is_plain(&self) -> bool {
        self.row.dtype == T::DTYPE
    }

    /// The dtype that vectors are to be rounded to.
    #[inline(always)]
    pub(crate) fn dtype(self) -> Dtype {
        self.row.dtype
    }

    /// Where to write the classes `start..start + len` as `S` stores them. [`BlockMut::emit`] comes after it.
    #[inline(always)]
    pub(crate) fn place<'b, V: Lanes<Scalar = T>, S: Store>(
        self,
        start: usize,
        len: usize,
        chunk: &'b mut Chunk<T>,
    ) -> VectorsMut<'b, T, S>
    where
        'a: 'b,
    {
        assert!(start + len <= self.row.classes && S::IN_PLACE.is_none_or(|dtype| dtype == self.row.dtype));
        let data = if S::IN_PLACE.is_some() || self.is_plain() {
            // SAFETY: the classes lie inside the row.
            unsafe { self.row.data.add(start * self.row.dtype.size()) }
        } else {
            assert!(len <= CHUNK * V::N);
            chunk.data().cast()
        };
        VectorsMut { data, len, lifetime: PhantomData, store: PhantomData }
    }

    /// Narrows what was written to the chunk that [`BlockMut::place`] got, unless it is the row already; `inlined` as in
    /// [`Block::read`].
    ///
    /// # Safety
    /// All of `start..start + len` was written.
    #[inline(always)]
    pub(crate) unsafe fn emit<V: Lanes<Scalar = T>, S: Store>(
        self,
        token: V::Token,
        start: usize,
        len: usize,
        chunk: &mut Chunk<T>,
        inlined: bool,
    ) {
        let row = self.row;
        if S::IN_PLACE.is_some() || self.is_plain() {
            return;
        }
        assert!(start + len <= row.classes && len <= CHUNK * V::N && len.is_multiple_of(V::N));
        // SAFETY: the classes lie inside the row.
        let data = unsafe { row.data.add(start * row.dtype.size()) };
        let from: (*const u8, Dtype) = (chunk.data().cast(), T::DTYPE);
        let inlined = inlined && const { converts_inline::<V>() };
        match row.dtype {
            // SAFETY: `len` elements lie inside the row, and in the chunk, where they were written.
            Dtype::Bf16 if inlined => unsafe { convert::<V>(token, from, (data, Dtype::Bf16), len) },
            // SAFETY: as above.
            Dtype::F16 if inlined => unsafe { convert::<V>(token, from, (data, Dtype::F16), len) },
            dtype => in_lanes_of::<T, _, _>(token, Narrowing { chunk: from.0, to: (data, dtype), len }),
        }
    }

    /// Copies the first `len` classes of the chunk, which `S` stored, to those from `start` on.
    ///
    /// # Safety
    /// So many were written.
    #[cold]
    #[inline(never)]
    pub(crate) unsafe fn emit_padded<S: Store>(self, start: usize, len: usize, chunk: &mut Chunk<T>) {
        assert!(start + len <= self.row.classes && len <= MAX_LANES);
        if let Some(dtype) = S::IN_PLACE {
            assert!(dtype == self.row.dtype);
            let size = dtype.size();
            // SAFETY: the elements lie inside the row, and were written to the chunk.
            unsafe { chunk.data().cast::<u8>().copy_to_nonoverlapping(self.row.data.add(start * size), len * size) }
            return;
        }
        for at in 0..len {
            // SAFETY: the caller's.
            let number = unsafe { chunk.0[at].assume_init() };
            self.row.set(start + at, number.to_f64());
        }
    }

    /// The first class whose vector is aligned, for a block that is to be written past the caches; `None` for others.
    #[inline(always)]
    pub(crate) fn first_aligned<V: Lanes<Scalar = T>>(self) -> Option<usize> {
        let bytes = self.row.data.align_offset(V::N * size_of::<T>());
        let aligns = self.row.dtype == T::DTYPE && bytes.is_multiple_of(size_of::<T>());
        (self.row.past_caches && aligns).then_some(bytes / size_of::<T>())
    }
}

/// Vectors to write, as `S` stores them.
pub(crate) struct VectorsMut<'a, T, S> {
    data: *mut u8,
    len: usize,
    lifetime: PhantomData<&'a mut [T]>,
    store: PhantomData<S>,
}

impl<T: Scalar, S: Store> VectorsMut<'_, T, S> {
    /// None.
    pub(crate) const NONE: Self =
        VectorsMut { data: std::ptr::null_mut(), len: 0, lifetime: PhantomData, store: PhantomData };

    /// Vectors of a chunk.
    #[inline(always)]
    pub(crate) fn of_chunk(chunk: &mut Chunk<T>, len: usize) -> VectorsMut<'_, T, S> {
        assert!(len <= CHUNK * MAX_LANES);
        VectorsMut { data: chunk.data().cast(), len, lifetime: PhantomData, store: PhantomData }
    }

    /// Writes the lanes `at..at + V::N`, as elements of `dtype`.
    ///
    /// # Safety
    /// The lanes lie inside.
    #[inline(always)]
    unsafe fn set<V: Lanes<Scalar = T>>(&mut self, at: usize, lanes: V, dtype: Dtype) {
        debug_assert!(at + V::N <= self.len);
        // SAFETY: the caller's.
        unsafe { lanes.store(self.data.add(at * dtype.size()), dtype) }
    }

    /// The same past the caches, for the type of the lanes.
    ///
    /// # Safety
    /// The lanes lie inside, and are aligned.
    #[inline(always)]
    unsafe fn set_past_caches<V: Lanes<Scalar = T>>(&mut self, at: usize, lanes: V) {
        debug_assert!(at + V::N <= self.len);
        // SAFETY: the caller's; ordering them is, too.
        unsafe { lanes.store_past_caches(self.data.add(at * size_of::<T>()), T::DTYPE) }
    }
}

/// How vectors are written.
pub(crate) trait Store: Sized {
    /// The dtype of the rows that are written without a chunk; `None` for the type of the lanes, with one for other rows.
    const IN_PLACE: Option<Dtype> = None;
    /// Whether [`Simd::fence`] comes before any other access: no chunk is written so, which is read at once.
    const PAST_CACHES: bool = false;

    /// Writes the lanes `at..at + V::N`. `#[inline(always)]`.
    ///
    /// # Safety
    /// The lanes lie inside, and are aligned where they go past the caches.
    unsafe fn set<V: Lanes>(vectors: &mut VectorsMut<'_, V::Scalar, Self>, at: usize, lanes: V);
}

/// As numbers of the type of the lanes.
pub(crate) struct AsLanes;
/// The same past the caches, for aligned vectors; [`Simd::fence`](crate::simd::Simd::fence) comes before any other access.
pub(crate) struct PastCaches;
/// Rounded to bfloat16.
pub(crate) struct AsBf16;
/// Rounded to float16.
pub(crate) struct AsF16;

impl Store for AsLanes {
    #[inline(always)]
    unsafe fn set<V: Lanes>(vectors: &mut VectorsMut<'_, V::Scalar, Self>, at: usize, lanes: V) {
        // SAFETY: the caller\'s.
        unsafe { vectors.set(at, lanes, <V::Scalar as Element>::DTYPE) }
    }
}

impl Store for PastCaches {
    const PAST_CACHES: bool = true;

    #[inline(always)]
    unsafe fn set<V: Lanes>(vectors: &mut VectorsMut<'_, V::Scalar, Self>, at: usize, lanes: V) {
        // SAFETY: the caller\'s.
        unsafe { vectors.set_past_caches(at, lanes) }
    }
}

impl Store for AsBf16 {
    const IN_PLACE: Option<Dtype> = Some(Dtype::Bf16);

    #[inline(always)]
    unsafe fn set<V: Lanes>(vectors: &mut VectorsMut<'_, V::Scalar, Self>, at: usize, lanes: V) {
        // SAFETY: the caller\'s.
        unsafe { vectors.set(at, lanes, Dtype::Bf16) }
    }
}

impl Store for AsF16 {
    const IN_PLACE: Option<Dtype> = Some(Dtype::F16);

    #[inline(always)]
    unsafe fn set<V: Lanes>(vectors: &mut VectorsMut<'_, V::Scalar, Self>, at: usize, lanes: V) {
        // SAFETY: the caller\'s.
        unsafe { vectors.set(at, lanes, Dtype::F16) }
    }
}

/// Whether conversions of half types are compiled into kernels.
const fn converts_inline<V: Lanes>() -> bool {
    V::HAS_SHORT_CUTS && !<V::Scalar as Scalar>::WIDE
}

/// Runs `kernel` in lanes of the type `T`, compiled once for all kernels that convert: they are for conversions that are rare.
/// Those of half types and f32 lanes are in the kernels themselves, which a call in every chunk would slow down by up to two fifths,
/// unless their step is long.
///
/// A function of its own, because of one with target features the compiler forgets that it is never to be inlined.
#[inline(never)]
fn in_lanes_of<T: Scalar, S: Simd, K: LaneKernel>(simd: S, kernel: K) -> K::Output {
    if T::WIDE { simd.vectorize(Wide(kernel)) } else { simd.vectorize(Narrow(kernel)) }
}

/// Widens whole vectors of a row into a chunk.
///
/// [`Block::read`], which alone makes it, looks at both ends.
struct Widening {
    from: (*const u8, Dtype),
    chunk: *mut u8,
    len: usize,
}

impl LaneKernel for Widening {
    type Output = ();

    #[inline(always)]
    fn run<V: Lanes>(self, token: V::Token) {
        let Widening { from: (data, dtype), chunk, len } = self;
        let to = (chunk, <V::Scalar as Element>::DTYPE);
        // SAFETY: its maker's.
        unsafe {
            match dtype {
                Dtype::F32 => convert::<V>(token, (data, Dtype::F32), to, len),
                Dtype::Bf16 => convert::<V>(token, (data, Dtype::Bf16), to, len),
                Dtype::F16 => convert::<V>(token, (data, Dtype::F16), to, len),
                Dtype::F64 => convert::<V>(token, (data, Dtype::F64), to, len),
            }
        }
    }
}

/// Narrows whole vectors of a chunk into a row.
///
/// [`BlockMut::emit`], which alone makes it, looks at both ends.
struct Narrowing {
    chunk: *const u8,
    to: (*mut u8, Dtype),
    len: usize,
}

impl LaneKernel for Narrowing {
    type Output = ();

    #[inline(always)]
    fn run<V: Lanes>(self, token: V::Token) {
        let Narrowing { chunk, to: (data, dtype), len } = self;
        let from = (chunk, <V::Scalar as Element>::DTYPE);
        // SAFETY: its maker's.
        unsafe {
            match dtype {
                Dtype::F32 => convert::<V>(token, from, (data, Dtype::F32), len),
                Dtype::Bf16 => convert::<V>(token, from, (data, Dtype::Bf16), len),
                Dtype::F16 => convert::<V>(token, from, (data, Dtype::F16), len),
                Dtype::F64 => convert::<V>(token, from, (data, Dtype::F64), len),
            }
        }
    }
}

/// Converts whole vectors; both dtypes are constants where it is called.
///
/// # Safety
/// `len` elements can be read, and written.
#[inline(always)]
unsafe fn convert<V: Lanes>(token: V::Token, from: (*const u8, Dtype), to: (*mut u8, Dtype), len: usize) {
    let mut at = 0;
    while at < len {
        // SAFETY: the caller's, `len` being whole vectors.
        unsafe {
            let lanes = V::load(token, from.0.add(at * from.1.size()), from.1);
            lanes.store(to.0.add(at * to.1.size()), to.1);
        }
        at += V::N;
    }
}
