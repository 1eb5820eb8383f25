"""Every divergence of two batches of rows."""

from __future__ import annotations

import torch
from torch import Tensor

from kldiv._kldiv import DIVERGENCES
from kldiv.torch.formulas.divergences import FORMULAS
from kldiv.torch.formulas.numbers import mask_if
from kldiv.torch.formulas.pair import Pair
from kldiv.torch.formulas.rows import value_dtype
from kldiv.torch.formulas.sides import Number, Side, distribution, presence


def divergence(
    kind: str,
    parameter: Number,
    p: Tensor,
    q: Tensor,
    p_space: str,
    q_space: str,
    p_temperature: Number,
    q_temperature: Number,
) -> Tensor:
    """The divergence of every row."""
    if not isinstance(parameter, Tensor):
        # Of a parameter that cannot be looked at the formula has the limit itself.
        for at, name in DIVERGENCES[kind].special:
            kind = name if parameter == at else kind
    if kind not in FORMULAS:
        raise NotImplementedError(f"{kind} in torch operations")
    dtype = value_dtype(p, q)
    nowhere = None
    if "unnormalized" in (p_space, q_space):
        nowhere = ~(presence(p, p_space) | presence(q, q_space))
    p, q = p.to(dtype), q.to(dtype)

    def sides() -> tuple[Side, Side]:
        return (
            distribution(p, p_space, p_temperature, nowhere),
            distribution(q, q_space, q_temperature, nowhere),
        )

    first, second = sides()
    pair = Pair(first, second, {p_space, q_space} <= {"logits", "unnormalized"}, sides)
    found = FORMULAS[kind](parameter, pair)
    bad = first.bad | second.bad
    unusable = bad if found.unusable is None else bad | found.unusable
    value = torch.where(bad, torch.nan, found.value)
    of_p, of_q = found.falls
    value = value + first.limit_at_zero(mask_if(of_p, pair.only_q), -1.0)
    value = value + second.limit_at_zero(mask_if(of_q, pair.only_p), -1.0)
    return (value + first.spoiled(unusable) + second.spoiled(unusable)).to(dtype)
