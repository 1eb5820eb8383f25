"""Positions by how sure the reference is."""

from __future__ import annotations

import itertools

import numpy as np
import polars as pl

from kldiv.evaluation.statistics.groups import Group, groups
from kldiv.evaluation.statistics.rows import column

EDGES = (0.0, 0.25, 0.5, 0.75, 0.95, 1.0)


def by_confidence(
    positions: pl.DataFrame, *, edges: tuple[float, ...] = EDGES
) -> tuple[Group, ...]:
    """Groups by the probability of the reference's most probable token.

    A group has its lower edge and not its upper one, but the last, which has both. Rows whose
    confidence is NaN, as those with NaN, are in none.

    Examples
    --------
    >>> import polars as pl
    >>> table = pl.DataFrame(
    ...     {
    ...         "sequence": [0, 0],
    ...         "position": [0, 1],
    ...         "kl": [0.2, 0.1],
    ...         "confidence_p": [0.3, 1.0],
    ...     }
    ... )
    >>> [(group.label, group.rows) for group in by_confidence(table) if group.rows]
    [('0.25-0.5', 1), ('0.95-1', 1)]
    """
    if len(edges) < 2 or any(low >= high for low, high in itertools.pairwise(edges)):
        raise ValueError(f"edges are at least two ascending numbers, got {edges}")
    confidence = column(positions, "confidence_p")
    of = np.searchsorted(edges, confidence, side="right") - 1
    of[confidence == edges[-1]] = len(edges) - 2
    of[~((confidence >= edges[0]) & (confidence <= edges[-1]))] = -1
    labels = [f"{low:g}-{high:g}" for low, high in itertools.pairwise(edges)]
    return groups(positions, of, labels)
