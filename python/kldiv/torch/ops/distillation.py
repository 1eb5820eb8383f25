"""``kldiv::distillation``: a divergence from a teacher mixed with cross-entropy on labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from kldiv import _requests
from kldiv._arrays import as_array, as_rows
from kldiv.torch import formulas
from kldiv.torch.ops.loss import Loss
from kldiv.torch.ops.requests import RequestCall, row_values_like
from kldiv.torch.private import is_batched, version_of


def _prepare(*, kind: str, parameter: float, **arguments: Any) -> RequestCall:
    return RequestCall(_requests.distillation(kind, parameter, **arguments))


def _value_like(*, teacher: Tensor, student: Tensor, reduction: str, **_: Any) -> Tensor:
    if teacher.shape != student.shape:
        raise ValueError(
            f"teacher_logits has shape {tuple(teacher.shape)} but student_logits has shape "
            f"{tuple(student.shape)}"
        )
    return row_values_like((teacher, student), reduction)


def formula(
    *,
    teacher: Tensor,
    student: Tensor,
    labels: Tensor | None,
    kind: str,
    parameter: Any,
    temperature: Any,
    divergence_weight: Any,
    cross_entropy_weight: Any,
    ignore_index: int | None,
    label_smoothing: Any,
    where: Tensor | None,
    weights: Tensor | None,
    reduction: str,
    denominator: Any,
) -> Tensor:
    """The same in torch operations."""
    keep = formulas.kept_rows(where, weights, labels, ignore_index)
    # Once for both losses, whose gradients are then added before they are rounded.
    student = student.to(formulas.value_dtype(teacher, student))
    teacher, student = formulas.neutral(teacher, keep), formulas.neutral(student, keep)
    if isinstance(divergence_weight, Tensor) or divergence_weight != 0:
        rows = divergence_weight * formulas.divergence(
            kind, parameter, teacher, student, "logits", "logits", temperature, temperature
        )
    else:
        # Without a share, it is 0 whatever the teacher holds, and has a gradient of 0.
        nothing = torch.zeros((), dtype=torch.bool, device=student.device)
        rows = formulas.neutral(teacher, nothing).sum(-1)
    rows = rows.to(formulas.value_dtype(teacher, student))
    if labels is not None and (
        isinstance(cross_entropy_weight, Tensor) or cross_entropy_weight != 0
    ):
        classes = formulas.widened(labels)
        classes = classes if keep is None else torch.where(keep, classes, 0)
        rows = rows + cross_entropy_weight * formulas.cross_entropy(
            student, classes, "logits", 1.0, label_smoothing, None, 0.0, None
        ).to(rows.dtype)
    return formulas.reduced(rows, keep, weights, reduction, denominator)


distillation = Loss(
    "distillation",
    ("teacher", "student"),
    (
        ("labels", "Tensor?"),
        ("kind", "str"),
        ("parameter", "float"),
        ("temperature", "float"),
        ("divergence_weight", "float"),
        ("cross_entropy_weight", "float"),
        ("ignore_index", "int?"),
        ("label_smoothing", "float"),
        ("where", "Tensor?"),
        ("weights", "Tensor?"),
        ("reduction", "str"),
        ("denominator", "float?"),
    ),
    prepare=_prepare,
    value_like=_value_like,
    formula=formula,
)


class DistillationInPlace(torch.autograd.Function):
    """The loss, with its gradient written over the logits of the student.

    Whatever saved those logits for its own backward finds them changed, by their version, and
    raises; the logits themselves hold the gradient from here on.
    """

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, options: dict[str, Any]) -> Tensor:
        """Compute value and gradient."""
        memory = student.detach()
        inputs: dict[str, Any] = {
            name: _apart(tensor, memory) if isinstance(tensor, Tensor) else tensor
            for name, tensor in {"teacher": teacher, **options}.items()
        }
        call = _prepare(student=memory, **inputs)
        output = {"student": as_rows("student", memory, -1)}
        # Half types are to be rounded once, after the upstream gradient is known.
        ctx.later = (call, output) if student.dtype.itemsize == 2 else None
        value = call.run(None, {} if ctx.later else output)
        torch.autograd.graph.increment_version(student)
        # What half types read again, autograd sees to that it stays as it is.
        tensors = [tensor for tensor in inputs.values() if isinstance(tensor, Tensor)]
        ctx.save_for_backward(*(x for x in tensors if ctx.later and not x.is_inference()))
        ctx.gradient, ctx.version = memory, version_of(memory)
        return torch.scalar_tensor(float(value), dtype=call.value_dtype, device="cpu")

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Tensor, None, None]:
        """Hand the gradient on, once."""
        gradient, ctx.gradient = ctx.gradient, None
        if gradient is None or torch.is_grad_enabled():
            raise RuntimeError(
                "the gradient of a loss with inplace=True can be had once, and has no gradient "
                "itself: the logits were overwritten; use inplace=False"
            )
        if is_batched(grad_outputs[0]):
            raise RuntimeError("inplace=True has one gradient; use inplace=False")
        if version_of(gradient) != ctx.version:
            raise RuntimeError(
                "the logits of a loss with inplace=True hold its gradient, and were modified by an "
                "inplace operation before backward"
            )
        _ = ctx.saved_tensors
        if ctx.later:
            call, output = ctx.later
            call.run(grad_outputs[0], output)
            return gradient, None, None
        factor = grad_outputs[0].item()
        return gradient if factor == 1.0 else gradient.mul_(factor), None, None


# Steps of the search for a byte in common; where it takes more, memory counts as shared.
_SEARCH = 10_000


def _apart(tensor: Tensor, memory: Tensor) -> Tensor:
    """The tensor, detached, or a copy if it shares memory that will be written to."""
    tensor = tensor.detach().resolve_neg()
    if np.may_share_memory(as_array("", tensor), as_array("", memory), max_work=_SEARCH):  # type: ignore[arg-type]
        return tensor.clone()
    return tensor
