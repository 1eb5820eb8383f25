"""Kept sets of rows on tensors: the rows with the other classes masked, and the mass kept.

The set is a constant to autograd. What is computed of the masked rows is then the masked dense
computation, with its gradients of any order, on any device.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from kldiv import _kldiv
from kldiv._arrays import Rows, as_rows
from kldiv._requests import KeptSets, as_kept_sets, check_rules
from kldiv.torch.formulas.kept_sets import lowest_kept
from kldiv.torch.functional.rows import RowOptions, can_be_looked_at
from kldiv.torch.ops.modes import is_traced
from kldiv.torch.ops.softmax import logsumexp as logsumexp_loss


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
    check_rules(support, top_k, top_p, min_p)
    tensor = isinstance(support, Tensor)
    if support is not None and not tensor and is_traced():
        raise TypeError(
            "in compiled code support is a tensor of ids, of the batch shape and an axis of ids; "
            f"got {type(support).__name__}"
        )
    # Shapes and dtypes are enough for NumPy's checks of all but the numbers of a tensor.
    ids = np.broadcast_to(np.int64(0), support.shape) if tensor else support
    if tensor and (support.is_floating_point() or support.dtype == torch.bool):
        raise TypeError(f"support has dtype {support.dtype}; expected integers")
    kept = as_kept_sets(_stand_in(z), ids, top_k, top_p, min_p, return_mass)
    if kept is None:
        return z
    if support is None:
        return z.masked_fill(~(z.detach() >= _lowest(z, temperature, kept)), -torch.inf)
    if tensor:
        wide = support.to(torch.int64)
        looked_at = can_be_looked_at(wide) and can_be_looked_at(z)
        if looked_at:
            _check_range(wide.reshape(-1, wide.shape[-1]), z.shape[-1])
        keep = torch.zeros(z.shape, dtype=torch.bool, device=z.device).scatter(-1, wide, True)
        if looked_at:
            counts = torch.full(z.shape[:-1], wide.shape[-1])
            _check_distinct(keep, counts)
    else:
        assert kept.ids is not None
        assert kept.offsets is not None
        flat, offsets = torch.from_numpy(kept.ids), torch.from_numpy(kept.offsets)
        counts = offsets.diff()
        rows = torch.arange(len(counts)).repeat_interleave(counts)
        outside = (flat < 0) | (flat >= z.shape[-1])
        if outside.any():
            at = int(outside.nonzero()[0, 0])
            _raise_range(int(flat[at]), int(rows[at]), z.shape[-1])
        keep = torch.zeros((len(counts), z.shape[-1]), dtype=torch.bool)
        keep[rows, flat] = True
        _check_distinct(keep, counts)
        keep = keep.reshape(z.shape).to(z.device)
    return z.masked_fill(~keep, -torch.inf)


def mass(z: Tensor, kept: Tensor, temperature: Any, counted: Tensor | None) -> Tensor:
    """The probability of the classes kept of every row; 0 of rows that do not count."""
    sums = [
        RowOptions(counted, None, "none", None).run(logsumexp_loss, (rows, temperature))
        for rows in (kept, z)
    ]
    share = (sums[0] - sums[1]).exp().clamp(max=1.0)
    return share if counted is None else torch.where(counted, share, 0.0)


def _lowest(z: Tensor, temperature: Any, kept: KeptSets) -> Tensor:
    if can_be_looked_at(z) and isinstance(temperature, float):
        rows = as_rows("z", z.detach(), -1)
        found = torch.from_numpy(_kldiv.lowest_kept(rows, kept, temperature))
        return found.reshape(*z.shape[:-1], 1).to(z.dtype)
    return lowest_kept(z, temperature, kept.top_k, kept.top_p, kept.min_p)


def _stand_in(z: Tensor) -> Rows:
    zeros = np.broadcast_to(np.float32(0), tuple(map(int, z.shape)))
    return Rows(zeros, "float32", "z", zeros, zeros.shape, zeros.ndim - 1, zeros.shape[:-1])


def _check_range(ids: Tensor, classes: int) -> None:
    outside = (ids < 0) | (ids >= classes)
    if outside.any():
        row, at = outside.nonzero()[0].tolist()
        _raise_range(int(ids[row, at]), row, classes)
    if ids.shape[-1] == 0 and ids.shape[0]:
        raise ValueError("row 0 of support has no class")


def _raise_range(class_: int, row: int, classes: int) -> None:
    raise ValueError(
        f"class {class_} in row {row} of support is out of range; rows have {classes} classes"
    )


def _check_distinct(keep: Tensor, counts: Tensor) -> None:
    """Raise `ValueError` for a row that names a class twice, or none."""
    found = keep.sum(-1)
    bad = ((found != counts) | (counts == 0)).reshape(-1)
    if bad.any():
        row = int(bad.nonzero()[0, 0])
        reason = "names a class twice" if counts.reshape(-1)[row] else "has no class"
        raise ValueError(f"row {row} of support {reason}")
