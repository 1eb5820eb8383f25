"""Cross-entropy."""

from __future__ import annotations

import torch
from torch import Tensor

from kldiv.torch.formulas.rows import value_dtype
from kldiv.torch.formulas.sides import Number, Side, distribution, spoiled, steep
from kldiv.torch.formulas.softmax import logsumexp


def cross_entropy(
    logits: Tensor,
    targets: Tensor,
    space: str,
    temperature: Number,
    label_smoothing: Number,
    class_weights: Tensor | None,
    z_loss: Number,
    softcap: Number | None,
) -> Tensor:
    """−Σ mᵢ ln qᵢ of every row, for class indices in range or distributions."""
    z = logits.to(value_dtype(logits, targets))
    if softcap is not None:
        # A class that does not exist stays so, at slope 0, and +∞ stays what it is.
        capped = softcap * (z / softcap).tanh()
        z = torch.where(z.isinf(), torch.where(z < 0, z.detach(), z), capped)
    q = distribution(z, space, temperature)
    weights = z.new_ones(())
    if class_weights is not None:
        weights = class_weights.to(z.dtype)
    own = 1.0 - label_smoothing
    uniform = weights * (label_smoothing / z.shape[-1])
    if targets.is_floating_point():
        given = targets.to(z.dtype)
        # Times an infinite surprise a share of 0 is 0.
        given = torch.where(weights * own == 0, given.detach(), given)
        value = _surprise(weights * own * given + uniform, q)
        # Its mass would meet an infinite surprise.
        never = ~q.present & (weights * own > 0) & (given == 0)
        value = value + steep(given, never, 1.0)
    else:
        at = targets.unsqueeze(-1)
        mass = own * (weights if class_weights is None else weights[targets])
        counts = mass != 0
        surprise = -q.ln.gather(-1, at).squeeze(-1)
        value = torch.where(counts, mass * torch.where(counts, surprise, 0.0), 0.0)
        if space == "probs":
            named = torch.zeros_like(q.present).scatter(-1, at, True)
            value = value + q.limit_at_zero(named & ~q.present & counts.unsqueeze(-1), -1.0)
        if isinstance(label_smoothing, Tensor) or label_smoothing:
            value = value + _surprise(uniform.expand_as(q.ln), q)
    if isinstance(z_loss, Tensor) or z_loss:
        value = value + z_loss * logsumexp(z, temperature).square()
    value = torch.where(q.bad, torch.nan, value)
    bad = value.isnan()
    if targets.is_floating_point():
        value = value + spoiled(targets.to(z.dtype), bad)
    return (value + spoiled(logits.to(z.dtype), bad)).to(z.dtype)


def _surprise(mass: Tensor, q: Side) -> Tensor:
    """−Σ m ln q."""
    counts = (mass != 0) | q.present
    value = -(torch.where(counts, mass, 0.0) * torch.where(counts, q.ln, 0.0)).sum(-1)
    return value + q.limit_at_zero((mass > 0) & ~q.present, -1.0)
