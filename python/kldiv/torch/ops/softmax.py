"""``kldiv::entropy``, ``kldiv::logsumexp`` and ``kldiv::log_softmax``: functions of one batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kldiv import _kldiv, functional
from kldiv._arrays import as_rows
from kldiv.torch import formulas
from kldiv.torch.ops.loss import Loss, new_tensor
from kldiv.torch.ops.requests import RequestCall, row_values_like

_ROWS = (
    ("where", "Tensor?"),
    ("weights", "Tensor?"),
    ("reduction", "str"),
    ("denominator", "float?"),
)


def _prepare_entropy(**options: Any) -> RequestCall:
    build = functional.entropy.request  # type: ignore[attr-defined]
    return RequestCall(build(options.pop("p"), **options))


def entropy_formula(
    *, p: Tensor, space: str, temperature: float, where: Any, weights: Any, **reduction: Any
) -> Tensor:
    """Entropy in torch operations."""
    keep = formulas.kept_rows(where, weights, None, None)
    rows = formulas.entropy(formulas.neutral(p, keep), space, temperature)
    return formulas.reduced(rows, keep, weights, **reduction)


entropy = Loss(
    "entropy",
    ("p",),
    (("space", "str"), ("temperature", "float"), *_ROWS),
    prepare=_prepare_entropy,
    value_like=lambda *, p, reduction, **_: row_values_like((p,), reduction),
    formula=entropy_formula,
)


def _prepare_logsumexp(**options: Any) -> RequestCall:
    build = functional.logsumexp.request  # type: ignore[attr-defined]
    return RequestCall(build(options.pop("z"), **options))


def logsumexp_formula(
    *, z: Tensor, temperature: float, where: Any, weights: Any, **reduction: Any
) -> Tensor:
    """Log-sum-exp in torch operations."""
    keep = formulas.kept_rows(where, weights, None, None)
    rows = formulas.logsumexp(formulas.neutral(z, keep), temperature)
    return formulas.reduced(rows, keep, weights, **reduction)


logsumexp = Loss(
    "logsumexp",
    ("z",),
    (("temperature", "float"), *_ROWS),
    prepare=_prepare_logsumexp,
    value_like=lambda *, z, reduction, **_: row_values_like((z,), reduction),
    formula=logsumexp_formula,
)


def log_softmax_formula(z: Tensor, temperature: float) -> Tensor:
    """Log-softmax in torch operations."""
    return (z.to(formulas.value_dtype(z)) / temperature).log_softmax(-1)


torch.library.define(
    "kldiv::log_softmax",
    "(Tensor z, float temperature) -> Tensor",
    tags=(torch.Tag.pt2_compliant_tag,),
)


@torch.library.impl("kldiv::log_softmax", "cpu")
def _log_softmax(z: Tensor, temperature: float) -> Tensor:
    rows = as_rows("z", z.detach(), -1)
    out, memory = new_tensor(z.shape, formulas.value_dtype(z))
    _kldiv.log_softmax(rows.operand, temperature, None, memory)
    return out


def _fake_log_softmax(z: Tensor, temperature: float) -> Tensor:
    return z.new_empty(z.shape, dtype=formulas.value_dtype(z))


def _keep_log_probs(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    z, ctx.temperature = inputs
    ctx.dtype = z.dtype
    ctx.save_for_backward(output)


def _differentiate_log_softmax(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None]:
    (ln_p,) = ctx.saved_tensors
    gradient = grad_output - ln_p.exp() * grad_output.sum(-1, keepdim=True)
    return (gradient / ctx.temperature).to(ctx.dtype), None


torch.library.register_fake("kldiv::log_softmax", _fake_log_softmax)
torch.library.register_autograd(
    "kldiv::log_softmax", _differentiate_log_softmax, setup_context=_keep_log_probs
)


def log_softmax(z: Tensor, temperature: float) -> Tensor:
    """z/T − ln Σ e^(z/T)."""
    if torch._C._are_functorch_transforms_active():
        return log_softmax_formula(z, temperature)
    result: Tensor = torch.ops.kldiv.log_softmax.default(z, temperature)
    return result
