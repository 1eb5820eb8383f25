"""What a student learns from a teacher and from labels, as one loss."""

from __future__ import annotations

import torch
from torch import Tensor

from kldiv import _kldiv
from kldiv._arrays import as_float
from kldiv.torch import ops
from kldiv.torch.functional.rows import RowOptions, check_floating, check_one_device
from kldiv.torch.ops.loss import are_plain, is_traced

VOCABULARIES = ("equal", "truncate")


def distillation_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor | None = None,
    *,
    divergence: str = "kl",
    parameter: float | None = None,
    temperature: float = 1.0,
    scale_by_t_squared: bool = False,
    alpha: float = 0.5,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    weights: Tensor | None = None,
    reduction: str = "mean",
    num_items_in_batch: float | Tensor | None = None,
    detach_teacher: bool = True,
    vocabulary: str = "equal",
    inplace: bool = False,
) -> Tensor:
    r"""α·D(p, q) + (1−α)·CE(q₁, label), with p the teacher and q the student.

    p = softmax(teacher/T), q = softmax(student/T) and q₁ = softmax(student): the labels are about
    the student at temperature 1. Value and gradient are computed in one read of both logits.

    Parameters
    ----------
    student_logits, teacher_logits : Tensor
        Shape ``[..., classes]``.
    labels : Tensor of integers, optional
        Over the batch shape; needed unless α = 1. Rows with the label `ignore_index` count in
        neither loss.
    divergence : {"kl", "reverse_kl", "jensen_shannon", "total_variation", "renyi"}
        D(p, q), with the teacher first: ``"kl"`` is Σ p (ln p − ln q), ``"reverse_kl"``
        Σ q (ln q − ln p).
    parameter : float, optional
        β of ``"jensen_shannon"`` (½ if left out), α of ``"renyi"``.
    temperature : float
        T > 0, of the divergence.
    scale_by_t_squared : bool
        Multiply the divergence by T², which keeps the size of its gradient [1]_.
    alpha : float
        The share of the divergence, from 0 to 1.
    label_smoothing : float
        ε, from 0 to 1, of the cross-entropy.
    weights : Tensor, optional
        Finite non-negative weights over the batch shape.
    reduction : {"mean", "sum", "none", "batchmean"}
        As for `kldiv.kl`; the mean is over the rows that count.
    num_items_in_batch : float or Tensor, optional
        Replaces the divisor of ``"mean"``, as gradient accumulation needs it.
    detach_teacher : bool
        Whether the teacher's logits have no gradient.
    vocabulary : {"equal", "truncate"}
        What to do with logits of unequal width, of models that pad their vocabulary: raise, or
        leave out the last classes of the wider ones.
    inplace : bool
        Write the gradient over the logits of the student, so that none is allocated. They must
        not be used afterwards, not by a second loss either; where autograd had saved them,
        backward raises. Only for scalar reductions, and not under `torch.compile`.

    Returns
    -------
    Tensor
        In nats; float64 if an input is, else float32.

    Raises
    ------
    TypeError
        For logits that are not floating tensors, or labels that are no integers.
    ValueError
        For shapes that differ, and options out of range or that do not apply.
    IndexError
        For a label out of range.

    Examples
    --------
    >>> import torch
    >>> import kldiv.torch
    >>> teacher = torch.tensor([[1.0, 2.0, 0.5], [-1.0, 0.0, 3.0]])
    >>> student = torch.tensor([[0.9, 2.1, 0.5], [-1.0, 0.5, 2.0]], requires_grad=True)
    >>> labels = torch.tensor([1, -100])
    >>> loss = kldiv.torch.distillation_loss(student, teacher, labels, temperature=2.0)
    >>> loss.backward()
    >>> student.grad
    tensor([[ 0.0959, -0.1625,  0.0666],
            [ 0.0000,  0.0000,  0.0000]])

    References
    ----------
    .. [1] G. Hinton, O. Vinyals and J. Dean, "Distilling the Knowledge in a Neural Network"
       (2015). :doi:`10.48550/arXiv.1503.02531`
    """
    check_floating(student_logits=student_logits, teacher_logits=teacher_logits)
    check_one_device(
        student_logits=student_logits,
        teacher_logits=teacher_logits,
        labels=labels,
        weights=weights,
    )
    kind, parameter = _kind(divergence, parameter)
    temperature, alpha = as_float("temperature", temperature), as_float("alpha", alpha)
    if not 0.0 <= alpha <= 1.0:
        raise ValueError(f"alpha must be from 0 to 1, got {alpha}")
    if labels is None and alpha != 1.0:
        raise ValueError(f"alpha={alpha} mixes in cross-entropy: pass labels, or alpha=1")
    student, teacher = _same_width(student_logits, teacher_logits, vocabulary)
    if detach_teacher:
        teacher = teacher.detach()
    weight = alpha * temperature * temperature if scale_by_t_squared else alpha
    losses = (kind, parameter, temperature, weight, 1.0 - alpha)
    options = (labels, *losses, ignore_index, as_float("label_smoothing", label_smoothing))
    rows = RowOptions(None, weights, reduction, num_items_in_batch)
    if not inplace:
        return rows.run(ops.distillation, (teacher, student, *options))
    return _in_place(student_logits, student, teacher, rows, options)


