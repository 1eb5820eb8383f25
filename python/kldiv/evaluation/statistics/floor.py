"""KL beside the noise floor: that of two runs of the same model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl

from kldiv.evaluation.statistics.estimate import Estimate, mean_of
from kldiv.evaluation.statistics.rows import clusters_of, column, main_column

Verdict = Literal["above the floor", "at the floor", "below the floor", "unknown"]


@dataclass(frozen=True)
class Floor:
    """The candidate beside two runs of its reference; nothing is subtracted from any number."""

    kl: Estimate
    """Over the positions where both are finite."""
    floor: Estimate
    """Over the same positions."""
    difference: Estimate
    """KL minus the floor, position by position."""
    share_at_or_below: Estimate
    """The share of positions whose KL is at or below their own floor."""
    rows_without_floor: int
    """Positions where the floor, or KL, is no finite number."""

    @property
    def verdict(self) -> Verdict:
        """Where the mean difference lies.

        ``at the floor`` where its 95 % interval holds 0, so that the candidate is not told apart
        from a second run of the reference; ``unknown`` of fewer than two clusters.
        """
        if self.difference.clusters < 2:
            return "unknown"
        if self.difference.ci95_low > 0:
            return "above the floor"
        return "below the floor" if self.difference.ci95_high < 0 else "at the floor"


def floor(positions: pl.DataFrame) -> Floor:
    """Compare KL with column ``kl_floor``, position by position.

    Two runs of one model differ, by batch size, kernel and scheduling: a candidate that is no
    further off cannot be told from the reference by this measurement.

    Examples
    --------
    >>> import polars as pl
    >>> table = pl.DataFrame(
    ...     {
    ...         "sequence": [0, 1, 2],
    ...         "position": [0, 0, 0],
    ...         "kl": [0.010, 0.012, 0.011],
    ...         "kl_floor": [0.003, 0.004, 0.003],
    ...     }
    ... )
    >>> floor(table).verdict
    'above the floor'
    """
    clusters = clusters_of(positions)
    kl, lowest = column(positions, main_column(positions)), column(positions, "kl_floor")
    both = np.isfinite(kl) & np.isfinite(lowest)
    kl, lowest = np.where(both, kl, np.nan), np.where(both, lowest, np.nan)
    at_or_below = np.where(both, (kl <= lowest).astype(np.float64), np.nan)
    return Floor(
        mean_of(kl, clusters),
        mean_of(lowest, clusters),
        mean_of(kl - lowest, clusters),
        mean_of(at_or_below, clusters),
        int((~both).sum()),
    )
