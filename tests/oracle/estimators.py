"""Estimators of KL(q‖p) from the log-probabilities of one sampled token, by their definitions."""

import math

from .numbers import INF, NAN, mp

SMALL = 1e-9
"""Below it e^(−r) is its first terms, to 60 digits of what is left of them."""


def _exponential(r, terms):
    """What e^(−r) is without so many of its first terms."""
    if abs(r) < SMALL:
        return mp.fsum((-r) ** n / math.factorial(n) for n in range(terms, terms + 8))
    return mp.exp(-r) - (1, 1 - r)[terms - 1]


VALUES = {
    "k1": lambda r: r,
    "k2": lambda r: r * r / 2,
    "k3": lambda r: INF if abs(r) == INF else _exponential(r, 2),
}
SLOPES = {
    "k1": lambda r: mp.one,
    "k2": lambda r: r,
    "k3": lambda r: -_exponential(r, 1),
}
"""Derivatives with respect to r, that with respect to ln q."""


def log_ratio(ln_p, ln_q):
    """The logarithm r = ln(q/p); NaN where it is 0/0, or of numbers that are no logarithms."""
    p, q = mp.mpf(ln_p), mp.mpf(ln_q)
    if any(mp.isnan(x) or x == INF for x in (p, q)) or p == q == -INF:
        return NAN
    return q - p


def estimator(name, ln_p, ln_q, *, clamp_log_ratio=None, clamp=None):
    """The value of one token: cut, of a log-ratio that was cut."""
    r = log_ratio(ln_p, ln_q)
    if mp.isnan(r):
        return NAN
    return _cut(VALUES[name](_cut(r, clamp_log_ratio)), clamp)


def estimator_gradient(
    name, ln_p, ln_q, wrt, *, straight_through=False, clamp_log_ratio=None, clamp=None
):
    """The derivative with respect to ln p or ln q: of k2 without bounds if `straight_through`."""
    r = log_ratio(ln_p, ln_q)
    if mp.isnan(r):
        return NAN
    sign = {"p": -1, "q": 1}[wrt]
    if straight_through:
        return sign * SLOPES["k2"](r)
    cut = _cut(r, clamp_log_ratio)
    bounds = (r, clamp_log_ratio), (VALUES[name](cut), clamp)
    if any(bound is not None and abs(x) > bound for x, bound in bounds):
        return mp.zero
    return sign * SLOPES[name](cut)


def _cut(x, bound):
    return x if bound is None else max(-mp.mpf(bound), min(x, mp.mpf(bound)))
