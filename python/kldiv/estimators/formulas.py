"""The estimators as formulas over an array namespace: `numpy`, `torch` or `jax.numpy`.

torch and JAX differentiate them as they stand, also a second time: the branch of `where` that is
not taken is given a number at which its derivative is finite, and no gradient is found by
subtraction where it is small.
"""

from __future__ import annotations

import math
from typing import Any

NEAR = 0.5
"""|r| below which k3 is a series: e^(−r) − 1 and r cancel to a fifth of them there."""
SERIES = tuple(1.0 / math.factorial(power) for power in range(2, 18))
"""Of r²/2! − r³/3! + …; the next term is below 10⁻²⁰ of the sum at |r| = `NEAR`."""
LOWEST = -1e30
"""Far below the r at which e^(−r) is beyond every dtype, so that ∞ + r is ∞ for r = −∞ too."""


def log_ratio(xp: Any, p: Any, q: Any) -> Any:
    """R = ln q − ln p; NaN, with gradients of NaN, where it has no meaning.

    That is for NaN, for a log-probability of +∞, and for tokens that both give probability 0.
    """
    inf = math.inf
    known = (p < inf) & (q < inf) & ((p > -inf) | (q > -inf))
    return (q - p) * xp.where(known, 1.0, math.nan)


def clamped(xp: Any, x: Any, bound: Any) -> Any:
    """X cut to ±bound, where there is one; beyond it the gradient is 0."""
    if bound is None:
        return x
    return xp.where(x > bound, bound, xp.where(x < -bound, -bound, x))


def k1(xp: Any, r: Any) -> Any:
    """R itself."""
    return r


def k1_slope(xp: Any, r: Any) -> Any:
    """1; NaN for NaN."""
    return xp.where(r == r, 1.0, r)


def k2(xp: Any, r: Any) -> Any:
    """r²/2."""
    return 0.5 * r * r


def k2_slope(xp: Any, r: Any) -> Any:
    """R."""
    return r


def k3(xp: Any, r: Any) -> Any:
    """e^(−r) − 1 + r, relatively accurate for r → 0."""
    near = xp.abs(r) < NEAR
    x = xp.where(near, -r, 0.0)
    series = SERIES[-1]
    for coefficient in SERIES[-2::-1]:
        series = series * x + coefficient
    far = xp.where(near, 1.0, r)
    rest = xp.where(far < LOWEST, LOWEST, far)
    return xp.where(near, x * x * series, xp.expm1(-far) + rest)


def k3_slope(xp: Any, r: Any) -> Any:
    """1 − e^(−r)."""
    return -xp.expm1(-r)
