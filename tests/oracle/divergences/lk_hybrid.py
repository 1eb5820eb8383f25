"""KL and total variation, weighed by the acceptance rate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..numbers import INF, mp
from .kl import Kl
from .mixed import Mixed
from .total_variation import TotalVariation


@dataclass(frozen=True)
class LkHybrid(Mixed):
    eta: float
    first, second = Kl(), TotalVariation()

    def weight(self, pairs):
        return mp.exp(-mp.mpf(self.eta) * mp.fsum(min(p, q) for p, q in pairs))

    def wide_weight(self, pair):
        return np.exp(-np.longdouble(self.eta) * np.minimum(pair.p, pair.q).sum(-1))

    def slope_at_zero(self, wrt):
        return mp.mpf(-0.5) if wrt == "p" and self.eta == INF else -INF

    def wide_slopes(self, pair):
        to_p, (to_q, multiple) = super().wide_slopes(pair)
        # Where most of q is improbable in p, less ½(1 − λ), the slope of a class that p lacks.
        lone = (np.where(pair.q > 4 * pair.p, pair.q, 0).sum(-1) > 0.5)[:, None]
        weight = self.wide_weight(pair)[:, None]
        left = -weight * pair.p - (1 - weight) * (1 - np.sign(pair.gap)) / 2 * pair.q
        return to_p, (np.where(lone, left, to_q), np.where(lone, (1 - weight) / 2, multiple))
