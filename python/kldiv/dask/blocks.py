"""A call of `kldiv` cut into blocks of rows: what goes into each, and what is checked before."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np

import kldiv
from kldiv._arrays import Array, as_array

OVER_BATCH = ("where", "weights", "grad_output")
"""Options that broadcast over the batch shape."""


@dataclass(frozen=True)
class Operand:
    """An array of a call, with the axes that it shares with others."""

    name: str
    array: da.Array
    index: tuple[str, ...]
    """Their names: those of `batch_index`, and others for axes of classes."""


@dataclass(frozen=True)
class Call:
    """A function of `kldiv` on rows that lie in blocks."""

    function: Callable[..., Any]
    operands: tuple[Operand, ...]
    options: dict[str, Any]
    """All that is the same for every block."""
    batch_shape: tuple[int, ...]

    @property
    def batch(self) -> tuple[str, ...]:
        """The index of what has one number a row."""
        return batch_index(len(self.batch_shape))

    def with_operands(self, *more: Operand) -> Call:
        """The same call with more arrays."""
        return Call(self.function, (*self.operands, *more), self.options, self.batch_shape)

    def over_batch(self, name: str, value: Any) -> Operand:
        """A mask, or weights, of the batch shape."""
        array = value if isinstance(value, da.Array) else da.asarray(as_array(name, value))
        try:
            array = da.broadcast_to(array, self.batch_shape)
        except ValueError:
            raise ValueError(
                f"{name} has shape {array.shape}, which does not broadcast to the batch shape "
                f"{self.batch_shape}"
            ) from None
        return Operand(name, array, self.batch)

    def stand_in(self, **options: Any) -> Any:
        """What the function gives for no rows of these widths and dtypes, with all its checks."""
        arrays = {
            one.name: np.zeros(
                tuple(
                    min(1, axis) if label in self.batch else one.array.shape[axis]
                    for axis, label in enumerate(one.index)
                ),
                one.array.dtype,
            )
            for one in self.operands
            if one.name not in OVER_BATCH
        }
        if not self.batch:
            # There is one row, whose numbers are left out.
            options.setdefault("where", False)
        return self.function(**arrays, **(self.options | options))

    def blocks(
        self, kernel: Callable[..., Any], dtype: Any, index: tuple[str, ...] | None = None
    ) -> da.Array:
        """What a kernel gives for each block, an array of the batch shape or of another index."""
        index = self.batch if index is None else index
        pairs = [item for one in self.operands for item in (one.array, one.index)]
        names = tuple(one.name for one in self.operands)
        found: da.Array = da.blockwise(
            functools.partial(kernel, self.function, names, self.options),
            index,
            *pairs,
            dtype=dtype,
            meta=np.empty((0,) * len(index), dtype),
            concatenate=False,
            token=_token(self, kernel),
        )
        return found


def batch_index(axes: int) -> tuple[str, ...]:
    """Names of the axes of a batch shape."""
    return tuple(f"axis {axis}" for axis in range(axes))


def _token(call: Call, kernel: Callable[..., Any]) -> str:
    from dask.base import tokenize

    arrays = [(one.name, one.array.name, one.index) for one in call.operands]
    name = getattr(call.function, "__name__", repr(call.function))
    return str(tokenize(kernel.__name__, name, arrays, sorted(call.options.items(), key=str)))


def call_of(function: Callable[..., Any], rows: dict[str, Any], options: dict[str, Any]) -> Call:
    """A call of arguments with a row, or a label, for each row, in blocks of whole rows.

    Raises
    ------
    TypeError, ValueError
        As the function of `kldiv`; for batch shapes that differ, and chunks of unknown sizes.
    """
    options = dict(options)
    arrays = {name: _as_dask(name, value) for name, value in rows.items()}
    axis = operator.index(options.pop("axis", -1))
    first = next(iter(arrays))
    axes = arrays[first].ndim
    if not -axes <= axis < axes:
        raise ValueError(f"axis {axis} is out of range for {first} of shape {arrays[first].shape}")
    batch_shape = _without(arrays[first].shape, axis)
    operands = []
    for name, array in arrays.items():
        if name == "labels" or (name == "targets" and array.dtype.kind in "iu"):
            _check_batch(name, array.shape, batch_shape, first)
            operands.append(Operand(name, array, batch_index(array.ndim)))
            continue
        if array.ndim != axes:
            raise ValueError(
                f"{name} has shape {array.shape} but {first} has shape {arrays[first].shape}"
            )
        _check_batch(name, _without(array.shape, axis), batch_shape, first)
        array = whole_classes(da.moveaxis(array, axis, -1))
        operands.append(Operand(name, array, (*batch_index(axes - 1), f"classes of {name}")))
    if (weights := options.pop("class_weights", None)) is not None:
        array = _as_dask("class_weights", weights)
        index = tuple(f"class weights {axis}" for axis in range(array.ndim))
        operands.append(Operand("class_weights", array.rechunk(-1), index))
    return Call(function, tuple(operands), options, batch_shape)


def whole_classes(array: da.Array) -> da.Array:
    """The array with all classes of a row in one chunk, and no chunk larger than dask makes any."""
    if array.numblocks[-1] == 1:
        return array
    chunks = dict.fromkeys(range(array.ndim - 1), "auto") | {array.ndim - 1: -1}
    rechunked: da.Array = array.rechunk(chunks)
    return rechunked


def plain(block: Any) -> Array:
    """A block as it is: along an axis that only one array has, dask gives a list of one."""
    while isinstance(block, list):
        [block] = block
    found: Array = block
    return found


def values_kernel(
    function: Callable[..., Any], names: tuple[str, ...], options: dict[str, Any], *blocks: Any
) -> Array:
    """The numbers of the rows of a block."""
    given = dict(zip(names, map(plain, blocks), strict=True))
    return np.asarray(function(**given, **options))


def as_given(found: da.Array, place: int, dtype: Any) -> da.Array:
    """One of the things that a kernel gives for a block, where that is of the batch shape."""
    batch = batch_index(found.ndim)
    chosen: da.Array = da.blockwise(
        nth, batch, found, batch, place, None, dtype=dtype, meta=np.empty((0,) * found.ndim, dtype)
    )
    return chosen


def nth(found: Any, place: int) -> Any:
    """What stands at a place of what a kernel gave."""
    return found[place]


def _as_dask(name: str, value: Any) -> da.Array:
    if isinstance(value, da.Array):
        if any(math.isnan(length) for length in value.shape):
            raise ValueError(
                f"{name} has chunks of unknown sizes; {name}.compute_chunk_sizes() finds them"
            )
        return value
    array = as_array(name, value)
    if array.dtype.kind in "iu" and name not in ("labels", "targets"):
        if not isinstance(value, (list, tuple)):
            return da.asarray(array)
        array = array.astype(np.float64)
    return da.asarray(array)


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    axis %= len(shape)
    return (*shape[:axis], *shape[axis + 1 :])


def _check_batch(name: str, shape: tuple[int, ...], batch: tuple[int, ...], first: str) -> None:
    if shape != batch:
        raise ValueError(f"{name} has the batch shape {shape}, but {first} {batch}")


def numpy_function(name: str) -> Callable[..., Any]:
    """The function of `kldiv` of a name."""
    function: Callable[..., Any] = getattr(kldiv, name)
    return function
