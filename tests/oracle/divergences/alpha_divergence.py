"""The α-divergence."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..numbers import INF, mp
from ..rows import power
from .kl import Kl, ReverseKl
from .renyi import Renyi


@dataclass(frozen=True)
class AlphaDivergence(Renyi):
    def value(self, pairs):
        if self.alpha in (0, 1):
            return (Kl if self.alpha else ReverseKl)().value(pairs)
        alpha = mp.mpf(self.alpha)
        return (mp.fsum(power(p, q, alpha) for p, q in pairs) - 1) / (alpha * (alpha - 1))

    def slopes(self, pairs):
        if self.alpha in (0, 1):
            return (Kl if self.alpha else ReverseKl)().slopes(pairs)
        alpha = mp.mpf(self.alpha)
        powers = [power(p, q, alpha) for p, q in pairs]
        return [(c / (alpha - 1), -c / alpha) for c in powers]

    def slope_at_zero(self, wrt):
        return mp.zero if (self.alpha > 1 if wrt == "p" else self.alpha < 0) else -INF

    def wide_value(self, pair):
        near, alpha = self._sum_minus_one(pair), np.longdouble(self.alpha)
        direct = self._powers(pair).sum(-1) - 1
        return np.where(near > -0.5, near, direct) / (alpha * (alpha - 1))

    def wide_slopes(self, pair):
        alpha = np.longdouble(self.alpha)
        to_p = self._difference(pair.p, (1 - alpha) * pair.d) / (alpha - 1)
        to_q = self._difference(pair.q, -alpha * pair.d) / alpha
        return (to_p, 1 / (alpha - 1)), (-to_q, -1 / alpha)
