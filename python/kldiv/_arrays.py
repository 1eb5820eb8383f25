"""Array-likes to what the extension takes, and back.

The extension reads an `Operand`, by the names of its fields: the class axis last and of unit
stride, in native byte order. Nothing is copied where the strides allow it.

What most calls pass is recognised first, and conversions that would change nothing are left out:
a call for few rows that is not plain (``src/python/plain.rs``) takes some microseconds, most of
them here.
"""

from __future__ import annotations

import functools
import operator
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

_FLOATING = ("float64", "float32", "float16", "bfloat16")
_FLOAT64, _FLOAT32 = np.dtype(np.float64), np.dtype(np.float32)

# The names of the native dtypes met so far that rows can have; NumPy takes 2 µs to make one.
_names: dict[np.dtype[Any], str] = {_FLOAT64: "float64", _FLOAT32: "float32"}


@dataclass(slots=True)
class Operand:
    """Rows as the extension takes them; ``_kldiv.pyi`` says what it reads."""

    memory: Array
    dtype_name: str


@dataclass(slots=True)
class Rows(Operand):
    """An argument as rows: its array as given, and as the extension takes it."""

    name: str
    array: Array
    shape: tuple[int, ...]
    """The shape as given."""
    axis: int
    batch_shape: tuple[int, ...]
    """The shape without the class axis."""
    whole: Rows | None = None
    """The argument with the padding that these rows are without."""


def as_array(name: str, value: Any) -> Array:
    """`value` as an array, without a copy where its memory can be shared."""
    if type(value) is np.ndarray:
        return value
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        check_no_gradient(name, value)
        if value.dtype is torch.bfloat16:
            # NumPy has no bfloat16 of its own for torch to convert to.
            bits: Array = value.view(torch.uint16).numpy()
            return bits.view(bfloat16())
        # What `np.asarray` would call, in twice the time.
        array: Array = value.numpy()
        return array
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array; pass its data, and its mask as where")
    if isinstance(value, np.ndarray):
        return value.view(np.ndarray)
    if hasattr(value, "__dlpack__") and not hasattr(value, "__array__"):
        return np.from_dlpack(value)
    try:
        return np.asarray(value)
    except RuntimeError:
        # What torch raises for a tensor among the elements of a list.
        check_no_gradient(name, value)
        raise


def check_no_gradient(name: str, value: Any) -> None:
    """Raise `TypeError` for a tensor, or a list of them, whose gradient would be lost."""
    if isinstance(value, (list, tuple)):
        for element in value:
            check_no_gradient(name, element)
    elif getattr(value, "requires_grad", False):
        raise TypeError(
            f"{name} is a tensor that requires a gradient: the functions of kldiv.torch are "
            f"differentiable in p, q, logits and z; those of kldiv take {name}.detach()"
        )


@functools.cache
def bfloat16() -> np.dtype[Any]:
    """The dtype that NumPy has not."""
    try:
        import ml_dtypes
    except ModuleNotFoundError:
        raise TypeError("bfloat16 arrays need the package ml_dtypes") from None
    dtype: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return dtype


def as_rows(name: str, value: Any, axis: int) -> Rows:
    """`value` as rows along `axis`."""
    array = value if type(value) is np.ndarray else as_array(name, value)
    shape = array.shape
    if not shape:
        if array.dtype.kind in "OSU":
            raise TypeError(f"{name} must be an array of numbers, got {value!r:.80}")
        raise ValueError(f"{name} has shape (), without a class axis")
    dtype = array.dtype
    dtype_name = _names.get(dtype) or floating_name(dtype)
    if dtype_name is None:
        if dtype.kind not in "iu" or not isinstance(value, (list, tuple)):
            hint = f"; {name}.astype(np.float64) converts it" if dtype.kind in "iuf" else ""
            raise TypeError(
                f"{name} has dtype {dtype}; expected float64, float32, float16 or bfloat16{hint}"
            )
        # Python's integers are numbers like its floats.
        array = array.astype(np.float64)
        dtype, dtype_name = _FLOAT64, "float64"
    last = len(shape) - 1
    axis = last if type(axis) is int and axis == -1 else _as_axis(axis, len(shape))
    rows = array
    if axis != last or not array.flags.c_contiguous or not dtype.isnative:
        native = array if dtype.isnative else array.astype(dtype.newbyteorder("="))
        rows = classes_last(native, axis)
        if not has_unit_stride(rows):
            rows = np.ascontiguousarray(rows)
    batch_shape = shape[:-1] if axis == last else rows.shape[:-1]
    return Rows(rows, dtype_name, name, array, shape, axis, batch_shape)


