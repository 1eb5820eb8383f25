"""Means over positions and over sequences, with errors that know of clusters."""

from __future__ import annotations

from typing import Literal

import numpy as np
import polars as pl

from kldiv._arrays import Array
from kldiv.evaluation.statistics.estimate import Estimate, mean_of
from kldiv.evaluation.statistics.rows import clusters_of, column, numbered

Errors = Literal["clustered", "independent"]


def micro_mean(
    positions: pl.DataFrame, name: str = "kl", *, errors: Errors = "clustered"
) -> Estimate:
    """The mean of a column over all positions.

    Parameters
    ----------
    positions : DataFrame
        One candidate's rows, in order.
    name : str
        A column, or a derived one: see `kldiv.evaluation.statistics.rows.column`.
    errors : {"clustered", "independent"}
        Positions of one cluster (column ``cluster``, else the sequence) depend on each other: the
        error is that of `mean_of` over clusters. That of independent rows is for comparison; it
        is several times too small.

    Returns
    -------
    Estimate
        Over the rows where the number is there and finite; of no row NaN.

    Examples
    --------
    >>> import polars as pl
    >>> table = pl.DataFrame(
    ...     {"sequence": [0, 0, 1, 1], "position": [0, 1, 0, 1], "kl": [0.1, 0.2, 0.3, 0.4]}
    ... )
    >>> print(micro_mean(table))
    0.25 ± 0.1
    >>> print(micro_mean(table, errors="independent"))
    0.25 ± 0.065
    """
    _check(errors)
    clusters = clusters_of(positions) if errors == "clustered" else None
    return mean_of(column(positions, name), clusters)


def macro_mean(
    positions: pl.DataFrame, name: str = "kl", *, errors: Errors = "clustered"
) -> Estimate:
    """The mean over sequences of the mean of each, in which short and long ones weigh the same.

    As `micro_mean`, but `Estimate.rows` are the sequences with a finite number, and infinite
    ones those that have an infinite one, and no other.
    """
    _check(errors)
    sequences = numbered(positions["sequence"].to_numpy())
    means, infinite = means_by(column(positions, name), sequences)
    means[np.isnan(means) & (infinite > 0)] = np.inf
    clusters = None
    if errors == "clustered" and sequences.size:
        first = np.unique(sequences, return_index=True)[1]
        clusters = clusters_of(positions)[first]
    return mean_of(means, clusters)


def means_by(values: Array, groups: Array) -> tuple[Array, Array]:
    """The mean of the finite values of each group, NaN of none, and how many are infinite."""
    count = int(groups.max(initial=-1)) + 1
    finite = np.isfinite(values)
    rows = np.bincount(groups[finite], minlength=count)
    sums = np.bincount(groups[finite], weights=values[finite], minlength=count)
    infinite = np.bincount(groups[np.isinf(values)], minlength=count)
    with np.errstate(all="ignore"):
        return np.where(rows > 0, sums / rows, np.nan), infinite


def _check(errors: str) -> None:
    if errors not in ("clustered", "independent"):
        raise ValueError(f"errors is 'clustered' or 'independent', got {errors!r}")
