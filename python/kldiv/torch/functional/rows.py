"""Arguments that all losses over rows have, checked as far as tensors differ from arrays."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kldiv._arrays import as_float
from kldiv._kldiv import TEMPERATURE, Parameter
from kldiv._reducer import REDUCTIONS
from kldiv._requests import at_endpoints
from kldiv.torch import formulas
from kldiv.torch.ops.loss import Loss
from kldiv.torch.ops.modes import are_plain, composes, is_traced
from kldiv.torch.private import assert_on_device

# Where the extension computes; tensors on other devices take formulas in torch operations.
EXTENSION_DEVICE = "cpu"

FLOATING = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


# Elements of float32 and float64 below which the losses of torch are faster than a call of the
# extension from autograd, which takes some 90 µs.
SMALL = 1 << 16
_WIDE = (torch.float32, torch.float64)


def is_small(tensor: Any) -> bool:
    """Whether a drop-in leaves the tensor to torch, for speed."""
    # Each question takes some hundredths of a call for one row.
    if not isinstance(tensor, Tensor) or tensor.numel() >= SMALL or tensor.dtype not in _WIDE:
        return False
    return not is_traced()


def as_number(name: str, value: Any) -> Any:
    """A number as a float; in traced code what stands for one, or a tensor of one."""
    if isinstance(value, Tensor):
        check_no_gradient(name, value)
        value = value.detach()
    if is_traced():
        if isinstance(value, Tensor):
            return one_number(name, value)
        symbols = (int, float, torch.SymInt, torch.SymFloat)
        if isinstance(value, symbols) and not isinstance(value, bool):
            return value
    return as_float(name, value)


def check_no_gradient(name: str, tensor: Tensor) -> None:
    """Raise `ValueError` where the gradient of a tensor that is no rows would be lost."""
    if tensor.requires_grad and torch.is_grad_enabled():
        raise ValueError(f"{name} has no gradient here; pass {name}.detach()")


def _holds_numbers(tensor: Tensor) -> bool:
    return not is_traced() and not composes() and are_plain([tensor])


def can_be_looked_at(tensor: Tensor) -> bool:
    """Whether the numbers of a tensor are known, at no cost."""
    return tensor.device.type == EXTENSION_DEVICE and _holds_numbers(tensor)


def one_number(name: str, tensor: Tensor) -> Tensor:
    """A tensor of one number, without axes and without a gradient."""
    check_no_gradient(name, tensor)
    if tensor.numel() != 1:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}; expected one number")
    return tensor.detach().reshape(())


def as_temperature(name: str, value: Any) -> Any:
    """A temperature in its domain."""
    return as_parameter(TEMPERATURE, name, value)


def as_flag(name: str, value: Any) -> bool:
    """True or False."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return bool(value)


def as_share(name: str, value: Any) -> Any:
    """A number from 0 to 1."""
    number = as_number(name, value)
    if not isinstance(number, Tensor) and not 0.0 <= number <= 1.0:
        raise ValueError(f"{name} must be from 0 to 1, got {number}")
    return number


def as_parameter(described: Parameter, name: str, value: Any) -> Any:
    """A number in its domain, which an option calls by a name."""
    number = as_number(name, value)
    if isinstance(number, Tensor):
        return number
    inside = described.low <= number <= described.high
    if not inside or 0 < abs(number) < described.smallest:
        raise ValueError(f"{name} must be {described.domain}, got {number}")
    return number


def kind_at(kind: str, parameter: Any, endpoints: Any) -> tuple[str, Any]:
    """A divergence and its parameter, by a rule for the ends of Jensen–Shannon's."""
    if endpoints != "formula" and isinstance(parameter, Tensor):
        raise ValueError(
            f"endpoints={endpoints!r} depends on whether beta is 0 or 1: in compiled code, pass a "
            "number, not a tensor"
        )
    found = at_endpoints(parameter, endpoints)
    return (kind, parameter) if found == "jensen_shannon" else (found, 0.0)


