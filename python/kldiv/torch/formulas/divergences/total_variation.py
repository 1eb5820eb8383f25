"""Total variation."""

from __future__ import annotations

import torch
from torch import Tensor

from kldiv.torch.formulas.pair import Found, Pair, log_ratio
from kldiv.torch.formulas.sides import Number, Side


def total_variation(parameter: Number, pair: Pair) -> Found:
    """½ Σ |p − q|."""
    return Found(total_variation_of(pair.p, pair.q))


def total_variation_of(p: Side, q: Side) -> Tensor:
    """½ Σ |p − q|, with the sign of ln p − ln q where p and q are too small to be told apart."""
    difference = p.p - q.p
    both = p.present & q.present
    d = torch.where(
        both,
        log_ratio(p, q, both),
        p.present.to(difference.dtype) - q.present.to(difference.dtype),
    )
    sign = torch.where(difference != 0, difference, d).sign().detach()
    return 0.5 * (sign * difference).sum(-1)
