"""The α-divergence."""

from __future__ import annotations

import torch
from torch import Tensor

from kldiv.torch.formulas.numbers import choose, mask_if
from kldiv.torch.formulas.pair import (
    Found,
    Pair,
    at_least_zero,
    exchanged,
    gap_of,
    infinite_where_alone,
    log_ratio,
)
from kldiv.torch.formulas.sides import Number, Side


def alpha_divergence(alpha: Number, pair: Pair) -> Found:
    """(Σ p^α q^(1−α) − 1) / (α(α − 1))."""
    p, q, only_p, only_q = pair.p, pair.q, pair.only_p, pair.only_q
    swap = alpha < 0.5
    order = choose(swap, 1.0 - alpha, alpha)
    rest = choose(swap, -alpha, alpha - 1.0)
    value = _alpha_divergence(order, rest, *exchanged(swap, p, q), pair.normalized)
    value = infinite_where_alone(value, p, q, mask_if(alpha > 1.0, only_p))
    value = infinite_where_alone(value, q, p, mask_if(alpha < 0.0, only_q))
    value = value + q.limit_at_zero(mask_if(alpha > 0.0, only_p), -1.0)
    value = value + p.limit_at_zero(mask_if(alpha < 1.0, only_q), -1.0)
    return Found(value)


def _alpha_divergence(order: Number, rest: Number, p: Side, q: Side, normalized: bool) -> Tensor:
    """(Σ f − 1) / (α(α − 1)) with f = p·e^((α−1)d); `rest` is α − 1, and α ≥ ½.

    Of rows that sum to one less Σ (p − q) / α, so that terms are of second order where p and q are
    close.
    """
    rest = choose((rest > -1e-20) & (rest < 0.0), -1e-20, rest)
    rest = choose((rest >= 0.0) & (rest < 1e-20), 1e-20, rest)
    # In a range whose logarithm float32 has.
    order, rest = choose(rest > 1e30, 1e30, order), choose(rest > 1e30, 1e30, rest)
    both = p.present & q.present
    d = log_ratio(p, q, both)
    t = rest * d
    near = both & (t.abs() < 1.0)
    grown = p.p * torch.expm1(torch.where(near, t, 0.0)) / rest / order
    far = both & ~near
    sign = choose(rest < 0.0, -1.0, 1.0)
    size = (sign * rest * p.p.new_ones(())).log() + (order * p.p.new_ones(())).log()
    power = torch.where(far, torch.where(far, p.ln + t, 0.0) - size, -torch.inf)
    power = sign * torch.where(far, torch.where(far, power, 0.0).exp(), 0.0)
    terms = torch.where(near, grown, power - p.p / rest / order)
    if normalized:
        return at_least_zero((terms + gap_of(p, q, d, both) / order).sum(-1))
    value: Tensor = terms.sum(-1) + (p.p.sum(-1) - 1.0) / rest / order
    return value
