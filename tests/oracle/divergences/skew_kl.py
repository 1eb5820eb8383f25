"""Skew KL, in both directions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..numbers import INF, mp
from ..rows import mixture, rel_entr
from ..wide_rows import kl_terms
from .entry import Entry


@dataclass(frozen=True)
class SkewKl(Entry):
    alpha: float

    def value(self, pairs):
        return mp.fsum(rel_entr(p, mixture(p, q, self.alpha)) for p, q in pairs)

    def slopes(self, pairs):
        alpha = mp.mpf(self.alpha)
        mixed = [(p, q, mixture(p, q, alpha)) for p, q in pairs]
        # Of p = q = 0, 0; −(1 − α)pq/m, which α = 0 leaves −p for q = 0, too.
        products = [(1 - alpha) * (p if m == 0 else p * q / m) for p, q, m in mixed]
        return [
            (rel_entr(p, m) + one, -one) for (p, _, m), one in zip(mixed, products, strict=True)
        ]

    def slope_at_zero(self, wrt):
        alpha = mp.mpf(self.alpha)
        if alpha == 1:
            return mp.zero
        return -INF if wrt == "p" or alpha == 0 else (alpha - 1) / alpha

    def wide_value(self, pair):
        # m − p = (1−α)·gap.
        gap = (1 - np.longdouble(self.alpha)) * pair.gap
        terms = kl_terms(pair.p, self._log_ratio(pair), gap).sum(-1)
        return terms if pair.normalized else terms - gap.sum(-1)

    def wide_slopes(self, pair):
        # p·L(w) − b and b = (1−α)·(m − p)·q/m, less multiples 1 − α of p and of −q.
        alpha = np.longdouble(self.alpha)
        rest = 1 - alpha
        m = pair.p + rest * pair.gap
        b = rest * rest * pair.gap * np.where(m > 0, pair.q / np.where(m > 0, m, 1), 0)
        log_ratio = self._log_ratio(pair)
        terms = kl_terms(pair.p, log_ratio, rest * pair.gap)
        # Of m ≫ p both are about m: p·(ln(p/m) + (1−α)·α·(q − p)/m).
        far = m > 2 * pair.p
        beyond = log_ratio + rest * alpha * pair.gap / np.where(far, m, 1)
        slopes = np.where(far, pair.p * beyond, terms - b)
        if not 0 < self.alpha < 1:
            return (slopes, rest), (b, -rest)
        # Where most of p is improbable in q, less −ln α, the slope of a class that q lacks.
        lone = (np.where(pair.p > 4 * pair.q, pair.p, 0).sum(-1) > 0.5)[:, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            left = np.where(pair.p > 0, -pair.p * np.log1p(rest / alpha * pair.q / pair.p), 0)
        product = rest * np.where(m > 0, pair.p * pair.q / np.where(m > 0, m, 1), 0)
        to_p = np.where(lone, left + product, slopes)
        # Of q the other way round: nothing is left of the slope of a class that p lacks.
        lone_q = (np.where(pair.q > 4 * pair.p, pair.q, 0).sum(-1) > 0.5)[:, None]
        of_q = np.where(lone_q, -product, b), np.where(lone_q, 0, -rest)
        return (to_p, np.where(lone, -np.log(alpha), rest)), of_q

    def _log_ratio(self, pair):
        """ln(p/m) for m = αp + (1−α)q."""
        rest = 1 - np.longdouble(self.alpha)
        with np.errstate(divide="ignore", invalid="ignore"):
            to_p = -np.log1p(rest * pair.gap / pair.p)
        return np.where(np.isnan(to_p), 0, to_p)


@dataclass(frozen=True)
class SkewReverseKl(Entry):
    alpha: float

    def value(self, pairs):
        return SkewKl(self.alpha).value([(q, p) for p, q in pairs])

    def slopes(self, pairs):
        return [(of_p, of_q) for of_q, of_p in SkewKl(self.alpha).slopes([x[::-1] for x in pairs])]

    def slope_at_zero(self, wrt):
        return SkewKl(self.alpha).slope_at_zero("q" if wrt == "p" else "p")

    def wide_value(self, pair):
        return SkewKl(self.alpha).wide_value(pair.exchanged())

    def wide_slopes(self, pair):
        return SkewKl(self.alpha).wide_slopes(pair.exchanged())[::-1]
