"""What a student learns from a teacher and from labels, as a module."""

from __future__ import annotations

import torch
from torch import Tensor

from kldiv.torch.functional.distillation import distillation_loss


class DistillationLoss(torch.nn.Module):
    """α·D(teacher, student) + (1−α)·cross-entropy(student, labels), in one pass.

    The parameters are those of `kldiv.torch.distillation_loss`, which says what they mean.

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
        ignore_index: int = -100,
        *,
        parameter: float | None = None,
        label_smoothing: float = 0.0,
        reduction: str = "mean",
        detach_teacher: bool = True,
        vocabulary: str = "equal",
        inplace: bool = False,
    ) -> None:
        super().__init__()
        self.divergence = divergence
        self.temperature = temperature
        self.scale_by_t_squared = scale_by_t_squared
        self.alpha = alpha
        self.ignore_index = ignore_index
        self.parameter = parameter
        self.label_smoothing = label_smoothing
        self.reduction = reduction
        self.detach_teacher = detach_teacher
        self.vocabulary = vocabulary
        self.inplace = inplace

    def forward(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        labels: Tensor | None = None,
        *,
        weights: Tensor | None = None,
        num_items_in_batch: float | Tensor | None = None,
    ) -> Tensor:
        """The loss of a batch."""
        return distillation_loss(
            student_logits,
            teacher_logits,
            labels,
            divergence=self.divergence,
            parameter=self.parameter,
            temperature=self.temperature,
            scale_by_t_squared=self.scale_by_t_squared,
            alpha=self.alpha,
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
            weights=weights,
            reduction=self.reduction,
            num_items_in_batch=num_items_in_batch,
            detach_teacher=self.detach_teacher,
            vocabulary=self.vocabulary,
            inplace=self.inplace,
        )

    def extra_repr(self) -> str:
        """The main parameters."""
        return (
            f"divergence={self.divergence!r}, temperature={self.temperature}, "
            f"scale_by_t_squared={self.scale_by_t_squared}, alpha={self.alpha}"
        )
