"""Every divergence of many wide rows, in extended precision."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .divergences import ENTRIES
from .numbers import pair_of
from .wide_rows import balanced, extended, wide_log_softmax, wide_logsumexp


@dataclass(frozen=True)
class WidePair:
    """Two arrays of rows, as probabilities; make one with `wide` and use it for everything."""

    p: np.ndarray
    q: np.ndarray
    d: np.ndarray
    """ln p − ln q, to its relative precision."""
    gap: np.ndarray
    """q − p, to its relative precision."""
    normalized: bool
    """Whether Σp = Σq = 1 by definition: both are logits."""
    space: tuple
    temperature: tuple

    def exchanged(self):
        """The pair of q and p."""
        return WidePair(
            self.q,
            self.p,
            -self.d,
            -self.gap,
            self.normalized,
            self.space[::-1],
            self.temperature[::-1],
        )

    def sum_of_gaps(self):
        """Σ (q − p)."""
        return 0 if self.normalized else self.gap.sum(-1)

    def value(self, name, **parameter):
        """Divergence of every row."""
        return ENTRIES[name](**parameter).wide_value(self)

    def gradient(self, name, wrt, **parameter):
        """∂value/∂(numbers of `wrt`); at probability 0 use `gradient`, the 60-digit one."""
        side = "pq".index(wrt)
        own, inverse = (self.p, self.q)[side], 1 / np.longdouble(self.temperature[side])
        # Slopes less a multiple c of the probability, which the logits' gradient does not see.
        slope, c = ENTRIES[name](**parameter).wide_slopes(self)[side]
        if self.space[side] == "logits":
            return balanced(slope - own * slope.sum(-1, keepdims=True), own) * inverse
        slope = slope + c * own
        return slope if self.space[side] == "log_probs" else slope / own


def wide(p, q, *, space="logits", temperature=1):
    """Make the `WidePair` of two ``[rows, classes]`` arrays."""
    space, temperature = pair_of(space), pair_of(temperature)
    x, y = extended(p), extended(q)
    ln_p, ln_q = (
        _wide_log_probs(rows, one, t)
        for rows, one, t in zip((x, y), space, temperature, strict=True)
    )
    p, q = (
        rows if one == "probs" else np.exp(ln)
        for rows, one, ln in zip((x, y), space, (ln_p, ln_q), strict=True)
    )
    normalized = space == ("logits", "logits")
    with np.errstate(invalid="ignore", divide="ignore"):
        if space == ("probs", "probs"):
            close = (p <= 2 * q) & (q <= 2 * p)
            d = np.where(close, np.log1p((p - q) / np.where(close, q, 1)), ln_p - ln_q)
        elif normalized and temperature[0] == temperature[1]:
            # Relative to the same class in both: then a constant between them rounds nothing.
            top = np.argmax(x, -1)[:, None]
            x, y = (rows - np.take_along_axis(rows, top, -1) for rows in (x, y))
            one = np.longdouble(temperature[0])
            delta = wide_logsumexp(x, temperature=one) - wide_logsumexp(y, temperature=one)
            d = (x - y) / one - delta[:, None]
        else:
            d = ln_p - ln_q
        d = np.where((p == 0) & (q == 0), 0, d)
    if normalized:
        # Σ(q − p) = 0 exactly: for close rows the sum shows what d is off by, far below the
        # rounding of a log-sum-exp. For other rows it is rounding, and does nothing.
        d = d + np.log1p(_gap(p, q, d).sum(-1, keepdims=True))
    gap = q - p if space == ("probs", "probs") else _gap(p, q, d)
    if normalized:
        # A class of probability near 1 differs by what the others leave, and by far less than its
        # d is rounded.
        gap = balanced(gap, p)
        likely = (p > 0.5) & (np.abs(gap) < 0.5 * p)
        d = np.where(likely, -np.log1p(np.where(likely, gap, 0) / np.where(likely, p, 1)), d)
    return WidePair(p, q, d, gap, normalized, space, temperature)


def _gap(p, q, d):
    """Difference q − p from the larger of them and the log-ratio."""
    return np.where(d >= 0, p, -q) * np.expm1(-np.abs(d))


def _wide_log_probs(rows, space, temperature):
    if space == "logits":
        return wide_log_softmax(rows, temperature=temperature)
    if space == "log_probs":
        return rows
    with np.errstate(divide="ignore"):
        return np.log(rows)


def wide_divergence(name, p, q, *, space="logits", temperature=1, **parameter):
    """`divergence` of every row."""
    return wide(p, q, space=space, temperature=temperature).value(name, **parameter)


def wide_gradient(name, p, q, wrt, *, space="logits", temperature=1, **parameter):
    """`gradient` of every row."""
    return wide(p, q, space=space, temperature=temperature).gradient(name, wrt, **parameter)
