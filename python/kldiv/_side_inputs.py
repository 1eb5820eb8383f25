"""What comes beside the rows of a call: masks, weights, labels, upstream gradients.

They are small, one number a row or a class, and may be held in any way: strided, unaligned, in
the other byte order, of any dtype that means the same. The extension takes them in one dimension,
contiguous and aligned, as bool, float64 or int64; only what is not so already is copied.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kldiv._arrays import Array, Rows, as_array, as_integer

_BOOL, _FLOAT64, _INT64 = np.dtype(np.bool_), np.dtype(np.float64), np.dtype(np.int64)
_SMALLEST, _LARGEST = -(2**63), 2**63 - 1  # of int64


def as_mask(name: str, value: Any, rows: Rows) -> Array | None:
    """Booleans, or integers 0 and 1, broadcast over the batch; a new array."""
    if value is None:
        return None
    array = as_array(name, value)
    if array.dtype.kind == "b":
        # Makes True of every byte but 0: a view of other bytes is a mask too, and only bytes 0
        # and 1 are booleans to the extension.
        mask: Array = np.logical_or(array, array)
    elif array.dtype.kind in "iu":
        mask = array != 0
        other = mask & (array != 1)
        if other.any():
            index = np.unravel_index(int(other.argmax()), other.shape)
            raise ValueError(
                f"{name} is a mask of booleans, or of integers 0 and 1, but holds "
                f"{array[index]} at index {_shown(index)}"
            )
    else:
        raise TypeError(f"{name} has dtype {array.dtype}; expected bool, or integers 0 and 1")
    return _flat(_over_batch(name, mask, rows))


def as_weights(name: str, value: Any, rows: Rows) -> Array | None:
    """Real numbers broadcast over the batch, as float64."""
    if value is None:
        return None
    return _flat(_over_batch(name, as_real(name, value), rows))


def as_class_weights(name: str, value: Any, rows: Rows) -> Array | None:
    """One real number for each class, as float64."""
    if value is None:
        return None
    array = as_real(name, value)
    if array.shape != rows.memory.shape[-1:]:
        raise ValueError(
            f"{name} has shape {array.shape} but {rows.name} has shape {rows.shape}, "
            f"class axis {rows.axis}"
        )
    return _flat(array)


def as_real(name: str, value: Any) -> Array:
    """Real numbers of any dtype as float64; booleans are 0 and 1."""
    array = as_array(name, value)
    dtype = array.dtype
    if dtype is _FLOAT64:
        return array
    if dtype.kind == "b":
        array = np.logical_or(array, array)
    elif dtype.kind == "O":
        array = _of_integers(name, array, "real numbers")
        bounded = [_float_of(number) for number in array.flat]
        return np.array(bounded, _FLOAT64).reshape(array.shape)
    elif dtype.kind not in "iuf" and dtype.name != "bfloat16":
        raise TypeError(f"{name} has dtype {dtype}; expected real numbers")
    with np.errstate(all="ignore"):
        converted: Array = array.astype(_FLOAT64, copy=False)
    return converted


def as_labels(
    name: str, value: Any, rows: Rows, ignore_index: int | None = None
) -> tuple[Array, int | None, Array | None]:
    """Class indices of any integer dtype, of exactly the batch shape, as int64 in one dimension.

    With them the index to ignore, as int64 too: `None` where no label can be that number; and the
    labels as given if one is beyond int64, for `check_beyond`.
    """
    array = value if type(value) is np.ndarray else as_array(name, value)
    dtype = array.dtype
    if dtype is not _INT64 and dtype.kind not in "iu":
        array = _of_integers(name, array, "integers")
    if array.shape != rows.batch_shape:
        raise ValueError(
            f"{name} has shape {array.shape} but {rows.name} has shape {rows.shape}, "
            f"whose batch shape is {rows.batch_shape}"
        )
    beyond = None
    if dtype is not _INT64:
        if dtype.kind == "O" or (dtype.kind == "u" and dtype.itemsize == 8):
            if ((array < _SMALLEST) | (array > _LARGEST)).any():
                beyond = array.reshape(-1)
            array, ignore_index = _within_int64(array, ignore_index)
        array = array.astype(_INT64, copy=False)
    if ignore_index is not None and not _SMALLEST <= ignore_index <= _LARGEST:
        ignore_index = None
    return _flat(array), ignore_index, beyond


def check_beyond(
    labels: Array | None, rows: Rows, ignore_index: int | None, kept: Array | None
) -> None:
    """Raise the extension's `IndexError` for labels of which one is beyond int64.

    To the extension it is some other label out of range, and would be named as that.
    """
    if labels is None:
        return
    classes = rows.memory.shape[-1]
    bad = (labels < 0) | (labels >= classes)
    if ignore_index is not None:
        bad &= labels != ignore_index
    if kept is not None:
        bad &= kept
    if bad.any():
        row = int(bad.argmax())
        ignored = "" if ignore_index is None else f" (ignore_index is {ignore_index})"
        raise IndexError(
            f"label {labels[row]} in row {row} is out of range for {classes} classes{ignored}; "
            f"pass ignore_index={labels[row]} or mask the row with where"
        )


def check_distributions(targets: Array, rows: Rows) -> None:
    """Raise for targets that are no distributions, and may be meant as class indices."""
    if targets.dtype.kind == "b":
        raise TypeError(
            "targets has dtype bool; class indices are integers, and distributions floating"
        )
    if targets.shape == rows.batch_shape:
        raise ValueError(
            f"targets has dtype {targets.dtype} and the batch shape {targets.shape} of "
            f"{rows.name}: class indices are integers, and distributions have the shape "
            f"{rows.shape} of {rows.name}"
        )


def as_class_index(name: str, value: Any) -> int | None:
    """An integer, or an array of one; it may be one that no label can have."""
    return value if value is None or type(value) is int else as_integer(name, value)


def _within_int64(array: Array, ignore_index: int | None) -> tuple[Array, int | None]:
    """Labels beyond int64 as others that are out of range, or ignored, like them."""
    # No batch has 2⁶³ − 2 classes.
    beyond = _LARGEST - 1 if ignore_index == _LARGEST else _LARGEST
    above, below = array > _LARGEST, array < _SMALLEST
    bounded: Array = np.where(above | below, 0, array).astype(_INT64)
    bounded[above], bounded[below] = beyond, _SMALLEST
    if ignore_index is not None and not _SMALLEST <= ignore_index <= _LARGEST:
        bounded[array == ignore_index] = _SMALLEST
        ignore_index = _SMALLEST
    return bounded, ignore_index


def _of_integers(name: str, array: Array, expected: str) -> Array:
    """`array`, if it holds Python integers: NumPy makes objects of those beyond its dtypes."""
    if array.dtype.kind != "O" or not all(type(number) is int for number in array.flat):
        raise TypeError(f"{name} has dtype {array.dtype}; expected {expected}")
    return array


def _float_of(number: int) -> float:
    try:
        return float(number)
    except OverflowError:
        return np.inf if number > 0 else -np.inf


def _over_batch(name: str, array: Array, rows: Rows) -> Array:
    if array.shape == rows.batch_shape:
        return array
    try:
        return np.broadcast_to(array, rows.batch_shape)
    except ValueError:
        # What has no class axis has its batch shape for a shape.
        beside = f" (shape {rows.shape}, class axis {rows.axis})"
        raise ValueError(
            f"{name} has shape {array.shape}, which does not broadcast to the batch shape "
            f"{rows.batch_shape} of {rows.name}{beside if rows.shape != rows.batch_shape else ''}"
        ) from None


def _flat(array: Array) -> Array:
    flags = array.flags
    if not (flags.c_contiguous and flags.aligned):
        array = array.copy()
    return array if array.ndim == 1 else array.reshape(-1)


def _shown(index: tuple[Any, ...]) -> str:
    position = tuple(map(int, index))
    return str(position[0] if len(position) == 1 else position)
