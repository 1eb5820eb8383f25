"""KL, in both directions."""

from __future__ import annotations

import numpy as np

from ..numbers import mp
from ..rows import rel_entr
from ..wide_rows import kl_terms
from .entry import Entry


class Kl(Entry):
    def value(self, pairs):
        return mp.fsum(rel_entr(p, q) for p, q in pairs)

    def slopes(self, pairs):
        return [(rel_entr(p, q) + p, -p) for p, q in pairs]

    def wide_value(self, pair):
        return kl_terms(pair.p, pair.d, pair.gap).sum(-1) - pair.sum_of_gaps()

    def wide_slopes(self, pair):
        p = np.where(pair.p > 0, pair.p, 0)
        return (p * np.where(pair.p > 0, pair.d, 0), 1), (pair.gap, -1)


class ReverseKl(Entry):
    def value(self, pairs):
        return mp.fsum(rel_entr(q, p) for p, q in pairs)

    def slopes(self, pairs):
        return [(-q, rel_entr(q, p) + q) for p, q in pairs]

    def wide_value(self, pair):
        return kl_terms(pair.q, -pair.d, -pair.gap).sum(-1) + pair.sum_of_gaps()

    def wide_slopes(self, pair):
        q = np.where(pair.q > 0, pair.q, 0)
        return (-pair.gap, -1), (-q * np.where(pair.q > 0, pair.d, 0), 1)
