"""The divergences of `kldiv` on tensors."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from kldiv._requests import as_space, normalized, pair_of, sides_of
from kldiv.torch import ops
from kldiv.torch.functional.rows import (
    RowOptions,
    as_order,
    as_share,
    as_temperature,
    check_floating,
    check_one_device,
    classes_last,
)
from kldiv.torch.ops.modes import is_traced

Space = str | tuple[str, str]
Temperature = float | tuple[float, float]


def kl(
    p: Tensor,
    q: Tensor,
    *,
    space: Space = "logits",
    normalize: bool = False,
    temperature: Temperature = 1.0,
    axis: int = -1,
    where: Tensor | None = None,
    weights: Tensor | None = None,
    reduction: str = "none",
    denominator: float | Tensor | None = None,
) -> Tensor:
    r"""Kullback–Leibler divergence of q from p, Σ p (ln p − ln q), differentiable in both.

    `kldiv.kl` on tensors: the same values, parameters and exceptions, for float32, float64,
    float16 and bfloat16. p comes first, unlike in `kl_div`, which keeps the order of torch.

    With ``reduction`` other than ``"none"`` value and gradient are computed in one read of both
    tensors. Tensors on other devices than the CPU take the same formula in torch operations.

    Parameters
    ----------
    p, q : Tensor
        Reference and approximation, of one shape ``[..., classes]``.
    space, normalize, temperature, axis, reduction
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
    options = RowOptions(where, weights, reduction, denominator)
    return _divergence("kl", 0.0, p, q, space, normalize, temperature, axis, options)


def reverse_kl(
    p: Tensor,
    q: Tensor,
    *,
    space: Space = "logits",
    normalize: bool = False,
    temperature: Temperature = 1.0,
    axis: int = -1,
    where: Tensor | None = None,
    weights: Tensor | None = None,
    reduction: str = "none",
    denominator: float | Tensor | None = None,
) -> Tensor:
    r"""Reverse Kullback–Leibler divergence, Σ q (ln q − ln p); `kldiv.reverse_kl` on tensors.

    Parameters, returns and exceptions are those of `kl`.

    Examples
    --------
    >>> import torch
    >>> import kldiv.torch
    >>> p, q = torch.tensor([0.5, 0.5]), torch.tensor([0.9, 0.1])
    >>> print(f"{kldiv.torch.reverse_kl(p, q, space='probs').item():.6f}")
    0.368064
    """
    options = RowOptions(where, weights, reduction, denominator)
    return _divergence("reverse_kl", 0.0, p, q, space, normalize, temperature, axis, options)


def jensen_shannon(
    p: Tensor,
    q: Tensor,
    *,
    beta: float = 0.5,
    space: Space = "logits",
    normalize: bool = False,
    temperature: Temperature = 1.0,
    axis: int = -1,
    where: Tensor | None = None,
    weights: Tensor | None = None,
    reduction: str = "none",
    denominator: float | Tensor | None = None,
) -> Tensor:
    r"""Jensen–Shannon divergence, β KL(p‖m) + (1−β) KL(q‖m) with m = βp + (1−β)q.

    `kldiv.jensen_shannon` on tensors. β is the weight of p; other parameters, returns and
    exceptions are those of `kl`.

    Examples
    --------
    >>> import torch
    >>> import kldiv.torch
    >>> p, q = torch.tensor([0.5, 0.5]), torch.tensor([0.9, 0.1])
    >>> print(f"{kldiv.torch.jensen_shannon(p, q, space='probs').item():.6f}")
    0.101749
    """
    options = RowOptions(where, weights, reduction, denominator)
    share = as_share("beta", beta)
    return _divergence("jensen_shannon", share, p, q, space, normalize, temperature, axis, options)


def total_variation(
    p: Tensor,
    q: Tensor,
    *,
    space: Space = "logits",
    normalize: bool = False,
    temperature: Temperature = 1.0,
    axis: int = -1,
    where: Tensor | None = None,
    weights: Tensor | None = None,
    reduction: str = "none",
    denominator: float | Tensor | None = None,
) -> Tensor:
    r"""Total variation distance, ½ Σ \|p − q\|; `kldiv.total_variation` on tensors.

    Parameters, returns and exceptions are those of `kl`.

    Examples
    --------
    >>> import torch
    >>> import kldiv.torch
    >>> p, q = torch.tensor([0.5, 0.5]), torch.tensor([0.9, 0.1])
    >>> print(f"{kldiv.torch.total_variation(p, q, space='probs').item():.6f}")
    0.400000
    """
    options = RowOptions(where, weights, reduction, denominator)
    return _divergence("total_variation", 0.0, p, q, space, normalize, temperature, axis, options)


def renyi(
    p: Tensor,
    q: Tensor,
    *,
    alpha: float,
    space: Space = "logits",
    normalize: bool = False,
    temperature: Temperature = 1.0,
    axis: int = -1,
    where: Tensor | None = None,
    weights: Tensor | None = None,
    reduction: str = "none",
    denominator: float | Tensor | None = None,
) -> Tensor:
    r"""Rényi divergence of order α, ln(Σ p^α q^(1−α)) / (α − 1); `kldiv.renyi` on tensors.

    Other parameters, returns and exceptions are those of `kl`.

    Examples
    --------
    >>> import torch
    >>> import kldiv.torch
    >>> p, q = torch.tensor([0.5, 0.5]), torch.tensor([0.9, 0.1])
    >>> print(f"{kldiv.torch.renyi(p, q, alpha=2, space='probs').item():.6f}")
    1.021651
    """
    options = RowOptions(where, weights, reduction, denominator)
    order = as_order("alpha", alpha)
    kind = kind_of_order(order)
    return _divergence(kind, order, p, q, space, normalize, temperature, axis, options)


def _divergence(
    kind: str,
    parameter: float,
    p: Tensor,
    q: Tensor,
    space: Any,
    normalize: bool,
    temperature: Any,
    axis: int,
    options: RowOptions,
) -> Tensor:
    check_floating(p=p, q=q)
    check_one_device(p=p, q=q, where=options.where, weights=options.weights)
    (p_space, q_space), temperatures = _sides(space, temperature)
    spaces = normalized(p_space, normalize), normalized(q_space, normalize)
    if p.shape != q.shape:
        raise ValueError(f"p has shape {tuple(p.shape)} but q has shape {tuple(q.shape)}")
    p, q = classes_last("p", p, axis), classes_last("q", q, axis)
    arguments = (p, q, kind, parameter, *spaces, *temperatures)
    return options.run(ops.divergence, arguments)


def _sides(space: Any, temperature: Any) -> tuple[tuple[str, str], tuple[Any, Any]]:
    """Space and temperature of p and of q."""
    single = not isinstance(temperature, tuple | list)
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


def kind_of_order(order: Any) -> str:
    """The divergence that Rényi's of an order is; not known of a tensor."""
    return "kl" if not isinstance(order, Tensor) and order == 1.0 else "renyi"


__all__ = ["jensen_shannon", "kl", "renyi", "reverse_kl", "total_variation"]
