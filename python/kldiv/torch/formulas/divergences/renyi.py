"""Rényi."""

from __future__ import annotations

import torch
from torch import Tensor

from kldiv.torch.formulas.numbers import choose, mask_if
from kldiv.torch.formulas.pair import Found, Pair, at_least_zero, exchanged, gap_of, log_ratio
from kldiv.torch.formulas.sides import Number, Side


def renyi(alpha: Number, pair: Pair) -> Found:
    """Ln S / (α − 1) with S = Σ p^α q^(1−α)."""
    swap = alpha < 0.5
    order = choose(swap, 1.0 - alpha, alpha)
    rest = choose(swap, -alpha, alpha - 1.0)
    value = _renyi(order, rest, *exchanged(swap, pair.p, pair.q), pair.normalized)
    value = value * choose(swap, alpha / (1.0 - alpha), 1.0)
    infinite = mask_if(alpha >= 1.0, pair.only_p.any(-1))
    infinite = infinite | ~(pair.p.present & pair.q.present).any(-1)
    # Without a class in p the sum is 0: for α > 1 its logarithm is −∞.
    nothing = mask_if(alpha > 1.0, ~pair.p.present.any(-1))
    value = torch.where(infinite, torch.where(nothing, -torch.inf, torch.inf), value)
    return Found(value, falls=(alpha < 1.0,) * 2, unusable=infinite)


def _renyi(order: Number, rest: Number, p: Side, q: Side, normalized: bool) -> Tensor:
    """Ln S / (α − 1), S = Σ f with f = p·e^((α−1)d); `rest` is α − 1, and α ≥ ½.

    Near S = 1 from S − 1 = Σ (f − p), of rows that sum to one less (α − 1)·Σ (p − q), of second
    order where p and q are close; divided by α − 1 term by term.
    """
    # Smaller and larger ones give the limits, as far as floats tell.
    rest = choose((rest > -1e-20) & (rest < 0.0), -1e-20, rest)
    rest = choose((rest >= 0.0) & (rest < 1e-20), 1e-20, rest)
    rest = choose(rest > 1e30, 1e30, rest)
    both = p.present & q.present
    d = log_ratio(p, q, both)
    ln_f = torch.where(both, p.ln + rest * d, -torch.inf)
    ln_sum = ln_f.logsumexp(-1)
    near = (ln_sum.abs() < 0.5).detach()
    within = near.unsqueeze(-1) & both
    d = torch.where(within, d, 0.0)
    t = rest * d
    f = torch.where(within, ln_f, 0.0).exp()
    grown = torch.where(t.abs() < 1.0, p.p * torch.expm1(t.clamp(-1.0, 1.0)), f - p.p)
    terms = torch.where(within, grown, -p.p) / rest
    if normalized:
        excess = (terms + gap_of(p, q, d, within)).sum(-1)
    else:
        excess = terms.sum(-1) + (p.p.sum(-1) - 1.0) / rest
    excess = torch.where(near, excess, 0.0)
    if normalized:
        excess = at_least_zero(excess)
    ln_sum = torch.where(near, torch.log1p(rest * excess), ln_sum)
    value: Tensor = ln_sum / rest
    return value
