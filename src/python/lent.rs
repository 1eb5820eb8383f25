//! The memory of an array or a tensor as it lies there, without an array being made of it.
//!
//! Tensors lend it by the interface in C of `DLPack` 1.2 and later, which `__dlpack_c_exchange_api__` of their type has.

use std::ffi::{CStr, c_int, c_void};
use std::marker::PhantomData;
use std::mem::offset_of;
use std::ptr;
use std::sync::atomic::{AtomicI32, Ordering};

use numpy::npyffi::{NPY_ARRAY_ALIGNED, NPY_TYPES, NpyTypes, PyArrayObject, get_type_object};
use numpy::{PyArrayDescr, PyArrayDescrMethods, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyCapsule, PyCapsuleMethods, PyType};
use smallvec::SmallVec;

use crate::{Dtype, Rows};

/// Elements one after the other in the order of the axes, aligned, native, on the CPU; at least one.
pub(super) struct Lent<'a> {
    data: *const u8,
    stored: Stored,
    shape: SmallVec<[usize; 4]>,
    lifetime: PhantomData<&'a [u8]>,
}

/// What memory is taken of.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Lender {
    /// Arrays and tensors.
    Any,
    /// Tensors only.
    Tensor,
}

#[derive(Clone, Copy, PartialEq)]
enum Stored {
    Rows(Dtype),
    Labels,
}

impl<'a> Lent<'a> {
    /// The memory of an array or tensor; `None` of anything else, and of one that has to be converted or refused.
    ///
    /// As everywhere in NumPy, nobody may change it meanwhile: of tensors nobody can, where the GIL is kept.
    pub(super) fn of(value: &'a Bound<'_, PyAny>, from: Lender) -> Option<Self> {
        // SAFETY: NumPy is loaded, and gives its type.
        let array = unsafe { get_type_object(value.py(), NpyTypes::PyArray_Type) };
        if value.get_type_ptr() != array {
            return Tensors::of(value)?.lend(value);
        }
        // SAFETY: the type is that of arrays itself.
        let array = unsafe { value.cast_unchecked::<PyUntypedArray>() };
        if from == Lender::Tensor { None } else { Self::of_array(array) }
    }

    fn of_array(array: &'a Bound<'_, PyUntypedArray>) -> Option<Self> {
        let object: *const PyArrayObject = array.as_array_ptr();
        // SAFETY: the array is alive.
        let (data, flags) = unsafe { ((*object).fields.data, (*object).fields.flags) };
        if array.is_empty() || !array.is_c_contiguous() || flags & NPY_ARRAY_ALIGNED == 0 {
            return None;
        }
        let stored = stored_in_array(&array.dtype())?;
        Some(Lent { data: data.cast(), stored, shape: array.shape().into(), lifetime: PhantomData })
    }

    /// The shape.
    pub(super) fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The rows, the last axis their classes.
    pub(super) fn rows(&self) -> Option<Rows<'a>> {
        let (&classes, batch_shape) = self.shape.split_last()?;
        let Stored::Rows(dtype) = self.stored else { return None };
        let count = batch_shape.iter().product();
        // SAFETY: as many rows lie one after the other in memory that is alive for 'a, and that nobody changes.
        Some(unsafe { Rows::from_raw_parts(self.data, dtype, classes, &[count], &[(classes * dtype.size()) as isize]) })
    }

    /// The labels.
    pub(super) fn labels(&self) -> Option<&'a [i64]> {
        // SAFETY: as many elements of this type lie one after the other, aligned, in memory as above.
        (self.stored == Stored::Labels)
            .then(|| unsafe { std::slice::from_raw_parts(self.data.cast(), self.shape.iter().product()) })
    }
}

fn stored_in_array(dtype: &Bound<'_, PyArrayDescr>) -> Option<Stored> {
    /// The number that NumPy gave the dtype of another package, once it was met.
    static BFLOAT16: AtomicI32 = AtomicI32::new(-1);

    const DOUBLE: i32 = NPY_TYPES::NPY_DOUBLE as i32;
    const FLOAT: i32 = NPY_TYPES::NPY_FLOAT as i32;
    const HALF: i32 = NPY_TYPES::NPY_HALF as i32;
    if dtype.is_native_byteorder() == Some(false) {
        return None;
    }
    let number = dtype.num();
    match number {
        DOUBLE => Some(Stored::Rows(Dtype::F64)),
        FLOAT => Some(Stored::Rows(Dtype::F32)),
        HALF => Some(Stored::Rows(Dtype::F16)),
        _ if dtype.kind() == b'i' && dtype.itemsize() == 8 => Some(Stored::Labels),
        _ if number >= NPY_TYPES::NPY_USERDEF as i32 => {
            if number != BFLOAT16.load(Ordering::Relaxed) {
                let name = dtype.getattr(intern!(dtype.py(), "name")).ok()?;
                if name.extract::<&str>().ok()? != Dtype::Bf16.name() {
                    return None;
                }
                BFLOAT16.store(number, Ordering::Relaxed);
            }
            Some(Stored::Rows(Dtype::Bf16))
        }
        _ => None,
    }
}

/// `DLTensor` of the header `dlpack.h`.
#[repr(C)]
struct DlTensor {
    data: *mut c_void,
    device_type: i32,
    device_id: i32,
    axes: i32,
    code: u8,
    bits: u8,
    lanes: u16,
    shape: *const i64,
    strides: *const i64,
    byte_offset: u64,
}

