"""`torch.nn.functional.kl_div`, computed in one pass."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import handle_torch_function, has_torch_function_variadic

from kldiv.torch.functional.rows import FLOATING, is_small, widened_by_autocast
from kldiv.torch.ops.kl_div import kl_div as kl_div_loss
from kldiv.torch.ops.modes import is_traced
from kldiv.torch.private import has_transforms


def kl_div(
    input: Tensor,  # noqa: A002
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    log_target: bool = False,
) -> Tensor:
    r"""KL divergence Σ t (ln t − x), a drop-in for `torch.nn.functional.kl_div`.

    The same arguments, values, gradients with respect to both, warnings, errors and edge cases
    as the function of the installed torch. **The order is torch's**: the log-probabilities x of
    the approximation come first, and the reference second; `kl` has them the other way round,
    and takes logits, which is faster and more precise.

    With ``reduction`` ``"sum"``, ``"mean"`` or ``"batchmean"`` the terms are summed in float64 in
    one read of both tensors. With ``"none"``, on other devices than the CPU, for dtypes that kldiv
    does not have, and for small tensors (see `docs/torch.md`), it is torch's own function.

    Examples
    --------
    >>> import torch
    >>> import kldiv.torch
    >>> ln_q = torch.tensor([[0.9, 0.1]]).log()
    >>> p = torch.tensor([[0.5, 0.5]])
    >>> print(f"{kldiv.torch.kl_div(ln_q, p, reduction='batchmean').item():.6f}")
    0.510826
    """
    if has_torch_function_variadic(input, target):
        result: Tensor = handle_torch_function(
            kl_div,
            (input, target),
            input,
            target,
            size_average=size_average,
            reduce=reduce,
            reduction=reduction,
            log_target=log_target,
        )
        return result
    if not _is_ours(input, target, size_average, reduce, reduction):
        if is_traced():
            return functional.kl_div(input, target, size_average, reduce, reduction, log_target)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            value = functional.kl_div(input, target, size_average, reduce, reduction, log_target)
        _warn_again(caught)
        return value
    if reduction == "mean" and not is_traced():
        warnings.warn(_MEAN, stacklevel=2)
    if widened_by_autocast(torch.promote_types(input.dtype, target.dtype)):
        input = input.float()  # noqa: A001
    divisor = 1
    if reduction == "batchmean":
        divisor = input.size(0)
    shape = torch.broadcast_shapes(input.shape, target.shape)  # type: ignore[no-untyped-call]
    input, target = input.expand(shape), target.expand(shape)  # noqa: A001
    if reduction == "mean":
        divisor = input.numel()
    return kl_div_loss(input, target, bool(log_target), divisor)


# The words of torch.
_MEAN = (
    "reduction: 'mean' divides the total loss by both the batch size and the support size."
    "'batchmean' divides only by the batch size, and aligns with the KL div math definition."
    "'mean' will be changed to behave the same as 'batchmean' in the next major release."
)


def _is_ours(
    input: Tensor,  # noqa: A002
    target: Tensor,
    size_average: bool | None,
    reduce: bool | None,
    reduction: str,
) -> bool:
    """Whether the extension computes it; everything else is left to torch, errors among it."""
    if size_average is not None or reduce is not None:
        return False
    if reduction not in ("sum", "mean", "batchmean"):
        return False
    tensors = (input, target)
    if not all(isinstance(tensor, Tensor) and tensor.device.type == "cpu" for tensor in tensors):
        return False
    if any(tensor.dtype not in FLOATING or tensor.numel() == 0 for tensor in tensors):
        return False
    if input.dim() == 0 or target.dim() == 0 or is_small(input):
        return False
    if has_transforms():
        return False
    try:
        torch.broadcast_shapes(input.shape, target.shape)  # type: ignore[no-untyped-call]
    except RuntimeError:
        return False
    return True


def _warn_again(caught: list[warnings.WarningMessage]) -> None:
    """Warnings of a call made for the caller of the caller."""
    for warning in caught:
        warnings.warn(warning.message, warning.category, stacklevel=3)
