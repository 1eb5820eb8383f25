"""Arrays of which some elements are padding, or ids beyond a vocabulary, to ragged rows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from kldiv._arrays import Array, as_array

OUTSIDE = ("refuse", "drop")


def kept_elements(ids: Array, classes: int, mask: Any, outside: str) -> Array:
    """Which elements of `ids` are classes of their rows.

    Raises
    ------
    ValueError
        For a mask that does not fit, or a wrong name.
    """
    if outside not in OUTSIDE:
        raise ValueError(f"outside is {outside!r}; expected one of {', '.join(OUTSIDE)}")
    if not ids.ndim:
        raise ValueError("ids has shape (), without an axis of classes")
    kept: Array = np.ones(ids.shape, bool)
    if mask is not None:
        given = as_array("mask", mask)
        if given.shape == ids.shape[:-1]:
            given = given[..., None]
        elif given.shape != ids.shape:
            raise ValueError(
                f"mask has shape {given.shape} but ids has shape {ids.shape}; expected that, or "
                f"{ids.shape[:-1]}, a number for each row"
            )
        if given.dtype.kind not in "biu" or (given.size and not np.isin(given, (0, 1)).all()):
            raise ValueError(
                f"mask has dtype {given.dtype}; expected booleans, or integers 0 and 1"
            )
        kept &= given.astype(bool)
    if outside == "drop":
        kept &= ids < classes
    return kept


def offsets_of(kept: Array) -> Array:
    """Where the rows begin of which these elements are kept."""
    counts = np.count_nonzero(kept.reshape(math.prod(kept.shape[:-1]), kept.shape[-1]), axis=1)
    offsets: Array = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=offsets[1:])
    return offsets
