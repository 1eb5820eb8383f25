"""How torch runs the code: what of a tensor can be known, and who watches."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_compiling

from kldiv.torch import private


def is_traced() -> bool:
    """Whether calls are recorded, so that numbers cannot be looked at."""
    return is_compiling() or private.is_tracing()


def composes() -> bool:
    """Whether `torch.func` or forward-mode derivatives compose what torch knows."""
    return private.has_transforms() or private.has_forward_mode()


def are_plain(arguments: Iterable[Any]) -> bool:
    """Whether all tensors hold numbers, and nobody watches what is done to them."""
    plain = (Tensor, torch.nn.Parameter)
    return not private.is_watched() and all(
        type(item) in plain for item in arguments if isinstance(item, Tensor)
    )
