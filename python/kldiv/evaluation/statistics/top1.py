"""Whether the most probable token is the same, and the KL where it is and where it is not."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import polars as pl

from kldiv.evaluation.statistics.estimate import Estimate, mean_of
from kldiv.evaluation.statistics.rows import clusters_of, column, main_column


@dataclass(frozen=True)
class Top1:
    """Agreement of the most probable tokens."""

    agreement: Estimate
    """The share of positions where both have the same; ties go to the first class."""
    kl_survived: Estimate
    """Mean KL of those."""
    kl_changed: Estimate
    """Mean KL of the others."""
    changed_share_of_kl: float
    """What part of the total KL these others have; NaN where the total is 0."""


def top1(positions: pl.DataFrame) -> Top1:
    """Agreement of the most probable token, and KL where it survived and where it changed.

    Rows with NaN, which have no most probable token, are in neither. KL is its lower bound in a
    table of top-k rows.

    Examples
    --------
    >>> import polars as pl
    >>> table = pl.DataFrame(
    ...     {
    ...         "sequence": [0, 0, 1, 1],
    ...         "position": [0, 1, 0, 1],
    ...         "top1_p": [7, 7, 7, 7],
    ...         "top1_q": [7, 7, 7, 3],
    ...         "kl": [0.1, 0.1, 0.1, 0.9],
    ...     }
    ... )
    >>> found = top1(table)
    >>> found.agreement.mean, found.kl_changed.mean, round(found.changed_share_of_kl, 3)
    (0.75, 0.9, 0.75)
    """
    same = column(positions, "same_top")
    kl = column(positions, main_column(positions))
    clusters = clusters_of(positions)
    survived = np.where(same == 1, kl, np.nan)
    changed = np.where(same == 0, kl, np.nan)
    estimates = mean_of(survived, clusters), mean_of(changed, clusters)
    totals = [one.mean * one.rows if one.rows else 0.0 for one in estimates]
    share = totals[1] / sum(totals) if sum(totals) > 0 else math.nan
    return Top1(mean_of(same, clusters), *estimates, share)
