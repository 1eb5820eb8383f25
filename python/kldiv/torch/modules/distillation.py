"""What a student learns from a teacher and from labels, as a module."""

from __future__ import annotations

import torch
from torch import Tensor

from kldiv._requests import as_rule, as_temper_after
from kldiv._top_k import TopK
from kldiv.torch.functional.distillation import LossOptions, distillation_loss
from kldiv.torch.functional.top_k import TopKTensors


class DistillationLoss(torch.nn.Module):
    """α·D(teacher, student) + (1−α)·cross-entropy(student, labels), in one pass.

    The parameters are those of `kldiv.torch.distillation_loss`, which says what they mean; they
    are checked here. The caller shifts logits and labels against each other, as causal language
    models need it, and T² is off by default.

    Raises
    ------
    TypeError, ValueError
        For options of a wrong type or out of range, or that do not apply.

    Examples
    --------
    >>> import torch
    >>> import kldiv.torch
    >>> loss = kldiv.torch.DistillationLoss(temperature=2.0, scale_by_t_squared=True, alpha=0.7)
    >>> loss
    DistillationLoss(divergence='kl', temperature=2.0, scale_by_t_squared=True, alpha=0.7)
    >>> student = torch.zeros(2, 5, 100, requires_grad=True)
    >>> teacher = torch.linspace(-1, 1, 1000).reshape(2, 5, 100)
    >>> loss(student, teacher, torch.ones(2, 5, dtype=torch.int64)).backward()
    """

    def __init__(
        self,
        divergence: str = "kl",
        temperature: float = 1.0,
        scale_by_t_squared: bool = False,
        alpha: float = 0.5,
        ignore_index: int | None = -100,
        *,
        beta: float | None = None,
        order: float | None = None,
        mu: float | None = None,
        eta: float | None = None,
        endpoints: str = "formula",
        label_smoothing: float = 0.0,
        reduction: str = "mean",
        detach_teacher: bool = True,
        vocabulary: str = "equal",
        inplace: bool = False,
        rule: str | tuple[str, float] | None = None,
        temper_after: bool = False,
    ) -> None:
        super().__init__()
        LossOptions.parse(
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
        if rule is not None:
            as_rule(rule)
        as_temper_after(temper_after)
        self.rule = rule
        self.temper_after = temper_after
        self.divergence = divergence
        self.temperature = temperature
        self.scale_by_t_squared = scale_by_t_squared
        self.alpha = alpha
        self.ignore_index = ignore_index
        self.beta = beta
        self.order = order
        self.mu = mu
        self.eta = eta
        self.endpoints = endpoints
        self.label_smoothing = label_smoothing
        self.reduction = reduction
        self.detach_teacher = detach_teacher
        self.vocabulary = vocabulary
        self.inplace = inplace

    def forward(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor | TopK | TopKTensors,
        labels: Tensor | None = None,
        *,
        where: Tensor | None = None,
        weights: Tensor | None = None,
        num_items_in_batch: float | Tensor | None = None,
    ) -> Tensor:
        """The loss of a batch."""
        return distillation_loss(
            student_logits,
            teacher_logits,
            labels,
            divergence=self.divergence,
            beta=self.beta,
            order=self.order,
            mu=self.mu,
            eta=self.eta,
            endpoints=self.endpoints,
            temperature=self.temperature,
            scale_by_t_squared=self.scale_by_t_squared,
            alpha=self.alpha,
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
            where=where,
            weights=weights,
            reduction=self.reduction,
            num_items_in_batch=num_items_in_batch,
            detach_teacher=self.detach_teacher,
            vocabulary=self.vocabulary,
            inplace=self.inplace,
            rule=self.rule,
            temper_after=self.temper_after,
        )

    def extra_repr(self) -> str:
        """The main parameters."""
        names = ("beta", "order", "mu", "eta", "temperature", "scale_by_t_squared", "alpha")
        shown = [(name, getattr(self, name)) for name in ("divergence", *names)]
        if self.endpoints != "formula":
            shown.append(("endpoints", self.endpoints))
        if self.rule is not None:
            shown.append(("rule", self.rule))
        return ", ".join(f"{name}={value!r}" for name, value in shown if value is not None)
