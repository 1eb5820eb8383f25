"""What a `TopK` is made of, as arrays: dtypes, shapes, and whose memory they are."""

from __future__ import annotations

from typing import Any

import numpy as np

from kldiv import _arrays
from kldiv._arrays import Array
from kldiv._top_k import checks


def values(log_probs: Any, logits: Any, normalizer: Any) -> tuple[str, Any]:
    """What the values are, and the values."""
    if (log_probs is None) == (logits is None):
        given = "neither" if logits is None else "both"
        raise ValueError(f"expected either log_probs or logits, got {given}")
    if logits is not None:
        return "logits", logits
    if normalizer is not None:
        raise ValueError("normalizer goes with logits; log_probs are normalised as they are")
    return "log_probs", log_probs


def owned(array: Array) -> Array:
    """A copy: contiguous, of a native dtype."""
    native = array.dtype if array.dtype.isnative else array.dtype.newbyteorder("=")
    owned: Array = np.array(array, native, order="C", copy=True)
    return owned


def integers(name: str, value: Any) -> Array:
    """An argument as integers."""
    array = _arrays.as_array(name, value)
    if not array.size and isinstance(value, (list, tuple)):
        return array.astype(np.int64)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} has dtype {array.dtype}; expected integers")
    return array


def floating(name: str, value: Any) -> Array:
    """An argument as floating-point numbers."""
    array = _arrays.as_array(name, value)
    if array.dtype.kind in "iu" and isinstance(value, (list, tuple, int)):
        # Python's integers are numbers like its floats.
        return array.astype(np.float64)
    if _arrays.floating_name(array.dtype) is None:
        raise TypeError(
            f"{name} has dtype {array.dtype}; expected float64, float32, float16 or bfloat16"
        )
    return array


def as_classes(classes: Any) -> int:
    """The number of classes of a whole row."""
    if isinstance(classes, (bool, np.bool_)):
        raise TypeError(f"classes must be an integer, got {classes!r}")
    count = _arrays.as_integer("classes", classes)
    if not 1 <= count < 1 << 62:
        raise ValueError(f"classes is {count}; expected at least 1")
    return count


def check_shapes(
    ids: Array, values: Array, kind: str, offsets: Array | None, weights: Array | None
) -> None:
    """Raise `ValueError` unless shapes and offsets fit."""
    if offsets is None and not ids.ndim:
        raise ValueError("ids has shape (), without an axis of classes")
    if offsets is not None:
        for name, array in (("ids", ids), ("offsets", offsets)):
            if array.ndim != 1:
                raise ValueError(f"{name} has shape {array.shape}; with offsets, expected one axis")
        checks.check_offsets(offsets, len(ids))
    for name, other in ((kind, values), ("weights", weights)):
        if other is not None and other.shape != ids.shape:
            raise ValueError(f"{name} has shape {other.shape} but ids has shape {ids.shape}")


def check_normalizer(normalizer: Array | None, batch_shape: tuple[int, ...]) -> None:
    """Raise `ValueError` unless there is a finite number for each row."""
    if normalizer is None:
        return
    if normalizer.shape != batch_shape:
        raise ValueError(f"normalizer has shape {normalizer.shape}; expected {batch_shape}")
    if (wrong := ~np.isfinite(normalizer)).any():
        index = tuple(int(i) for i in np.argwhere(wrong)[0])
        row = index[0] if len(index) == 1 else index
        raise ValueError(
            f"normalizer is {float(normalizer[index]):g} at row {row}; expected finite numbers"
        )
