"""Universal logit distillation, by its definition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .divergence import both_probabilities
from .divergences import ENTRIES
from .numbers import INF, NAN, mp, pair_of, row_of


@dataclass
class _Parts:
    """What a row is compared by: probabilities, the classes of each part, and their weights."""

    given: tuple[Any, Any]
    sides: tuple[Any, Any]
    shared: tuple[Any, Any]
    others: tuple[Any, Any]
    entry: Any
    matched: Any
    unmatched: Any

    def pairs(self):
        """The probabilities of the shared classes."""
        return list(zip(*([x[i] for i in ids] for x, ids in self._each(self.shared)), strict=True))

    def ranked(self):
        """The classes that are not shared in falling order, and the probabilities of each rank."""
        # By the numbers given, which may differ where 60 digits of their probabilities do not.
        orders = [
            sorted(ids, key=lambda i, row=row: (-row[i], i))
            for row, ids in zip(self.given, self.others, strict=True)
        ]
        width = max(map(len, orders))
        falling = [
            [x[i] for i in ids] + [mp.zero] * (width - len(ids)) for x, ids in self._each(orders)
        ]
        return orders, list(zip(*falling, strict=True))

    def _each(self, ids):
        return zip(self.sides, ids, strict=True)

    def value(self):
        value = mp.zero
        if self.matched and len(self.shared[0]):
            value += self.matched * self.entry.value(self.pairs())
        if self.unmatched:
            value += self.unmatched * mp.fsum(abs(x - y) for x, y in self.ranked()[1])
        return value


def _parts(p, q, ids, weights, beta, space, temperature):
    sides = both_probabilities(p, q, space, temperature)
    if any(mp.isnan(x) for x in sides[0] + sides[1]):
        return None
    shared = ids or ((), ())
    others = tuple(
        [i for i in range(len(x)) if i not in set(known)]
        for x, known in zip(sides, shared, strict=True)
    )
    if weights:
        matched, unmatched = map(mp.mpf, weights)
    else:
        matched = mp.mpf(len(shared[0])) / len(p) if ids else mp.zero
        unmatched = 1 - matched
    kind = {0: "kl", 1: "reverse_kl"}.get(beta)
    entry = ENTRIES[kind]() if kind else ENTRIES["jensen_shannon"](beta=beta)
    return _Parts((row_of(p), row_of(q)), tuple(sides), shared, others, entry, matched, unmatched)


def uld(p, q, *, ids=None, weights=None, beta=0.5, space="logits", temperature=1):
    """The value of one row; `weights` are those of the shared classes and of all others."""
    parts = _parts(p, q, ids, weights, beta, space, temperature)
    return NAN if parts is None else parts.value()


def uld_gradient(p, q, wrt, *, ids=None, weights=None, beta=0.5, space="logits", temperature=1):
    """∂uld/∂(numbers of `wrt`), a list; a rank whose probabilities are equal has no slope."""
    side = "pq".index(wrt)
    parts = _parts(p, q, ids, weights, beta, space, temperature)
    if parts is None:
        return [NAN] * len((p, q)[side])
    own, own_space = parts.sides[side], pair_of(space)[side]
    # With respect to logarithms, and to probabilities.
    slopes, per_p = [mp.zero] * len(own), [mp.zero] * len(own)
    if parts.matched and len(parts.shared[0]):
        pairs = parts.pairs()
        limit = parts.entry.slope_at_zero_of(pairs, wrt)
        found = zip(parts.shared[side], parts.entry.slopes(pairs), pairs, strict=True)
        for i, slope, pair in found:
            slopes[i] = parts.matched * slope[side]
            at_zero = limit if pair[1 - side] > 0 else mp.zero
            per_p[i] = slopes[i] / own[i] if own[i] > 0 else parts.matched * at_zero
    if parts.unmatched:
        orders, ranks = parts.ranked()
        for i, pair in zip(orders[side], ranks, strict=False):
            per_p[i] = parts.unmatched * mp.sign(pair[side] - pair[1 - side])
            slopes[i] = per_p[i] * own[i]
    if own_space == "log_probs":
        return slopes
    if own_space == "probs":
        return per_p
    if abs(parts.value()) == INF:
        return [NAN] * len(own)
    total = mp.fsum(slopes)
    own_temperature = mp.mpf(pair_of(temperature)[side])
    return [(slope - x * total) / own_temperature for slope, x in zip(slopes, own, strict=True)]
