"""How much of the total comes from the worst positions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import polars as pl

from kldiv.evaluation.statistics.estimate import scaled
from kldiv.evaluation.statistics.rows import column

WORST = (0.01, 0.1, 1.0, 5.0, 10.0)


@dataclass(frozen=True)
class TailShare:
    """The part of the total that the worst positions have."""

    percent: float
    """So many percent of the positions, the worst."""
    rows: int
    """How many these are: rounded up, at least one."""
    share: float
    """Their part of the total, from 0 to 1; NaN where the total is 0."""
    smallest: float
    """The smallest value among them."""


def tail_share(
    positions: pl.DataFrame, name: str = "kl", *, worst: tuple[float, ...] = WORST
) -> tuple[TailShare, ...]:
    """The share of the total of a column in its worst positions.

    A mean that a few positions make says little of the others. The total is over finite values;
    with an infinite one there is no share to speak of, and `counts` says how many there are.

    Parameters
    ----------
    positions : DataFrame
        One candidate's rows.
    name : str
        A column of numbers that are not negative.
    worst : tuple of float
        Percentages of the positions, above 0 and up to 100.

    Raises
    ------
    ValueError
        For a percentage out of range.

    Examples
    --------
    >>> import polars as pl
    >>> table = pl.DataFrame(
    ...     {"sequence": [0, 0, 0, 0], "position": [0, 1, 2, 3], "kl": [0.1, 0.1, 0.2, 1.6]}
    ... )
    >>> tail_share(table, worst=(25.0,))
    (TailShare(percent=25.0, rows=1, share=0.8, smallest=1.6),)
    """
    for percent in worst:
        if not 0 < percent <= 100:
            raise ValueError(f"worst is in percent, above 0 and up to 100, got {percent:g}")
    values = column(positions, name)
    values = values[np.isfinite(values)]
    if not values.size:
        return tuple(TailShare(percent, 0, math.nan, math.nan) for percent in worst)
    descending, exponent = scaled(np.sort(values)[::-1])
    total = float(descending.sum())
    found = []
    for percent in worst:
        # Of the number as it is written, so that 0.1 % of 10,000 is 10.
        rows = math.ceil(Fraction(repr(float(percent))) * values.size / 100)
        share = float(descending[:rows].sum()) / total if total > 0 else math.nan
        smallest = float(np.ldexp(descending[rows - 1], exponent))
        found.append(TailShare(percent, rows, share, smallest))
    return tuple(found)
