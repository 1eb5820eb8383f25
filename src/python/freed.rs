//! Memory of large results that is kept when it is freed, for the next result.
//!
//! Memory that is new to a process has to be given to it page by page and zeroed: for 131 MB 7 to 50 ms, where the gradient in
//! it takes 10. In a loop it is the same memory each time. So the last large result that was freed leaves its memory here, where
//! the next one of about its size finds it; whatever was here before is given back to the system. What is kept here the system
//! may take when it needs memory ([`pages::give_up`]).
//!
//! Results own their memory as any array of NumPy does, whose allocator (NEP 49) this is while they are made.

use std::alloc::{Layout, alloc, dealloc};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

use numpy::npyffi::{NpyTypes, PY_ARRAY_API, get_type_object};
use numpy::{PyArrayDescr, PyArrayDescrMethods};
use pyo3::exceptions::PyValueError;
use pyo3::ffi::{PyCapsule_GetPointer, PyCapsule_New, PyObject};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use super::pages;

/// Whether memory is kept.
static KEEPS: AtomicBool = AtomicBool::new(true);
/// What is kept: one block, or null. There is no lock, which a child of `fork()` might find taken by a thread that it has not.
static FREED: AtomicPtr<Block> = AtomicPtr::new(ptr::null_mut());

/// Applies `KLDIV_KEEP_FREED`, once, when the module is imported.
pub(super) fn read_environment() -> PyResult<()> {
    if let Ok(value) = std::env::var("KLDIV_KEEP_FREED") {
        let keeps = match &value[..] {
            "0" => false,
            "1" => true,
            _ => return Err(PyValueError::new_err(format!("KLDIV_KEEP_FREED={value:?}: expected 0 or 1"))),
        };
        KEEPS.store(keeps, Ordering::Relaxed);
    }
    Ok(())
}

/// Give the memory of the last large result that was freed back to the system.
///
/// Gradients and other results of 1 MiB and more leave their memory to the next one of at least half its size, because new
/// memory takes longer to get than a gradient to compute. One is kept at a time; on Linux the system may take it when it needs
/// memory. ``KLDIV_KEEP_FREED=0`` in the environment, when kldiv is imported, keeps none.
#[pyfunction]
pub(super) fn empty_cache() {
    // SAFETY: taken out by nobody else.
    unsafe { Block::release(FREED.swap(ptr::null_mut(), Ordering::AcqRel)) };
}

/// What stands before the memory of an array.
#[repr(C, align(64))]
struct Block {
    /// Bytes from this on, itself included.
    size: usize,
}

impl Block {
    /// Memory for an array of `bytes` that is aligned as vectors are; null where there is none.
    fn new(bytes: usize) -> *mut Block {
        let Some(size) = bytes.checked_add(size_of::<Block>()) else { return ptr::null_mut() };
        let Some(layout) = Self::layout(size) else { return ptr::null_mut() };
        // SAFETY: the layout has the size of a block at least.
        let block: *mut Block = unsafe { alloc(layout) }.cast();
        if !block.is_null() {
            pages::prefer_huge(block.cast(), size);
            // SAFETY: the memory is this block's, and aligned for it.
            unsafe { block.write(Block { size }) };
        }
        block
    }

    fn layout(size: usize) -> Option<Layout> {
        let align = if size >= pages::MANY { pages::HUGE } else { align_of::<Block>() };
        Layout::from_size_align(size, align).ok()
    }

    /// Memory for an array of `bytes`: what is kept, if it is of use.
    fn reused(bytes: usize) -> *mut Block {
        let block = FREED.swap(ptr::null_mut(), Ordering::AcqRel);
        if block.is_null() {
            return block;
        }
        // SAFETY: a block that nobody else has.
        let most = unsafe { (*block).size } - size_of::<Block>();
        if bytes <= most && most / 2 <= bytes {
            return block;
        }
        // For another one, unless one was freed meanwhile.
        if FREED.compare_exchange(ptr::null_mut(), block, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            // SAFETY: a block that nobody else has.
            unsafe { Block::release(block) };
        }
        ptr::null_mut()
    }

    /// # Safety
    /// A block that nobody else has, or null.
    unsafe fn release(block: *mut Block) {
        // SAFETY: as promised; `new` has made it by this layout.
        unsafe {
            if let Some(layout) = block.as_ref().and_then(|block| Self::layout(block.size)) {
                dealloc(block.cast(), layout);
            }
        }
    }

    /// The block before the memory of an array.
    ///
    /// # Safety
    /// Memory that `allocate` gave.
    unsafe fn of(data: *mut c_void) -> *mut Block {
        // SAFETY: as promised, a block stands before it.
        unsafe { data.cast::<Block>().sub(1) }
    }
}

unsafe extern "C" fn allocate(_: *mut c_void, bytes: usize) -> *mut c_void {
    let mut block = Block::reused(bytes);
    if block.is_null() {
        block = Block::new(bytes);
    }
    // SAFETY: the memory of the array follows.
    if block.is_null() { ptr::null_mut() } else { unsafe { block.add(1) }.cast() }
}

unsafe extern "C" fn allocate_zeros(context: *mut c_void, count: usize, each: usize) -> *mut c_void {
    let Some(bytes) = count.checked_mul(each) else { return ptr::null_mut() };
    // SAFETY: as many bytes as there are.
    unsafe {
        let data = allocate(context, bytes);
        if !data.is_null() {
            data.cast::<u8>().write_bytes(0, bytes);
        }
        data
    }
}

