"""``kldiv::entropy``, ``kldiv::logsumexp`` and ``kldiv::log_softmax``: functions of one batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kldiv import _kldiv, _requests, functional
from kldiv._arrays import as_rows
from kldiv.torch import formulas
from kldiv.torch.ops.loss import Loss, as_tensor, new_tensor
from kldiv.torch.ops.modes import composes
from kldiv.torch.ops.requests import RequestCall, row_values_like

_ROWS = (
    ("where", "Tensor?"),
    ("weights", "Tensor?"),
    ("reduction", "str"),
    ("denominator", "float?"),
)


def _prepare_entropy(**options: Any) -> RequestCall:
    return RequestCall(_requests.entropy_of_side(axis=-1, **options))


def entropy_formula(
    *, p: Tensor, space: str, temperature: Any, where: Any, weights: Any, **reduction: Any
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
    *, z: Tensor, temperature: Any, where: Any, weights: Any, **reduction: Any
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


torch.library.define(
    "kldiv::log_softmax",
    "(Tensor z, Tensor temperature, Tensor? where) -> Tensor",
    tags=(torch.Tag.pt2_compliant_tag,),
)


@torch.library.impl("kldiv::log_softmax", "cpu")
def _log_softmax(z: Tensor, temperature: Tensor, where: Tensor | None) -> Tensor:
    out, memory = new_tensor(z.shape, formulas.value_dtype(z))
    rows = as_rows("z", z.detach().resolve_neg(), -1)
    mask = None if where is None else where.expand(z.shape[:-1]).reshape(-1).contiguous().numpy()
    _kldiv.log_softmax(rows, temperature.item(), mask, memory)
    return out


def _fake_log_softmax(z: Tensor, temperature: Tensor, where: Tensor | None) -> Tensor:
    return z.new_empty(z.shape, dtype=formulas.value_dtype(z))


def _keep_log_probs(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    z, temperature, where = inputs
    ctx.dtype = z.dtype
    ctx.save_for_backward(output, temperature, where)


def _differentiate_log_softmax(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
    ln_p, temperature, where = ctx.saved_tensors
    grad_output = formulas.neutral(grad_output, where)
    gradient = grad_output - ln_p.exp() * grad_output.sum(-1, keepdim=True)
    return formulas.neutral(gradient / temperature, where).to(ctx.dtype), None, None


torch.library.register_fake("kldiv::log_softmax", _fake_log_softmax)
torch.library.register_autograd(
    "kldiv::log_softmax", _differentiate_log_softmax, setup_context=_keep_log_probs
)


def log_softmax(z: Tensor, temperature: Any, where: Tensor | None) -> Tensor:
    """z/T − ln Σ e^(z/T)."""
    if composes():
        return formulas.log_softmax(z, temperature, where)
    result: Tensor = torch.ops.kldiv.log_softmax.default(z, as_tensor(temperature), where)
    return result
