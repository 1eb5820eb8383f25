"""Array-likes to what the extension takes, and back.

An operand of the extension is ``(array, dtype name)``: the class axis last and of unit stride,
in native byte order. Nothing is copied where the strides allow it.

A call for one row of 1,000 classes takes the extension about 2 µs, so that a microsecond here
counts: what most calls pass is recognised first, and conversions that would change nothing are
left out.
"""

from __future__ import annotations

import functools
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

Array = np.ndarray[Any, Any]
Operand = tuple[Array, str]

_FLOATING = ("float64", "float32", "float16", "bfloat16")
_FLOAT64, _FLOAT32, _INT64 = np.dtype(np.float64), np.dtype(np.float32), np.dtype(np.int64)

# The names of the native dtypes met so far that rows can have; NumPy takes 2 µs to make one.
_names: dict[np.dtype[Any], str] = {_FLOAT64: "float64", _FLOAT32: "float32"}


@dataclass(slots=True)
class Rows:
    """An argument as rows: its array as given, and the operand made from it."""

    name: str
    array: Array
    shape: tuple[int, ...]
    """The shape as given."""
    axis: int
    operand: Operand
    batch_shape: tuple[int, ...]
    """The shape without the class axis."""

    @property
    def dtype_name(self) -> str:
        """The name of the dtype as given."""
        return self.operand[1]


def as_array(name: str, value: Any) -> Array:
    """`value` as an array, without a copy where its memory can be shared."""
    if type(value) is np.ndarray:
        return value
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        if value.dtype is torch.bfloat16:
            # NumPy has no bfloat16 of its own for torch to convert to.
            bits: Array = value.view(torch.uint16).numpy()
            return bits.view(_bfloat16())
        # What `np.asarray` would call, in twice the time.
        array: Array = value.numpy()
        return array
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array; pass its data, and its mask as where")
    if isinstance(value, np.ndarray):
        return value.view(np.ndarray)
    if hasattr(value, "__dlpack__") and not hasattr(value, "__array__"):
        return np.from_dlpack(value)
    return np.asarray(value)


@functools.cache
def _bfloat16() -> np.dtype[Any]:
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
        raise ValueError(f"{name} has shape (), without a class axis")
    dtype = array.dtype
    dtype_name = _names.get(dtype) or floating_name(dtype)
    if dtype_name is None:
        raise TypeError(f"{name} has dtype {dtype}; expected float64, float32, float16 or bfloat16")
    last = len(shape) - 1
    if type(axis) is int and axis == -1:
        axis = last
    else:
        axis = normalize_axis_index(_integer("axis", axis), len(shape))
    rows = array
    if axis != last or not array.flags.c_contiguous or not dtype.isnative:
        native = array if dtype.isnative else array.astype(dtype.newbyteorder("="))
        rows = _classes_last(native, axis)
        if not _has_unit_stride(rows):
            rows = np.ascontiguousarray(rows)
    batch_shape = shape[:-1] if axis == last else rows.shape[:-1]
    return Rows(name, array, shape, axis, (rows, dtype_name), batch_shape)


def floating_name(dtype: np.dtype[Any]) -> str | None:
    """The name of a dtype that rows can have; `None` for any other."""
    name = _names.get(dtype)
    if name is None and dtype.name in _FLOATING:
        name = dtype.name
        if dtype.isnative:
            _names[dtype] = name
    return name


def _classes_last(array: Array, axis: int) -> Array:
    return array if axis == array.ndim - 1 else np.moveaxis(array, axis, -1)


def _has_unit_stride(rows: Array) -> bool:
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
        if argument.operand[1] == "float64":
            return _FLOAT64
    return _FLOAT32


def over_batch(name: str, value: Any, rows: Rows, dtype: type[np.generic]) -> Array | None:
    """A mask, weights or an upstream gradient broadcast over the batch, in one dimension."""
    if value is None:
        return None
    array = as_array(name, value)
    if dtype is np.bool_:
        if array.dtype != np.bool_:
            raise TypeError(f"{name} has dtype {array.dtype}; expected bool")
    elif array.dtype.kind not in "iuf" and array.dtype.name != "bfloat16":
        raise TypeError(f"{name} has dtype {array.dtype}; expected real numbers")
    try:
        array = np.broadcast_to(array, rows.batch_shape)
    except ValueError:
        raise ValueError(
            f"{name} has shape {array.shape}, which does not broadcast to the batch shape "
            f"{rows.batch_shape} of {rows.name} (shape {rows.shape}, class axis {rows.axis})"
        ) from None
    return _flat(array.astype(dtype, copy=False))


