"""What a student learns from a teacher and from labels, as one loss."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kldiv._kldiv import DIVERGENCES
from kldiv._reducer import REDUCTIONS
from kldiv._requests import ENDPOINTS, check_no_rule
from kldiv._top_k import TopK
from kldiv.torch.functional.rows import (
    RowOptions,
    as_class_index,
    as_flag,
    as_labels,
    as_mask,
    as_number,
    as_parameter,
    as_share,
    as_temperature,
    as_weights,
    can_be_looked_at,
    check_floating,
    check_one_device,
    check_one_of,
    check_over_batch,
    kind_at,
    one_number,
)
from kldiv.torch.functional.top_k import TopKTensors, top_k_loss
from kldiv.torch.ops.distillation import DistillationInPlace, distillation
from kldiv.torch.ops.modes import are_plain, composes, is_traced
from kldiv.torch.private import base_of, knows_what_is_overwritten

VOCABULARIES = ("equal", "truncate")
OPTIONS = {"beta": "beta", "alpha": "order", "mu": "mu", "eta": "eta"}
"""What the loss calls the parameters of divergences: its own alpha is a share."""


def distillation_loss(
    student_logits: Tensor,
    teacher_logits: Tensor | TopK | TopKTensors,
    labels: Tensor | None = None,
    *,
    divergence: str = "kl",
    beta: float | None = None,
    order: float | None = None,
    mu: float | None = None,
    eta: float | None = None,
    endpoints: str = "formula",
    temperature: float = 1.0,
    scale_by_t_squared: bool = False,
    alpha: float = 0.5,
    ignore_index: int | None = -100,
    label_smoothing: float = 0.0,
    where: Tensor | None = None,
    weights: Tensor | None = None,
    reduction: str = "mean",
    num_items_in_batch: float | Tensor | None = None,
    detach_teacher: bool = True,
    vocabulary: str = "equal",
    inplace: bool = False,
    rule: str | tuple[str, float] | None = None,
    temper_after: bool = False,
) -> Tensor:
    r"""α·D(p, q) + (1−α)·CE(q₁, label), with p the teacher and q the student.

    p = softmax(teacher/T), q = softmax(student/T) and q₁ = softmax(student): the labels are about
    the student at temperature 1. Value and gradient are computed in one read of both logits.

    Rows are compared as they are: **nothing is shifted.** The logits of a causal language model at
    one position are about the next token, so that the caller passes ``logits[:, :-1]`` of student
    and teacher with ``labels[:, 1:]``. **No factor T²** is applied unless `scale_by_t_squared`.

    Parameters
    ----------
    student_logits, teacher_logits : Tensor
        Shape ``[..., classes]``. The teacher may be a `kldiv.TopK`, or what `top_k_tensors` makes
        of one; both losses then read the student's logits.
    labels : Tensor of integers, optional
        Of any integer dtype, over the batch shape; needed unless α = 1. Rows with the label
        `ignore_index` count in neither loss.
    divergence : str
        Which D(p, q), by the name of its function, with the teacher first: ``"kl"`` is
        Σ p (ln p − ln q), ``"reverse_kl"`` Σ q (ln q − ln p).
    beta : float, optional
        β of ``"jensen_shannon"``, the weight of the teacher, from 0 to 1; ½ if left out.
    order : float, optional
        α of ``"renyi"``, its order, positive, and of ``"alpha_divergence"``, which need it, and of
        ``"skew_kl"`` and ``"skew_reverse_kl"``, from 0 to 1; 0.1 if left out. (Their functions call
        it α, which is the share of the divergence here.)
    mu : float, optional
        μ of ``"adaptive_kl"``, the probability that the head of the teacher holds, from 0 to 1; ½
        if left out.
    eta : float, optional
        η of ``"lk_hybrid"``, not negative; 3 if left out.
    endpoints : {"formula", "trl"}
        What ``"jensen_shannon"`` is for β = 0 and β = 1: 0, or as in TRL ``"kl"`` and
        ``"reverse_kl"``.
    temperature : float
        T of the divergence, from 1e-30 to 1e30.
    scale_by_t_squared : bool
        Multiply the divergence by T², which keeps the size of its gradient [1]_.
    alpha : float
        The share of the divergence, from 0 to 1.
    ignore_index : int or None
        An index that no label of their dtype can be is none.
    label_smoothing : float
        ε, from 0 to 1, of the cross-entropy.
    where : Tensor of bool, or of integers 0 and 1, optional
        Over the batch shape (broadcast), as an attention mask. Rows marked False count in neither
        loss, whatever they and their labels hold.
    weights : Tensor, optional
        Finite non-negative weights over the batch shape (broadcast).
    reduction : {"mean", "sum", "none", "batchmean"}
        As for `kldiv.kl`; the mean is over the rows that count.
    num_items_in_batch : float or Tensor, optional
        Replaces the divisor of ``"mean"``, as gradient accumulation needs it. Of no items at all,
        0, the loss is 0 and so is its gradient.
    detach_teacher : bool
        Whether the teacher's logits have no gradient.
    vocabulary : {"equal", "truncate"}
        What to do with logits of unequal width, of models that pad their vocabulary: raise, or
        leave out the last classes of the wider ones.
    inplace : bool
        Write the gradient over the logits of the student, so that none is allocated. They must
        not be used afterwards, not by a second loss either; where autograd had saved them,
        backward raises. Other arguments that lie in the same memory are copied first. Only for
        scalar reductions, and not under `torch.compile`.
    rule, temper_after
        For a teacher that is a `TopK`, as for `kldiv.kl`: what its other classes are taken for.

    Returns
    -------
    Tensor
        In nats; float64 if an input is, else float32.

    Raises
    ------
    TypeError
        For logits that are not floating tensors, labels that are no integers, or a floating mask.
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
    kept, dense = None, student_logits
    if isinstance(teacher_logits, (TopK, TopKTensors)):
        kept = teacher_logits
    else:
        check_no_rule(rule, temper_after)
        dense = teacher_logits
    check_floating(student_logits=student_logits, teacher_logits=dense)
    check_one_device(
        student_logits=student_logits,
        teacher_logits=dense,
        labels=labels,
        where=where,
        weights=weights,
    )
    loss = LossOptions.parse(
        divergence,
        beta,
        order,
        mu,
        eta,
        endpoints,
        temperature,
        scale_by_t_squared,
        alpha,
        ignore_index,
        label_smoothing,
        reduction,
        detach_teacher,
        vocabulary,
        inplace,
    )
    ignored: int | None = None
    if labels is not None:
        labels, ignored = as_labels("labels", labels, ignore_index)
    elif isinstance(loss.alpha, Tensor) or loss.alpha != 1.0:
        raise ValueError(f"alpha={alpha} mixes in cross-entropy: pass labels, or alpha=1")
    if kept is not None:
        if loss.inplace:
            raise ValueError("inplace=True needs the logits of a teacher, and this is a TopK")
        student = student_logits
        if vocabulary == "truncate" and kept.classes < student.shape[-1]:
            student = student[..., : kept.classes]
        where, denominator = _of_items(num_items_in_batch, reduction, where, student)
        rows = RowOptions(where, weights, reduction, denominator)
        return _from_top_k(loss, kept, student, labels, ignored, rows, rule, temper_after)
    student, teacher = _same_width(student_logits, dense, vocabulary)
    if detach_teacher:
        teacher = teacher.detach()
    keep, denominator = _of_items(num_items_in_batch, reduction, where, student)
    options = (labels, *loss.shares(), ignored, loss.label_smoothing)
    if num_items_in_batch is not None and denominator is None and not (is_traced() or composes()):
        # No row counts, but what the rows come with is refused all the same.
        with torch.no_grad():
            given = RowOptions(where, weights, "sum", None)
            given.run(distillation, (teacher, student, *options))
    rows = RowOptions(keep, weights, reduction, denominator)
    if not inplace:
        return rows.run(distillation, (teacher, student, *options))
    return _in_place(student_logits, student, teacher, rows, options)


