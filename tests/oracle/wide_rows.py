"""Rows in extended precision, and sums of two that lose nothing where they are close."""

from __future__ import annotations

import numpy as np

WIDE_IS_EXTENDED = np.finfo(np.longdouble).eps < 2e-19
"""Whether `numpy.longdouble` has 64 bits or more on this platform."""

_SERIES_TERMS = 20  # 2^-20/20! ≈ 4e-25 of the leading term at |t| = ½


def extended(rows):
    rows = np.asarray(rows)
    if rows.dtype != np.longdouble:
        rows = rows.astype(np.float64).astype(np.longdouble)  # exact for every dtype of kldiv
    return rows


def _second_order(t):
    """exp(−t) − 1 + t for |t| ≤ ½, by its series."""
    total = np.ones_like(t)
    for k in range(_SERIES_TERMS, 2, -1):
        total = 1 - t / k * total
    return t * t / 2 * total


def kl_terms(p, d, gap):
    """p·(exp(−d) − 1 + d) = p·d + gap, with d = ln(p/q) and gap = q − p; gap where p = 0."""
    near = np.abs(d) <= 0.5
    far = gap + np.where(p > 0, p, 0) * np.where(p > 0, d, 0)
    return np.where(near, p * _second_order(np.where(near, d, 0)), far)


def balanced(rows, p):
    """Make rows whose sum is 0 by definition sum to 0, at a class of probability above ½."""
    likely = p > 0.5
    others = np.where(likely, 0, rows)
    return np.where(likely, -others.sum(-1, keepdims=True), rows)


def wide_log_softmax(z, *, temperature=1):
    """Logarithms of p, each to its relative precision: log1p's argument lacks the largest class."""
    z = extended(z)
    top = np.argmax(z, axis=-1, keepdims=True)
    shifted = (z - np.take_along_axis(z, top, -1)) / np.longdouble(temperature)
    rest = np.exp(shifted)
    np.put_along_axis(rest, top, 0, -1)
    return shifted - np.log1p(rest.sum(-1, keepdims=True))


def wide_logsumexp(z, *, temperature=1):
    """Log-sum-exp ln Σ exp(z/T), over the last axis."""
    z = extended(z)
    ln_p = wide_log_softmax(z, temperature=temperature)
    return z.max(-1) / np.longdouble(temperature) - ln_p.max(-1)