def as_labels(name: str, labels: Tensor, ignore_index: Any) -> tuple[Tensor, int | None]:
    """Class indices of any integer dtype as int64, and the index to ignore as one.

    An index that no label of this dtype can be is none.
    """
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise TypeError(f"{name} has dtype {_short(labels.dtype)}; expected integers")
    ignored = as_class_index("ignore_index", ignore_index)
    limits = torch.iinfo(labels.dtype)
    if ignored is not None and not limits.min <= ignored <= limits.max:
        ignored = None
    largest = torch.iinfo(torch.int64).max
    representable = ignored is None or ignored <= largest
    if labels.dtype == torch.uint64 and representable and can_be_looked_at(labels):
        # As they are, to be named in an error.
        return labels, ignored
    wide = formulas.widened(labels)
    if ignored is not None and not representable:
        # A label of uint64 that int64 cannot be: as one that is out of range too.
        wide, ignored = torch.where(labels.to(torch.int64) == ignored - 2**64, -1, wide), -1
    return wide, ignored


def as_class_index(name: str, value: Any) -> int | None:
    """An `ignore_index`: an integer, or a tensor or array of one."""
    if value is None or type(value) is int:
        return value
    if isinstance(value, bool):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    try:
        return int(value.__index__())
    except (AttributeError, TypeError):
        raise TypeError(f"{name} must be an integer, got {value!r}") from None


def as_mask(name: str, mask: Tensor | None) -> Tensor | None:
    """Booleans, or integers 0 and 1, as booleans.

    Other integers raise, on CUDA as an assertion on the device. Where numbers cannot be looked at,
    in compiled and in transformed code, they count as True.
    """
    if mask is None or mask.dtype == torch.bool:
        return mask
    if mask.is_floating_point() or mask.is_complex():
        raise TypeError(
            f"{name} has dtype {_short(mask.dtype)}; expected bool, or integers 0 and 1"
        )
    wide = formulas.widened(mask)
    if composes() or is_traced() or not are_plain([mask]):
        return wide != 0
    other = (wide != 0) & (wide != 1)
    if mask.device.type == "cuda":
        assert_on_device(~other.any(), f"{name} is a mask of booleans, or of integers 0 and 1")
    elif mask.device.type == EXTENSION_DEVICE and other.any():
        index = tuple(int(at[0]) for at in other.nonzero(as_tuple=True))
        raise ValueError(
            f"{name} is a mask of booleans, or of integers 0 and 1, but holds {wide[index]} at "
            f"index {index[0] if len(index) == 1 else index}"
        )
    if mask.device.type == "cuda" and _holds_numbers(mask):
        assert_on_device(~other.any(), f"{name} is a mask of booleans, or of integers 0 and 1")
    return wide != 0


def as_weights(name: str, weights: Tensor | None) -> Tensor | None:
    """Real numbers; booleans are 0 and 1."""
    if weights is None:
        return None
    if weights.is_complex():
        raise TypeError(f"{name} has dtype {_short(weights.dtype)}; expected real numbers")
    check_no_gradient(name, weights)
    return weights.to(torch.float32) if weights.dtype == torch.bool else weights


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def widened_by_autocast(dtype: torch.dtype) -> bool:
    """Whether autocast makes float32 of a dtype before a loss, as it does before torch's."""
    return dtype.itemsize == 2 and torch.is_autocast_enabled("cpu")


def check_one_of(name: str, value: Any, known: Sequence[str]) -> None:
    """Raise `ValueError` for a name that is none of those known, with the closest of them."""
    if value in known:
        return
    closest = ""
    if isinstance(value, str):
        given = value.lower().replace("-", "_").removesuffix("_divergence")
        initials = ["".join(part[0] for part in one.split("_")) for one in known]
        # "js" and "tv" are initials, "jsd" those with one letter more.
        found = [one for one, short in zip(known, initials, strict=True) if given[:2] == short]
        found = found or difflib.get_close_matches(given, known, n=1)
        closest = f"; did you mean {found[0]!r}?" if found else ""
    raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}{closest}")


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


