"""Perplexities of the true tokens under both models, and the paired difference of their losses."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import polars as pl

from kldiv.evaluation.statistics.estimate import Estimate, mean_of
from kldiv.evaluation.statistics.rows import clusters_of, column
from kldiv.evaluation.statistics.student_t import two_sided


@dataclass(frozen=True)
class Perplexity:
    """Losses of the true tokens, and what follows from them."""

    nll_p: Estimate
    nll_q: Estimate
    nll_difference: Estimate
    """Mean of −ln q minus −ln p, position by position: ln of the ratio of perplexities. Its error
    is far below that of either, because both find the same tokens hard."""
    p_value: float
    """Of the difference being 0, two-sided, of Student's t over clusters."""
    delta_p: Estimate
    """Mean probability of the token under q minus under p."""

    @property
    def perplexity_p(self) -> Estimate:
        """Exp of the mean loss; the error to first order."""
        return exponential(self.nll_p)

    @property
    def perplexity_q(self) -> Estimate:
        """Exp of the mean loss; the error to first order."""
        return exponential(self.nll_q)

    @property
    def ratio(self) -> Estimate:
        """Perplexity of q over that of p, on positions where both are finite."""
        return exponential(self.nll_difference)


def perplexity(positions: pl.DataFrame) -> Perplexity:
    """Losses of the true tokens, each and paired.

    Each mean is over the rows with a token whose number is finite.

    Examples
    --------
    >>> import polars as pl
    >>> table = pl.DataFrame(
    ...     {
    ...         "sequence": [0, 1],
    ...         "position": [0, 0],
    ...         "nll_p": [1.0, 3.0],
    ...         "nll_q": [1.5, 3.5],
    ...     }
    ... )
    >>> found = perplexity(table)
    >>> print(found.nll_difference)
    0.5 ± 0
    >>> print(round(found.ratio.mean, 6))
    1.648721
    """
    clusters = clusters_of(positions)
    nll_p, nll_q, difference, delta_p = (
        mean_of(column(positions, name), clusters)
        for name in ("nll_p", "nll_q", "nll_difference", "delta_p")
    )
    return Perplexity(nll_p, nll_q, difference, p_value_of(difference), delta_p)


def p_value_of(difference: Estimate) -> float:
    """Of the mean being 0: two-sided, of Student's t over clusters."""
    if difference.standard_error == 0:
        return 1.0 if difference.mean == 0 else 0.0
    return two_sided(difference.mean / difference.standard_error, difference.clusters - 1)


def exponential(estimate: Estimate) -> Estimate:
    """Exp of it. Beyond 709 nats it is infinite."""
    with np.errstate(over="ignore"):
        slope = float(np.exp(estimate.mean))
        return estimate.mapped(
            lambda value: float(np.exp(value)), 0.0 if math.isnan(slope) else slope
        )
