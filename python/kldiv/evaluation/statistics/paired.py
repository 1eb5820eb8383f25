"""Two candidates on the same positions: which is better, and how sure that is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from kldiv._arrays import Array
from kldiv.evaluation.statistics.estimate import Estimate, mean_of
from kldiv.evaluation.statistics.perplexity import p_value_of
from kldiv.evaluation.statistics.plain_values import plain
from kldiv.evaluation.statistics.rows import clusters_of, column, has, main_column, rows_of


@dataclass(frozen=True)
class Difference:
    """One number of two candidates, position by position: a minus b."""

    name: str
    """The column."""
    difference: Estimate
    """Over the positions where both are finite."""
    p_value: float
    """Of the mean difference being 0, two-sided, of Student's t over clusters."""
    rows_infinite_a: int
    """Positions where a is infinite: in no difference."""
    rows_infinite_b: int


@dataclass(frozen=True)
class Pair:
    """Candidate a against candidate b on the same positions."""

    a: str
    b: str
    kl: Difference
    """Of KL, or of its lower bound in tables of top-k rows."""
    others: tuple[Difference, ...]
    """Of every other column that both have."""

    @property
    def better(self) -> str | None:
        """The candidate whose mean KL is lower; None where the interval of 95 % holds 0.

        None, too, where one is better where both are finite, and infinite at more positions.
        """
        difference = self.kl.difference
        if not (difference.ci95_high < 0 or difference.ci95_low > 0):
            return None
        excess = self.kl.rows_infinite_a - self.kl.rows_infinite_b
        if excess * difference.mean < 0:
            return None
        return self.a if difference.mean < 0 else self.b

    @property
    def verdict(self) -> str:
        """A sentence: which is better, by how much, and how sure that is."""
        estimate = self.kl.difference
        what = "the lower bound of KL" if self.kl.name == "kl_lower" else "mean KL"
        if estimate.clusters < 2:
            return f"{self.a} against {self.b}: no error is known of fewer than two clusters"
        # Of the better minus the other, so that both ends of what it is lower by are positive.
        estimate = estimate if estimate.mean >= 0 else estimate.negative()
        sure = f"95 % interval {estimate.interval()}, p = {self.kl.p_value:.2g}"
        infinite = self.kl.rows_infinite_a, self.kl.rows_infinite_b
        if any(infinite):
            sure += f", infinite in {infinite[0]:,} and {infinite[1]:,} rows"
        if self.better is None:
            return (
                f"{self.a} and {self.b} are not told apart: "
                f"{what} differs by {estimate.mean:.3g} ({sure})"
            )
        other = self.b if self.better == self.a else self.a
        return f"{self.better} is better than {other}: {what} lower by {estimate.mean:.3g} ({sure})"

    def __str__(self) -> str:
        return self.verdict

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers for JSON."""
        result: dict[str, Any] = plain(self)
        return result | {"better": self.better, "verdict": self.verdict}


_OTHERS = ("reverse_kl", "jensen_shannon", "total_variation", "same_top", "nll_q", "delta_p")


def paired(a: pl.DataFrame, b: pl.DataFrame, *, names: tuple[str, str] | None = None) -> Pair:
    """Compare two candidates position by position.

    Most positions are hard or easy for both, so that the difference of their means is known far
    better than either mean. Its error is that of the differences, over the clusters of `a`.

    Parameters
    ----------
    a, b : DataFrame
        The rows of one candidate each, over the same sequences and positions.
    names : pair of str, optional
        How they are called; without it as column ``candidate`` says.

    Raises
    ------
    ValueError
        For tables over other positions, which names the first, or of other texts.

    Examples
    --------
    >>> import polars as pl
    >>> place = {"sequence": [0, 0, 1, 1, 2, 2], "position": [0, 1, 0, 1, 0, 1]}
    >>> a = pl.DataFrame(place | {"kl": [0.1, 0.5, 0.3, 0.9, 0.2, 0.4]})
    >>> b = pl.DataFrame(place | {"kl": [0.2, 0.6, 0.4, 1.0, 0.3, 0.5]})
    >>> pair = paired(a, b, names=("int8", "int4"))
    >>> pair.better
    'int8'
    >>> print(round(pair.kl.difference.mean, 6))
    -0.1
    """
    a, b = rows_of(a), rows_of(b)
    found = names or (_name_of(a, "a"), _name_of(b, "b"))
    _check_same_positions(a, b, found)
    clusters = clusters_of(a)
    main = main_column(a)
    if not has(b, main):
        raise ValueError(f"{found[0]} has {main}, and {found[1]} has none")
    others = [
        _difference(a, b, name, clusters) for name in _OTHERS if has(a, name) and has(b, name)
    ]
    return Pair(*found, _difference(a, b, main, clusters), tuple(others))


def pairs(positions: pl.DataFrame) -> list[Pair]:
    """Every candidate of the table against every later one."""
    names = positions["candidate"].unique(maintain_order=True).to_list()
    tables = [positions.filter(pl.col("candidate") == name) for name in names]
    return [
        paired(first, second)
        for place, first in enumerate(tables)
        for second in tables[place + 1 :]
    ]


def _difference(a: pl.DataFrame, b: pl.DataFrame, name: str, clusters: Array) -> Difference:
    of_a, of_b = column(a, name), column(b, name)
    both = np.isfinite(of_a) & np.isfinite(of_b)
    with np.errstate(all="ignore"):
        estimate = mean_of(np.where(both, of_a - of_b, math.nan), clusters)
    infinite = int(np.isinf(of_a).sum()), int(np.isinf(of_b).sum())
    return Difference(name, estimate, p_value_of(estimate), *infinite)


def _name_of(positions: pl.DataFrame, otherwise: str) -> str:
    if "candidate" in positions.columns and len(positions):
        return str(positions["candidate"][0])
    return otherwise


def _check_same_positions(a: pl.DataFrame, b: pl.DataFrame, names: tuple[str, str]) -> None:
    places = [
        np.stack([one["sequence"].to_numpy(), one["position"].to_numpy()]).astype(np.int64)
        for one in (a, b)
    ]
    common = min(len(a), len(b))
    other = (places[0][:, :common] != places[1][:, :common]).any(axis=0)
    if other.any() or len(a) != len(b):
        row = int(other.argmax()) if other.any() else common
        said = [
            f"position {place[1, row]} of sequence {place[0, row]}"
            if row < place.shape[1]
            else "no more"
            for place in places
        ]
        raise ValueError(
            f"{names[0]} and {names[1]} are over other positions: "
            f"row {row} is {said[0]} of the one, and {said[1]} of the other"
        )
    if "token" in a.columns and "token" in b.columns:
        differ = (a["token"] != b["token"]).fill_null(False).to_numpy()
        if differ.any():
            row = int(differ.argmax())
            raise ValueError(
                f"{names[0]} and {names[1]} are of different texts: tokens {a['token'][row]} and "
                f"{b['token'][row]} at position {places[0][1, row]} of sequence {places[0][0, row]}"
            )
