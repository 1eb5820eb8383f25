"""Bootstrap over clusters: whole clusters are drawn again, with all their positions."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Literal

import numpy as np
import polars as pl

from kldiv._arrays import Array
from kldiv.evaluation.statistics.estimate import LEVEL, NOTHING, Estimate, estimate_of, scaled
from kldiv.evaluation.statistics.rows import clusters_of, column, numbered

Interval = Literal["bca", "percentile"]

SAMPLES = 2000
"""Drawn where no other number is asked for."""

_DRAWN_AT_A_TIME = 1 << 20
"""Clusters drawn at a time: arrays of 8 MB."""


def bootstrap_mean(
    positions: pl.DataFrame,
    name: str = "kl",
    *,
    samples: int = SAMPLES,
    seed: int = 0,
    interval: Interval = "bca",
    stratified: bool = False,
) -> Estimate:
    """The mean of a column over all positions, with the error of a bootstrap over clusters.

    Each sample draws as many clusters as there are, with replacement; its mean is that of their
    positions, a ratio of two sums. The same seed gives the same bits, however the table came to
    be.

    Parameters
    ----------
    positions : DataFrame
        One candidate's rows, in order.
    name : str
        A column, or a derived one: see `kldiv.evaluation.statistics.rows.column`.
    samples : int
        How many, at least 2.
    seed : int
        Of NumPy's PCG64.
    interval : {"bca", "percentile"}
        Bias-corrected and accelerated (Efron, *Better bootstrap confidence intervals*, J. Am.
        Stat. Assoc. 82, 1987), its acceleration from the influence of each cluster on the mean;
        or between percentiles of the samples.
    stratified : bool
        Clusters are drawn from those of their own stratum (column ``stratum``), as many as there
        are. A stratum of one cluster adds nothing to the error, and its interval is too narrow.

    Returns
    -------
    Estimate
        The mean is that of the table. NaN as error and interval of fewer than two clusters.

    Raises
    ------
    ValueError
        For options out of range, `stratified` without strata, and a cluster in several strata.

    Examples
    --------
    >>> import polars as pl
    >>> table = pl.DataFrame(
    ...     {"sequence": [0, 0, 1, 1], "position": [0, 1, 0, 1], "kl": [0.1, 0.2, 0.3, 0.4]}
    ... )
    >>> estimate = bootstrap_mean(table, samples=1000)
    >>> estimate.mean, estimate.clusters, estimate.samples
    (0.25, 2, 1000)
    """
    return bootstrap_of(
        column(positions, name),
        clusters_of(positions),
        _strata(positions) if stratified else None,
        samples=samples,
        seed=seed,
        interval=interval,
    )


def bootstrap_of(
    values: Array,
    clusters: Array,
    strata: Array | None = None,
    *,
    samples: int = SAMPLES,
    seed: int = 0,
    interval: Interval = "bca",
) -> Estimate:
    """`bootstrap_mean` of numbers, the cluster of each, and the stratum of each."""
    if samples < 2:
        raise ValueError(f"samples is at least 2, got {samples}")
    if interval not in ("bca", "percentile"):
        raise ValueError(f"interval is 'bca' or 'percentile', got {interval!r}")
    finite = np.isfinite(values)
    method = (
        f"bootstrap over clusters ({interval}{', within strata' if strata is not None else ''})"
    )
    x = values[finite]
    kept = numbered(clusters[finite])
    of_clusters = None
    if strata is not None:
        of_clusters = _stratum_of_clusters(kept, numbered(strata[finite]))
    infinite = int(np.isinf(values).sum())
    groups = int(kept.max(initial=-1)) + 1
    if not x.size:
        return estimate_of(NOTHING, 0, 0, 0, method, infinite, samples)
    x, exponent = scaled(x)
    mean = float(x.sum()) / x.size
    if groups < 2:
        numbers = mean, math.nan, math.nan, math.nan
        return estimate_of(numbers, exponent, x.size, groups, method, infinite, samples)
    sums = np.bincount(kept, weights=x)
    counts = np.bincount(kept)
    members = [np.arange(groups)]
    if of_clusters is not None:
        members = [np.flatnonzero(of_clusters == one) for one in range(int(of_clusters.max()) + 1)]
    means = _resampled(sums, counts, members, samples, seed)
    low_share, high_share = (1 - LEVEL) / 2, (1 + LEVEL) / 2
    if interval == "bca":
        influence = np.bincount(kept, weights=x - mean)
        for stratum in members:
            influence[stratum] -= influence[stratum].mean()
        low_share, high_share = _bca_shares(means, mean, influence)
    low, high = np.quantile(means, [low_share, high_share]).tolist()
    error = float(means.std(ddof=1))
    numbers = mean, error, low, high
    return estimate_of(numbers, exponent, x.size, groups, method, infinite, samples)


def _resampled(sums: Array, counts: Array, members: list[Array], samples: int, seed: int) -> Array:
    """The mean of each sample."""
    generator = np.random.Generator(np.random.PCG64(seed))
    step = max(1, _DRAWN_AT_A_TIME // sums.size)
    means = np.empty(samples)
    for first in range(0, samples, step):
        size = min(step, samples - first)
        total, rows = np.zeros(size), np.zeros(size)
        for stratum in members:
            drawn = stratum[generator.integers(stratum.size, size=(size, stratum.size))]
            total += sums[drawn].sum(axis=1)
            rows += counts[drawn].sum(axis=1)
        means[first : first + size] = total / rows
    return means


def _bca_shares(means: Array, mean: float, influence: Array) -> tuple[float, float]:
    """Between which shares of the samples the interval lies."""
    normal = NormalDist()
    size = means.size
    below = ((means < mean).sum() + 0.5 * (means == mean).sum()) / size
    bias = normal.inv_cdf(min(max(float(below), 0.5 / size), 1 - 0.5 / size))
    squares = float((influence**2).sum())
    acceleration = float((influence**3).sum()) / (6 * squares**1.5) if squares else 0.0
    shares = []
    for share in ((1 - LEVEL) / 2, (1 + LEVEL) / 2):
        z = bias + normal.inv_cdf(share)
        # Beyond its pole the map says nothing: the outermost sample.
        left = 1 - acceleration * z
        shares.append(normal.cdf(bias + z / left) if left > 0 else float(z > 0))
    return shares[0], shares[1]


def _strata(positions: pl.DataFrame) -> Array:
    if "stratum" not in positions.columns:
        raise ValueError("positions has no column stratum; expected one to draw within strata")
    series = positions["stratum"]
    if series.dtype == pl.String:
        series = series.cast(pl.Categorical).to_physical()
    return numbered(series.cast(pl.Int64).fill_null(-1).to_numpy())


def _stratum_of_clusters(clusters: Array, strata: Array) -> Array:
    order = np.unique(clusters, return_index=True)[1]
    found: Array = strata[order]
    other = found[clusters] != strata
    if other.any():
        row = int(other.argmax())
        raise ValueError(
            f"cluster {clusters[row]} is in several strata; "
            "expected strata that hold whole clusters"
        )
    return found
