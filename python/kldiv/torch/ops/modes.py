"""How torch runs the code: what of a tensor can be known, and who watches."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad


def is_traced() -> bool:
    """Whether calls are recorded, so that numbers cannot be looked at."""
    return torch.compiler.is_compiling() or torch._C._is_tracing()


def composes() -> bool:
    """Whether `torch.func` or forward-mode derivatives compose what torch knows."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def is_batched(tensor: Tensor) -> bool:
    """Whether a tensor stands for many, as in `torch.autograd.grad(is_grads_batched=True)`."""
    functorch = torch._C._functorch
    return functorch.is_batchedtensor(tensor) or functorch.is_legacy_batchedtensor(tensor)


def are_plain(arguments: Iterable[Any]) -> bool:
    """Whether all tensors hold numbers, and nobody watches what is done to them."""
    plain = (Tensor, torch.nn.Parameter)
    return torch._C._len_torch_dispatch_stack() == 0 and all(
        type(item) in plain for item in arguments if isinstance(item, Tensor)
    )
