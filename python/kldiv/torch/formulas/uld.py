"""Universal logit distillation."""

from __future__ import annotations

import torch
from torch import Tensor

from kldiv.torch.formulas.divergences import FORMULAS
from kldiv.torch.formulas.divergences.total_variation import total_variation_of
from kldiv.torch.formulas.numbers import choose, mask_if
from kldiv.torch.formulas.pair import Pair
from kldiv.torch.formulas.rows import value_dtype
from kldiv.torch.formulas.sides import Number, Side, distribution

NORMALIZED = ("logits", "unnormalized")


def uld(
    p: Tensor,
    q: Tensor,
    p_ids: Tensor | None,
    q_ids: Tensor | None,
    kind: str,
    parameter: Number,
    matched_weight: Number,
    unmatched_weight: Number,
    p_space: str,
    q_space: str,
    p_temperature: Number,
    q_temperature: Number,
) -> Tensor:
    """The loss of every row."""
    dtype = value_dtype(p, q)
    first = distribution(p.to(dtype), p_space, p_temperature)
    second = distribution(q.to(dtype), q_space, q_temperature)
    width = max(p.shape[-1], q.shape[-1])
    value = 2.0 * total_variation_of(_ranked(first, p_ids, width), _ranked(second, q_ids, width))
    if p_ids is not None and q_ids is not None:
        value = _weighted(unmatched_weight, value)
        if p_ids.shape[0]:
            shared = _of_shared(kind, parameter, _chosen(first, p_ids), _chosen(second, q_ids))
            value = value + _weighted(matched_weight, shared)
    bad = first.bad | second.bad
    infinite = value.isinf()
    value = torch.where(bad, torch.nan, value)
    for side in (first, second):
        value = value + side.spoiled(bad | infinite if side.space in NORMALIZED else bad)
    return value.to(dtype)


def _weighted(weight: Number, value: Tensor) -> Tensor:
    """A part of the loss; of weight 0 it is left out, also where it is infinite."""
    left_out = torch.zeros_like(value)
    if not isinstance(weight, Tensor) and weight == 0.0:
        return left_out
    weighted: Tensor = choose(weight == 0.0, left_out, weight * value)
    return weighted


def _of_shared(kind: str, parameter: Number, p: Side, q: Side) -> Tensor:
    """A divergence of the classes that both have, term by term."""
    pair = Pair(p, q, False, lambda: (p, q))
    found = FORMULAS[kind](parameter, pair)
    of_p, of_q = found.falls
    value = found.value + p.limit_at_zero(mask_if(of_p, pair.only_q), -1.0)
    return value + q.limit_at_zero(mask_if(of_q, pair.only_p), -1.0)


def _chosen(side: Side, ids: Tensor) -> Side:
    """Some classes of a side, with what they have of the whole."""
    given, ln, p, present = (
        tensor.index_select(-1, ids) for tensor in (side.given, side.ln, side.p, side.present)
    )
    return Side(given, side.space, ln, p, present, side.bad)


def _ranked(side: Side, shared: Tensor | None, width: int) -> Side:
    """The classes that are not shared in falling order; all others are as if they were not."""
    given, ln, p, present = side.given, side.ln, side.p, side.present
    order = given.detach()
    if shared is not None:
        mask = torch.zeros(given.shape[-1], dtype=torch.bool, device=given.device)
        mask = mask.index_fill(0, shared, True)
        order = torch.where(mask, -torch.inf, order)
        ln = torch.where(mask, -torch.inf, ln)
        p = torch.where(mask, 0.0, p)
        present = present & ~mask
    # Of classes that tie the lower one is first.
    places = order.sort(dim=-1, descending=True, stable=True).indices
    missing = (0, width - given.shape[-1])

    def placed(tensor: Tensor, nothing: float) -> Tensor:
        return torch.nn.functional.pad(tensor.gather(-1, places), missing, value=nothing)

    return Side(
        placed(given, 0.0),
        side.space,
        placed(ln, -torch.inf),
        placed(p, 0.0),
        placed(present, False),
        side.bad,
    )