/// `DLPackExchangeAPI` of that header.
#[repr(C)]
struct ExchangeApi {
    major: u32,
    minor: u32,
    previous: *const c_void,
    allocate: *const c_void,
    take: *const c_void,
    give: *const c_void,
    lend: Option<unsafe extern "C" fn(*mut c_void, *mut DlTensor) -> c_int>,
    stream: *const c_void,
}

// What a C compiler makes of the header, where pointers have eight bytes.
#[cfg(target_pointer_width = "64")]
const _: () = {
    assert!(size_of::<DlTensor>() == 48);
    assert!(offset_of!(DlTensor, strides) == 32);
    assert!(offset_of!(ExchangeApi, lend) == 40);
};

const MAJOR: u32 = 1;
const NAME: &CStr = c"dlpack_exchange_api";
const ON_CPU: i32 = 1;
const INTEGER: u8 = 0;
const FLOATING: u8 = 2;
const BRAIN_FLOATING: u8 = 4;

/// torch's type of tensors, and what lends their memory.
struct Tensors {
    tensor: Py<PyType>,
    lend: unsafe extern "C" fn(*mut c_void, *mut DlTensor) -> c_int,
}

impl Tensors {
    /// What lends the memory of `value`, if it is a tensor of torch and not of a type made of it.
    fn of(value: &Bound<'_, PyAny>) -> Option<&'static Tensors> {
        static TENSORS: PyOnceLock<Option<Tensors>> = PyOnceLock::new();

        let py = value.py();
        let tensors = if let Some(found) = TENSORS.get(py) {
            found.as_ref()
        } else {
            let of_value = value.get_type();
            if of_value.name().ok()? != "Tensor" || of_value.module().ok()? != "torch" {
                return None;
            }
            TENSORS.get_or_init(py, || Tensors::new(of_value)).as_ref()
        };
        tensors.filter(|tensors| value.get_type_ptr().cast() == tensors.tensor.as_ptr())
    }

    /// `None` for a torch that has no such interface.
    fn new(tensor: Bound<'_, PyType>) -> Option<Self> {
        let capsule = tensor.getattr("__dlpack_c_exchange_api__").ok()?.cast_into::<PyCapsule>().ok()?;
        let api: *const ExchangeApi = capsule.pointer_checked(Some(NAME)).ok()?.as_ptr().cast();
        // SAFETY: the capsule has this name, whose structure begins like this in all versions, and what it points to
        // lives as long as the process.
        let lend = unsafe { if (*api).major == MAJOR { (*api).lend } else { None } }?;
        Some(Tensors { tensor: tensor.unbind(), lend })
    }

    fn lend<'a>(&self, value: &'a Bound<'_, PyAny>) -> Option<Lent<'a>> {
        let py = value.py();
        let is = |answer: PyResult<Bound<'_, PyAny>>| answer.is_ok_and(|answer| answer.is_truthy().unwrap_or(true));
        // One with a history is refused, and the memory of one with a sign to be changed is of other numbers.
        if is(value.getattr(intern!(py, "requires_grad"))) || is(value.call_method0(intern!(py, "is_neg"))) {
            return None;
        }
        let mut tensor = DlTensor {
            data: ptr::null_mut(),
            device_type: 0,
            device_id: 0,
            axes: 0,
            code: 0,
            bits: 0,
            lanes: 0,
            shape: ptr::null(),
            strides: ptr::null(),
            byte_offset: 0,
        };
        // SAFETY: `value` is of the type whose function this is, and `tensor` is there to be filled.
        if unsafe { (self.lend)(value.as_ptr().cast(), &raw mut tensor) } != 0 {
            drop(PyErr::take(py));
            return None;
        }
        let stored = match (tensor.code, tensor.bits, tensor.lanes) {
            (FLOATING, 64, 1) => Stored::Rows(Dtype::F64),
            (FLOATING, 32, 1) => Stored::Rows(Dtype::F32),
            (FLOATING, 16, 1) => Stored::Rows(Dtype::F16),
            (BRAIN_FLOATING, 16, 1) => Stored::Rows(Dtype::Bf16),
            (INTEGER, 64, 1) => Stored::Labels,
            _ => return None,
        };
        let axes = usize::try_from(tensor.axes).ok()?;
        let lengths: &[i64] = match axes {
            0 => &[],
            // SAFETY: there is a length for each axis, and they stay while control is here.
            _ => unsafe { std::slice::from_raw_parts(tensor.shape, axes) },
        };
        let shape: SmallVec<[usize; 4]> = lengths.iter().map(|&length| length as usize).collect();
        let mut step = 1;
        for (axis, &length) in lengths.iter().enumerate().rev() {
            // SAFETY: as above; without strides elements are contiguous.
            if length != 1 && !tensor.strides.is_null() && unsafe { *tensor.strides.add(axis) } != step {
                return None;
            }
            step *= length;
        }
        let data = tensor.data.cast_const().cast::<u8>().wrapping_add(tensor.byte_offset as usize);
        let aligned = data.addr().is_multiple_of(usize::from(tensor.bits / 8));
        (tensor.device_type == ON_CPU && !tensor.data.is_null() && step > 0 && aligned).then_some(Lent {
            data,
            stored,
            shape,
            lifetime: PhantomData,
        })
    }
}
