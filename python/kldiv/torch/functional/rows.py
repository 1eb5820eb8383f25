"""Arguments that all losses over rows have, checked as far as tensors differ from arrays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kldiv._requests import REDUCTIONS
from kldiv.torch.ops.loss import Loss, is_traced

# Where the extension computes; tensors on other devices take formulas in torch operations.
EXTENSION_DEVICE = "cpu"

FLOATING = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


# Elements of float32 and float64 below which the losses of torch are faster than a call of the
# extension from autograd, which takes some 90 µs.
SMALL = 1 << 16


def is_small(tensor: Tensor) -> bool:
    """Whether a drop-in leaves the tensor to torch, for speed."""
    wide = tensor.dtype in (torch.float32, torch.float64)
    return wide and tensor.numel() < SMALL and not is_traced()


def check_in_range(name: str, value: float, least: float, most: float = math.inf) -> None:
    """Raise `ValueError` unless least < value < most, or value is `most` where that is finite."""
    if not (least < value < most or (value == most and math.isfinite(most))):
        domain = "positive and finite" if least == 0.0 else f"from 0 to {most:g}"
        raise ValueError(f"{name} must be {domain}, got {value}")


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
    devices = {}
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name} must be a tensor, got {type(tensor).__name__}")
        devices[name] = tensor.device
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

    def run(self, loss: Loss, arguments: Sequence[Any]) -> Tensor:
        """The loss of the arguments that come before these."""
        if self.reduction not in REDUCTIONS:
            raise ValueError(
                f"reduction must be one of {', '.join(REDUCTIONS)}, got {self.reduction!r}"
            )
        if self.weights is not None and self.weights.requires_grad and torch.is_grad_enabled():
            raise ValueError("weights has no gradient here; pass weights.detach()")
        reduction, denominator = self.reduction, self.denominator
        transformed = torch._C._are_functorch_transforms_active()
        extension = arguments[0].device.type == EXTENSION_DEVICE
        divide = None
        if isinstance(denominator, Tensor):
            if denominator.numel() != 1:
                raise ValueError(
                    f"denominator has shape {tuple(denominator.shape)}; expected one number"
                )
            if self.reduction != "mean":
                raise ValueError(_DENOMINATOR)
            denominator = denominator.detach()
            if is_traced() or transformed or denominator.device.type != "cpu":
                # Its value cannot be looked at.
                divide, reduction, denominator = denominator.reshape(()), "sum", None
            else:
                denominator = float(denominator)
        if transformed or not extension:
            self._check_for_formula(arguments[0])
        given = (*arguments, self.where, self.weights, reduction, denominator)
        if extension:
            value = loss(*given)
        else:
            value = loss.formula(**dict(zip(loss.arguments, given, strict=True)))
        return value if divide is None else value / divide.to(value.dtype)

    def _check_for_formula(self, rows: Tensor) -> None:
        """What the extension would refuse, without looking at numbers."""
        batch_shape = rows.shape[:-1]
        for name, tensor in (("where", self.where), ("weights", self.weights)):
            if tensor is None:
                continue
            if (tensor.dtype == torch.bool) != (name == "where") or tensor.is_complex():
                expected = "bool" if name == "where" else "real numbers"
                raise TypeError(f"{name} has dtype {tensor.dtype}; expected {expected}")
            sizes = zip(reversed(tensor.shape), reversed(batch_shape), strict=False)
            if tensor.dim() > len(batch_shape) or any(n not in (1, size) for n, size in sizes):
                raise ValueError(
                    f"{name} has shape {tuple(tensor.shape)}, which does not broadcast to the "
                    f"batch shape {tuple(batch_shape)}"
                )
        if self.reduction == "batchmean" and not batch_shape:
            raise ValueError(
                "reduction='batchmean' divides by the first batch axis, and there is none"
            )
        if self.denominator is not None and self.reduction != "mean":
            raise ValueError(_DENOMINATOR)
        if isinstance(self.denominator, float | int) and not self.denominator > 0:
            raise ValueError(f"denominator must be positive and finite, got {self.denominator}")


_DENOMINATOR = "denominator replaces the divisor of reduction='mean' and of no other"
