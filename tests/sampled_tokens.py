"""Sampled tokens, and what the formulas of their estimators are, as plain as they are written."""

import math

import mpmath
import numpy as np

from kldiv.estimators import ESTIMATORS

inf, nan = math.inf, math.nan
NAMES = list(ESTIMATORS)
OPTIONS = [
    {},
    {"clamp_log_ratio": 1.5},
    {"clamp": 0.6},
    {"clamp_log_ratio": 1.5, "clamp": 0.6},
    {"straight_through": True, "clamp_log_ratio": 1.5, "clamp": 0.6},
]
REDUCTIONS = ["none", "sum", "mean", "batchmean", "denominator"]
"""The last is a mean with another divisor."""
COMBINED = list(zip(OPTIONS, REDUCTIONS, strict=True))
LN_P, LN_Q = np.array(
    [(-1, -inf, -1, -inf, nan, -1, inf, -1), (-1, -1, -inf, -inf, -1, nan, -1, inf)]
)
SPECIAL = {
    "k1": ([0, inf, -inf, *[nan] * 5], [1, 1, 1, *[nan] * 5]),
    "k2": ([0, inf, inf, *[nan] * 5], [0, inf, -inf, *[nan] * 5]),
    "k3": ([0, inf, inf, *[nan] * 5], [0, 1, -inf, *[nan] * 5]),
}
"""Values of the tokens above, and gradients with respect to ln q."""


def tokens(seed=3, shape=(4, 6)):
    """Log-probabilities of sampled tokens under p and q, a mask, weights, an upstream gradient."""
    rng = np.random.default_rng(seed)
    q = np.log(rng.uniform(0.01, 1, shape))
    p = q + rng.normal(0, 1.5, shape)
    return p, q, rng.random(shape) < 0.7, rng.uniform(0.1, 2, (shape[0], 1)), rng.normal(size=shape)


def exact(name, r):
    """The estimator and its derivative with respect to r, of 400 digits."""
    with mpmath.workdps(400):
        r = mpmath.mpf(float(r))
        decay = mpmath.exp(-r)
        found = {"k1": (r, 1), "k2": (r**2 / 2, r), "k3": (decay - 1 + r, 1 - decay)}[name]
        return float(found[0]), float(found[1])


def plain(name, p, q, straight_through=False, clamp_log_ratio=inf, clamp=inf):
    """Values and slopes of tokens, by the plain formulas."""
    r = q - p
    cut = np.clip(r, -clamp_log_ratio, clamp_log_ratio)
    found = [exact(name, one) for one in cut.flat]
    values, slopes = (np.reshape(one, r.shape) for one in zip(*found, strict=True))
    slopes = slopes * (np.abs(r) <= clamp_log_ratio) * (np.abs(values) <= clamp)
    return np.clip(values, -clamp, clamp), r if straight_through else slopes
