"""How many rows there are, and in how many something is missing or infinite."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from kldiv._arrays import Array
from kldiv.evaluation.statistics.means import means_by
from kldiv.evaluation.statistics.rows import clusters_of, column, has, main_column, numbered

_INFINITE = ("kl", "reverse_kl", "nll_p", "nll_q", "kl_lower", "reverse_kl_lower")


@dataclass(frozen=True)
class Counts:
    """Rows of one candidate."""

    rows: int
    rows_nan: int
    """With NaN or +inf among the numbers of a row: in no other statistic."""
    rows_infinite: int
    """With an infinite KL in either direction, or an infinite loss."""
    rows_labelled: int | None
    """With a token whose losses are numbers; None without labels."""
    sequences: int
    clusters: int
    sequences_nan: int
    """With at least one row of `rows_nan`."""
    sequences_infinite: int


def counts(positions: pl.DataFrame) -> Counts:
    """Count rows, sequences and clusters, and those with NaN or infinite numbers.

    Examples
    --------
    >>> import polars as pl
    >>> table = pl.DataFrame(
    ...     {"sequence": [0, 0, 1], "position": [0, 1, 0], "kl": [0.1, float("nan"), float("inf")]}
    ... )
    >>> found = counts(table)
    >>> found.rows, found.rows_nan, found.rows_infinite, found.sequences_nan
    (3, 1, 1, 1)
    """
    nan, infinite = nan_and_infinite(positions)
    sequences = numbered(positions["sequence"].to_numpy())
    labelled = None
    if has(positions, "nll_q"):
        labelled = int((~np.isnan(column(positions, "nll_q")) & ~nan).sum())
    return Counts(
        rows=len(positions),
        rows_nan=int(nan.sum()),
        rows_infinite=int(infinite.sum()),
        rows_labelled=labelled,
        sequences=int(sequences.max(initial=-1)) + 1,
        clusters=int(clusters_of(positions).max(initial=-1)) + 1,
        sequences_nan=np.unique(sequences[nan]).size,
        sequences_infinite=np.unique(sequences[infinite]).size,
    )


def by_sequence(positions: pl.DataFrame) -> pl.DataFrame:
    """One row a sequence: how many positions, and the means of those that are finite.

    Columns: sequence, name, cluster and stratum where the table has them, rows, rows_nan,
    rows_infinite, then the mean over the finite rows of kl (or its bound), reverse_kl,
    jensen_shannon, total_variation, same_top as top1_agreement, nll_p and nll_q, where they are
    there; null where no row is finite.

    Examples
    --------
    >>> import polars as pl
    >>> table = pl.DataFrame(
    ...     {"sequence": [0, 0, 1], "position": [0, 1, 0], "kl": [0.25, 0.75, float("inf")]}
    ... )
    >>> by_sequence(table).rows()
    [(0, 2, 0, 0, 0.5), (1, 1, 0, 1, None)]
    """
    sequences = numbered(positions["sequence"].to_numpy())
    number = int(sequences.max(initial=-1)) + 1
    first = np.unique(sequences, return_index=True)[1]
    names = [one for one in ("sequence", "name", "cluster", "stratum") if one in positions.columns]
    result = positions.select(names)[first]
    nan, infinite = nan_and_infinite(positions)
    result = result.with_columns(
        pl.Series(name, np.bincount(sequences[which], minlength=number).astype(np.int64))
        for name, which in (
            ("rows", np.ones(len(positions), np.bool_)),
            ("rows_nan", nan),
            ("rows_infinite", infinite),
        )
    )
    for name in (
        *(main_column(positions), "reverse_kl", "jensen_shannon", "total_variation"),
        *("same_top", "nll_p", "nll_q"),
    ):
        if has(positions, name):
            means, _ = means_by(column(positions, name), sequences)
            called = "top1_agreement" if name == "same_top" else name
            result = result.with_columns(pl.Series(called, means, nan_to_null=True))
    return result


def nan_and_infinite(positions: pl.DataFrame) -> tuple[Array, Array]:
    """Which rows have NaN, and which of the others an infinite number."""
    nan = np.isnan(column(positions, main_column(positions)))
    infinite = np.zeros(len(positions), np.bool_)
    for name in _INFINITE:
        if has(positions, name):
            infinite |= np.isinf(column(positions, name))
    return nan, infinite & ~nan
