//! NumPy arrays as rows.

use numpy::{AsSliceError, PyArray1, PyArrayDescrMethods, PyArrayMethods, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::exceptions::{PyIndexError, PyKeyboardInterrupt, PyMemoryError, PyTypeError, PyValueError};
use pyo3::prelude::*;

use super::results::{array_of, scalar_of};
use crate::{Dtype, Error, Reduced, Reduction, RowOptions, Rows, RowsMut, Space, memory};

impl From<Error> for PyErr {
    fn from(error: Error) -> PyErr {
        let message = error.to_string();
        match error {
            Error::Label { .. } => PyIndexError::new_err(message),
            Error::Interrupted => PyKeyboardInterrupt::new_err(message),
            Error::Memory { .. } => PyMemoryError::new_err(message),
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

/// An array and the name of its dtype.
#[derive(FromPyObject)]
pub(super) struct Operand<'py> {
    memory: Bound<'py, PyUntypedArray>,
    dtype_name: Dtype,
}

struct Layout<'a> {
    data: *mut u8,
    dtype: Dtype,
    classes: usize,
    shape: &'a [usize],
    strides: &'a [isize],
}

impl Operand<'_> {
    /// The dtype of its elements.
    pub(super) fn dtype(&self) -> Dtype {
        self.dtype_name
    }

    /// The shape without the class axis.
    fn batch_shape(&self) -> &[usize] {
        self.memory.shape().split_last().map_or(&[], |(_, shape)| shape)
    }

    fn layout(&self) -> PyResult<Layout<'_>> {
        let &Operand { memory: ref array, dtype_name: dtype } = self;
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
        // thread may write to it meanwhile, or change shape or size of the array; outputs over the same memory are the
        // Python package's to check.
        Ok(unsafe { Rows::from_raw_parts(data, dtype, classes, shape, strides) })
    }

    /// The rows, to write.
    pub(super) fn rows_mut(&self) -> PyResult<RowsMut<'_>> {
        let Layout { data, dtype, classes, shape, strides } = self.layout()?;
        // SAFETY: as above, and the Python package has checked that the array is writeable.
        Ok(unsafe { RowsMut::from_raw_parts(data, dtype, classes, shape, strides, "out") }?)
    }
}

/// What is done with the values of rows, and their dtype.
#[derive(FromPyObject)]
pub(super) struct Reducer<'py> {
    r#where: Option<Mask<'py>>,
    weights: Option<Numbers<'py, f64>>,
    reduction: Reduction,
    denominator: Option<f64>,
    dtype_name: Dtype,
}

impl Reducer<'_> {
    /// The dtype of the values.
    pub(super) fn dtype(&self) -> Dtype {
        self.dtype_name
    }

    /// The marks of the mask.
    pub(super) fn keep(&self) -> PyResult<Option<Vec<bool>>> {
        marks(self.r#where.as_ref())
    }

    /// The options of a batch that `rows` is an argument of, with the marks of their mask.
    pub(super) fn options<'a>(
        &'a self,
        rows: &Operand<'_>,
        keep: Option<&'a [bool]>,
        grad_output: Option<&'a Numbers<'_, f64>>,
    ) -> PyResult<RowOptions<'a>> {
        Ok(RowOptions {
            keep,
            weights: slice(self.weights.as_ref())?,
            reduction: self.reduction,
            denominator: self.denominator,
            batch: rows.batch_shape().first().copied().unwrap_or(1),
            grad_output: slice(grad_output)?,
        })
    }

    /// The result, in the dtype of the values.
    pub(super) fn wrap<'py>(
        &self,
        py: Python<'py>,
        rows: &Operand<'_>,
        reduced: &Reduced,
    ) -> PyResult<Bound<'py, PyAny>> {
        wrap(py, self.dtype_name, rows.batch_shape(), reduced)
    }
}

/// A result in a dtype: one number as a scalar, one for each row as an array over the batch.
pub(super) fn wrap<'py>(
    py: Python<'py>,
    dtype: Dtype,
    batch_shape: &[usize],
    reduced: &Reduced,
) -> PyResult<Bound<'py, PyAny>> {
    match (reduced.result, &reduced.rows[..]) {
        (Some(number), _) => scalar_of(py, dtype, number),
        (None, &[number]) if batch_shape.is_empty() => scalar_of(py, dtype, number),
        (None, rows) => array_of(py, dtype, batch_shape, rows),
    }
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

/// Memory for numbers.
#[derive(FromPyObject)]
#[pyo3(transparent)]
pub(super) struct NumbersMut<'py, T: numpy::Element>(Bound<'py, PyArray1<T>>);

impl<T: numpy::Element> NumbersMut<'_, T> {
    #[expect(clippy::mut_from_ref, reason = "the memory is NumPy's")]
    pub(super) fn slice(&self) -> PyResult<&mut [T]> {
        // SAFETY: the array is alive as long as `self`. The Python package has checked that it is writeable, and hands in
        // memory that no other argument has.
        Ok(unsafe { self.0.as_slice_mut() }?)
    }
}

/// The elements of an optional contiguous array.
pub(super) fn slice<'a, T: numpy::Element>(numbers: Option<&'a Numbers<'_, T>>) -> PyResult<Option<&'a [T]>> {
    numbers.map(Numbers::slice).transpose()
}

/// One mark a row. To NumPy any byte but 0 is True, and views of other memory have such bytes; a `bool` is 0 or 1.
#[derive(FromPyObject)]
#[pyo3(transparent)]
pub(super) struct Mask<'py>(Bound<'py, PyArray1<bool>>);

impl Mask<'_> {
    fn marks(&self) -> PyResult<Vec<bool>> {
        let array = &self.0;
        if !array.is_contiguous() {
            return Err(AsSliceError.into());
        }
        let data: *const u8 = array.data().cast();
        // SAFETY: the array is alive as long as `self`, and has as many bytes one after the other as elements. With the
        // GIL, nobody writes to them meanwhile.
        let byte = |row: usize| unsafe { data.add(row).read() };
        Ok(memory::collected((0..array.len()).map(|row| byte(row) != 0))?)
    }
}

/// The marks of an optional mask.
pub(super) fn marks(mask: Option<&Mask<'_>>) -> PyResult<Option<Vec<bool>>> {
    mask.map(Mask::marks).transpose()
}
