"""χ²."""

from __future__ import annotations

import torch
from torch import Tensor

from kldiv.torch.formulas.pair import Found, Pair, infinite_where_alone, log_ratio
from kldiv.torch.formulas.sides import Number, Side


def chi_squared(parameter: Number, pair: Pair) -> Found:
    """Σ (p − q)²/q."""
    value = infinite_where_alone(_chi_squared(pair.p, pair.q), pair.p, pair.q, pair.only_p)
    return Found(value + pair.q.limit_at_zero(pair.only_p, -1.0))


def _chi_squared(p: Side, q: Side) -> Tensor:
    """Σ (p − q)²/q, of classes that q has."""
    both = p.present & q.present
    d = log_ratio(p, q, both)
    near = both & (d.abs() < 1.0)
    close = q.p * torch.expm1(torch.where(near, d, 0.0)).square()
    far = both & ~near
    power = torch.where(far, torch.where(far, p.ln + d, 0.0).exp(), 0.0)
    exists = p.present | q.present
    return torch.where(near, close, torch.where(exists, power - 2.0 * p.p + q.p, 0.0)).sum(-1)
