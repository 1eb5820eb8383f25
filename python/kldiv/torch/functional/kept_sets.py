"""Kept sets of rows on tensors: the rows with the other classes masked, and the mass kept.

The set is a constant to autograd. What is computed of the masked rows is then the masked dense
computation, with its gradients of any order, on any device.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kldiv import _kldiv
from kldiv._arrays import as_rows
from kldiv._requests import KeptSets, as_rules, check_shape, ids_of
from kldiv.torch import formulas
from kldiv.torch.formulas.kept_sets import lowest_kept
from kldiv.torch.functional.rows import EXTENSION_DEVICE, can_be_looked_at
from kldiv.torch.ops.modes import is_traced
from kldiv.torch.ops.softmax import log_softmax


def masked(
    z: Tensor,
    temperature: Any,
    support: Any,
    top_k: Any,
    top_p: Any,
    min_p: Any,
    return_mass: Any,
) -> Tensor:
    """Rows with the logit −∞ for classes that are not kept; the rows themselves where all are."""
    kept = as_rules(z.shape[-1], support, top_k, top_p, min_p, return_mass)
    if kept is None:
        return z
    if support is None:
        # All of a row in which no logit is the lowest, so that it is NaN throughout.
        keep = ~(z.detach() < _lowest(z, temperature, kept))
    elif isinstance(support, Tensor):
        keep = _named(z, support)
    elif is_traced():
        raise TypeError(
            "in compiled code support is a tensor of ids, of the batch shape and an axis of ids; "
            f"got {type(support).__name__}"
        )
    else:
        ids, offsets = map(torch.tensor, ids_of("z", z.shape[:-1], z.shape[-1], support))
        keep = _named_in_lists(z, ids, offsets.diff())
    return z.masked_fill(~keep, -torch.inf)


def mass(z: Tensor, kept: Tensor, temperature: Any, counted: Tensor | None) -> Tensor:
    """The probability of the classes kept of every row; 0 of rows that do not count.

    Of log-probabilities, which large logits do not round as they round a log-sum-exp.
    """
    compute = log_softmax if z.device.type == EXTENSION_DEVICE else formulas.log_softmax
    p = compute(z, temperature, counted).exp()
    # Where a row is NaN throughout, 0 times it is, too.
    share = torch.where(kept.detach().isneginf(), 0.0 * p, p).sum(-1)
    # Above 1 by rounding, which is no reason to have no gradient.
    share = share - (share.detach() - 1.0).clamp(min=0.0)
    return share if counted is None else torch.where(counted, share, 0.0)


def _lowest(z: Tensor, temperature: Any, kept: KeptSets) -> Tensor:
    if can_be_looked_at(z) and isinstance(temperature, float):
        rows = as_rows("z", z.detach(), -1)
        found = torch.from_numpy(_kldiv.lowest_kept(rows, kept, temperature))
        return found.reshape(*z.shape[:-1], 1).to(z.dtype)
    return lowest_kept(z, temperature, kept.top_k, kept.top_p, kept.min_p)


def _named(z: Tensor, ids: Tensor) -> Tensor:
    """Where a row has one of the ids of an array."""
    if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        raise TypeError(f"support has dtype {ids.dtype}; expected integers")
    check_shape("z", tuple(z.shape[:-1]), tuple(ids.shape))
    ids = ids.to(torch.int64)
    looked_at = can_be_looked_at(ids) and can_be_looked_at(z)
    width = ids.shape[-1]
    if looked_at:
        rows = torch.arange(ids[..., 0].numel()).repeat_interleave(width)
        _check_range(ids.reshape(-1), rows, z.shape[-1])
    keep = torch.zeros(z.shape, dtype=torch.bool, device=z.device).scatter(-1, ids, True)
    if looked_at:
        _check_distinct(keep, torch.full(z.shape[:-1], width))
    return keep


def _named_in_lists(z: Tensor, ids: Tensor, counts: Tensor) -> Tensor:
    """Where a row has one of its ids, of which there are as many."""
    rows = torch.arange(len(counts)).repeat_interleave(counts)
    _check_range(ids, rows, z.shape[-1])
    keep = torch.zeros((len(counts), z.shape[-1]), dtype=torch.bool)
    keep[rows, ids] = True
    _check_distinct(keep, counts)
    return keep.reshape(z.shape).to(z.device)


def _check_range(ids: Tensor, rows: Tensor, classes: int) -> None:
    outside = (ids < 0) | (ids >= classes)
    if outside.any():
        at = int(outside.nonzero()[0, 0])
        raise ValueError(
            f"class {ids[at]} in row {rows[at]} of support is out of range; rows have {classes} "
            "classes"
        )


def _check_distinct(keep: Tensor, counts: Tensor) -> None:
    """Raise `ValueError` for a row that names a class twice, or none."""
    found = keep.sum(-1)
    bad = ((found != counts) | (counts == 0)).reshape(-1)
    if bad.any():
        row = int(bad.nonzero()[0, 0])
        reason = "names a class twice" if counts.reshape(-1)[row] else "has no class"
        raise ValueError(f"row {row} of support {reason}")