def first_classes(rows: Rows, classes: Any) -> Rows:
    """Rows without the classes from `classes` on, which are padding."""
    try:
        count = operator.index(classes)
        if isinstance(classes, (bool, np.bool_)):
            raise TypeError
    except TypeError:
        raise TypeError(f"classes must be an integer, got {classes!r}") from None
    width = rows.shape[rows.axis]
    if not 1 <= count <= width:
        raise ValueError(f"classes is {count}, but {rows.name} has {width} classes")
    if count == width:
        return rows
    cut = (slice(None),) * rows.axis + (slice(count),)
    shape = (*rows.shape[: rows.axis], count, *rows.shape[rows.axis + 1 :])
    memory, array = rows.memory[..., :count], rows.array[cut]
    return Rows(memory, rows.dtype_name, rows.name, array, shape, rows.axis, rows.batch_shape, rows)


def floating_name(dtype: np.dtype[Any]) -> str | None:
    """The name of a dtype that rows can have; `None` for any other."""
    name = _names.get(dtype)
    if name is None and dtype.name in _FLOATING:
        name = dtype.name
        if dtype.isnative:
            _names[dtype] = name
    return name


def classes_last(array: Array, axis: int) -> Array:
    """A view whose last axis is the class axis."""
    return array if axis == array.ndim - 1 else np.moveaxis(array, axis, -1)


def has_unit_stride(rows: Array) -> bool:
    """Whether the extension takes these rows as they lie in memory."""
    # Other strides mean nothing for a single class, or without elements.
    return rows.strides[-1] == rows.itemsize or rows.shape[-1] == 1 or not rows.size


def check_same_shape(first: Rows, second: Rows) -> None:
    """Raise `ValueError` naming both shapes unless they agree."""
    if first.shape != second.shape:
        raise ValueError(
            f"{first.name} has shape {first.shape} but {second.name} has shape {second.shape}"
        )


def result_dtype(*rows: Rows) -> np.dtype[Any]:
    """float64 where any argument is, else float32."""
    for argument in rows:
        if argument.dtype_name == "float64":
            return _FLOAT64
    return _FLOAT32


def as_integer(name: str, value: Any) -> int:
    """An integer of any size; `TypeError` for anything else."""
    if type(value) is int:
        return value
    try:
        return int(value.__index__())
    except (AttributeError, TypeError):
        raise TypeError(f"{name} must be an integer, got {value!r}") from None


def as_float(name: str, value: Any) -> float:
    """A number as a float; `TypeError` for anything else."""
    if type(value) is float:
        return value
    # What `float` would take, though it is no number, no single one, or not a real one.
    refused = (str, bytes, bool, np.bool_, np.complexfloating)
    if isinstance(value, refused) or (isinstance(value, np.ndarray) and value.ndim):
        raise TypeError(f"{name} must be a number, got {value!r}")
    check_no_gradient(name, value)
    try:
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number, got {value!r}") from None
    except OverflowError:
        # Without its digits: Python refuses to print more than some thousands of them.
        raise ValueError(f"{name} is beyond the range of float64") from None


def _as_axis(axis: Any, dimensions: int) -> int:
    position = as_integer("axis", axis)
    if not -dimensions <= position < dimensions:
        raise np.exceptions.AxisError(position, dimensions)
    return position % dimensions
