"""The negative logarithm of the acceptance rate."""

from __future__ import annotations

import numpy as np

from ..numbers import INF, NAN, mp
from .entry import Entry


class NegLogAcceptance(Entry):
    def value(self, pairs):
        share = mp.fsum(min(p, q) for p, q in pairs)
        return -mp.log(share) if share else INF

    def slopes(self, pairs):
        share = mp.fsum(min(p, q) for p, q in pairs)
        if share == 0:
            return [(NAN, NAN)] * len(pairs)
        return [
            (-p * (1 + mp.sign(q - p)) / 2 / share, -q * (1 + mp.sign(p - q)) / 2 / share)
            for p, q in pairs
        ]

    def slope_at_zero_of(self, pairs, wrt):
        return -1 / mp.fsum(min(p, q) for p, q in pairs)

    def wide_value(self, pair):
        # 1 − Σ min(p, q).
        rest = np.abs(pair.gap).sum(-1) / 2
        if not pair.normalized:
            rest = rest - (pair.p.sum(-1) - 1 + pair.gap.sum(-1) / 2)
        with np.errstate(divide="ignore"):
            direct = -np.log(np.minimum(pair.p, pair.q).sum(-1))
        return np.where(rest < 0.5, -np.log1p(-np.minimum(rest, 0.5)), direct)

    def wide_slopes(self, pair):
        share = np.minimum(pair.p, pair.q).sum(-1)[:, None]
        sign = np.sign(pair.gap)
        # Of classes that are alike −½; where little is shared 0, what the larger of p and q has.
        multiple = np.where(share < 0.5, 0, -0.5)
        to_p = (-(1 + sign) / 2 - multiple) * pair.p / share
        to_q = (-(1 - sign) / 2 - multiple) * pair.q / share
        return (to_p, multiple / share), (to_q, multiple / share)
