"""Speculative decoding: how often the reference accepts a token that the candidate drafts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from kldiv._arrays import Array
from kldiv.evaluation.statistics.estimate import Estimate, mean_of
from kldiv.evaluation.statistics.rows import clusters_of, column

DRAFTS = (1, 2, 3, 4, 5, 6, 7, 8)


@dataclass(frozen=True)
class AcceptedLength:
    """Drafted tokens accepted on average of a draft of so many."""

    draft: int
    """γ, the tokens drafted."""
    independent: Estimate
    """Were each accepted with the mean rate, whatever came before."""
    along: Estimate
    """Along the positions of the text; `Estimate.rows` are the places where a draft may begin."""


@dataclass(frozen=True)
class Acceptance:
    """The candidate as a draft model of the reference."""

    rate: Estimate
    """α, the mean of Σ min(p, q) = 1 − total variation."""
    lengths: tuple[AcceptedLength, ...]


def acceptance(positions: pl.DataFrame, *, drafts: tuple[int, ...] = DRAFTS) -> Acceptance:
    """Acceptance rate of the candidate as a draft model, and expected accepted length.

    A token drafted from q is accepted with probability min(1, p/q), on average Σ min(p, q) =
    1 − TV (Leviathan, Kalman and Matias, *Fast Inference from Transformers via Speculative
    Decoding*, ICML 2023, corollary 3.6). Of γ drafted tokens those before the first rejection
    are accepted:

    - independent: Σ_{k=1…γ} αᵏ = α (1 − α^γ)/(1 − α), with one α for all, their equation 1 less
      the token that the reference adds to every draft;
    - along the text: the mean over its places i of Σ_{k=1…γ} a_i a_{i+1} ⋯ a_{i+k−1}, with the rate
      a of each position, over places with γ consecutive positions in their sequence. It knows that
      hard positions come together; both have the text as the context, not what was drafted.

    The tokens a step of the reference yields are one more than either.

    Raises
    ------
    ValueError
        For a draft of less than one token.

    Examples
    --------
    >>> import polars as pl
    >>> table = pl.DataFrame(
    ...     {
    ...         "sequence": [0, 0, 1, 1],
    ...         "position": [0, 1, 0, 1],
    ...         "total_variation": [0.25, 0.5, 0.25, 0.5],
    ...     }
    ... )
    >>> found = acceptance(table, drafts=(2,))
    >>> found.rate.mean, found.lengths[0].independent.mean, found.lengths[0].along.mean
    (0.625, 1.015625, 1.125)
    """
    if any(draft < 1 for draft in drafts):
        raise ValueError(f"drafts are of at least one token, got {min(drafts)}")
    rates = column(positions, "acceptance")
    clusters = clusters_of(positions)
    rate = mean_of(rates, clusters)
    lengths = _lengths_along(positions, rates, drafts)
    return Acceptance(
        rate,
        tuple(
            AcceptedLength(draft, _independent(rate, draft), mean_of(lengths[draft], clusters))
            for draft in drafts
        ),
    )


def _independent(rate: Estimate, draft: int) -> Estimate:
    """Σ αᵏ, which has no 1 − α to divide by; the error to first order."""
    slope = sum(k * rate.mean ** (k - 1) for k in range(1, draft + 1))
    return rate.mapped(lambda value: float(sum(value**k for k in range(1, draft + 1))), slope)


def _lengths_along(
    positions: pl.DataFrame, rates: Array, drafts: tuple[int, ...]
) -> dict[int, Array]:
    """For each γ, of each row the length of a draft that begins there; NaN where none fits."""
    sequences = positions["sequence"].to_numpy().astype(np.int64)
    depths = positions["position"].to_numpy().astype(np.int64)
    follows = (np.diff(sequences) == 0) & (np.diff(depths) == 1)
    product, total = rates, rates
    fits = np.ones(rates.size, np.bool_)
    found = {}
    for draft in range(1, max(drafts, default=0) + 1):
        if draft in drafts:
            found[draft] = np.full(rates.size, np.nan)
            found[draft][: fits.size][fits] = total[fits]
        # Of the rows that have one more row behind the last of the draft.
        left = max(rates.size - draft, 0)
        fits = fits[:left] & follows[draft - 1 :]
        product = product[:left] * rates[draft:]
        total = total[:left] + product
    return found