/// What `ndarray.resize` calls.
unsafe extern "C" fn reallocate(context: *mut c_void, data: *mut c_void, bytes: usize) -> *mut c_void {
    // SAFETY: NumPy hands in what it got from here, and has it no more where this gives other memory.
    unsafe {
        let new = allocate(context, bytes);
        if !data.is_null() && !new.is_null() {
            let before = (*Block::of(data)).size - size_of::<Block>();
            new.cast::<u8>().copy_from_nonoverlapping(data.cast(), bytes.min(before));
            free(context, data, before);
        }
        new
    }
}

/// The size that NumPy says is that of the array now, which it may have been changed to.
unsafe extern "C" fn free(_: *mut c_void, data: *mut c_void, _: usize) {
    if data.is_null() {
        return;
    }
    // SAFETY: NumPy hands in what it got from here, and nobody has it any more. The header is in the first huge page, which
    // stays as it is; smaller blocks have none that could be given up.
    unsafe {
        let block = Block::of(data);
        let size = (*block).size;
        if size >= pages::MANY {
            pages::give_up(block.cast::<u8>().add(pages::HUGE), size - pages::HUGE);
        }
        Block::release(FREED.swap(block, Ordering::AcqRel));
    }
}

/// `PyDataMem_Handler` of NumPy, version 1.
#[repr(C)]
struct Handler {
    name: [c_char; 127],
    version: u8,
    context: *mut c_void,
    malloc: unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void,
    calloc: unsafe extern "C" fn(*mut c_void, usize, usize) -> *mut c_void,
    realloc: unsafe extern "C" fn(*mut c_void, *mut c_void, usize) -> *mut c_void,
    free: unsafe extern "C" fn(*mut c_void, *mut c_void, usize),
}

// SAFETY: it is never changed, and its context is null.
unsafe impl Sync for Handler {}

static HANDLER: Handler = Handler {
    name: name_of_handler(),
    version: 1,
    context: ptr::null_mut(),
    malloc: allocate,
    calloc: allocate_zeros,
    realloc: reallocate,
    free,
};

const fn name_of_handler() -> [c_char; 127] {
    let (name, mut found, mut at) = (b"kldiv", [0; 127], 0);
    while at < name.len() {
        found[at] = name[at] as c_char;
        at += 1;
    }
    found
}

/// `PyDataMem_SetHandler`, of the context of the calling thread; and the capsule of the handler.
struct Allocator {
    set_handler: unsafe extern "C" fn(*mut PyObject) -> *mut PyObject,
    handler: Py<PyAny>,
}

impl Allocator {
    fn get(py: Python<'_>) -> PyResult<&Self> {
        /// Where it stands among NumPy's functions, from 1.22 on.
        const SET_HANDLER: usize = 304;
        const NAME: &CStr = c"mem_handler";
        static ALLOCATOR: PyOnceLock<Allocator> = PyOnceLock::new();
        ALLOCATOR.get_or_try_init(py, || {
            let table = py.import("numpy._core.multiarray")?.getattr("_ARRAY_API")?;
            // SAFETY: a capsule without a name of NumPy's functions, which stay as they are. The handler is there as long as
            // the process; the capsule is a new reference, or null where an exception is set.
            unsafe {
                let functions: *const *const c_void = PyCapsule_GetPointer(table.as_ptr(), ptr::null()).cast();
                if functions.is_null() {
                    return Err(PyErr::fetch(py));
                }
                let handler = (&raw const HANDLER).cast_mut().cast();
                Ok(Allocator {
                    set_handler: functions.add(SET_HANDLER).cast::<unsafe extern "C" fn(*mut PyObject) -> _>().read(),
                    handler: Bound::from_owned_ptr_or_err(py, PyCapsule_New(handler, NAME.as_ptr(), None))?.unbind(),
                })
            }
        })
    }
}

/// A new array in C order, whose memory is kept for another one when it is freed.
#[pyfunction]
#[expect(clippy::needless_pass_by_value, reason = "a tuple of Python becomes a vector")]
pub(super) fn empty<'py>(
    py: Python<'py>,
    shape: Vec<isize>,
    dtype: &Bound<'py, PyArrayDescr>,
) -> PyResult<Bound<'py, PyAny>> {
    let rank = shape.len() as c_int;
    // SAFETY: NumPy reads as many lengths as it is told, and takes the reference to the descriptor. The array is a new reference,
    // or null where an exception is set.
    let make = || unsafe {
        PY_ARRAY_API.PyArray_NewFromDescr(
            py,
            get_type_object(py, NpyTypes::PyArray_Type),
            dtype.clone().into_dtype_ptr(),
            rank,
            shape.as_ptr().cast_mut().cast(),
            ptr::null_mut(),
            ptr::null_mut(),
            0,
            ptr::null_mut(),
        )
    };
    if !KEEPS.load(Ordering::Relaxed) {
        // SAFETY: as above.
        return unsafe { Bound::from_owned_ptr_or_err(py, make()) };
    }
    let allocator = Allocator::get(py)?;
    // SAFETY: the handler of before, a new reference, is put back, and nothing of Python runs in between.
    unsafe {
        let before = Bound::from_owned_ptr_or_err(py, (allocator.set_handler)(allocator.handler.as_ptr()))?;
        let array = Bound::from_owned_ptr_or_err(py, make());
        Bound::from_owned_ptr_or_err(py, (allocator.set_handler)(before.as_ptr()))?;
        array
    }
}
