"""`torch.nn.KLDivLoss`, computed in one pass."""

from __future__ import annotations

import torch
from torch import Tensor

from kldiv.torch.functional.kl_div import kl_div


class KLDivLoss(torch.nn.KLDivLoss):
    """A drop-in for `torch.nn.KLDivLoss`, whose arguments, attributes and order it has.

    See `kldiv.torch.kl_div`.

    Examples
    --------
    >>> import torch
    >>> import kldiv.torch
    >>> loss = kldiv.torch.KLDivLoss(reduction="batchmean", log_target=True)
    >>> ln_q, ln_p = torch.tensor([[0.9, 0.1]]).log(), torch.tensor([[0.5, 0.5]]).log()
    >>> print(f"{loss(ln_q, ln_p).item():.6f}")
    0.510826
    """

    def forward(self, input: Tensor, target: Tensor) -> Tensor:  # noqa: A002
        """The loss."""
        return kl_div(input, target, reduction=self.reduction, log_target=self.log_target)
