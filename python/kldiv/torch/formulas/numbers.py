"""Conditions and numbers that may be tensors, which cannot be looked at."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from kldiv.torch.formulas.sides import Number


def choose(condition: Any, first: Any, second: Any) -> Any:
    """The first where the condition holds, the second elsewhere."""
    if isinstance(condition, Tensor):
        return torch.where(condition, first, second)
    return first if condition else second


def mask_if(condition: Any, mask: Tensor) -> Tensor:
    """The mask where the condition holds; `torch.compile` makes a constant of a mask & bool."""
    if isinstance(condition, Tensor):
        return mask & condition
    return mask if condition else torch.zeros_like(mask)


def logarithm(number: Number) -> Number:
    """Ln, of a number that no float of the rows need hold."""
    return torch.log(number) if isinstance(number, Tensor) else math.log(number)
