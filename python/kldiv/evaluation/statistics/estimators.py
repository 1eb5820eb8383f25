"""Monte Carlo estimators of KL from sampled tokens, beside the exact value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl

from kldiv import estimators as estimators_of_tokens
from kldiv.evaluation.statistics.estimate import Estimate, mean_of
from kldiv.evaluation.statistics.perplexity import p_value_of
from kldiv.evaluation.statistics.rows import clusters_of, column

Sampled = Literal["p", "q"]


@dataclass(frozen=True)
class Estimators:
    """What the tokens alone say of KL, and what it is, over the same positions."""

    sampled_from: Sampled
    exact: Estimate
    """KL(p‖q) of tokens sampled from p, KL(q‖p) of tokens sampled from q."""
    k1: Estimate
    k3: Estimate
    k1_error: Estimate
    """k1 minus the exact value, position by position: 0 but for noise, of such tokens."""
    k3_error: Estimate

    @property
    def k1_p_value(self) -> float:
        """Of the mean of `k1_error` being 0. A small one says that the tokens are no samples."""
        return p_value_of(self.k1_error)


def estimators(positions: pl.DataFrame, *, sampled_from: Sampled = "p") -> Estimators:
    """The estimators k1 and k3 of the tokens, beside the exact value.

    `kldiv.estimators.k1` and `k3` with the model that the token was sampled from as their policy:
    r and e^(−r) − 1 + r, r the logarithm of the ratio of that model's probability of the token to
    the other model's (Schulman, *Approximating KL Divergence*, 2020,
    http://joschu.net/blog/kl-approx.html). Both are unbiased where each token is a sample of
    its own row; of tokens that are not, as those of a text, they estimate something else. Rows
    where one of the three is not finite are in none.

    Parameters
    ----------
    positions : DataFrame
        One candidate's rows, with losses of the tokens.
    sampled_from : {"p", "q"}
        The model that the tokens were sampled from: k1 is nll_q − nll_p of p, for KL(p‖q), and
        nll_p − nll_q of q, for KL(q‖p).

    Examples
    --------
    >>> import polars as pl
    >>> table = pl.DataFrame(
    ...     {
    ...         "sequence": [0, 1],
    ...         "position": [0, 0],
    ...         "kl": [0.25, 0.25],
    ...         "nll_p": [1.0, 2.0],
    ...         "nll_q": [1.5, 2.0],
    ...     }
    ... )
    >>> found = estimators(table)
    >>> found.exact.mean, found.k1.mean, round(found.k3.mean, 6)
    (0.25, 0.25, 0.053265)
    """
    if sampled_from not in ("p", "q"):
        raise ValueError(f"sampled_from is 'p' or 'q', got {sampled_from!r}")
    clusters = clusters_of(positions)
    nll_p, nll_q = column(positions, "nll_p"), column(positions, "nll_q")
    exact = column(positions, "kl" if sampled_from == "p" else "reverse_kl")
    sampling, other = (nll_p, nll_q) if sampled_from == "p" else (nll_q, nll_p)
    k1 = estimators_of_tokens.k1(-other, -sampling)
    k3 = estimators_of_tokens.k3(-other, -sampling)
    known = np.isfinite(exact) & np.isfinite(k1) & np.isfinite(k3)
    exact, k1, k3 = (np.where(known, values, np.nan) for values in (exact, k1, k3))
    return Estimators(
        sampled_from,
        *(mean_of(values, clusters) for values in (exact, k1, k3, k1 - exact, k3 - exact)),
    )
