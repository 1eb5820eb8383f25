//! NumPy arrays as rows.

use numpy::{PyArray1, PyArrayDescrMethods, PyArrayMethods, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::{PyIndexError, PyKeyboardInterrupt, PyTypeError, PyValueError};
use pyo3::prelude::*;

use crate::{Dtype, Error, Reduced, Reduction, RowOptions, Rows, RowsMut, Space};

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

impl<'a> FromPyObject<'a, '_> for Dtype {
    type Error = PyErr;

    fn extract(name: Borrowed<'a, '_, PyAny>) -> PyResult<Self> {
        let name: &str = name.extract()?;
        Dtype::from_name(name).ok_or_else(|| PyTypeError::new_err(format!("unknown dtype {name}")))
    }
}

impl<'a> FromPyObject<'a, '_> for Space {
    type Error = PyErr;

    fn extract(name: Borrowed<'a, '_, PyAny>) -> PyResult<Self> {
        Ok(Space::from_name(name.extract()?)?)
    }
}

impl<'a> FromPyObject<'a, '_> for Reduction {
    type Error = PyErr;

    fn extract(name: Borrowed<'a, '_, PyAny>) -> PyResult<Self> {
        Ok(Reduction::from_name(name.extract()?)?)
    }
}

/// An array and its dtype.
#[derive(FromPyObject)]
pub(super) struct Array<'py>(Bound<'py, PyUntypedArray>, Dtype);

struct Layout<'a> {
    data: *mut u8,
    dtype: Dtype,
    classes: usize,
    shape: &'a [usize],
    strides: &'a [isize],
}

impl Array<'_> {
    /// The shape without the class axis.
    fn batch_shape(&self) -> &[usize] {
        self.0.shape().split_last().map_or(&[], |(_, shape)| shape)
    }

    fn layout(&self) -> PyResult<Layout<'_>> {
        let &Array(ref array, dtype) = self;
        let (Some((&classes, shape)), Some((&stride, strides))) =
            (array.shape().split_last(), array.strides().split_last())
        else {
            return Err(PyValueError::new_err("an array of rows has at least one axis"));
        };
        let size = dtype.size();
        // Strides of an array without elements mean nothing.
        if array.dtype().itemsize() != size || (classes > 1 && !array.is_empty() && stride != size as isize) {
            let name = dtype.name();
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

/// Mask, weights, reduction, denominator, upstream gradient, dtype of the values.
#[derive(FromPyObject)]
pub(super) struct Options<'py>(
    Option<Numbers<'py, bool>>,
    Option<Numbers<'py, f64>>,
    Reduction,
    Option<f64>,
    Option<Numbers<'py, f64>>,
    Dtype,
);

impl Options<'_> {
    /// The options of a batch that `array` is an argument of.
    pub(super) fn parse(&self, array: &Array<'_>) -> PyResult<RowOptions<'_>> {
        Ok(RowOptions {
            keep: slice(self.0.as_ref())?,
            weights: slice(self.1.as_ref())?,
            reduction: self.2,
            denominator: self.3,
            batch: array.batch_shape().first().copied().unwrap_or(1),
            grad_output: slice(self.4.as_ref())?,
        })
    }

    /// The result: one number as a float, one for each row as an array over the batch.
    pub(super) fn wrap<'py>(
        &self,
        py: Python<'py>,
        array: &Array<'_>,
        reduced: &Reduced,
    ) -> PyResult<Bound<'py, PyAny>> {
        let shape = array.batch_shape();
        match (reduced.result, &reduced.rows[..]) {
            (Some(number), _) => number.into_bound_py_any(py),
            (None, &[number]) if shape.is_empty() => number.into_bound_py_any(py),
            (None, rows) if self.5 == Dtype::F64 => over(py, shape, rows),
            (None, rows) => {
                let narrow: Vec<f32> = rows.iter().map(|&value| value as f32).collect();
                if rows.iter().zip(&narrow).any(|(wide, narrow)| wide.is_finite() && narrow.is_infinite()) {
                    // NumPy's cast warns, as its user has set it.
                    return over(py, shape, rows)?.call_method1("astype", (self.5.name(),));
                }
                over(py, shape, &narrow)
            }
        }
    }
}

/// A new array of the numbers.
fn over<'py, T: numpy::Element + Copy>(py: Python<'py>, shape: &[usize], numbers: &[T]) -> PyResult<Bound<'py, PyAny>> {
    let array = PyArray1::from_slice(py, numbers);
    Ok(if shape.len() == 1 { array.into_any() } else { array.reshape(shape)?.into_any() })
}

/// One number a row or a class. Unlike the crate's readonly arrays it is not entered in a table of borrows, which takes
/// 0.1 µs.
#[derive(FromPyObject)]
#[pyo3(transparent)]
pub(super) struct Numbers<'py, T: numpy::Element>(Bound<'py, PyArray1<T>>);

impl<T: numpy::Element> Numbers<'_, T> {
    pub(super) fn slice(&self) -> PyResult<&[T]> {
        // SAFETY: the array is alive as long as `self`, and as everywhere in NumPy, nobody may write to it meanwhile.
        Ok(unsafe { self.0.as_slice() }?)
    }
}

/// The elements of an optional contiguous array.
pub(super) fn slice<'a, T: numpy::Element>(numbers: Option<&'a Numbers<'_, T>>) -> PyResult<Option<&'a [T]>> {
    numbers.map(Numbers::slice).transpose()
}
