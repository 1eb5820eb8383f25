"""KL, in both directions."""

from __future__ import annotations

import torch
from torch import Tensor

from kldiv.torch.formulas.pair import Found, Pair, at_least_zero, gap_of, log_ratio
from kldiv.torch.formulas.sides import Number, Side, steep


def kl(parameter: Number, pair: Pair) -> Found:
    """KL(p‖q)."""
    return Found(kl_of(pair.p, pair.q, pair.normalized), falls=(True, True))


def reverse_kl(parameter: Number, pair: Pair) -> Found:
    """KL(q‖p)."""
    return Found(kl_of(pair.q, pair.p, pair.normalized), falls=(True, True))


def kl_of(p: Side, q: Side, normalized: bool) -> Tensor:
    """Σ p·d, d = ln p − ln q; of rows that sum to one as Σ (p·d + q − p), of terms ≥ 0."""
    d = log_ratio(p, q, p.present)
    alone = p.present & ~q.present
    # Of a class beyond the largest float, unless p is too small to tell.
    beyond = p.present & (q.ln == torch.finfo(q.ln.dtype).min) & (p.p > 0)
    d = torch.where(beyond, d + torch.inf, d)
    # Alone, even the smallest p has an infinite term, of an infinite slope.
    weight = torch.where(alone, p.p.detach() + torch.finfo(p.p.dtype).tiny, p.p)
    terms = weight * d
    if normalized:
        terms = terms + gap_of(p, q, d, p.present & q.present)
    value = terms.sum(-1)
    value = at_least_zero(value) if normalized else value
    if p.space in ("logits", "unnormalized"):
        # Of all classes, to each other's gradient.
        return value + p.spoiled(alone.any(-1))
    return value + steep(p.given, alone, 1.0)
