"""``kldiv::sparse``: losses from the classes that a teacher keeps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kldiv import _requests
from kldiv._arrays import as_array, as_rows
from kldiv._top_k import Flat
from kldiv.torch import formulas
from kldiv.torch.ops.loss import Loss
from kldiv.torch.ops.requests import RequestCall


def _prepare(
    *,
    q: Tensor,
    ids: Tensor,
    log_probs: Tensor,
    offsets: Tensor,
    drawn: Tensor | None,
    normalized: bool,
    wide: bool,
    where: Any,
    weights: Any,
    width: int,
    **options: Any,
) -> RequestCall:
    del width
    teacher = Flat(
        as_array("ids", ids),
        as_array("log_probs", log_probs),
        as_array("offsets", offsets),
        None if drawn is None else as_array("weights", drawn),
        normalized,
        q.shape[-1],
    )
    request = _requests.sparse_loss_of_flat(
        options["loss"],
        options["parameter"],
        teacher,
        wide,
        "q",
        as_rows("q", q, -1),
        options["rule"],
        options["floor"],
        (options["p_temperature"], options["q_temperature"]),
        options["temper_after"],
        where,
        weights,
        options["reduction"],
        options["denominator"],
    )
    return RequestCall(request)


def _value_like(*, q: Tensor, wide: bool, reduction: str, **_: Any) -> Tensor:
    shape = q.shape[:-1] if reduction == "none" else ()
    return q.new_empty(shape, dtype=torch.float64 if wide else formulas.value_dtype(q))


def formula(
    *,
    q: Tensor,
    normalized: bool,
    where: Tensor | None,
    weights: Tensor | None,
    reduction: str,
    denominator: Any,
    **options: Any,
) -> Tensor:
    """The same in torch operations."""
    del normalized
    keep = formulas.kept_rows(where, weights, None, None)
    rows = formulas.sparse(formulas.neutral(q, keep), **options)
    return formulas.reduced(rows, keep, weights, reduction, denominator)


sparse = Loss(
    "sparse",
    ("q",),
    (
        ("ids", "Tensor"),
        ("log_probs", "Tensor"),
        ("offsets", "Tensor"),
        ("drawn", "Tensor?"),
        ("normalized", "bool"),
        ("wide", "bool"),
        ("width", "SymInt"),
        ("loss", "str"),
        ("parameter", "float"),
        ("rule", "str"),
        ("floor", "float"),
        ("p_temperature", "float"),
        ("q_temperature", "float"),
        ("temper_after", "bool"),
        ("where", "Tensor?"),
        ("weights", "Tensor?"),
        ("reduction", "str"),
        ("denominator", "float?"),
    ),
    prepare=_prepare,
    value_like=_value_like,
    formula=formula,
)

__all__ = ["formula", "sparse"]
