"""The divergences of `kldiv` on tensors, of their names and signatures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from kldiv import functional
from kldiv._kldiv import DIVERGENCES
from kldiv._requests import as_space, check_no_rule, normalized, pair_of, sides_of
from kldiv._signatures import docstring
from kldiv._top_k import TopK
from kldiv.torch.functional.rows import (
    RowOptions,
    as_parameter,
    as_temperature,
    check_floating,
    check_one_device,
    classes_last,
    kind_at,
)
from kldiv.torch.functional.signatures import MODULE, on_tensors
from kldiv.torch.functional.top_k import TopKTensors, top_k_loss
from kldiv.torch.ops.divergence import divergence as divergence_loss
from kldiv.torch.ops.modes import is_traced

KL = r"""
Kullback–Leibler divergence of q from p, Σ p (ln p − ln q), differentiable in both.

`kldiv.kl` on tensors: the same values, parameters and exceptions, for float32, float64,
float16 and bfloat16. p comes first, unlike in `kl_div`, which keeps the order of torch.

With ``reduction`` other than ``"none"`` value and gradient are computed in one read of both
tensors. Tensors on other devices than the CPU take the same formula in torch operations.

Parameters
----------
p, q : Tensor
    Reference and approximation, of one shape ``[..., classes]``. p may be a `kldiv.TopK`, or
    what `top_k_tensors` makes of one, without a gradient.
space, normalize, temperature, axis, reduction, rule, temper_after
    As for `kldiv.kl`. Temperatures, and other numbers, may be tensors of one number; one that
    requires a gradient raises `ValueError`, since it has none here.
where : Tensor of bool, or of integers 0 and 1, optional
    As for `kldiv.kl`. In compiled and transformed code, where numbers cannot be looked at, all
    integers but 0 count as True.
weights : Tensor, optional
    As for `kldiv.kl`; booleans are 0 and 1. They have no gradient.
denominator : float or Tensor, optional
    Replaces the divisor of ``"mean"``; it has no gradient.

Returns
-------
Tensor
    Batch-shaped for ``"none"``, else of no dimension, in nats; float64 if p or q is, else
    float32. Gradients have the dtypes of p and q.

Examples
--------
>>> import torch
>>> import kldiv.torch
>>> teacher = torch.tensor([[1.0, 2.0, 0.5], [-1.0, 0.0, 3.0]])
>>> student = torch.tensor([[0.9, 2.1, 0.5], [-1.0, 0.5, 2.0]], requires_grad=True)
>>> loss = kldiv.torch.kl(teacher, student, reduction="mean")
>>> loss.backward()
>>> print(f"{loss.item():.6f}")
0.045892
>>> student.grad[0]
tensor([-0.0154,  0.0184, -0.0030])
"""


def _on_tensors(kind: str) -> Callable[..., Tensor]:
    """The divergence of a name."""
    described = DIVERGENCES[kind].parameter

    def divergence(
        p: Tensor | TopK | TopKTensors,
        q: Tensor,
        *,
        space: Any,
        normalize: bool,
        temperature: Any,
        axis: int,
        where: Tensor | None,
        weights: Tensor | None,
        reduction: str,
        denominator: float | Tensor | None,
        rule: Any,
        temper_after: Any,
        **parameters: Any,
    ) -> Tensor:
        parameter, chosen = 0.0, kind
        if described is not None:
            if described.name not in parameters:
                raise TypeError(f"{kind}() missing a required argument: {described.name!r}")
            parameter = as_parameter(described, described.name, parameters.pop(described.name))
        if kind == "jensen_shannon":
            chosen, parameter = kind_at(kind, parameter, parameters.pop("endpoints"))
        for name in parameters:
            raise TypeError(f"{kind}() got an unexpected keyword argument {name!r}")
        options = RowOptions(where, weights, reduction, denominator)
        if isinstance(p, (TopK, TopKTensors)):
            return top_k_loss(
                chosen,
                parameter,
                p,
                "q",
                q,
                rule,
                temper_after,
                space,
                normalize,
                temperature,
                axis,
                options,
            )
        check_no_rule(rule, temper_after)
        check_floating(p=p, q=q)
        check_one_device(p=p, q=q, where=where, weights=weights)
        (p_space, q_space), temperatures = sides(space, temperature)
        spaces = normalized(p_space, normalize), normalized(q_space, normalize)
        if p.shape != q.shape:
            raise ValueError(f"p has shape {tuple(p.shape)} but q has shape {tuple(q.shape)}")
        rows = classes_last("p", p, axis), classes_last("q", q, axis)
        arguments = (*rows, chosen, parameter, *spaces, *temperatures)
        return options.run(divergence_loss, arguments)

    model = getattr(functional, kind)
    divergence.__doc__ = (
        KL if kind == "kl" else docstring(model, MODULE, "tensors", "torch.tensor", "{}.item()")
    )
    return on_tensors(divergence, kind)


def sides(space: Any, temperature: Any) -> tuple[tuple[str, str], tuple[Any, Any]]:
    """Space and temperature of p and of q."""
    single = not isinstance(temperature, (tuple, list))
    given = [
        as_temperature("temperature", one) for one in ([temperature] if single else temperature)
    ]
    if not is_traced():
        return sides_of(space, given[0] if single else given)
    # One temperature is for those sides that have one.
    spaces = pair_of("space", space, as_space)
    p_one, q_one = pair_of("temperature", temperature, as_temperature)
    if len(given) == 1:
        if "logits" not in spaces and p_one != 1.0:
            raise ValueError(f"temperature applies to logits only, and space is {space!r}")
        p_one, q_one = (p_one if one == "logits" else 1.0 for one in spaces)
    return spaces, (p_one, q_one)


FUNCTIONS = {kind: _on_tensors(kind) for kind in DIVERGENCES}
