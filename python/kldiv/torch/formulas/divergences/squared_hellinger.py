"""Squared Hellinger."""

from __future__ import annotations

import torch
from torch import Tensor

from kldiv.torch.formulas.pair import Found, Pair, log_ratio
from kldiv.torch.formulas.sides import Number, Side


def squared_hellinger(parameter: Number, pair: Pair) -> Found:
    """1 − Σ √(pq)."""
    return Found(_squared_hellinger(pair.p, pair.q, pair.normalized), falls=(True, True))


def _squared_hellinger(p: Side, q: Side, normalized: bool) -> Tensor:
    """1 − Σ √(pq); of rows that sum to one as ½ Σ (√p − √q)²."""
    both = p.present & q.present
    d = log_ratio(p, q, both)
    root = torch.where(
        both, 0.5 * (torch.where(both, p.ln, 0.0) + torch.where(both, q.ln, 0.0)), -torch.inf
    )
    root = torch.where(both, root, 0.0).exp()
    if not normalized:
        return 1.0 - torch.where(both, root, 0.0).sum(-1)
    # √(pq)·(cosh(d/2) − 1), and beyond as it stands.
    near = both & (d.abs() < 1.0)
    quarter = torch.where(near, 0.25 * d, 0.0)
    far = 0.5 * (p.p + q.p) - torch.where(both, root, 0.0)
    return torch.where(near, 2.0 * root * torch.sinh(quarter).square(), far).sum(-1)
