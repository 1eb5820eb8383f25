"""Universal logit distillation, on tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kldiv import _requests
from kldiv.torch import formulas
from kldiv.torch.functional.divergence import sides
from kldiv.torch.functional.rows import (
    RowOptions,
    as_number,
    check_floating,
    check_one_device,
    classes_last,
)
from kldiv.torch.functional.signatures import on_tensors
from kldiv.torch.ops.uld import uld as uld_loss


@on_tensors
def uld(
    p: Tensor,
    q: Tensor,
    *,
    id_map: Any,
    beta: Any,
    matched_weight: Any,
    unmatched_weight: Any,
    space: Any,
    normalize: bool,
    temperature: Any,
    axis: int,
    where: Tensor | None,
    weights: Tensor | None,
    reduction: str,
    denominator: float | Tensor | None,
) -> Tensor:
    r"""Universal logit distillation, Σ \|p_(i) − q_(i)\| of probabilities in falling order.

    `kldiv.uld` on tensors, differentiable in both, which may have different numbers of classes.
    The ids of `id_map` are tensors of integers, on the device of p and q, or lists. See `kl` for
    what else differs from NumPy.

    Where numbers cannot be looked at, on other devices and in transformed code, nobody sees to it
    that no id is there twice.

    Examples
    --------
    >>> import torch
    >>> import kldiv.torch
    >>> teacher, student = torch.tensor([1.0, 2.0, 0.5]), torch.tensor([0.9, 2.1])
    >>> print(f"{kldiv.torch.uld(teacher, student, id_map=([1], [0])).item():.6f}")
    0.467568
    """
    check_floating(p=p, q=q)
    p_ids, q_ids = _ids(id_map, p.device)
    check_one_device(p=p, q=q, p_ids=p_ids, q_ids=q_ids, where=where, weights=weights)
    (p_space, q_space), temperatures = sides(space, temperature)
    spaces = _requests.normalized(p_space, normalize), _requests.normalized(q_space, normalize)
    rows = classes_last("p", p, axis), classes_last("q", q, axis)
    _requests.check_same_batch(rows[0].shape[:-1], rows[1].shape[:-1])
    shared = None if p_ids is None else p_ids.shape[0]
    number = as_number("beta", beta)
    if isinstance(number, Tensor):
        raise ValueError(
            "which divergence uld takes depends on whether beta is 0 or 1: in compiled code, pass "
            "a number, not a tensor"
        )
    kind, parameter = _requests.shared_divergence(shared, number)
    parts = _requests.parts_of(
        shared, rows[0].shape[-1], matched_weight, unmatched_weight, _as_part
    )
    arguments = (*rows, p_ids, q_ids, kind, parameter, *parts, *spaces, *temperatures)
    return RowOptions(where, weights, reduction, denominator).run(uld_loss, arguments)


def _as_part(name: str, value: Any) -> Any:
    number = as_number(name, value)
    return number if isinstance(number, Tensor) else _requests.as_part(name, number)


def _ids(id_map: Any, device: torch.device) -> tuple[Tensor | None, Tensor | None]:
    """The ids of both sides as tensors of int64."""
    if id_map is None:
        return None, None
    p_ids, q_ids = (_as_ids(one, device) for one in _requests.as_pair(id_map))
    _requests.check_same_length(p_ids.shape, q_ids.shape)
    return p_ids, q_ids


def _as_ids(ids: Any, device: torch.device) -> Tensor:
    if not isinstance(ids, Tensor):
        empty = isinstance(ids, (list, tuple)) and not ids
        ids = torch.as_tensor(ids, device=device, dtype=torch.int64 if empty else None)
    if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        raise TypeError(f"id_map has ids of dtype {ids.dtype}; expected integers")
    return formulas.widened(ids)
