"""KL in both directions, weighed by how much of the gap_of is in the head."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from kldiv.torch.formulas.divergences.kl import kl_of
from kldiv.torch.formulas.numbers import mask_if
from kldiv.torch.formulas.pair import Found, Pair, gap_of, log_ratio
from kldiv.torch.formulas.sides import Number, Side


def adaptive_kl(mu: Number, pair: Pair) -> Found:
    """g·KL(p‖q) + (1 − g)·KL(q‖p)."""
    head, tail = _shares_of_gap(mu, pair.p, pair.q)
    p_again, q_again = pair.again()
    value = _weighed_kl(head, pair.p, pair.q, pair.normalized)
    value = value + _weighed_kl(tail, q_again, p_again, pair.normalized)
    return Found(value, falls=(True, True))


def _shares_of_gap(mu: Number, p: Side, q: Side) -> tuple[Tensor, Tensor]:
    """The shares in Σ |p − q| of the most probable classes of p, as few as hold μ, and of the rest.

    Each keeps its digits, however small it is.
    """
    p_given, both = p.p.detach(), p.present & q.present
    ordered = p_given.sort(-1, descending=True).values
    above = ordered.cumsum(-1) - ordered
    # A tiny μ is 0 in float32; nothing is above the first.
    in_head = (ordered > 0) & ((above < mu) | mask_if(mu > 0.0, above == 0))
    smallest = torch.where(in_head, ordered, torch.inf).amin(-1, keepdim=True)
    head = p.present & (mask_if(mu == 1.0, p.present) | (p_given >= smallest))
    gap = gap_of(p, q, log_ratio(p, q, both), both).detach().abs()
    of_head, total = torch.where(head, gap, 0.0).sum(-1), gap.sum(-1)
    some, divisor = total > 0, torch.where(total > 0, total, 1.0)
    of_tail = torch.where(head, 0.0, gap).sum(-1) / divisor
    # What float64 does not tell from nothing next to the head weighs nothing.
    of_tail = torch.where(of_tail > 2.0**-54, of_tail, 0.0)
    return torch.where(some, of_head / divisor, 0.5), torch.where(some, of_tail, 0.5)


def _weighed_kl(weight: Tensor, p: Side, q: Side, normalized: bool) -> Tensor:
    """KL times a weight; without a class, and so 0, where the weight is 0."""
    counts = (weight > 0).unsqueeze(-1)
    p, q = replace(p, present=p.present & counts), replace(q, present=q.present & counts)
    return weight * kl_of(p, q, normalized)
