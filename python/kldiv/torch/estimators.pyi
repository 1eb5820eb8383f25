"""The estimators of `kldiv.estimators` on tensors, differentiable, on any device.

Autograd, `torch.compile` and `torch.func` go through them. On the CPU they are computed in float64,
on other devices in the dtype of the value.
"""

# Made by `make derived`.
from torch import Tensor

__all__ = [
    "k1",
    "k2",
    "k3",
]

def k1(
    p: Tensor,
    q: Tensor,
    *,
    straight_through: bool = False,
    clamp_log_ratio: float | Tensor | None = None,
    clamp: float | Tensor | None = None,
    where: Tensor | None = None,
    weights: Tensor | None = None,
    reduction: str = "none",
    denominator: float | Tensor | None = None,
) -> Tensor:
    r"""k1 = r with r = ln q − ln p at tokens sampled from q: an unbiased estimator of KL(q‖p)."""

def k2(
    p: Tensor,
    q: Tensor,
    *,
    straight_through: bool = False,
    clamp_log_ratio: float | Tensor | None = None,
    clamp: float | Tensor | None = None,
    where: Tensor | None = None,
    weights: Tensor | None = None,
    reduction: str = "none",
    denominator: float | Tensor | None = None,
) -> Tensor:
    r"""k2 = r²/2 with r = ln q − ln p at tokens sampled from q: its gradient is that of KL(q‖p)."""

def k3(
    p: Tensor,
    q: Tensor,
    *,
    straight_through: bool = False,
    clamp_log_ratio: float | Tensor | None = None,
    clamp: float | Tensor | None = None,
    where: Tensor | None = None,
    weights: Tensor | None = None,
    reduction: str = "none",
    denominator: float | Tensor | None = None,
) -> Tensor:
    r"""k3 = e^(−r) − 1 + r with r = ln q − ln p at tokens sampled from q: unbiased for KL(q‖p)."""