def _from_top_k(
    loss: LossOptions,
    teacher: TopK | TopKTensors,
    student: Tensor,
    labels: Tensor | None,
    ignored: int | None,
    rows: RowOptions,
    rule: Any,
    temper_after: Any,
) -> Tensor:
    """The divergence and the cross-entropy, each an operator."""
    kind, parameter, temperature, divergence_weight, cross_entropy_weight = loss.shares()
    where = as_mask("where", rows.where)
    if labels is not None and ignored is not None:
        check_over_batch(student, where=where)
        labelled = labels != ignored
        where = labelled if where is None else where & labelled
    kept = RowOptions(where, rows.weights, rows.reduction, rows.denominator)
    divergence = top_k_loss(
        kind,
        parameter,
        teacher,
        "student_logits",
        student,
        rule,
        temper_after,
        "logits",
        False,
        temperature,
        -1,
        kept,
    )
    value: Tensor = divergence_weight * divergence
    if labels is not None:
        # Of the student itself as its teacher, of which nothing is asked.
        options = (labels, kind, parameter, temperature, 0.0, cross_entropy_weight)
        more = (ignored, loss.label_smoothing)
        value = value + rows.run(distillation, (student.detach(), student, *options, *more))
    return value.to(divergence.dtype)


@dataclass(frozen=True)
class LossOptions:
    """The options of the loss that do not depend on the batch."""

    kind: str
    parameter: Any
    temperature: Any
    scale_by_t_squared: bool
    alpha: Any
    label_smoothing: Any
    inplace: bool

    @classmethod
    def parse(
        cls,
        divergence: Any,
        beta: Any,
        order: Any,
        mu: Any,
        eta: Any,
        endpoints: Any,
        temperature: Any,
        scale_by_t_squared: bool,
        alpha: Any,
        ignore_index: Any,
        label_smoothing: Any,
        reduction: Any,
        detach_teacher: Any,
        vocabulary: Any,
        inplace: Any,
    ) -> LossOptions:
        """Check them."""
        check_one_of("divergence", divergence, tuple(DIVERGENCES))
        check_one_of("reduction", reduction, REDUCTIONS)
        check_one_of("vocabulary", vocabulary, VOCABULARIES)
        as_class_index("ignore_index", ignore_index)
        as_flag("detach_teacher", detach_teacher)
        if as_flag("inplace", inplace) and reduction == "none":
            raise ValueError(
                "inplace=True needs a reduction: the gradient is written before backward"
            )
        given = {"beta": beta, "order": order, "mu": mu, "eta": eta}
        parameter = _parameter_of(divergence, given)
        kind, parameter = _kind_at(divergence, parameter, endpoints)
        return cls(
            kind,
            parameter,
            as_temperature("temperature", temperature),
            as_flag("scale_by_t_squared", scale_by_t_squared),
            as_share("alpha", alpha),
            as_share("label_smoothing", label_smoothing),
            bool(inplace),
        )

    def shares(self) -> tuple[Any, ...]:
        """Divergence, its parameter and temperature, and what the two losses are multiplied by."""
        alpha, temperature = self.alpha, self.temperature
        weight = alpha * temperature * temperature if self.scale_by_t_squared else alpha
        return (self.kind, self.parameter, temperature, weight, 1.0 - alpha)


