"""Jensen–Shannon."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..numbers import INF, mp
from ..rows import mixture, rel_entr
from ..wide_rows import kl_terms
from .entry import Entry


@dataclass(frozen=True)
class JensenShannon(Entry):
    beta: float

    def value(self, pairs):
        if self.beta in (0, 1):
            return mp.zero
        to_p = mp.fsum(rel_entr(p, mixture(p, q, self.beta)) for p, q in pairs)
        to_q = mp.fsum(rel_entr(q, mixture(p, q, self.beta)) for p, q in pairs)
        return mixture(to_p, to_q, self.beta)

    def slopes(self, pairs):
        if self.beta in (0, 1):
            return [(mp.zero, mp.zero)] * len(pairs)
        mixed = [(p, q, mixture(p, q, self.beta)) for p, q in pairs]
        beta = mp.mpf(self.beta)
        return [(beta * rel_entr(p, m), (1 - beta) * rel_entr(q, m)) for p, q, m in mixed]

    def slope_at_zero(self, wrt):
        return mp.zero if self.beta in (0, 1) else -INF

    def wide_value(self, pair):
        # m − p = (1−β)·gap and m − q = −β·gap.
        beta = np.longdouble(self.beta)
        to_p, to_q = self._log_mixture_ratios(pair)
        near_p = kl_terms(pair.p, to_p, (1 - beta) * pair.gap).sum(-1)
        near_q = kl_terms(pair.q, to_q, -beta * pair.gap).sum(-1)
        return beta * near_p + (1 - beta) * near_q

    def wide_slopes(self, pair):
        beta = np.longdouble(self.beta)
        to_p, to_q = self._log_mixture_ratios(pair)
        to_p, to_q = np.where(pair.p > 0, to_p, 0), np.where(pair.q > 0, to_q, 0)
        return (beta * pair.p * to_p, 0), ((1 - beta) * pair.q * to_q, 0)

    def _log_mixture_ratios(self, pair):
        """ln(p/m) and ln(q/m) for m = βp + (1−β)q."""
        beta = np.longdouble(self.beta)
        with np.errstate(divide="ignore", invalid="ignore"):
            to_p = -np.log1p((1 - beta) * pair.gap / pair.p)
            to_q = -np.log1p(-beta * pair.gap / pair.q)
        return np.where(np.isnan(to_p), 0, to_p), np.where(np.isnan(to_q), 0, to_q)
