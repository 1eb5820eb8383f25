"""Rows: their dtype, which of them count, and what becomes of their values."""

from __future__ import annotations

import torch
from torch import Tensor

from kldiv.torch.formulas.sides import Number


def value_dtype(*tensors: Tensor) -> torch.dtype:
    """float64 where any tensor is, else float32."""
    return torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32


def widened(labels: Tensor) -> Tensor:
    """Class indices of any integer dtype as int64.

    In a narrower dtype torch would wrap an `ignore_index` around before it compares.
    """
    wide = labels.to(torch.int64)
    if labels.dtype == torch.uint64:
        # Beyond int64 every label is out of range; keep it so instead of wrapping around.
        wide = torch.where(wide < 0, torch.iinfo(torch.int64).max, wide)
    return wide


def kept_rows(
    where: Tensor | None, weights: Tensor | None, labels: Tensor | None, ignore_index: int | None
) -> Tensor | None:
    """Which rows count; `None` for all."""
    keep = where
    for more in (
        None if weights is None else weights != 0,
        None if labels is None or ignore_index is None else widened(labels) != ignore_index,
    ):
        if more is not None:
            keep = more if keep is None else keep & more
    return keep


def neutral(x: Tensor, keep: Tensor | None) -> Tensor:
    """Rows, with zeros in place of those that do not count."""
    return x if keep is None else torch.where(keep.unsqueeze(-1), x, 0.0)


def reduced(
    rows: Tensor,
    keep: Tensor | None,
    weights: Tensor | None,
    reduction: str,
    denominator: Number | None,
    share: Tensor | None = None,
) -> Tensor:
    """What becomes of the values of the rows.

    `share` is what a row adds to the divisor of a mean, beside its weight.
    """
    weight = rows.new_ones(())
    if weights is not None:
        weight = weights.to(rows.dtype)
    if keep is not None:
        rows = torch.where(keep, rows, 0.0)
        weight = torch.where(keep, weight, 0.0)
    values = rows * weight
    if reduction == "none":
        return values
    if reduction == "sum":
        return values.sum()
    # Divided before they are summed: the sum may be beyond the largest float, and the mean not.
    if reduction == "batchmean":
        # Of an empty batch 0.
        return (values / max(rows.shape[0], 1)).sum()
    if denominator is not None:
        mean: Tensor = (values / denominator).sum()
        return mean.to(rows.dtype)
    divisor = (weight if share is None else weight * share).expand_as(rows).sum()
    # A mean over nothing is 0.
    empty = divisor == 0
    return torch.where(empty, 0.0, (values / torch.where(empty, 1.0, divisor)).sum())
