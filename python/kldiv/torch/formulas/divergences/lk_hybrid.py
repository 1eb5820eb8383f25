"""KL and total variation, weighed by the acceptance rate."""

from __future__ import annotations

import torch

from kldiv.torch.formulas.divergences.kl import kl_of
from kldiv.torch.formulas.divergences.neg_log_acceptance import neg_log_acceptance_of
from kldiv.torch.formulas.divergences.total_variation import total_variation_of
from kldiv.torch.formulas.numbers import logarithm
from kldiv.torch.formulas.pair import Found, Pair
from kldiv.torch.formulas.sides import Number


def lk_hybrid(eta: Number, pair: Pair) -> Found:
    """λ·KL + (1 − λ)·TV with λ = e^(−η Σ min(p, q))."""
    surprise, _ = neg_log_acceptance_of(pair.p, pair.q, pair.normalized)
    # Next to an infinite divergence no weight is 0.
    ln_rate = logarithm(eta) - surprise.detach()
    weight = torch.exp(-torch.exp(ln_rate))
    weight = weight.clamp(min=torch.finfo(weight.dtype).tiny)
    p_again, q_again = pair.again()
    value = weight * kl_of(pair.p, pair.q, pair.normalized)
    value = value + (1.0 - weight) * total_variation_of(p_again, q_again)
    return Found(value, falls=(True, True))
