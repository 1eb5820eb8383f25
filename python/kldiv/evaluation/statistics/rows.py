"""What statistics read of the table of positions: one candidate's rows, columns, clusters."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl

from kldiv._arrays import Array

NUMBER = "cluster number"
"""The column of a table that has what `clusters_of` gives of it."""


def rows_of(positions: pl.DataFrame, candidate: str | None = None) -> pl.DataFrame:
    """One candidate's rows, in the order of sequences and positions.

    Raises
    ------
    ValueError
        Without `candidate`, for a table of several; for a position that is there twice, and for
        a table without the columns that say where a row is.
    """
    if missing := {"sequence", "position"} - set(positions.columns):
        raise ValueError(
            f"positions has no column {', '.join(sorted(missing))}; "
            "expected a table of positions with sequence and position"
        )
    if "candidate" in positions.columns:
        names = positions["candidate"].unique(maintain_order=True).to_list()
        if candidate is not None and len(positions):
            if candidate not in names:
                raise ValueError(f"no candidate {candidate!r}; there are {_listed(names)}")
            if len(names) > 1:
                positions = positions.filter(pl.col("candidate") == candidate)
        elif len(names) > 1:
            raise ValueError(f"which candidate? positions has those of {_listed(names)}")
    place = positions["sequence"].to_numpy().astype(np.int64) << 32
    place |= positions["position"].to_numpy().astype(np.int64)
    steps = np.diff(place)
    if (steps < 0).any():
        order = np.argsort(place, kind="stable")
        positions, steps = positions[order], np.diff(place[order])
    if (steps == 0).any():
        row = positions.row(int((steps == 0).argmax()), named=True)
        raise ValueError(
            f"position {row['position']} of sequence {row['sequence']} is there twice; "
            "expected one row for each"
        )
    return positions


def column(positions: pl.DataFrame, name: str) -> Array:
    """A column, or what follows from several of them, as float64; NaN where there is none.

    Derived ones: same_top (whether the most probable class is the same), delta_p (probability of
    the token under q minus under p), nll_difference (−ln q minus −ln p of the token),
    acceptance (Σ min(p, q)).

    Raises
    ------
    ValueError
        For a column that is neither in the table nor follows from it.
    """
    if name in positions.columns:
        series = positions[name]
        if series.dtype != pl.Float64:
            series = series.cast(pl.Float64)
        return (series.fill_null(float("nan")) if series.has_nulls() else series).to_numpy()
    if not has(positions, name):
        known = [*positions.columns, *(one for one in _DERIVED if has(positions, one))]
        raise ValueError(f"positions has no column {name!r}; there are {', '.join(known)}")
    needed, derive = _DERIVED[name]
    with np.errstate(all="ignore"):
        return derive(*(column(positions, one) for one in needed))


def has(positions: pl.DataFrame, name: str) -> bool:
    """Whether `column` has this one."""
    if name in positions.columns:
        return True
    return name in _DERIVED and all(one in positions.columns for one in _DERIVED[name][0])


def main_column(positions: pl.DataFrame) -> str:
    """The KL, or of a table of top-k rows its lower bound."""
    return "kl" if "kl" in positions.columns or "kl_lower" not in positions.columns else "kl_lower"


def clusters_of(positions: pl.DataFrame) -> Array:
    """The cluster of each row as a number from 0, in the order in which they come.

    Those of column ``cluster``; of rows where it is null, and without it, the sequence.
    """
    sequences = positions["sequence"].to_numpy().astype(np.int64)
    if NUMBER in positions.columns:
        return positions[NUMBER].to_numpy()
    if "cluster" not in positions.columns:
        return numbered(sequences)
    series = positions["cluster"]
    if series.dtype == pl.String:
        series = series.cast(pl.Categorical).to_physical()
    named = series.is_not_null().to_numpy()
    keys = series.fill_null(0).to_numpy().astype(np.int64)
    # Negative numbers are free.
    return numbered(np.where(named, keys, -1 - sequences))


def numbered(keys: Array) -> Array:
    """Equal keys as one number from 0, in the order in which they first come."""
    if not keys.size:
        return np.zeros(0, np.int64)
    starts = np.concatenate([[True], keys[1:] != keys[:-1]])
    _, first, inverse = np.unique(keys[starts], return_index=True, return_inverse=True)
    rank = np.empty(first.size, np.int64)
    rank[np.argsort(first)] = np.arange(first.size)
    codes: Array = rank[inverse][np.cumsum(starts) - 1]
    return codes


def _same_top(top1_p: Array, top1_q: Array) -> Array:
    known = (top1_p >= 0) & (top1_q >= 0)
    return np.where(known, (top1_p == top1_q).astype(np.float64), np.nan)


def _delta_p(nll_p: Array, nll_q: Array) -> Array:
    return np.asarray(np.exp(-nll_q) - np.exp(-nll_p))


def _difference(nll_p: Array, nll_q: Array) -> Array:
    return np.asarray(nll_q - nll_p)


_DERIVED: dict[str, tuple[tuple[str, ...], Callable[..., Array]]] = {
    "same_top": (("top1_p", "top1_q"), _same_top),
    "delta_p": (("nll_p", "nll_q"), _delta_p),
    "nll_difference": (("nll_p", "nll_q"), _difference),
    "acceptance": (("total_variation",), lambda distance: 1 - distance),
}


def _listed(names: list[str]) -> str:
    return ", ".join(map(repr, names))
