"""Sums that do not depend on where numbers are parted: exact, and rounded once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import dask.array as da
import numpy as np

from kldiv._arrays import Array

_SHIFT = 1074 + 53
"""The least bit of a float64 is 2^−1074; of one with a mantissa of 53 bits below it, 2^−1127."""
_PIECE = 1 << 24
"""Halves of so many mantissas add up to less than 2^53, which a float64 holds exactly."""


@dataclass(frozen=True)
class Exact:
    """A sum of float64 numbers, in units of 2^−1127."""

    units: int = 0
    other: float = 0.0
    """The sum of what is infinite or NaN."""

    def __add__(self, more: Exact) -> Exact:
        return Exact(self.units + more.units, self.other + more.other)

    def __float__(self) -> float:
        if self.other != 0.0:
            return self.other
        try:
            return float(Fraction(self.units, 1 << _SHIFT))
        except OverflowError:
            return math.inf if self.units > 0 else -math.inf

    @classmethod
    def of(cls, values: Array) -> Exact:
        """The sum of an array."""
        flat = np.asarray(values, np.float64).reshape(-1)
        finite = np.isfinite(flat)
        with np.errstate(invalid="ignore"):
            other = float(flat[~finite].sum())
        units = 0
        flat = flat[finite]
        for start in range(0, len(flat), _PIECE):
            mantissas, exponents = np.frexp(flat[start : start + _PIECE])
            whole = np.ldexp(mantissas, 53).astype(np.int64)
            places, inverse = np.unique(exponents, return_inverse=True)
            high = np.bincount(inverse, whole >> 27, len(places))
            low = np.bincount(inverse, whole & ((1 << 27) - 1), len(places))
            for place, upper, lower in zip(places.tolist(), high, low, strict=True):
                units += ((int(upper) << 27) + int(lower)) << (place - 53 + _SHIFT)
        return cls(units, other)


def exact_sum(values: da.Array) -> da.Array:
    """The sum of all numbers, a float64 array of no axis."""
    values = values.reshape((1,)) if not values.ndim else values
    found: da.Array = da.reduction(
        values,
        chunk=_of_chunk,
        combine=_combined,
        aggregate=_rounded,
        axis=tuple(range(values.ndim)),
        dtype=np.float64,
        meta=np.empty((), np.float64),
    )
    return found


def _of_chunk(values: Array, axis: Any, keepdims: bool) -> Array:
    return _object(Exact.of(values), values.ndim)


def _combined(parts: Array, axis: Any, keepdims: bool) -> Array:
    return _object(sum(np.asarray(parts).reshape(-1), Exact()), np.asarray(parts).ndim)


def _rounded(parts: Array, axis: Any, keepdims: bool) -> np.float64:
    return np.float64(float(sum(np.asarray(parts).reshape(-1), Exact())))


def _object(value: Exact, axes: int) -> Array:
    found = np.empty((1,) * axes, object)
    found[(0,) * axes] = value
    return found
