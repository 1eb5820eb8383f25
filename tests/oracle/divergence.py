"""Every divergence of two rows, and its gradients."""

from __future__ import annotations

import numpy as np

from .divergences import ENTRIES
from .numbers import INF, NAN, mp, pair_of
from .rows import probabilities


def divergence(name, p, q, *, space="logits", temperature=1, **parameter):
    """One value; `parameter` is beta or alpha."""
    p, q = both_probabilities(p, q, space, temperature)
    if any(mp.isnan(x) for x in p + q):
        return NAN
    return ENTRIES[name](**parameter).value(list(zip(p, q, strict=True)))


def gradient(name, p, q, wrt, *, space="logits", temperature=1, **parameter):
    """∂divergence/∂(numbers of `wrt`), a list; `wrt` is "p" or "q"."""
    p, q = both_probabilities(p, q, space, temperature)
    side = "pq".index(wrt)
    if any(mp.isnan(x) for x in p + q):
        return [NAN] * len(p)
    entry = ENTRIES[name](**parameter)
    pairs = list(zip(p, q, strict=True))
    slopes = [pair[side] for pair in entry.slopes(pairs)]
    own, other = (p, q) if side == 0 else (q, p)
    own_space, own_temperature = pair_of(space)[side], mp.mpf(pair_of(temperature)[side])
    if own_space == "log_probs":
        return slopes
    if own_space == "probs":
        if any(mp.isnan(slope) for slope in slopes):
            return slopes
        limit = entry.slope_at_zero_of(pairs, wrt)
        return [
            slope / x if x > 0 else limit if y > 0 else mp.zero
            for slope, x, y in zip(slopes, own, other, strict=True)
        ]
    total = mp.fsum(slopes)
    if abs(total) == INF:
        return [NAN] * len(own)
    return [(slope - x * total) / own_temperature for slope, x in zip(slopes, own, strict=True)]


def parts(name, p, q, *, space="logits", **parameter):
    """Of a mixture the weights of its first part, a row each, and the names of both parts."""
    entry, weights = ENTRIES[name](**parameter), []
    for row in zip(p, q, strict=True):
        pairs = list(zip(*both_probabilities(*row, space, 1), strict=True))
        weights.append(float(entry.weight(pairs)))
    known = {one: name for name, one in ENTRIES.items()}
    return np.array(weights), [known[type(one)] for one in (entry.first, entry.second)]


def both_probabilities(p, q, space, temperature):
    sides = zip((p, q), pair_of(space), pair_of(temperature), strict=True)
    return [probabilities(row, space=space, temperature=t) for row, space, t in sides]
