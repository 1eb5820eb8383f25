"""The estimators of `kldiv.estimators` on tensors, of their names and signatures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from kldiv import estimators
from kldiv._signatures import docstring
from kldiv.estimators.formulas import log_ratio
from kldiv.estimators.request import checked_bound
from kldiv.estimators.table import ESTIMATORS, STRAIGHT_THROUGH
from kldiv.torch import formulas
from kldiv.torch.functional.rows import (
    EXTENSION_DEVICE,
    RowOptions,
    as_flag,
    as_number,
    check_floating,
    check_one_device,
)
from kldiv.torch.functional.signatures import on_tensors
from kldiv.torch.ops.modes import is_traced

MODULE = "kldiv.torch.estimators"


class _StraightThrough(torch.autograd.Function):
    """Values of one estimator with the derivative of another one."""

    generate_vmap_rule = True

    @staticmethod
    def forward(values: Tensor, r: Tensor) -> Tensor:
        return values.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1])
        ctx.save_for_forward(inputs[1])

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[None, Tensor]:
        (r,) = ctx.saved_tensors
        return None, grad_output * STRAIGHT_THROUGH.differentiate(torch, r)


class _WithTangents(_StraightThrough):
    """The same in forward mode too, at which `torch.compile` stops."""

    @staticmethod
    def jvp(ctx: Any, _: Any, tangent: Tensor) -> Tensor:
        (r,) = ctx.saved_tensors
        found: Tensor = tangent * STRAIGHT_THROUGH.differentiate(torch, r)
        return found


def _on_tensors(name: str) -> Callable[..., Tensor]:
    """The estimator of a name."""
    described = ESTIMATORS[name]

    def estimate(
        p: Tensor,
        q: Tensor,
        *,
        straight_through: bool,
        clamp_log_ratio: float | Tensor | None,
        clamp: float | Tensor | None,
        where: Tensor | None,
        weights: Tensor | None,
        reduction: str,
        denominator: float | Tensor | None,
    ) -> Tensor:
        check_floating(p=p, q=q)
        check_one_device(p=p, q=q, where=where, weights=weights)
        if p.shape != q.shape:
            raise ValueError(f"p has shape {tuple(p.shape)} but q has shape {tuple(q.shape)}")
        straight_through = as_flag("straight_through", straight_through)
        bounds = _bound("clamp_log_ratio", clamp_log_ratio), _bound("clamp", clamp)
        dtype = formulas.value_dtype(p, q)

        def reduced(
            where: Tensor | None, weights: Tensor | None, reduction: str, denominator: Any
        ) -> Tensor:
            keep = formulas.kept_rows(where, weights, None, None)
            r = _log_ratio(p, q, keep, dtype)
            values = described.estimate(torch, r, *bounds)
            if straight_through:
                rule = _StraightThrough if is_traced() else _WithTangents
                values = rule.apply(values.detach(), r)
            found: Tensor = formulas.reduced(values, keep, weights, reduction, denominator)
            return found.to(dtype)

        options = RowOptions(where, weights, reduction, denominator)
        return options.run_formula(p.unsqueeze(-1), reduced)

    estimate.__doc__ = docstring(
        getattr(estimators, name),
        MODULE,
        "tensors",
        "torch.tensor",
        "{}.item()",
        source="kldiv.estimators",
    )
    return on_tensors(estimate, name, source=estimators, module=MODULE)


def _log_ratio(p: Tensor, q: Tensor, keep: Tensor | None, dtype: torch.dtype) -> Tensor:
    """R, in float64 where the extension computes; of tokens that do not count 0."""
    if p.device.type == EXTENSION_DEVICE:
        dtype = torch.float64
    p, q = p.to(dtype), q.to(dtype)
    if keep is not None:
        p, q = torch.where(keep, p, 0.0), torch.where(keep, q, 0.0)
    r: Tensor = log_ratio(torch, p, q)
    return r


def _bound(name: str, value: Any) -> Any:
    if value is None:
        return None
    bound = as_number(name, value)
    return bound if isinstance(bound, Tensor) else checked_bound(name, bound)


FUNCTIONS = {name: _on_tensors(name) for name in ESTIMATORS}
