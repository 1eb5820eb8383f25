"""Kept classes one row after the other, as the extension and sums over rows take them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kldiv._arrays import Array
from kldiv._top_k import checks

if TYPE_CHECKING:
    from kldiv._top_k.container import TopK


@dataclass(slots=True)
class Flat:
    """Kept classes as the extension takes them: row after row."""

    ids: Array
    """int64, C-contiguous."""
    log_probs: Array
    """float64: log-probabilities, where they are normalised; logits otherwise."""
    offsets: Array
    """int64: where each row begins, and where the last ends."""
    weights: Array | None
    """float64: what sampled classes stand for."""
    normalized: bool
    classes: int


def flattened(top_k: TopK) -> Flat:
    """The rows one after the other."""
    begins, weights = top_k.begins, top_k.weights
    return Flat(
        np.ascontiguousarray(top_k.ids.reshape(-1), np.int64),
        _log_probs(top_k, 0, len(begins) - 1),
        begins,
        None if weights is None else weights.reshape(-1).astype(np.float64),
        top_k.is_normalized,
        top_k.classes,
    )


def masses(top_k: TopK) -> Array:
    """Σ p over the kept classes of each row, of the batch's shape."""
    begins = top_k.begins
    width = top_k.ids.shape[-1] if top_k.offsets is None else None
    total = np.empty(len(begins) - 1)
    for start, stop in checks.chunks(begins):
        probabilities = np.exp(_log_probs(top_k, start, stop))
        total[start:stop] = checks.row_sums(probabilities, begins[start : stop + 1], width)
    return total.reshape(top_k.batch_shape)


def begins_of(ids: Array, offsets: Array | None) -> Array:
    """Where rows begin, and where the last ends."""
    if offsets is not None:
        return offsets
    begins: Array = np.arange(math.prod(ids.shape[:-1]) + 1, dtype=np.int64) * ids.shape[-1]
    return begins


def _log_probs(top_k: TopK, start: int, stop: int) -> Array:
    """Log-probabilities of rows, where they are normalised, in float64."""
    begins = top_k.begins
    values = top_k.values.reshape(-1)[begins[start] : begins[stop]].astype(np.float64)
    if top_k.normalizer is not None:
        normalizer = top_k.normalizer.reshape(-1)[start:stop].astype(np.float64)
        values -= np.repeat(normalizer, np.diff(begins[start : stop + 1]))
    return values
