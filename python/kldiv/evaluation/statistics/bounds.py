"""What is known of rows of which only the most probable tokens are known."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from kldiv.evaluation.statistics.estimate import Estimate, mean_of
from kldiv.evaluation.statistics.rows import clusters_of, column, has


@dataclass(frozen=True)
class Bounds:
    """Means of bounds; the truth is on the far side of each, by an amount that is not known."""

    kl_lower: Estimate
    reverse_kl_lower: Estimate | None
    total_variation_lower: Estimate | None
    total_variation_upper: Estimate | None
    coverage_p: Estimate | None
    """Mean mass of p on the classes known on both sides."""
    coverage_q: Estimate | None

    @property
    def acceptance_lower(self) -> Estimate | None:
        """Σ min(p, q) is at least one minus the upper bound of total variation."""
        upper = self.total_variation_upper
        return None if upper is None else upper.complement()

    @property
    def acceptance_upper(self) -> Estimate | None:
        """Σ min(p, q) is at most one minus the lower bound of total variation."""
        lower = self.total_variation_lower
        return None if lower is None else lower.complement()


def bounds(positions: pl.DataFrame) -> Bounds:
    """Means of the bounds of top-k rows, and of what part of the mass they know.

    Examples
    --------
    >>> import polars as pl
    >>> table = pl.DataFrame({"sequence": [0, 1], "position": [0, 0], "kl_lower": [0.25, 0.75]})
    >>> print(bounds(table).kl_lower)
    0.5 ± 0.25
    """
    clusters = clusters_of(positions)

    def mean(name: str) -> Estimate | None:
        return mean_of(column(positions, name), clusters) if has(positions, name) else None

    return Bounds(
        mean_of(column(positions, "kl_lower"), clusters),
        mean("reverse_kl_lower"),
        mean("total_variation_lower"),
        mean("total_variation_upper"),
        mean("coverage_p"),
        mean("coverage_q"),
    )
