"""Positions by the label of their sequence."""

from __future__ import annotations

import numpy as np
import polars as pl

from kldiv.evaluation.statistics.groups import Group, groups

WITHOUT = "(none)"


def by_stratum(positions: pl.DataFrame) -> tuple[Group, ...]:
    """Groups by column ``stratum``, in the order in which they come; null is ``(none)``.

    Examples
    --------
    >>> import polars as pl
    >>> table = pl.DataFrame(
    ...     {
    ...         "sequence": [0, 1],
    ...         "position": [0, 0],
    ...         "kl": [0.2, 0.1],
    ...         "stratum": ["code", "prose"],
    ...     }
    ... )
    >>> [(group.label, group.kl.mean) for group in by_stratum(table)]
    [('code', 0.2), ('prose', 0.1)]
    """
    if "stratum" not in positions.columns:
        raise ValueError("positions has no column stratum")
    given = positions["stratum"].cast(pl.String).fill_null(WITHOUT)
    labels = given.unique(maintain_order=True).to_list()
    of = np.full(len(given), -1)
    for number, label in enumerate(labels):
        of[(given == label).to_numpy()] = number
    return groups(positions, of, labels)
