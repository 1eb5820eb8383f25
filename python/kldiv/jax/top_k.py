"""`TopK` in JAX: a pytree, so that transformed functions take one as an argument."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from kldiv._top_k import TopK

FIELDS = ("ids", "values", "normalizer", "weights", "offsets")
"""What a `TopK` has arrays in; some are `None`."""


class Constant:
    """A `TopK` whose numbers are known: one thing to hash, and equal to itself alone."""

    __slots__ = ("top_k",)

    def __init__(self, top_k: TopK) -> None:
        self.top_k = top_k


def arrays_of(top_k: TopK) -> dict[str, Any]:
    """Its arrays by name."""
    found = {field: getattr(top_k, field) for field in FIELDS}
    return {field: array for field, array in found.items() if array is not None}


def checked(kind: str, classes: int, arrays: dict[str, Any]) -> TopK:
    """A `TopK` of arrays by name, whose numbers are looked at."""
    given = {kind if field == "values" else field: array for field, array in arrays.items()}
    return TopK(**given, classes=classes)


def stand_in(top_k: TopK) -> TopK:
    """One of the same shape that keeps no class."""
    shape = (*top_k.batch_shape, 0)
    given: dict[str, Any] = {top_k.kind: np.zeros(shape, top_k.values.dtype)}
    if top_k.normalizer is not None:
        given["normalizer"] = np.zeros(top_k.batch_shape)
    if top_k.weights is not None:
        given["weights"] = np.zeros(shape)
    return TopK(np.zeros(shape, np.int64), **given, classes=top_k.classes)


def _flatten(top_k: TopK) -> tuple[tuple[Any, ...], tuple[str, int]]:
    return tuple(getattr(top_k, field) for field in FIELDS), (top_k.kind, top_k.classes)


def _unflatten(known: tuple[str, int], arrays: tuple[Any, ...]) -> TopK:
    # JAX puts into pytrees what it likes: nothing of it is looked at.
    top_k = object.__new__(TopK)
    named = dict(zip(FIELDS, arrays, strict=True))
    ids, offsets = named["ids"], named["offsets"]
    shape = getattr(ids if offsets is None else offsets, "shape", None) or (0,)
    batch_shape = tuple(shape[:-1]) if offsets is None else (shape[0] - 1,)
    named |= {"kind": known[0], "classes": known[1], "batch_shape": batch_shape}
    for field, value in named.items():
        object.__setattr__(top_k, field, value)
    return top_k


jax.tree_util.register_pytree_node(TopK, _flatten, _unflatten)
