"""Jensen–Shannon."""

from __future__ import annotations

import torch
from torch import Tensor

from kldiv.torch.formulas.numbers import choose
from kldiv.torch.formulas.pair import Found, Pair, at_least_zero, exchanged, log_ratio
from kldiv.torch.formulas.sides import Number, Side


def jensen_shannon(beta: Number, pair: Pair) -> Found:
    """β KL(p‖m) + (1−β) KL(q‖m) with m = βp + (1−β)q."""
    swap = beta > 0.5
    smaller = choose(swap, 1.0 - beta, beta)
    value = _jensen_shannon(smaller, *exchanged(swap, pair.p, pair.q))
    return Found(value, falls=((beta > 0.0) & (beta < 1.0),) * 2)


def _jensen_shannon(beta: Number, p: Side, q: Side) -> Tensor:
    """Σ [βp·ln(p/m) + (1−β)q·ln(q/m)], m = βp + (1−β)q; β ≤ ½.

    With d = ln p − ln q, ln(m/q) is ln(1 + β(e^d − 1)), and a term of d < 1 is βp·d − m·ln(m/q),
    all of which vanishes with d, and with β. Beyond, it rounds q's gradient at the size of p's.
    """
    both = p.present & q.present
    d = log_ratio(p, q, both)
    # At β = 0 any other weight keeps ln m finite.
    b = choose(beta == 0.0, 0.5, beta) * p.p.new_ones(())
    low = d.clamp(max=1.0)
    # The derivative of expm1 would be rounded to 0 where e^d is small.
    growth = torch.where(low > -1.0, torch.expm1(low.clamp(min=-1.0)), low.exp() - 1.0)
    m = b * p.p + (1.0 - b) * q.p
    near = b * p.p * low - m * torch.log1p(b * growth)
    high = d.clamp(min=1.0)
    to_p = (b + (1.0 - b) * (-high).exp()).log()
    # Beyond, e^d leaves the range of floats, or its derivative the other way.
    most = torch.clamp(-b.log(), max=700.0 if d.dtype == torch.float64 else 80.0)
    to_q = torch.log1p(b * (torch.minimum(high, most).exp() - 1.0))
    to_q = torch.where(high < most, to_q, high + to_p)
    far = -b * p.p * to_p - (1.0 - b) * q.p * to_q
    # Of a class that one side lacks, ln m is that of its share.
    of_p, of_q = -b * b.log() * p.p, -(1.0 - b) * torch.log1p(-b) * q.p
    alone = torch.where(p.present, of_p, torch.where(q.present, of_q, 0.0))
    value = at_least_zero(torch.where(both, torch.where(d < 1.0, near, far), alone).sum(-1))
    limit: Tensor = choose(beta == 0.0, 0.0 * (p.p - q.p).sum(-1), value)
    return limit
