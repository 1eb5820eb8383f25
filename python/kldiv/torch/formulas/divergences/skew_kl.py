"""Skew KL, in both directions."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kldiv.torch.formulas.numbers import choose, mask_if
from kldiv.torch.formulas.pair import Found, Pair, at_least_zero, log_ratio
from kldiv.torch.formulas.sides import Number, Side, steep


def skew_kl(alpha: Number, pair: Pair) -> Found:
    """KL(p‖m) with m = αp + (1−α)q."""
    value = _skew_kl(alpha, pair.p, pair.q, pair.normalized)
    # The slope of q, −(1 − α)/α, is as good as infinite.
    return Found(value, falls=(alpha < 1.0, alpha < torch.finfo(value.dtype).tiny))


def skew_reverse_kl(alpha: Number, pair: Pair) -> Found:
    """KL(q‖m) with m = (1−α)p + αq."""
    value = _skew_kl(alpha, pair.q, pair.p, pair.normalized)
    return Found(value, falls=(alpha < torch.finfo(value.dtype).tiny, alpha < 1.0))


def _skew_kl(alpha: Number, p: Side, q: Side, normalized: bool) -> Tensor:
    """Σ −p·ln(1 + w), w = m/p − 1 = (1−α)(e^(−d) − 1), d = ln p − ln q, m = αp + (1−α)q.

    Of rows that sum to one as Σ p·(w − ln(1 + w)), of terms ≥ 0.
    """
    both = p.present & q.present
    only_p = p.present & ~q.present
    d = log_ratio(p, q, both)
    # At α = 1, where the value is 0, any other weight keeps ln m finite.
    at_zero, at_one = alpha == 0.0, alpha == 1.0
    one = p.p.new_ones(())
    a, rest = choose(at_one, 0.5, alpha) * one, choose(at_one, 0.5, 1.0 - alpha) * one
    ln_a = math.log(alpha) * one if isinstance(alpha, float) and alpha > 0.0 else a.log()
    # Beyond, e^(−d) leaves the range of floats.
    most = 700.0 if d.dtype == torch.float64 else 80.0
    low = d.clamp(min=-most)
    # The derivative of expm1 would be rounded to 0 where e^(−d) is small.
    w = torch.where(low < 1.0, torch.expm1(-low.clamp(max=1.0)), (-low).exp() - 1.0) * rest
    little, much = w < -0.5, (w > 1.0) | (d < -most)
    w = torch.where(much, 0.0, w)
    # ln(m/p); of p and q themselves where they are normal, so that the smallest q has its slope.
    m = a * p.p + rest * q.p
    normal = little & (m > torch.finfo(m.dtype).tiny)
    of_little = torch.logaddexp(ln_a, rest.log() - torch.where(little & ~normal, d, 0.0))
    plain = torch.where(normal, m, 1.0).log() - torch.where(normal, p.ln, 0.0)
    of_little = torch.where(normal, plain, of_little)
    share = a * torch.where(much, d, 0.0).exp() + rest
    ln = torch.where(little, of_little, torch.where(much, share.log() - d, 0.0))
    # Alone, p has ln α, of which infinity is put in at the end.
    ln = torch.where(only_p, torch.where(ln_a > -torch.inf, ln_a, 0.0), ln)
    usual = both & ~little & ~much
    if normalized:
        change = torch.where(both & ~much, p.p * w, rest * (q.p - p.p))
        terms = torch.where(usual, p.p * _deficit(torch.where(usual, w, 0.0)), change - p.p * ln)
        value = at_least_zero(terms.sum(-1))
    else:
        terms = p.p * torch.where(usual, torch.log1p(torch.where(usual, w, 0.0)), ln)
        value = -terms.sum(-1)
    # The slope of a class that q lacks, at its probability 0.
    slope = rest / torch.clamp(choose(at_zero, 1.0, a), min=torch.finfo(a.dtype).tiny)
    value = value - slope * torch.where(only_p, q.p, 0.0).sum(-1)
    infinite = mask_if(at_zero, only_p)
    value = value + torch.where(infinite.any(-1), torch.inf, 0.0)
    if p.space in ("logits", "unnormalized"):
        value = value + p.spoiled(infinite.any(-1))
    else:
        value = value + steep(p.given, infinite, 1.0)
    limit: Tensor = choose(at_one, 0.0 * (p.p - q.p).sum(-1), value)
    return limit


def _deficit(w: Tensor) -> Tensor:
    """The excess of w over ln(1 + w), however small w is."""
    small = w.abs() < 0.1
    # With s = w/(2 + w), w − 2s is w·s, and ln(1 + w) is 2 atanh s.
    near = torch.where(small, w, 0.0)
    s = near / (2.0 + near)
    square, tail = s * s, torch.zeros_like(s)
    for k in (13, 11, 9, 7, 5, 3):
        tail = 1.0 / k + square * tail
    far = torch.where(small, 1.0, w)
    return torch.where(small, s * (near - 2.0 * square * tail), far - torch.log1p(far))