def _kind(divergence: str, parameter: float | None) -> tuple[str, float]:
    if divergence not in _kldiv.DIVERGENCES:
        known = ", ".join(_kldiv.DIVERGENCES)
        raise ValueError(f"divergence must be one of {known}, got {divergence!r}")
    if divergence == "jensen_shannon":
        return divergence, 0.5 if parameter is None else as_float("parameter", parameter)
    if divergence == "renyi":
        if parameter is None:
            raise ValueError("divergence='renyi' needs its order as parameter")
        order = as_float("parameter", parameter)
        return ("kl" if order == 1.0 else "renyi"), order
    if parameter is not None:
        raise ValueError(f"divergence={divergence!r} has no parameter, got {parameter!r}")
    return divergence, 0.0


def _same_width(student: Tensor, teacher: Tensor, vocabulary: str) -> tuple[Tensor, Tensor]:
    if vocabulary not in VOCABULARIES:
        known = ", ".join(VOCABULARIES)
        raise ValueError(f"vocabulary must be one of {known}, got {vocabulary!r}")
    if student.dim() == 0 or student.shape[:-1] != teacher.shape[:-1]:
        raise ValueError(
            f"student_logits has shape {tuple(student.shape)} but teacher_logits has shape "
            f"{tuple(teacher.shape)}"
        )
    if student.shape[-1] == teacher.shape[-1]:
        return student, teacher
    if vocabulary == "equal":
        raise ValueError(
            f"student_logits has shape {tuple(student.shape)} but teacher_logits has shape "
            f"{tuple(teacher.shape)}; if the wider one pads the same vocabulary, pass "
            "vocabulary='truncate'"
        )
    classes = min(student.shape[-1], teacher.shape[-1])
    return student[..., :classes], teacher[..., :classes]


def _in_place(
    given: Tensor, student: Tensor, teacher: Tensor, rows: RowOptions, options: tuple[object, ...]
) -> Tensor:
    refused = None
    base = student._base
    if is_traced() or torch._C._are_functorch_transforms_active() or not are_plain([student]):
        refused = "inplace=True is for eager mode; other modes plan their memory themselves"
    elif rows.reduction == "none":
        refused = "inplace=True needs a reduction: the gradient is written before backward"
    elif student is not given:
        refused = "inplace=True needs logits of equal width"
    elif teacher.requires_grad:
        refused = "inplace=True has no gradient for the teacher; use detach_teacher=True"
    elif student.device.type != "cpu":
        refused = f"inplace=True is for tensors on the CPU, and these are on {student.device}"
    elif any(x is not None and x.is_leaf and x.requires_grad for x in (student, base)):
        refused = "inplace=True would overwrite a leaf that requires its gradient"
    elif any(step == 0 and n > 1 for n, step in zip(student.shape, student.stride(), strict=True)):
        refused = "inplace=True needs logits of their own, and these are expanded"
    elif student.stride(-1) != 1 and student.shape[-1] != 1:
        refused = "inplace=True needs logits whose classes are contiguous"
    if refused is not None:
        raise ValueError(refused)
    if not (student.requires_grad and torch.is_grad_enabled()):
        # Nobody wants the gradient.
        return rows.run(ops.distillation, (teacher, student, *options))
    denominator = None if rows.denominator is None else float(rows.denominator)
    named = dict(zip(ops.distillation.arguments[2:], options, strict=False))
    named |= {"where": rows.where, "weights": rows.weights}
    named |= {"reduction": rows.reduction, "denominator": denominator}
    value: Tensor = ops.DistillationInPlace.apply(student, teacher, named)
    return value
