"""What is used of torch that it does not document, and what would be lost without each.

All of it is in torch 2.6 and later. No other file of the package uses a name of torch that begins
with an underscore.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import _reduction


def is_tracing() -> bool:
    """Whether `torch.jit.trace` records.

    Without it the calls of a trace would compute at once, and the trace hold their results as
    constants.
    """
    return torch._C._is_tracing()


def has_transforms() -> bool:
    """Whether a transform of `torch.func` is active.

    Without it `torch.func.grad` and `torch.vmap` would hand tensors to the extension that wrap
    others, whose memory NumPy refuses to share: an error for every transformed loss.
    """
    return torch._C._are_functorch_transforms_active()


def has_forward_mode() -> bool:
    """Whether forward-mode derivatives are on.

    Without it tangents would be lost: `torch.autograd.forward_ad` would find none, in silence.
    """
    return forward_ad._current_level >= 0


def is_batched(tensor: Tensor) -> bool:
    """Whether a tensor stands for many, as in `torch.autograd.grad(is_grads_batched=True)`.

    Without it the upstream gradient would be asked for its one number, which raises.
    """
    functorch = torch._C._functorch
    return functorch.is_batchedtensor(tensor) or functorch.is_legacy_batchedtensor(tensor)


def is_watched() -> bool:
    """Whether a mode of `torch.utils._python_dispatch` sees every operation, as `FakeTensorMode`.

    Without it such modes would miss the loss, and one of fake tensors hand over memory that is not
    there.
    """
    return torch._C._len_torch_dispatch_stack() != 0


def reduction_of(size_average: bool | None, reduce: bool | None) -> str:
    """The reduction that two options of old stand for, with torch's warning.

    Without it the drop-ins would leave calls with those options to torch, warning included.
    """
    return _reduction.legacy_get_string(size_average, reduce)


# What torch calls reductions where it computes.
_NUMBERS = {name: _reduction.get_enum(name) for name in ("none", "mean", "sum")}


def cross_entropy_of_torch(
    input: Tensor,  # noqa: A002
    target: Tensor,
    weight: Tensor | None,
    reduction: str,
    ignore_index: int,
    label_smoothing: float,
) -> Tensor:
    """What `torch.nn.functional.cross_entropy` comes to, where nothing overrides it.

    Without it a drop-in would have that function look again at what was looked at, which takes
    a tenth of a call for one row.
    """
    number: Any = _NUMBERS.get(reduction)
    if number is None:  # which raises, or warns of another name of old
        number = _reduction.get_enum(reduction)
    return torch._C._nn.cross_entropy_loss(
        input, target, weight, number, ignore_index, label_smoothing
    )


def assert_on_device(condition: Tensor, message: str) -> None:
    """Raise where a condition does not hold, without waiting for the device to tell.

    Without it a mask of other integers than 0 and 1 would count as True on CUDA, or each call
    would wait for the device.
    """
    torch._assert_async(condition, message)


def base_of(tensor: Tensor) -> Tensor | None:
    """The tensor that one is a view of.

    Without it a view of a leaf that requires its gradient would be overwritten in place, where
    autograd refuses that.
    """
    return tensor._base


def version_of(tensor: Tensor) -> int:
    """How often a tensor was modified in place.

    Without it logits that hold a gradient, and were modified before backward, would be handed on
    as that gradient.
    """
    return tensor._version
