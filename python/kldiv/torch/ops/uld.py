"""``kldiv::uld``: universal logit distillation of rows of different classes."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from kldiv import _requests
from kldiv._arrays import as_array, as_rows
from kldiv.torch import formulas
from kldiv.torch.ops.loss import Loss
from kldiv.torch.ops.requests import RequestCall, row_values_like


def _prepare(
    *,
    p: Tensor,
    q: Tensor,
    p_ids: Tensor | None,
    q_ids: Tensor | None,
    where: Any,
    weights: Any,
    **options: Any,
) -> RequestCall:
    ids = None
    if p_ids is not None and q_ids is not None:
        ids = _requests.as_id_map((as_array("p_ids", p_ids), as_array("q_ids", q_ids)))
    request = _requests.uld_of_sides(
        as_rows("p", p, -1),
        as_rows("q", q, -1),
        ids,
        options["kind"],
        options["parameter"],
        (options["matched_weight"], options["unmatched_weight"]),
        (options["p_space"], options["q_space"]),
        (options["p_temperature"], options["q_temperature"]),
        where,
        weights,
        options["reduction"],
        options["denominator"],
    )
    return RequestCall(request)


def _value_like(*, p: Tensor, q: Tensor, reduction: str, **_: Any) -> Tensor:
    _requests.check_same_batch(p.shape[:-1], q.shape[:-1])
    return row_values_like((p, q), reduction)


def formula(
    *,
    p: Tensor,
    q: Tensor,
    where: Tensor | None,
    weights: Tensor | None,
    reduction: str,
    denominator: Any,
    **options: Any,
) -> Tensor:
    """The same in torch operations."""
    keep = formulas.kept_rows(where, weights, None, None)
    rows = formulas.uld(formulas.neutral(p, keep), formulas.neutral(q, keep), **options)
    return formulas.reduced(rows, keep, weights, reduction, denominator)


uld = Loss(
    "uld",
    ("p", "q"),
    (
        ("p_ids", "Tensor?"),
        ("q_ids", "Tensor?"),
        ("kind", "str"),
        ("parameter", "float"),
        ("matched_weight", "float"),
        ("unmatched_weight", "float"),
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

__all__ = ["formula", "uld"]
