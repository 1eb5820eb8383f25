//! Rows of arrays of the crate `ndarray`: its last axis is that of the classes, and no element is copied.

use ::ndarray::{ArrayBase, ArrayD, ArrayView, ArrayViewMut, Data, DataMut, Dimension, IxDyn};
use smallvec::SmallVec;

use super::{Rows, RowsMut};
use crate::element::Element;
use crate::error::Error;

const ARGUMENT: &str = "the array";

impl<'a, E: Element, D: Dimension> TryFrom<ArrayView<'a, E, D>> for Rows<'a> {
    type Error = Error;

    /// The last axis is that of the classes; the others may have any strides, of slices and reversed and broadcast arrays too.
    ///
    /// # Errors
    /// [`Error::ClassStride`] for classes that do not lie one after the other, [`Error::NoClasses`].
    fn try_from(array: ArrayView<'a, E, D>) -> Result<Self, Error> {
        let (classes, strides) = batch_strides::<E>(array.shape(), array.strides())?;
        let batch_shape = &array.shape()[..strides.len()];
        // SAFETY: the elements at these strides are those of the array, which is borrowed for `'a`.
        Ok(unsafe { Rows::from_raw_parts(array.as_ptr().cast(), E::DTYPE, classes, batch_shape, &strides) })
    }
}

impl<'a, S: Data<Elem: Element>, D: Dimension> TryFrom<&'a ArrayBase<S, D>> for Rows<'a> {
    type Error = Error;

    /// As of its view.
    fn try_from(array: &'a ArrayBase<S, D>) -> Result<Self, Error> {
        Rows::try_from(array.view())
    }
}

impl<'a, E: Element, D: Dimension> TryFrom<ArrayViewMut<'a, E, D>> for RowsMut<'a> {
    type Error = Error;

    /// The last axis is that of the classes; the others may have any strides, of slices and reversed arrays too.
    ///
    /// # Errors
    /// [`Error::ClassStride`] for classes that do not lie one after the other, [`Error::NoClasses`].
    fn try_from(mut array: ArrayViewMut<'a, E, D>) -> Result<Self, Error> {
        let (classes, strides) = batch_strides::<E>(array.shape(), array.strides())?;
        let data = array.as_mut_ptr().cast();
        let batch_shape = &array.shape()[..strides.len()];
        // SAFETY: the elements at these strides are those of the array, which is borrowed for `'a` by nobody else. It has each
        // of them once: what can be written is never broadcast.
        unsafe { RowsMut::from_raw_parts(data, E::DTYPE, classes, batch_shape, &strides, ARGUMENT) }
    }
}

impl<'a, S: DataMut<Elem: Element>, D: Dimension> TryFrom<&'a mut ArrayBase<S, D>> for RowsMut<'a> {
    type Error = Error;

    /// As of its view.
    fn try_from(array: &'a mut ArrayBase<S, D>) -> Result<Self, Error> {
        RowsMut::try_from(array.view_mut())
    }
}

impl Rows<'_> {
    /// What functions give, one value a row, as an array of the shape of the batch.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] for another number of values.
    ///
    /// # Examples
    /// ```
    /// use kldiv::{Execution, RowOptions, Rows, logsumexp};
    /// use ndarray::Array3;
    ///
    /// let logits = Array3::<f32>::zeros((2, 3, 5));
    /// let rows = Rows::try_from(&logits)?;
    /// let found = logsumexp(&rows, 1.0, RowOptions::default(), None, &Execution::default())?;
    /// let sums = rows.array_of(found.rows)?;
    /// assert_eq!(sums.shape(), [2, 3]);
    /// assert!((sums[[1, 2]] - 5.0_f64.ln()).abs() < 1e-7);
    /// # Ok::<(), kldiv::Error>(())
    /// ```
    pub fn array_of<T>(&self, values: Vec<T>) -> Result<ArrayD<T>, Error> {
        let mut shape = self.shape();
        shape.pop();
        let len = values.len();
        ArrayD::from_shape_vec(IxDyn(&shape), values).map_err(|_| Error::ShapeMismatch {
            first: "values",
            first_shape: vec![len],
            second: "the batch",
            second_shape: shape,
        })
    }
}

/// Classes of a row, and the strides of the batch axes in bytes.
fn batch_strides<E: Element>(shape: &[usize], strides: &[isize]) -> Result<(usize, SmallVec<[isize; 4]>), Error> {
    let (Some(&classes), Some((&stride, batch))) = (shape.last(), strides.split_last()) else {
        return Err(Error::NoClasses { argument: ARGUMENT, shape: Vec::new() });
    };
    if classes == 0 {
        return Err(Error::NoClasses { argument: ARGUMENT, shape: shape.to_vec() });
    }
    // An axis of one element may have any stride, and so may an array without elements.
    if stride != 1 && classes > 1 && !shape.contains(&0) {
        return Err(Error::ClassStride { argument: ARGUMENT, stride });
    }
    // Of an axis of one element the stride may be too large for bytes; it is multiplied with the index 0 only.
    Ok((classes, batch.iter().map(|stride| stride.wrapping_mul(size_of::<E>() as isize)).collect()))
}