def _parameter_of(divergence: str, given: dict[str, Any]) -> Any:
    """The parameter of a divergence, of those options that are parameters; 0 if it has none."""
    described = DIVERGENCES[divergence].parameter
    own = None if described is None else OPTIONS[described.name]
    for option, value in given.items():
        if value is not None and option != own:
            others = (
                repr(one.name)
                for one in DIVERGENCES.values()
                if one.parameter is not None and OPTIONS[one.parameter.name] == option
            )
            raise ValueError(
                f"{option} is a parameter of {', '.join(others)}, not of {divergence!r}"
            )
    if described is None or own is None:
        return 0.0
    value = described.default if given[own] is None else given[own]
    if value is None:
        raise ValueError(f"divergence={divergence!r} needs its {own}, as {own}=0.5")
    return as_parameter(described, own, value)


def _kind_at(divergence: str, parameter: Any, endpoints: Any) -> tuple[str, Any]:
    if divergence == "jensen_shannon":
        return kind_at(divergence, parameter, endpoints)
    check_one_of("endpoints", endpoints, ENDPOINTS)
    if endpoints != "formula":
        raise ValueError(f"endpoints is an option of 'jensen_shannon', not of {divergence!r}")
    return divergence, parameter


def _of_items(
    items: Any, reduction: str, where: Tensor | None, student: Tensor
) -> tuple[Tensor | None, Any]:
    """The mask and the divisor for a number of items; of no item, no row counts."""
    if items is None:
        return where, None
    if reduction != "mean":
        raise ValueError(
            f"num_items_in_batch replaces the divisor of reduction='mean', got {reduction!r}"
        )
    if isinstance(items, Tensor):
        items = one_number("num_items_in_batch", items)
        if not can_be_looked_at(items):
            some = (items != 0).to(student.device)
            mask = as_mask("where", where)
            return some if mask is None else mask & some, torch.where(items == 0, 1, items)
    number = as_number("num_items_in_batch", items)
    if not 0 <= number < math.inf:
        raise ValueError(f"num_items_in_batch must be finite and not negative, got {number}")
    if number == 0:
        return torch.zeros((), dtype=torch.bool, device=student.device), None
    return where, number


def _same_width(student: Tensor, teacher: Tensor, vocabulary: str) -> tuple[Tensor, Tensor]:
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
    if not knows_what_is_overwritten():
        raise ValueError("inplace=True is for a torch that says what a tensor is a view of")
    refused = None
    base = base_of(student)
    if is_traced() or composes() or not are_plain([student]):
        refused = "inplace=True is for eager mode; other modes plan their memory themselves"
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
        return rows.run(distillation, (teacher, student, *options))
    where, weights = as_mask("where", rows.where), as_weights("weights", rows.weights)
    named = dict(zip(distillation.arguments[2:], options, strict=False))
    named |= {"where": where, "weights": weights}
    named |= {"reduction": rows.reduction, "denominator": rows.denominator}
    value: Tensor = DistillationInPlace.apply(student, teacher, named)
    return value
