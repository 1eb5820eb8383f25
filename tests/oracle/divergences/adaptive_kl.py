"""KL in both directions, weighed by how much of the gap is in the head."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..numbers import INF, mp
from .kl import Kl, ReverseKl
from .mixed import Mixed


@dataclass(frozen=True)
class AdaptiveKl(Mixed):
    mu: float
    first, second = Kl(), ReverseKl()

    def weight(self, pairs):
        if self.mu == 0:
            return mp.zero
        # Numbers that only the last of 60 digits tells apart are the same.
        tiny, above, smallest = mp.mpf(10) ** -50, mp.zero, INF
        for p in sorted((p for p, _ in pairs if p), reverse=True):
            if above < self.mu * (1 - tiny) or self.mu == 1 or p >= smallest * (1 - tiny):
                smallest = p
            above += p
        gaps = [(p >= smallest * (1 - tiny), abs(p - q)) for p, q in pairs]
        total = mp.fsum(gap for _, gap in gaps)
        share = mp.fsum(gap for is_head, gap in gaps if is_head) / total if total else mp.mpf(0.5)
        # As float64 has it: what weighs less than 10⁻¹⁶ of the other does not count.
        return mp.one if float(share) == 1 else share

    def wide_weight(self, pair):
        if self.mu == 0:
            return np.zeros(len(pair.p))
        ordered = -np.sort(-pair.p, axis=-1)
        above = np.cumsum(ordered, axis=-1) - ordered
        in_head = (ordered > 0) & ((above < self.mu) | (self.mu == 1))
        smallest = np.where(in_head, ordered, np.inf).min(-1, keepdims=True)
        gap = np.abs(pair.gap)
        head, total = np.where(pair.p >= smallest, gap, 0).sum(-1), gap.sum(-1)
        return np.where(total > 0, head / np.where(total > 0, total, 1), 0.5)
