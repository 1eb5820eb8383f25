"""What is used of torch that it does not document, and what is done without each.

All of it is in torch 2.6 and later. With a torch that lacks a name the package is imported all the
same, and what needs the name is off: where a question cannot be asked, the answer is the one that
costs speed and not digits. No other file of the package uses a name of torch that begins with an
underscore.
"""

from __future__ import annotations

from functools import reduce as fold
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import functional

MISSING: list[str] = []
"""Names that this torch lacks."""


def _found(path: str) -> Any:
    """What stands at a path below `torch`; None if nothing does."""
    try:
        return fold(getattr, path.split("."), torch)
    except AttributeError:
        MISSING.append(path)
        return None


_is_tracing = _found("_C._is_tracing")


def is_tracing() -> bool:
    """Whether `torch.jit.trace` records.

    Otherwise the calls of a trace would compute at once, and the trace hold their results as
    constants. A torch without the name is taken to be one without `torch.jit.trace`.
    """
    return _is_tracing is not None and _is_tracing()


_has_transforms = _found("_C._are_functorch_transforms_active")


def has_transforms() -> bool:
    """Whether a transform of `torch.func` is active.

    Otherwise `torch.func.grad` and `torch.vmap` would hand tensors to the extension that wrap
    others, whose memory NumPy refuses to share: an error for every transformed loss. Without the
    name, all is computed in torch operations, as under a transform.
    """
    return _has_transforms is None or _has_transforms()


_found("autograd.forward_ad._current_level")


def has_forward_mode() -> bool:
    """Whether forward-mode derivatives are on.

    Otherwise tangents would be lost: `torch.autograd.forward_ad` would find none, in silence.
    Without the name, all is computed in torch operations, as if they were on.
    """
    return getattr(forward_ad, "_current_level", 0) >= 0


_is_batched = [
    _found("_C._functorch.is_batchedtensor"),
    _found("_C._functorch.is_legacy_batchedtensor"),
]


def is_batched(tensor: Tensor) -> bool:
    """Whether a tensor stands for many, as in `torch.autograd.grad(is_grads_batched=True)`.

    Otherwise the upstream gradient is asked for its one number, which raises.
    """
    return any(asked is not None and asked(tensor) for asked in _is_batched)


_modes = _found("_C._len_torch_dispatch_stack")


def is_watched() -> bool:
    """Whether a mode of `torch.utils._python_dispatch` sees every operation, as `FakeTensorMode`.

    Otherwise such modes would miss the loss, and one of fake tensors hand over memory that is not
    there. Without the name, all losses are operators that modes see.
    """
    return _modes is None or _modes() != 0


_reduction_of = _found("nn._reduction.legacy_get_string")


def reduction_of(size_average: bool | None, reduce: bool | None) -> str | None:
    """The reduction that two options of old stand for, with torch's warning.

    None without the name: the drop-ins then leave calls with those options to torch, warning
    included.
    """
    return None if _reduction_of is None else _reduction_of(size_average, reduce)


_number_of = _found("nn._reduction.get_enum")
_cross_entropy = _found("_C._nn.cross_entropy_loss")
# What torch calls reductions where it computes.
_NUMBERS = {name: _number_of(name) for name in ("none", "mean", "sum") if _number_of is not None}


def cross_entropy_of_torch(
    input: Tensor,  # noqa: A002
    target: Tensor,
    weight: Tensor | None,
    reduction: str,
    ignore_index: int,
    label_smoothing: float,
) -> Tensor:
    """What `torch.nn.functional.cross_entropy` comes to, where nothing overrides it.

    That function would look again at what was looked at, which takes a tenth of a call for one
    row. Without the names it does.
    """
    if _cross_entropy is None or _number_of is None:
        return functional.cross_entropy(
            input,
            target,
            weight,
            ignore_index=ignore_index,
            reduction=reduction,
            label_smoothing=label_smoothing,
        )
    number = _NUMBERS.get(reduction)
    if number is None:  # which raises, or warns of another name of old
        number = _number_of(reduction)
    value: Tensor = _cross_entropy(input, target, weight, number, ignore_index, label_smoothing)
    return value


_assert = _found("_assert_async")


def assert_on_device(condition: Tensor, message: str) -> None:
    """Raise where a condition does not hold, without waiting for the device to tell.

    Otherwise a mask of other integers than 0 and 1 would count as True on CUDA. Without the name
    each call waits for the device.
    """
    if _assert is not None:
        _assert(condition, message)
    elif not condition:
        raise RuntimeError(message)


_found("Tensor._base")
_found("Tensor._version")


def knows_what_is_overwritten() -> bool:
    """Whether `base_of` and `version_of` can be asked; without them nothing is done in place."""
    return hasattr(Tensor, "_base") and hasattr(Tensor, "_version")


def base_of(tensor: Tensor) -> Tensor | None:
    """The tensor that one is a view of.

    Otherwise a view of a leaf that requires its gradient would be overwritten in place, where
    autograd refuses that.
    """
    return tensor._base


def version_of(tensor: Tensor) -> int:
    """How often a tensor was modified in place.

    Otherwise logits that hold a gradient, and were modified before backward, would be handed on
    as that gradient.
    """
    return tensor._version
