"""``kldiv::cross_entropy`` with class indices, ``kldiv::soft_cross_entropy`` with distributions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kldiv import functional
from kldiv.torch import formulas
from kldiv.torch.ops.loss import Loss
from kldiv.torch.ops.requests import RequestCall, row_values_like

_OPTIONS = (
    ("class_weights", "Tensor?"),
    ("space", "str"),
    ("temperature", "float"),
    ("label_smoothing", "float"),
    ("z_loss", "float"),
    ("softcap", "float?"),
    ("where", "Tensor?"),
    ("weights", "Tensor?"),
    ("reduction", "str"),
    ("denominator", "float?"),
)


def _prepare(*, logits: Tensor, targets: Tensor, **options: Any) -> RequestCall:
    # The builder behind the function, as `kldiv.value_and_grad` finds it.
    build = functional.cross_entropy.request  # type: ignore[attr-defined]
    return RequestCall(build(logits, targets, **options))


def _value_like(*, logits: Tensor, targets: Tensor, reduction: str, **_: Any) -> Tensor:
    expected = logits.shape if targets.is_floating_point() else logits.shape[:-1]
    if targets.shape != expected:
        raise ValueError(
            f"targets has shape {tuple(targets.shape)} but logits has shape {tuple(logits.shape)}"
        )
    tensors = (logits, targets) if targets.is_floating_point() else (logits,)
    return row_values_like(tensors, reduction)


def formula(
    *,
    logits: Tensor,
    targets: Tensor,
    where: Tensor | None,
    weights: Tensor | None,
    reduction: str,
    denominator: float | None,
    ignore_index: int | None = None,
    class_weights: Tensor | None = None,
    **options: Any,
) -> Tensor:
    """The same in torch operations."""
    soft = targets.is_floating_point()
    keep = formulas.kept_rows(where, weights, None if soft else targets, ignore_index)
    logits = formulas.neutral(logits, keep)
    share = None
    if soft:
        targets = formulas.neutral(targets, keep)
    else:
        targets = formulas.widened(targets)
        targets = targets if keep is None else torch.where(keep, targets, 0)
        if class_weights is not None:
            share = class_weights[targets].to(formulas.value_dtype(logits))
    rows = formulas.cross_entropy(
        logits=logits, targets=targets, class_weights=class_weights, **options
    )
    return formulas.reduced(rows, keep, weights, reduction, denominator, share)


cross_entropy = Loss(
    "cross_entropy",
    ("logits",),
    (("targets", "Tensor"), ("ignore_index", "int?"), *_OPTIONS),
    prepare=_prepare,
    value_like=_value_like,
    formula=formula,
)

soft_cross_entropy = Loss(
    "soft_cross_entropy",
    ("logits", "targets"),
    _OPTIONS,
    prepare=_prepare,
    value_like=_value_like,
    formula=formula,
)
