"""A mean with its error: `Estimate`, and the one way to it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from kldiv._arrays import Array
from kldiv.evaluation.statistics.plain_values import plain
from kldiv.evaluation.statistics.student_t import half_width
from kldiv.evaluation.wording import counted

LEVEL = 0.95
CLUSTERED = "cluster-robust (CR1, t)"
INDEPENDENT = "independent rows (t)"
FEW_CLUSTERS = 10
"""Fewer say little of how clusters differ: whatever the method, an interval is then rough."""
NOTHING = (math.nan, math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class Estimate:
    """A number with its standard error and 95 % interval. ``float`` makes a float of it."""

    mean: float
    """NaN over no row."""
    standard_error: float
    """NaN of a single cluster, which says nothing of the others."""
    ci95_low: float
    ci95_high: float
    rows: int
    """The rows it is over: those where the number is there and finite."""
    clusters: int
    """How many clusters these belong to; the rows themselves where they are independent."""
    method: str
    """How error and interval were found."""
    rows_infinite: int = 0
    """Rows where the number is infinite, which are not in the mean."""
    samples: int | None = None
    """Resamples, of a bootstrap."""

    @property
    def few_clusters(self) -> bool:
        """Whether its interval is of so few clusters that it is rough."""
        return 1 < self.clusters < FEW_CLUSTERS

    def __float__(self) -> float:
        return self.mean

    def __str__(self) -> str:
        return self.show()

    def show(self, *, percent: bool = False) -> str:
        """Mean ± standard error, and how many rows are infinite, where some are."""
        if self.rows == 0:
            if not self.rows_infinite:
                return "–"
            every = "all " if self.rows_infinite > 1 else ""
            return f"infinite in {every}{counted(self.rows_infinite, 'row')}"
        factor, unit = (100.0, " %") if percent else (1.0, "")
        text = f"{self.mean * factor:.6g}"
        if not math.isnan(self.standard_error):
            text += f" ± {self.standard_error * factor:.2g}"
        text += unit
        if self.rows_infinite:
            text += f" over {counted(self.rows, 'row')}, infinite in {self.rows_infinite:,}"
        return text

    def interval(self, *, percent: bool = False) -> str:
        """The 95 % interval as text."""
        if math.isnan(self.ci95_low):
            return "–"
        factor, unit = (100.0, " %") if percent else (1.0, "")
        return f"[{self.ci95_low * factor:.6g}, {self.ci95_high * factor:.6g}]{unit}"

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers for JSON; NaN is None, infinity "Infinity"."""
        result: dict[str, Any] = plain(self)
        return result

    def mapped(self, function: Callable[[float], float], slope: float) -> Estimate:
        """An increasing function of it; the error to first order, with the slope at the mean."""
        return replace(
            self,
            mean=function(self.mean),
            standard_error=abs(slope) * self.standard_error,
            ci95_low=function(self.ci95_low),
            ci95_high=function(self.ci95_high),
        )

    def negative(self) -> Estimate:
        """Zero minus it."""
        return replace(self, mean=-self.mean, ci95_low=-self.ci95_high, ci95_high=-self.ci95_low)

    def complement(self) -> Estimate:
        """One minus it."""
        return replace(
            self, mean=1 - self.mean, ci95_low=1 - self.ci95_high, ci95_high=1 - self.ci95_low
        )


def mean_of(values: Array, clusters: Array | None) -> Estimate:
    r"""The mean of the finite values, with its standard error.

    With the n values in G clusters, and u_g the sum of xᵢ − x̄ over cluster g, the variance of
    the mean is

    .. math:: \frac{G}{G - 1} \cdot \frac{1}{n^2} \sum_g u_g^2

    which is CR1 of a regression on a constant (Cameron and Miller, *A Practitioner's Guide to
    Cluster-Robust Inference*, J. Human Resources 50(2), 2015, equations 11 and 12, where the
    factor (n − 1)/(n − 1) is 1). The interval is that of Student's t with G − 1 degrees of freedom,
    as they advise for few clusters. Where each row is its own cluster, this is the error of
    independent rows, s/√n.

    Parameters
    ----------
    values : array
        float64; NaN where there is none.
    clusters : array or None
        The number of each row's cluster, from 0; None where rows are independent.
    """
    finite = np.isfinite(values)
    infinite = int(np.isinf(values).sum())
    method = INDEPENDENT if clusters is None else CLUSTERED
    x = values if finite.all() else values[finite]
    count = x.size
    if count == 0:
        return estimate_of(NOTHING, 0, 0, 0, method, infinite)
    x, exponent = scaled(x)
    mean = float(x.sum()) / count
    residuals: Array
    if clusters is None:
        groups, residuals = count, x - mean
    else:
        codes = clusters if count == len(values) else clusters[finite]
        groups = int((np.bincount(codes) > 0).sum())
        residuals = np.bincount(codes, weights=x - mean)
    error = math.nan
    if groups > 1:
        error = math.sqrt(groups / (groups - 1) * float((residuals**2).sum())) / count
    width = half_width(LEVEL, groups - 1) * error
    numbers = mean, error, mean - width, mean + width
    return estimate_of(numbers, exponent, count, groups, method, infinite)


def scaled(values: Array) -> tuple[Array, int]:
    """Numbers over 2 to an exponent, of which no sum of squares leaves float64, and the exponent.

    It rounds nothing, and numbers of an ordinary size are left as they are.
    """
    _, exponent = math.frexp(max(float(values.max(initial=0.0)), -float(values.min(initial=0.0))))
    if abs(exponent) < 300:
        return values, 0
    return np.ldexp(values, -exponent), exponent


def estimate_of(
    numbers: tuple[float, float, float, float],
    exponent: int,
    rows: int,
    clusters: int,
    method: str,
    rows_infinite: int,
    samples: int | None = None,
) -> Estimate:
    """An estimate whose mean, error and interval are `numbers` times 2 to the `exponent`."""
    with np.errstate(over="ignore"):
        mean, error, low, high = np.ldexp(numbers, exponent).tolist()
    return Estimate(mean, error, low, high, rows, clusters, method, rows_infinite, samples)
