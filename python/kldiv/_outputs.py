"""Where gradients are written, and what may share that memory.

An output may lie over any input of its call. Over a row it is either exactly that row's memory,
which the kernels allow, or computed in memory of its own first. What comes beside the rows
(weights, masks, labels, upstream gradients) is small, and copied before the call where an output
overlaps it. Outputs that overlap each other, or themselves, are refused.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from kldiv import _kldiv
from kldiv._arrays import Array, Operand, Rows, classes_last, floating_name, has_unit_stride

# To find out whether two strided views share a byte is a search; views that people make are
# decided within some tens of steps, 1 µs.
SEARCH = 10_000

# Bytes of a result from which on its memory is kept when it is freed: of less, new memory takes no
# longer than 20 µs to write.
KEPT = 1 << 20


@dataclass(slots=True)
class Output(Operand):
    """Where a gradient is computed, and what the caller gets."""

    array: Array
    """What the caller gets, in the shape of the argument."""
    scratch: Array | None
    """Memory to copy to `array` at the end, where the extension cannot write to it directly."""
    padding: Array | None = None
    """The part of `array` that belongs to no class."""

    def finish(self) -> Array:
        """Bring the result to the array, and return it."""
        if self.scratch is not None:
            self.array[...] = self.scratch
        if self.padding is not None:
            self.padding[...] = 0
        return self.array


def new_array(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """An array that holds anything; a large one leaves its memory to the next when it is freed."""
    if dtype.itemsize * math.prod(shape) < KEPT:
        return np.empty(shape, dtype)
    return _kldiv.empty(shape, dtype)


def fresh_output(rows: Rows, dtype: np.dtype[Any]) -> Output:
    """A new array of the argument's shape."""
    array = new_array(rows.shape, dtype)
    if rows.axis == array.ndim - 1:
        name = floating_name(dtype)
        assert name is not None
        return Output(array, name, array, None)
    return _output(array, classes_last(array, rows.axis), rows.axis, direct=True)


def given_output(
    name: str, out: Any, rows: Rows, dtype: np.dtype[Any], inputs: Iterable[Rows], in_place: bool
) -> Output:
    """The caller's array, which may overlap with any input.

    Unless `in_place`, or where it overlaps with an input without being that very array, the
    gradient is computed elsewhere first.
    """
    if not isinstance(out, np.ndarray) or isinstance(out, np.ma.MaskedArray):
        raise TypeError(f"{name} must be a NumPy array, got {type(out).__name__}")
    if out.shape != rows.shape:
        raise ValueError(f"{name} has shape {out.shape} but {rows.name} has shape {rows.shape}")
    if not out.dtype.isnative or out.dtype not in (rows.memory.dtype, dtype):
        allowed = " or ".join(dict.fromkeys((rows.dtype_name, dtype.name)))
        order = "" if out.dtype.isnative else ", in native byte order"
        raise TypeError(f"{name} has dtype {out.dtype}; expected {allowed}{order}")
    if not out.flags.writeable:
        raise ValueError(f"{name} is read-only")
    if not _is_disjoint(out):
        raise ValueError(
            f"elements of {name} overlap in memory; pass an array whose elements are distinct"
        )
    memory = classes_last(out.view(np.ndarray), rows.axis)
    direct = all(
        not overlap(memory, given.memory) or (in_place and _same_memory(memory, given.memory))
        for given in inputs
    )
    return _output(out, memory, rows.axis, direct=direct)


def check_distinct(outputs: dict[str, Array]) -> None:
    """Raise `ValueError` naming two outputs that share memory."""
    named = list(outputs.items())
    for position, (name, array) in enumerate(named):
        for other_name, other in named[:position]:
            if overlap(array, other):
                raise ValueError(
                    f"the arrays of out for {other_name!r} and {name!r} overlap in memory"
                )


def apart(array: Array | None, outputs: Iterable[Array]) -> Array | None:
    """`array`, or a copy where an output shares its memory."""
    if array is None or not any(overlap(array, output) for output in outputs):
        return array
    return array.copy()


def overlap(first: Array, second: Array) -> bool:
    """Whether two arrays share a byte; where that is hard to say, whether they lie side by side."""
    return np.may_share_memory(first, second, max_work=SEARCH)  # type: ignore[arg-type]


def without_padding(output: Output, rows: Rows) -> Output:
    """An output for all of an argument, of whose first classes alone there is a gradient."""
    if rows.whole is not None:
        count = rows.memory.shape[-1]
        output.memory = output.memory[..., :count]
        output.padding = classes_last(output.array, rows.axis)[..., count:]
    return output


def _is_disjoint(array: Array) -> bool:
    """Whether no two elements share a byte: each step is as long as all that lies below it."""
    flags = array.flags
    if flags.c_contiguous or flags.f_contiguous or not array.size:
        return True
    extent = array.itemsize
    axes = zip(array.strides, array.shape, strict=True)
    for step, length in sorted((abs(stride), length) for stride, length in axes if length > 1):
        if step < extent:
            return False
        extent += step * (length - 1)
    return True


def _output(result: Array, memory: Array, axis: int, *, direct: bool) -> Output:
    """An output in `memory`, written by the extension where that is `direct`."""
    scratch = None
    if not (direct and (not memory.ndim or has_unit_stride(memory))):
        memory = new_array(memory.shape, memory.dtype)
        scratch = np.moveaxis(memory, -1, axis)
    name = floating_name(memory.dtype)
    assert name is not None
    return Output(memory, name, result, scratch)


def _same_memory(first: Array, second: Array) -> bool:
    return (
        first.__array_interface__["data"][0] == second.__array_interface__["data"][0]
        and first.strides == second.strides
        and first.dtype == second.dtype
    )
