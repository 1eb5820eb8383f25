"""``kldiv::divergence``: every divergence of two batches of rows."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from kldiv import _requests
from kldiv.torch import formulas
from kldiv.torch.ops.loss import Loss
from kldiv.torch.ops.requests import RequestCall, row_values_like


def _prepare(
    *, kind: str, parameter: float, p: Tensor, q: Tensor, where: Any, weights: Any, **options: Any
) -> RequestCall:
    request = _requests.divergence_of_sides(
        kind,
        parameter,
        p,
        q,
        (options["p_space"], options["q_space"]),
        (options["p_temperature"], options["q_temperature"]),
        -1,
        where,
        weights,
        options["reduction"],
        options["denominator"],
    )
    return RequestCall(request)


def _value_like(*, p: Tensor, q: Tensor, reduction: str, **_: Any) -> Tensor:
    if p.shape != q.shape:
        raise ValueError(f"p has shape {tuple(p.shape)} but q has shape {tuple(q.shape)}")
    return row_values_like((p, q), reduction)


def formula(
    *,
    p: Tensor,
    q: Tensor,
    where: Tensor | None,
    weights: Tensor | None,
    reduction: str,
    denominator: float | None,
    **options: Any,
) -> Tensor:
    """The same in torch operations."""
    keep = formulas.kept_rows(where, weights, None, None)
    p, q = formulas.neutral(p, keep), formulas.neutral(q, keep)
    rows = formulas.divergence(p=p, q=q, **options)
    return formulas.reduced(rows, keep, weights, reduction, denominator)


divergence = Loss(
    "divergence",
    ("p", "q"),
    (
        ("kind", "str"),
        ("parameter", "float"),
        ("p_space", "str"),
        ("q_space", "str"),
        ("p_temperature", "float"),
        ("q_temperature", "float"),
        ("where", "Tensor?"),
        ("weights", "Tensor?"),
        ("reduction", "str"),
        ("denominator", "float?"),
    ),
    prepare=_prepare,
    value_like=_value_like,
    formula=formula,
)

__all__ = ["divergence", "formula"]
