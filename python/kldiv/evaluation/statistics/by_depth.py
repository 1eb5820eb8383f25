"""Positions by how deep in the sequence they are."""

from __future__ import annotations

import itertools

import numpy as np
import polars as pl

from kldiv.evaluation.statistics.groups import Group, groups

STARTS = (0, 256, 512, 1024, 1536)


def by_depth(positions: pl.DataFrame, *, starts: tuple[int, ...] = STARTS) -> tuple[Group, ...]:
    """Groups by column ``position``; the last has no end.

    Groups without a position are left out.

    Examples
    --------
    >>> import polars as pl
    >>> table = pl.DataFrame({"sequence": [0, 0], "position": [10, 2000], "kl": [0.2, 0.1]})
    >>> [(group.label, group.rows) for group in by_depth(table)]
    [('0-255', 1), ('1536-', 1)]
    """
    if not starts or any(low >= high for low, high in itertools.pairwise(starts)):
        raise ValueError(f"starts are ascending numbers, got {starts}")
    depth = positions["position"].to_numpy().astype(np.int64)
    of = np.searchsorted(starts, depth, side="right") - 1
    labels = [f"{low}-{high - 1}" for low, high in itertools.pairwise(starts)]
    found = groups(positions, of, [*labels, f"{starts[-1]}-"])
    return tuple(group for group in found if group.rows)
