"""The estimators, and what is known of each: what all front ends, tests and documents go by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kldiv.estimators import formulas

Formula = Callable[[Any, Any], Any]
"""Of an array namespace and r."""


@dataclass(frozen=True)
class Estimator:
    """An estimator of KL(q‖p) as a function of r = ln q − ln p of a token sampled from q."""

    name: str
    formula: str
    gradient: str
    """The derivative with respect to ln q; that with respect to ln p is its negative."""
    value: Formula
    slope: Formula
    unbiased_value: bool
    """Whether its expectation under q is KL(q‖p)."""
    expected_gradient: str
    """What the expectation under q of its gradient with respect to the policy is."""
    unbiased_gradient: bool
    """Whether that is the gradient of KL(q‖p)."""
    non_negative: bool

    def estimate(self, xp: Any, r: Any, clamp_log_ratio: Any = None, clamp: Any = None) -> Any:
        """The values, of log-ratios cut to one bound, and cut to another."""
        cut = formulas.clamped(xp, r, clamp_log_ratio)
        value = self.value(xp, cut)
        if clamp is None:
            return value
        # Beyond the bound the derivative may be infinite: it is taken elsewhere, as 0 times it.
        above, below = value > clamp, value < -clamp
        inside = self.value(xp, xp.where(above | below, 0.0, cut))
        return xp.where(above, clamp, xp.where(below, -clamp, inside))

    def differentiate(self, xp: Any, r: Any, clamp_log_ratio: Any = None, clamp: Any = None) -> Any:
        """The derivatives of `estimate` with respect to r: 0 beyond a bound."""
        cut = formulas.clamped(xp, r, clamp_log_ratio)
        slope = self.slope(xp, cut)
        for number, bound in ((r, clamp_log_ratio), (self.value(xp, cut), clamp)):
            if bound is not None:
                slope = xp.where(xp.abs(number) > bound, 0.0, slope)
        return slope


ESTIMATORS = {
    one.name: one
    for one in (
        Estimator(
            "k1",
            formula="r",
            gradient="1",
            value=formulas.k1,
            slope=formulas.k1_slope,
            unbiased_value=True,
            expected_gradient="0",
            unbiased_gradient=False,
            non_negative=False,
        ),
        Estimator(
            "k2",
            formula="r²/2",
            gradient="r",
            value=formulas.k2,
            slope=formulas.k2_slope,
            unbiased_value=False,
            expected_gradient="∇ KL(q‖p)",
            unbiased_gradient=True,
            non_negative=True,
        ),
        Estimator(
            "k3",
            formula="e^(−r) − 1 + r",
            gradient="1 − e^(−r)",
            value=formulas.k3,
            slope=formulas.k3_slope,
            unbiased_value=True,
            expected_gradient="∇ KL(p‖q)",
            unbiased_gradient=False,
            non_negative=True,
        ),
    )
}
"""By name."""

STRAIGHT_THROUGH = ESTIMATORS["k2"]
"""Whose gradient takes the place of an estimator's own in its straight-through form."""
