//! NumPy arrays as rows.

use numpy::{PyArrayDescrMethods, PyReadonlyArray1, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::exceptions::{PyIndexError, PyKeyboardInterrupt, PyTypeError, PyValueError};
use pyo3::prelude::*;

use crate::{Dtype, Error, Reduction, RowOptions, Rows, RowsMut};

impl From<Error> for PyErr {
    fn from(error: Error) -> PyErr {
        let message = error.to_string();
        match error {
            Error::Label { .. } => PyIndexError::new_err(message),
            Error::Interrupted => PyKeyboardInterrupt::new_err(message),
            _ => PyValueError::new_err(message),
        }
    }
}

/// An array and the name of its dtype.
#[derive(FromPyObject)]
pub(super) struct Array<'py>(Bound<'py, PyUntypedArray>, String);

struct Layout<'a> {
    data: *mut u8,
    dtype: Dtype,
    classes: usize,
    shape: &'a [usize],
    strides: &'a [isize],
}

impl Array<'_> {
    fn layout(&self) -> PyResult<Layout<'_>> {
        let Array(array, name) = self;
        let dtype = Dtype::from_name(name).ok_or_else(|| PyTypeError::new_err(format!("unknown dtype {name}")))?;
        let (Some((&classes, shape)), Some((&stride, strides))) =
            (array.shape().split_last(), array.strides().split_last())
        else {
            return Err(PyValueError::new_err("an array of rows has at least one axis"));
        };
        let size = dtype.size();
        // Strides of an array without elements mean nothing.
        if array.dtype().itemsize() != size || (classes > 1 && !array.is_empty() && stride != size as isize) {
            return Err(PyValueError::new_err(format!("an array of rows of {name} has unit stride on its last axis")));
        }
        // SAFETY: the array is alive as long as `self`.
        let data = unsafe { (*array.as_array_ptr()).fields.data }.cast();
        Ok(Layout { data, dtype, classes, shape, strides })
    }

    /// The rows, to read.
    pub(super) fn rows(&self) -> PyResult<Rows<'_>> {
        let Layout { data, dtype, classes, shape, strides } = self.layout()?;
        // SAFETY: shape and strides describe memory that the array keeps alive. As everywhere in NumPy, no other
        // thread may write to it meanwhile; outputs over the same memory are the Python package's to check.
        Ok(unsafe { Rows::from_raw_parts(data, dtype, classes, shape, strides) })
    }

    /// The rows, to write.
    pub(super) fn rows_mut(&self) -> PyResult<RowsMut<'_>> {
        let Layout { data, dtype, classes, shape, strides } = self.layout()?;
        // SAFETY: as above, and the Python package has checked that the array is writeable.
        Ok(unsafe { RowsMut::from_raw_parts(data, dtype, classes, shape, strides, "out") }?)
    }
}

/// Mask, weights, reduction, denominator, length of the first batch axis, upstream gradient.
#[derive(FromPyObject)]
pub(super) struct Options<'py>(
    Option<PyReadonlyArray1<'py, bool>>,
    Option<PyReadonlyArray1<'py, f64>>,
    String,
    Option<f64>,
    usize,
    Option<PyReadonlyArray1<'py, f64>>,
);

impl Options<'_> {
    pub(super) fn parse(&self) -> PyResult<RowOptions<'_>> {
        Ok(RowOptions {
            keep: slice(self.0.as_ref())?,
            weights: slice(self.1.as_ref())?,
            reduction: Reduction::from_name(&self.2)?,
            denominator: self.3,
            batch: self.4,
            grad_output: slice(self.5.as_ref())?,
        })
    }
}

/// The elements of an optional contiguous array.
pub(super) fn slice<'a, T: numpy::Element>(array: Option<&'a PyReadonlyArray1<'_, T>>) -> PyResult<Option<&'a [T]>> {
    Ok(array.map(PyReadonlyArray1::as_slice).transpose()?)
}