def check_over_batch(rows: Tensor, **tensors: Tensor | None) -> None:
    """Raise `ValueError` for what does not broadcast to the batch shape of rows."""
    batch_shape = rows.shape[:-1]
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        sizes = zip(reversed(tensor.shape), reversed(batch_shape), strict=False)
        if tensor.dim() > len(batch_shape) or any(n not in (1, size) for n, size in sizes):
            raise ValueError(
                f"{name} has shape {tuple(tensor.shape)}, which does not broadcast to the "
                f"batch shape {tuple(batch_shape)}"
            )


@dataclass(frozen=True)
class RowOptions:
    """Mask, weights and reduction of the values of rows."""

    where: Tensor | None
    weights: Tensor | None
    reduction: str
    denominator: float | Tensor | None

    def run(self, loss: Loss, arguments: Sequence[Any]) -> Tensor:
        """The loss of the arguments that come before these."""
        (*options, divide) = self._as_loss()
        rows = arguments[0]
        extension = rows.device.type == EXTENSION_DEVICE
        if composes() or not extension:
            self._check_for_formula(rows, *options[:2])
        given = (*arguments, *options)
        if extension:
            value = loss(*given)
        else:
            value = loss.formula(**dict(zip(loss.arguments, given, strict=True)))
        return value if divide is None else (value / divide).to(value.dtype)

    def run_formula(self, rows: Tensor, formula: Callable[..., Tensor]) -> Tensor:
        """What has no kernel: a formula of mask, weights, reduction and denominator."""
        where, weights, reduction, denominator, divide = self._as_loss()
        self._check_for_formula(rows, where, weights)
        if weights is not None and can_be_looked_at(weights):
            each = weights.expand(rows.shape[:-1]).reshape(-1)
            wrong = ~(each.isfinite() & (each >= 0))
            if wrong.any():
                first = int(wrong.nonzero()[0])
                raise ValueError(
                    f"weights must be finite and non-negative, but element {first} is "
                    f"{each[first].item():g}"
                )
        value = formula(where, weights, reduction, denominator)
        return value if divide is None else (value / divide).to(value.dtype)

    def _as_loss(self) -> tuple[Tensor | None, Tensor | None, str, Any, Any]:
        """Mask, weights, reduction and denominator of a loss, and what its value is divided by."""
        check_one_of("reduction", self.reduction, REDUCTIONS)
        where = as_mask("where", self.where)
        weights = as_weights("weights", self.weights)
        reduction, denominator = self.reduction, self.denominator
        divide = None
        if denominator is not None:
            if reduction != "mean":
                raise ValueError(_DENOMINATOR)
            if isinstance(denominator, Tensor) and not can_be_looked_at(denominator):
                denominator = one_number("denominator", denominator)
            else:
                denominator = _positive("denominator", denominator)
            if is_traced() or isinstance(denominator, Tensor):
                # Outside of the operator, so that another one needs no other code.
                divide, reduction, denominator = denominator, "sum", None
        return where, weights, reduction, denominator, divide

    def _check_for_formula(
        self, rows: Tensor, where: Tensor | None, weights: Tensor | None
    ) -> None:
        """What the extension would refuse, without looking at numbers."""
        batch_shape = rows.shape[:-1]
        if rows.shape[-1] == 0:
            raise ValueError(f"rows of shape {tuple(rows.shape)} are without a class")
        check_over_batch(rows, where=where, weights=weights)
        if self.reduction == "batchmean" and not batch_shape:
            raise ValueError(
                "reduction='batchmean' divides by the first batch axis, and there is none"
            )


def _positive(name: str, value: Any) -> Any:
    if isinstance(value, Tensor):
        one_number(name, value)
    number = as_number(name, value)
    if not 0 < number < math.inf:
        raise ValueError(f"{name} must be positive and finite, got {number}")
    return number


_DENOMINATOR = "denominator replaces the divisor of reduction='mean' and of no other"
