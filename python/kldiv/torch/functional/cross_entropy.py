"""`torch.nn.functional.cross_entropy`, computed in one pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import handle_torch_function, has_torch_function_variadic

from kldiv._top_k import TopK
from kldiv.torch import formulas
from kldiv.torch.functional.rows import (
    FLOATING,
    RowOptions,
    check_one_of,
    is_small,
    widened_by_autocast,
)
from kldiv.torch.functional.top_k import TopKTensors, top_k_loss
from kldiv.torch.ops.cross_entropy import cross_entropy as label_loss
from kldiv.torch.ops.cross_entropy import soft_cross_entropy as soft_loss
from kldiv.torch.ops.modes import are_plain, is_traced
from kldiv.torch.private import cross_entropy_of_torch, has_transforms, reduction_of


def cross_entropy(
    input: Tensor,  # noqa: A002
    target: Tensor | TopK | TopKTensors,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    *,
    rule: str | tuple[str, float] | None = None,
    temperature: Any = 1.0,
    temper_after: bool = False,
) -> Tensor:
    r"""Cross-entropy of logits, a drop-in for `torch.nn.functional.cross_entropy`.

    The same arguments, values, gradients, errors and edge cases as the function of the installed
    torch: class indices or probabilities, classes on axis 1 of ``(N, C, d₁, …)``, class weights,
    label smoothing. float16 and bfloat16 logits are computed in float32, and only the result is
    rounded. On other devices than the CPU, and for small batches (see `docs/torch.md`), it is
    torch's own function.

    With ``reduction`` other than ``"none"`` value and gradient are computed in one read of the
    logits.

    The target may also be a `kldiv.TopK`, or what `top_k_tensors` makes of one, over the batch
    shape, the classes of the logits being on axis 1 all the same. `rule`, `temperature` and
    `temper_after` are then those of `kldiv.cross_entropy`; of the other arguments only `reduction`
    applies. Without a `TopK` they do not.

    Examples
    --------
    >>> import torch
    >>> import kldiv.torch
    >>> logits = torch.tensor([[1.0, 2.0, 0.5], [-1.0, 0.0, 3.0]], requires_grad=True)
    >>> loss = kldiv.torch.cross_entropy(logits, torch.tensor([1, 2]))
    >>> loss.backward()
    >>> print(f"{loss.item():.6f}")
    0.265126
    """
    # The first question is for speed, as all up to `is_small` are few.
    if type(target) is not Tensor and isinstance(target, (TopK, TopKTensors)):
        given = (weight, size_average, reduce) != (None, None, None)
        if given or ignore_index != -100 or label_smoothing != 0.0:
            raise ValueError("beside a TopK, of torch's arguments only reduction applies")
        check_one_of("reduction", reduction, ("none", "mean", "sum"))
        rows = RowOptions(None, None, reduction, None)
        at = 0 if isinstance(input, Tensor) and input.dim() == 1 else 1
        return top_k_loss(
            "cross_entropy",
            0.0,
            target,
            "input",
            input,
            rule,
            temper_after,
            "logits",
            False,
            temperature,
            at,
            rows,
        )
    if rule is not None or temper_after is not False or temperature != 1.0:
        raise ValueError("rule, temperature and temper_after apply where target is a kldiv.TopK")
    if has_torch_function_variadic(input, target, weight):
        result: Tensor = handle_torch_function(
            cross_entropy,
            (input, target, weight),
            input,
            target,
            weight=weight,
            size_average=size_average,
            ignore_index=ignore_index,
            reduce=reduce,
            reduction=reduction,
            label_smoothing=label_smoothing,
        )
        return result
    if size_average is not None or reduce is not None:
        known = reduction_of(size_average, reduce)
        if known is None:
            return functional.cross_entropy(
                input,
                target,
                weight,
                size_average,
                ignore_index,
                reduce,
                reduction,
                label_smoothing,
            )
        reduction = known
    if is_small(input):
        # What torch's function would come to, of arguments of which it looks at no other.
        return cross_entropy_of_torch(
            input, target, weight, reduction, ignore_index, label_smoothing
        )
    if not _is_ours(input, target, weight, ignore_index, reduction, label_smoothing):
        return functional.cross_entropy(
            input,
            target,
            weight,
            ignore_index=ignore_index,
            reduction=reduction,
            label_smoothing=label_smoothing,
        )
    logits = input if input.dim() == 1 else input.movedim(1, -1)
    smoothing = float(label_smoothing)
    options = (weight, "logits", 1.0, smoothing, 0.0, None, None, None, reduction, None)
    if target.is_floating_point():
        masses = target if target.dim() == 1 else target.movedim(1, -1)
        value = soft_loss(logits, masses, *options)
    else:
        target = formulas.widened(target)
        value = label_loss(logits, target, ignore_index, *options)
        if reduction == "mean" and (is_traced() or not are_plain([input, target])):
            # Of nothing, torch's mean is NaN.
            value = torch.where((target != ignore_index).any(), value, torch.nan)
    if value.dtype == input.dtype or widened_by_autocast(input.dtype):
        return value
    return value.to(input.dtype)


def _is_ours(
    input: Tensor,  # noqa: A002
    target: Tensor,
    weight: Tensor | None,
    ignore_index: int,
    reduction: str,
    label_smoothing: float,
) -> bool:
    """Whether the extension computes it; everything else is left to torch, errors among it."""
    if not (isinstance(input, Tensor) and isinstance(target, Tensor)):
        return False
    if input.device.type != "cpu" or target.device != input.device:
        return False
    if input.dtype not in FLOATING or input.dim() == 0 or input.numel() == 0:
        return False
    if reduction not in ("none", "sum", "mean") or not 0.0 <= label_smoothing <= 1.0:
        return False
    if isinstance(label_smoothing, Tensor) and label_smoothing.requires_grad:
        return False
    if has_transforms() or not isinstance(ignore_index, int):
        return False
    traced = is_traced() or not are_plain([input, target, weight])
    classes = input.size(0 if input.dim() == 1 else 1)
    if weight is not None and (
        weight.shape != (classes,)
        or weight.dtype != input.dtype
        or weight.device != input.device
        or weight.requires_grad
        or traced
        or not bool((weight > 0).all() & weight.isfinite().all())
    ):
        # Weights below 0, which torch allows, or that cannot be looked at.
        return False
    if target.is_floating_point():
        return target.shape == input.shape and target.dtype == input.dtype and ignore_index < 0
    expected = input.shape[1:] if input.dim() == 1 else input.shape[:1] + input.shape[2:]
    if target.dtype not in (torch.int64, torch.uint8) or target.shape != expected:
        return False
    # The mean of nothing is torch's NaN.
    return traced or reduction != "mean" or bool((formulas.widened(target) != ignore_index).any())