def _flat(array: Array) -> Array:
    if array.ndim == 1 and array.flags.c_contiguous:
        return array
    return np.ascontiguousarray(array).reshape(-1)


def as_labels(name: str, value: Any, rows: Rows) -> Array:
    """Class indices of any integer dtype, of exactly the batch shape, as int64 in one dimension."""
    array = value if type(value) is np.ndarray else as_array(name, value)
    dtype = array.dtype
    if dtype is not _INT64 and dtype.kind not in "iu":
        raise TypeError(f"{name} has dtype {dtype}; expected integers")
    if array.shape != rows.batch_shape:
        raise ValueError(
            f"{name} has shape {array.shape} but {rows.name} has shape {rows.shape}, "
            f"whose batch shape is {rows.batch_shape}"
        )
    if dtype is not _INT64 and dtype != _INT64:
        if dtype.kind == "u" and dtype.itemsize == 8:
            # Beyond int64 every label is out of range; keep it so instead of wrapping around.
            array = np.minimum(array, np.uint64(2**63 - 1))
        array = array.astype(np.int64)
    return _flat(array)


@dataclass(slots=True)
class Output:
    """Where a gradient is computed, and what the caller gets."""

    array: Array
    """What the caller gets, in the shape of the argument."""
    operand: Operand
    scratch: Array | None
    """Memory to copy to `array` at the end, where the extension cannot write to it directly."""

    def finish(self) -> Array:
        """Bring the result to the array, and return it."""
        if self.scratch is not None:
            self.array[...] = self.scratch
        return self.array


def fresh_output(rows: Rows, dtype: np.dtype[Any]) -> Output:
    """A new array of the argument's shape."""
    array = np.empty(rows.shape, dtype)
    return _output(array, array, rows.axis, direct=True)


def given_output(
    name: str, out: Any, rows: Rows, dtype: np.dtype[Any], inputs: list[Rows], in_place: bool
) -> Output:
    """The caller's array, which may overlap with any input.

    Unless `in_place`, or where it overlaps with an input without being that very array, the
    gradient is computed elsewhere first.
    """
    if not isinstance(out, np.ndarray) or isinstance(out, np.ma.MaskedArray):
        raise TypeError(f"{name} must be a NumPy array, got {type(out).__name__}")
    if out.shape != rows.shape:
        raise ValueError(f"{name} has shape {out.shape} but {rows.name} has shape {rows.shape}")
    if out.dtype not in (rows.array.dtype, dtype) or not out.dtype.isnative:
        allowed = " or ".join(dict.fromkeys((rows.dtype_name, dtype.name)))
        raise TypeError(f"{name} has dtype {out.dtype}; expected {allowed}")
    if not out.flags.writeable:
        raise ValueError(f"{name} is read-only")
    array = out.view(np.ndarray)
    safe = all(
        not np.may_share_memory(array, given.array)
        or (in_place and _same_memory(array, given.array))
        for given in inputs
    )
    return _output(out, array, rows.axis, direct=safe)


def _output(result: Array, array: Array, axis: int, *, direct: bool) -> Output:
    """An output in the memory of `array`: written by the extension where that is `direct`."""
    rows = _classes_last(array, axis)
    scratch = None
    if not (direct and _has_unit_stride(rows)):
        rows = np.empty(rows.shape, rows.dtype)
        scratch = np.moveaxis(rows, -1, axis)
    return Output(result, (rows, _names[rows.dtype]), scratch)


def _same_memory(first: Array, second: Array) -> bool:
    return (
        first.__array_interface__["data"][0] == second.__array_interface__["data"][0]
        and first.strides == second.strides
        and first.dtype == second.dtype
    )


def _integer(name: str, value: Any) -> int:
    if type(value) is int:
        return value
    try:
        return int(value.__index__())
    except AttributeError:
        raise TypeError(f"{name} must be an integer, got {value!r}") from None


def as_class_index(value: Any) -> int | None:
    """An `ignore_index`: an integer, or an array of one."""
    if value is None or type(value) is int:
        return value
    return int(np.asarray(value).__index__())


def as_float(name: str, value: Any) -> float:
    """A number as a float; `TypeError` for anything else."""
    if type(value) is float:
        return value
    if isinstance(value, str | bytes | bool):
        raise TypeError(f"{name} must be a number, got {value!r}")
    try:
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number, got {value!r}") from None
