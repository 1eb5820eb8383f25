"""The losses in torch operations.

Tensors on other devices, second derivatives and `torch.func` take them. They have the semantics
of the extension, in several passes over memory and with the accuracy of torch's own operations.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def value_dtype(*tensors: Tensor) -> torch.dtype:
    """float64 where any tensor is, else float32."""
    return torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32


def distribution(x: Tensor, space: str, temperature: float) -> tuple[Tensor, Tensor]:
    """Ln p and p of rows in a space, the classes last."""
    if space == "logits":
        ln_p = (x / temperature).log_softmax(-1)
        return ln_p, ln_p.exp()
    if space == "log_probs":
        return x, x.exp()
    present = x != 0
    return torch.where(present, torch.where(present, x, 1.0).log(), -math.inf), x


def _expectation(p: Tensor, slope: Tensor, present: Tensor) -> Tensor:
    """Σ p·slope over the classes that are present."""
    return torch.where(present, torch.where(present, p, 0.0) * slope, 0.0).sum(-1)


def _kl(ln_p: Tensor, p: Tensor, ln_q: Tensor) -> Tensor:
    present = p != 0
    ln_p, ln_q = torch.where(present, ln_p, 0.0), torch.where(present, ln_q, 0.0)
    return _expectation(p, ln_p - ln_q, present)


def divergence(
    kind: str,
    parameter: float,
    p: Tensor,
    q: Tensor,
    p_space: str,
    q_space: str,
    p_temperature: float,
    q_temperature: float,
) -> Tensor:
    """The divergence of every row."""
    dtype = value_dtype(p, q)
    ln_p, p = distribution(p.to(dtype), p_space, p_temperature)
    ln_q, q = distribution(q.to(dtype), q_space, q_temperature)
    if kind == "kl":
        return _kl(ln_p, p, ln_q)
    if kind == "reverse_kl":
        return _kl(ln_q, q, ln_p)
    if kind == "total_variation":
        return 0.5 * (p - q).abs().sum(-1)
    if kind == "jensen_shannon":
        if parameter in (0.0, 1.0):
            return 0.0 * (p - q).sum(-1)
        mine, other = math.log(parameter), math.log1p(-parameter)
        present = (p != 0) | (q != 0)
        ln_m = torch.logaddexp(
            torch.where(present, ln_p, 0.0) + mine, torch.where(present, ln_q, 0.0) + other
        )
        return parameter * _kl(ln_p, p, ln_m) + (1.0 - parameter) * _kl(ln_q, q, ln_m)
    if kind == "renyi":
        present = p != 0
        exponent = parameter * torch.where(present, ln_p, 0.0)
        exponent = exponent + (1.0 - parameter) * torch.where(present, ln_q, 0.0)
        ln_sum = torch.where(present, exponent, -math.inf).logsumexp(-1)
        return ln_sum / (parameter - 1.0)
    raise ValueError(f"unknown divergence {kind!r}")


def cross_entropy(
    logits: Tensor,
    targets: Tensor,
    space: str,
    temperature: float,
    label_smoothing: float,
    class_weights: Tensor | None,
    z_loss: float,
    softcap: float | None,
) -> Tensor:
    """−Σ mᵢ ln qᵢ of every row, for class indices in range or distributions."""
    z = logits.to(value_dtype(logits, targets))
    if softcap is not None:
        z = softcap * (z / softcap).tanh()
    ln_q, _ = distribution(z, space, temperature)
    weights = torch.ones((), dtype=z.dtype, device=z.device)
    if class_weights is not None:
        weights = class_weights.to(z.dtype)
    own = 1.0 - label_smoothing
    if targets.is_floating_point():
        mass = weights * (own * targets.to(z.dtype) + label_smoothing / z.shape[-1])
        value = _surprise(mass, ln_q)
    else:
        value = -own * ln_q.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
        if class_weights is not None:
            value = value * weights[targets]
        if label_smoothing:
            mass = (weights * (label_smoothing / z.shape[-1])).expand_as(ln_q)
            value = value + _surprise(mass, ln_q)
    if z_loss:
        value = value + z_loss * (z / temperature).logsumexp(-1).square()
    return value


def _surprise(mass: Tensor, ln_q: Tensor) -> Tensor:
    present = mass != 0
    return -_expectation(mass, torch.where(present, ln_q, 0.0), present)


def entropy(p: Tensor, space: str, temperature: float) -> Tensor:
    """−Σ p ln p of every row."""
    ln_p, probability = distribution(p.to(value_dtype(p)), space, temperature)
    present = probability != 0
    return -_expectation(probability, torch.where(present, ln_p, 0.0), present)


def logsumexp(z: Tensor, temperature: float) -> Tensor:
    """Ln Σ e^(z/T) of every row."""
    return (z.to(value_dtype(z)) / temperature).logsumexp(-1)


def kept_rows(
    where: Tensor | None, weights: Tensor | None, labels: Tensor | None, ignore_index: int | None
) -> Tensor | None:
    """Which rows count; `None` for all."""
    keep = where
    for more in (
        None if weights is None else weights != 0,
        None if labels is None or ignore_index is None else labels != ignore_index,
    ):
        if more is not None:
            keep = more if keep is None else keep & more
    return keep


def neutral(x: Tensor, keep: Tensor | None) -> Tensor:
    """Rows, with zeros in place of those that do not count."""
    return x if keep is None else torch.where(keep.unsqueeze(-1), x, 0.0)


def reduced(
    rows: Tensor,
    keep: Tensor | None,
    weights: Tensor | None,
    reduction: str,
    denominator: float | None,
    share: Tensor | None = None,
) -> Tensor:
    """What becomes of the values of the rows.

    `share` is what a row adds to the divisor of a mean, beside its weight.
    """
    weight = torch.ones((), dtype=rows.dtype, device=rows.device)
    if weights is not None:
        weight = weights.to(rows.dtype)
    if keep is not None:
        rows = torch.where(keep, rows, 0.0)
        weight = torch.where(keep, weight, 0.0)
    rows = rows * weight
    if reduction == "none":
        return rows
    total = rows.sum()
    if reduction == "sum":
        return total
    if reduction == "batchmean":
        return total / rows.shape[0]
    if denominator is not None:
        return total / denominator
    divisor = (weight if share is None else weight * share).expand_as(rows).sum()
    # A mean over nothing is 0.
    empty = divisor == 0
    return torch.where(
        empty, 0.0 * total, total / torch.where(empty, divisor.new_ones(()), divisor)
    )
