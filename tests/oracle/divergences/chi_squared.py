"""χ²."""

from __future__ import annotations

import numpy as np

from ..numbers import INF, mp
from .entry import Entry


class ChiSquared(Entry):
    def value(self, pairs):
        return mp.fsum(INF if q == 0 else (p - q) ** 2 / q for p, q in pairs if p != q)

    def slopes(self, pairs):
        return [
            (mp.zero, mp.zero)
            if p == q
            else (INF, -INF)
            if q == 0
            else (2 * p * (p - q) / q, (q - p) * (p + q) / q)
            for p, q in pairs
        ]

    def slope_at_zero(self, wrt):
        return mp.mpf(-2) if wrt == "p" else -INF

    def wide_value(self, pair):
        return (pair.gap * self._relative_gap(pair)).sum(-1)

    def wide_slopes(self, pair):
        relative = self._relative_gap(pair)
        return (-2 * pair.p * relative, 0), ((pair.p + pair.q) * relative, 0)

    def _relative_gap(self, pair):
        """(q − p)/q."""
        with np.errstate(divide="ignore"):
            return pair.gap / np.where((pair.p > 0) | (pair.q > 0), pair.q, 1)
