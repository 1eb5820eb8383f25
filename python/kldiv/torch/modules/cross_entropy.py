"""`torch.nn.CrossEntropyLoss`, computed in one pass."""

from __future__ import annotations

import torch
from torch import Tensor

from kldiv.torch.functional.cross_entropy import cross_entropy


class CrossEntropyLoss(torch.nn.CrossEntropyLoss):
    """A drop-in for `torch.nn.CrossEntropyLoss`, whose arguments, attributes and state it has.

    See `kldiv.torch.cross_entropy`.

    Examples
    --------
    >>> import torch
    >>> import kldiv.torch
    >>> loss = kldiv.torch.CrossEntropyLoss(label_smoothing=0.1)
    >>> logits = torch.tensor([[1.0, 2.0, 0.5], [-1.0, 0.0, 3.0]])
    >>> print(f"{loss(logits, torch.tensor([1, 2])).item():.6f}")
    0.423460
    """

    def forward(self, input: Tensor, target: Tensor) -> Tensor:  # noqa: A002
        """The loss."""
        return cross_entropy(
            input,
            target,
            weight=self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
        )
