"""Squared Hellinger."""

from __future__ import annotations

import numpy as np

from ..numbers import mp
from .entry import Entry


class SquaredHellinger(Entry):
    def value(self, pairs):
        return 1 - mp.fsum(mp.sqrt(p * q) for p, q in pairs)

    def slopes(self, pairs):
        return [(-mp.sqrt(p * q) / 2,) * 2 for p, q in pairs]

    def wide_value(self, pair):
        near = (self._difference(pair) ** 2).sum(-1) / 2
        return near if pair.normalized else near + 1 - (pair.p + pair.q).sum(-1) / 2

    def wide_slopes(self, pair):
        half = self._difference(pair) / 2
        return (-np.sqrt(pair.p) * half, -0.5), (np.sqrt(pair.q) * half, -0.5)

    def _difference(self, pair):
        """√q − √p."""
        both = np.sqrt(pair.p) + np.sqrt(pair.q)
        return pair.gap / np.where(both > 0, both, 1)
