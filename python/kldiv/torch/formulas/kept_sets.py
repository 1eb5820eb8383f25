"""Which classes a sampler keeps."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kldiv.torch.formulas.rows import value_dtype
from kldiv.torch.formulas.sides import Number


def lowest_kept(
    z: Tensor,
    temperature: Number,
    top_k: int | None,
    top_p: float | None,
    min_p: float | None,
) -> Tensor:
    """The lowest logit of every row that a sampler keeps, with an axis of length 1 for classes.

    NaN of a row that holds NaN or +∞, or no class. A constant: it has no gradient.
    """
    z = z.detach().to(value_dtype(z))
    largest = z.amax(-1, keepdim=True)
    lowest = torch.full_like(largest, -torch.inf)
    if min_p is not None and min_p > 0:
        lowest = largest + math.log(min_p) * temperature
    if top_k is not None and top_k < z.shape[-1]:
        lowest = torch.maximum(lowest, z.topk(top_k, -1).values[..., -1:])
    if top_p is not None and top_p < 1:
        falling = z.sort(-1, descending=True).values
        weights = ((falling - largest) / temperature).exp()
        weights = torch.where(falling >= lowest, weights, 0.0)
        held = weights.cumsum(-1)
        inside = (held - weights < top_p * held[..., -1:]) & (falling >= lowest)
        lowest = torch.where(inside, falling, torch.inf).amin(-1, keepdim=True)
    return torch.where(largest.isfinite(), lowest, torch.nan)
