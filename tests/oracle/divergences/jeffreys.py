"""Jeffreys."""

from __future__ import annotations

from ..numbers import mp
from ..rows import rel_entr
from .entry import Entry
from .kl import Kl, ReverseKl


class Jeffreys(Entry):
    def value(self, pairs):
        return mp.fsum(rel_entr(p, q) + rel_entr(q, p) for p, q in pairs)

    def slopes(self, pairs):
        both = zip(Kl().slopes(pairs), ReverseKl().slopes(pairs), strict=True)
        return [(kl[0] + reverse[0], kl[1] + reverse[1]) for kl, reverse in both]

    def wide_value(self, pair):
        return Kl().wide_value(pair) + ReverseKl().wide_value(pair)

    def wide_slopes(self, pair):
        (to_p, _), (gap, _) = Kl().wide_slopes(pair)
        _, (to_q, _) = ReverseKl().wide_slopes(pair)
        return (to_p - gap, 0), (to_q + gap, 0)
