"""Mass on classes that were not scored, of vocabularies that differ."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from kldiv.evaluation.statistics.estimate import Estimate, mean_of
from kldiv.evaluation.statistics.rows import clusters_of, column


@dataclass(frozen=True)
class LostMass:
    """Probability left out on either side."""

    mean_p: Estimate
    mean_q: Estimate
    largest_p: float
    largest_q: float


def lost_mass(positions: pl.DataFrame) -> LostMass:
    """Mean and largest of columns ``lost_p`` and ``lost_q``.

    Examples
    --------
    >>> import polars as pl
    >>> place = {"sequence": [0, 1], "position": [0, 0]}
    >>> found = lost_mass(pl.DataFrame(place | {"lost_p": [0.0, 0.5], "lost_q": [0.0, 0.0]}))
    >>> found.mean_p.mean, found.largest_p
    (0.25, 0.5)
    """
    clusters = clusters_of(positions)
    p, q = column(positions, "lost_p"), column(positions, "lost_q")
    largest = (float(np.nanmax(one)) if not np.isnan(one).all() else np.nan for one in (p, q))
    return LostMass(mean_of(p, clusters), mean_of(q, clusters), *largest)
