"""Jeffreys, KL in both directions."""

from __future__ import annotations

from kldiv.torch.formulas.divergences.kl import kl_of
from kldiv.torch.formulas.pair import Found, Pair
from kldiv.torch.formulas.sides import Number


def jeffreys(parameter: Number, pair: Pair) -> Found:
    """KL(p‖q) + KL(q‖p)."""
    p_again, q_again = pair.again()
    value = kl_of(pair.p, pair.q, pair.normalized) + kl_of(q_again, p_again, pair.normalized)
    return Found(value, falls=(True, True))
