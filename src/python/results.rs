//! Results as NumPy has them.
//!
//! Numbers of the crate are f64. Those of float32 arrays are rounded here, to nearest whatever the environment of the
//! calling thread, and without a warning of NumPy: beyond the range of float32 they are ±∞.

use std::ptr;

use numpy::npyffi::{NpyTypes, PY_ARRAY_API, PyArrayObject, get_type_object};
use numpy::{Element, PyArrayDescr, PyArrayDescrMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::Dtype;
use crate::threads::float_environment;

/// One number, as a scalar of float64 or of float32.
pub(super) fn scalar_of(py: Python<'_>, dtype: Dtype, number: f64) -> PyResult<Bound<'_, PyAny>> {
    match dtype {
        Dtype::F64 => scalar(py, number),
        _ => scalar(py, nearest(number)),
    }
}

/// A new array of float64 or of float32 in C order.
pub(super) fn array_of<'py>(
    py: Python<'py>,
    dtype: Dtype,
    shape: &[usize],
    numbers: &[f64],
) -> PyResult<Bound<'py, PyAny>> {
    match dtype {
        Dtype::F64 => array(py, shape, numbers, |number| number),
        _ => float_environment::standard(|_| array(py, shape, numbers, |number| number as f32)),
    }
}

fn nearest(number: f64) -> f32 {
    float_environment::standard(|_| number as f32)
}

fn scalar<T: Element + Copy>(py: Python<'_>, number: T) -> PyResult<Bound<'_, PyAny>> {
    let descr = T::get_dtype(py);
    // SAFETY: NumPy copies one element of this dtype from where `number` is; the scalar is a new reference, or null
    // where an exception is set.
    unsafe {
        let data = (&raw const number).cast_mut().cast();
        Bound::from_owned_ptr_or_err(py, PY_ARRAY_API.PyArray_Scalar(py, data, descr.as_dtype_ptr(), ptr::null_mut()))
    }
}

/// A new array with `convert` of every number. Unlike the crate's constructors, which panic, it raises `MemoryError`.
fn array<'py, T: Element>(
    py: Python<'py>,
    shape: &[usize],
    numbers: &[f64],
    convert: impl Fn(f64) -> T,
) -> PyResult<Bound<'py, PyAny>> {
    if shape.iter().product::<usize>() != numbers.len() {
        return Err(PyValueError::new_err(format!("{} numbers are not an array of shape {shape:?}", numbers.len())));
    }
    let array = new_array(py, shape, T::get_dtype(py))?;
    let elements: *mut T = data(&array).cast();
    for (index, &number) in numbers.iter().enumerate() {
        // SAFETY: the array has an element for each number, in C order, aligned, and is known to nobody else.
        unsafe { elements.add(index).write(convert(number)) };
    }
    Ok(array)
}

/// A new array of float64 or of float32 in C order, of any numbers.
pub(super) fn empty<'py>(py: Python<'py>, dtype: Dtype, shape: &[usize]) -> PyResult<Bound<'py, PyAny>> {
    match dtype {
        Dtype::F64 => new_array(py, shape, f64::get_dtype(py)),
        _ => new_array(py, shape, f32::get_dtype(py)),
    }
}

/// Where the elements of an array are.
pub(super) fn data(array: &Bound<'_, PyAny>) -> *mut u8 {
    // SAFETY: what is asked is an array of this module, and alive.
    unsafe { (*array.as_ptr().cast::<PyArrayObject>()).fields.data.cast() }
}

fn new_array<'py>(py: Python<'py>, shape: &[usize], dtype: Bound<'py, PyArrayDescr>) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: NumPy reads as many lengths as it is told, and takes the reference to the descriptor. The array is a new
    // reference, or null where an exception is set.
    unsafe {
        let array = PY_ARRAY_API.PyArray_NewFromDescr(
            py,
            get_type_object(py, NpyTypes::PyArray_Type),
            dtype.into_dtype_ptr(),
            shape.len() as i32,
            shape.as_ptr().cast_mut().cast(),
            ptr::null_mut(),
            ptr::null_mut(),
            0,
            ptr::null_mut(),
        );
        Bound::from_owned_ptr_or_err(py, array)
    }
}
