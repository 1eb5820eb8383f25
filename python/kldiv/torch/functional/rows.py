"""Arguments that all losses over rows have, checked as far as tensors differ from arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kldiv._requests import REDUCTIONS
from kldiv.torch.ops.loss import Loss

# Where the extension computes; tensors on other devices take formulas in torch operations.
EXTENSION_DEVICE = "cpu"

FLOATING = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


# Elements of float32 and float64 below which the losses of torch are faster than a call of the
# extension from autograd, which takes some 80 µs.
SMALL = 1 << 16


def is_small(tensor: Tensor) -> bool:
    """Whether a drop-in leaves the tensor to torch, for speed."""
    wide = tensor.dtype in (torch.float32, torch.float64)
    return wide and tensor.numel() < SMALL and not torch.compiler.is_compiling()


def widened_by_autocast(dtype: torch.dtype) -> bool:
    """Whether autocast makes float32 of a dtype before a loss, as it does before torch's."""
    return dtype.itemsize == 2 and torch.is_autocast_enabled("cpu")


def check_floating(**tensors: Any) -> None:
    """Raise `TypeError` for what is not a floating tensor."""
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name} must be a tensor, got {type(tensor).__name__}")
        if tensor.dtype not in FLOATING:
            raise TypeError(
                f"{name} has dtype {tensor.dtype}; expected float64, float32, float16 or bfloat16"
            )


def check_one_device(**tensors: Tensor | None) -> None:
    """Raise `RuntimeError`, as torch does, for tensors on several devices."""
    devices = {name: tensor.device for name, tensor in tensors.items() if tensor is not None}
    if len(set(devices.values())) > 1:
        where = ", ".join(f"{name} on {device}" for name, device in devices.items())
        raise RuntimeError(f"expected all tensors to be on the same device, but found {where}")


def classes_last(name: str, tensor: Tensor, axis: int) -> Tensor:
    """The class axis moved to the end."""
    if tensor.dim() == 0:
        raise ValueError(f"{name} has shape (), without a class axis")
    if not -tensor.dim() <= axis < tensor.dim():
        raise ValueError(f"axis {axis} is out of range for {name} of shape {tuple(tensor.shape)}")
    return tensor if axis in (-1, tensor.dim() - 1) else tensor.movedim(axis, -1)


@dataclass(frozen=True)
class RowOptions:
    """Mask, weights and reduction of the values of rows."""

    where: Tensor | None
    weights: Tensor | None
    reduction: str
    denominator: float | Tensor | None

    def run(self, loss: Loss, formula: Callable[..., Tensor], arguments: Sequence[Any]) -> Tensor:
        """The loss of the arguments that come before these."""
        if self.reduction not in REDUCTIONS:
            raise ValueError(
                f"reduction must be one of {', '.join(REDUCTIONS)}, got {self.reduction!r}"
            )
        reduction, denominator = self.reduction, self.denominator
        divide = None
        if isinstance(denominator, Tensor):
            if torch.compiler.is_compiling() or denominator.device.type != "cpu":
                # Its value cannot be looked at.
                divide, reduction, denominator = denominator, "sum", None
            else:
                denominator = float(denominator)
        given = (*arguments, self.where, self.weights, reduction, denominator)
        if arguments[0].device.type == EXTENSION_DEVICE:
            value = loss(*given)
        else:
            value = formula(**dict(zip(loss.arguments, given, strict=True)))
        return value if divide is None else value / divide
