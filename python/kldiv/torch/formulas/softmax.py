"""The functions of one batch of rows: entropy, log-sum-exp, log-softmax."""

from __future__ import annotations

import torch
from torch import Tensor

from kldiv.torch.formulas.rows import neutral, value_dtype
from kldiv.torch.formulas.sides import Number, distribution, is_one


def entropy(p: Tensor, space: str, temperature: Number) -> Tensor:
    """−Σ p ln p of every row."""
    side = distribution(p.to(value_dtype(p)), space, temperature)
    value = -(side.p * torch.where(side.present, side.ln, 0.0)).sum(-1)
    value = value + side.limit_at_zero(~side.present, 1.0)
    return torch.where(side.bad, torch.nan, value) + side.spoiled(side.bad)


def logsumexp(z: Tensor, temperature: Number) -> Tensor:
    """Ln Σ e^(z/T) of every row."""
    z = z.to(value_dtype(z))
    largest = z.amax(-1, keepdim=True).detach()
    finite = largest.isfinite()
    top = torch.where(finite, largest, 0.0)
    exponents = torch.where(finite, z - top, 0.0) / temperature
    value = exponents.logsumexp(-1) + top.squeeze(-1) / temperature
    # A row without a class gives −∞, the logarithm of 0.
    bad = ~finite.squeeze(-1)
    bare = torch.where(largest == -torch.inf, -torch.inf, torch.nan).squeeze(-1)
    root = torch.where(bad, 0.0 * z.sum(-1).sigmoid(), 1.0).sqrt()
    return torch.where(bad, bare, value).to(z.dtype) + torch.where(bad, root, 0.0)


def log_softmax(z: Tensor, temperature: Number, where: Tensor | None) -> Tensor:
    """z/T − ln Σ e^(z/T) of every class; 0 for rows left out."""
    z = neutral(z.to(value_dtype(z)), where)
    if not is_one(temperature):
        z = (z - z.amax(-1, keepdim=True).detach()) / temperature
    return neutral(z.log_softmax(-1), where)
