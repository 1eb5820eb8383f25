"""Rényi."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..numbers import INF, NAN, mp
from ..rows import power
from ..wide_rows import kl_terms
from .entry import Entry
from .kl import Kl


@dataclass(frozen=True)
class Renyi(Entry):
    alpha: float

    def value(self, pairs):
        if self.alpha == 1:
            return Kl().value(pairs)
        total = mp.fsum(power(p, q, self.alpha) for p, q in pairs)
        return mp.log(total) / (mp.mpf(self.alpha) - 1)

    def slopes(self, pairs):
        if self.alpha == 1:
            return Kl().slopes(pairs)
        alpha = mp.mpf(self.alpha)
        powers = [power(p, q, alpha) for p, q in pairs]
        total = mp.fsum(powers) * (alpha - 1)
        if total in (0, INF):
            return [(NAN, NAN)] * len(pairs)
        return [(alpha * c / total, (1 - alpha) * c / total) for c in powers]

    def slope_at_zero(self, wrt):
        return mp.zero if wrt == "p" and self.alpha > 1 else -INF

    def wide_value(self, pair):
        near = self._sum_minus_one(pair)
        direct = self._powers(pair).sum(-1)
        with np.errstate(divide="ignore"):
            far = np.log(direct)
        order = np.longdouble(self.alpha) - 1
        return np.where(near > -0.5, np.log1p(np.maximum(near, -0.5)), far) / order

    def wide_slopes(self, pair):
        total = 1 + self._sum_minus_one(pair)
        direct = self._powers(pair).sum(-1)
        total = np.where(total > 0.5, total, direct)[:, None]
        alpha = np.longdouble(self.alpha)
        factor = self.alpha / (alpha - 1) / total
        # f − p and f − q for f = p^α q^(1−α).
        to_p = self._difference(pair.p, (1 - alpha) * pair.d)
        to_q = self._difference(pair.q, -alpha * pair.d)
        return (factor * to_p, factor), (-to_q / total, -1 / total)

    def _difference(self, base, t):
        """base·(exp(−t) − 1)."""
        return np.where(base > 0, base, 0) * np.expm1(-np.where(base > 0, t, 0))

    def _powers(self, pair):
        exponent = -(1 - np.longdouble(self.alpha)) * np.where(pair.p > 0, pair.d, 0)
        return pair.p * np.exp(exponent)

    def _sum_minus_one(self, pair):
        """Σ p^α q^(1−α) − 1 from terms of second order."""
        tau = 1 - np.longdouble(self.alpha)
        td = tau * np.where(pair.p > 0, pair.d, 0)
        scaled = kl_terms(pair.p, td, self._difference(pair.p, td)).sum(-1)
        with np.errstate(invalid="ignore"):  # inf − inf where q = 0: callers take the direct sum
            near = scaled - tau * kl_terms(pair.p, pair.d, pair.gap).sum(-1)
        if pair.normalized:
            return near
        return near + tau * pair.gap.sum(-1) + (pair.p.sum(-1) - 1)
