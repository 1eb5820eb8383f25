"""Total variation."""

from __future__ import annotations

import numpy as np

from ..numbers import mp
from .entry import Entry


class TotalVariation(Entry):
    def value(self, pairs):
        return mp.fsum(abs(p - q) for p, q in pairs) / 2

    def slopes(self, pairs):
        return [(mp.sign(p - q) * p / 2, mp.sign(q - p) * q / 2) for p, q in pairs]

    def slope_at_zero(self, wrt):
        return mp.mpf(-0.5)

    def wide_value(self, pair):
        return np.abs(pair.gap).sum(-1) / 2

    def wide_slopes(self, pair):
        half = np.sign(pair.gap) / 2
        return (-half * pair.p, 0), (half * pair.q, 0)
