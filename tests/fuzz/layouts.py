"""The same numbers in memory of every kind: strides, byte order, alignment."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

PLAIN = "plain"
LAYOUTS = ("strided", "reversed", "apart", "fortran", "swapped", "unaligned", "read-only")


def lay(array: Array, layout: str) -> Array:
    """A copy of `array` in memory of a layout: equal to it, whatever the layout.

    strided: every second element of a wider array. reversed: from the last element backwards.
    apart: rows at a distance. fortran: the first axis contiguous. swapped: the other byte order.
    unaligned: one byte past an element. read-only: as it says.
    """
    match layout:
        case "swapped" if array.dtype.name != "bfloat16" and array.dtype.itemsize > 1:
            return array.astype(array.dtype.newbyteorder())
        case "unaligned":
            memory = np.zeros(array.nbytes + 1, np.uint8)
            view = memory[1:].view(array.dtype).reshape(array.shape)
        case "read-only":
            view = array.copy()
            view.flags.writeable = False
            return view
        case "strided" if array.ndim:
            view = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)[..., ::2]
        case "reversed" if array.ndim:
            view = np.zeros(array.shape, array.dtype)[..., ::-1]
        case "apart" if array.ndim:
            view = np.zeros((*array.shape[:-1], array.shape[-1] + 3), array.dtype)[..., 2:-1]
        case "fortran":
            view = np.zeros(array.shape, array.dtype, order="F")
        case _:
            return array.copy()
    view[...] = array
    return view


def memory_of(array: Array) -> Array:
    """All bytes of the memory that an array is a view of, as they are."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return np.frombuffer(array.tobytes(order="A"), np.uint8)


def shifted(array: Array, by: int) -> tuple[Array, Array]:
    """A copy of `array`, and a view of the same shape that starts `by` elements later."""
    memory = np.zeros(array.size + by, array.dtype)
    first = memory[: array.size].reshape(array.shape)
    first[...] = array
    return first, memory[by:].reshape(array.shape)


def inside(array: Array, outer: Array, offset: int) -> Array | None:
    """A copy of `array` within the memory of `outer`; None where it does not fit."""
    data = outer.reshape(-1).view(np.uint8)
    if offset + array.nbytes > data.size or not array.size:
        return None
    view = data[offset : offset + array.nbytes].view(array.dtype).reshape(array.shape)
    view[...] = array
    return view
