"""Rows of tensors as distributions, with gradients at their limits, which the formulas need."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Number = Any

LARGEST_LN = math.log(sys.float_info.max)
"""Above, a log-probability has no probability in float64, and its row is NaN."""


@dataclass(frozen=True)
class Side:
    """Rows as distributions, the classes last."""

    given: Tensor
    space: str
    ln: Tensor
    """Ln p: −∞ for absent classes, and finite for all others."""
    p: Tensor
    present: Tensor
    """Classes with p > 0, whether or not e^(ln p) is above the smallest float."""
    bad: Tensor
    """Rows that cannot be computed with."""

    def spoiled(self, rows: Tensor) -> Tensor:
        """0 for every row, with a gradient of NaN for some."""
        return spoiled(self.given, rows)

    def limit_at_zero(self, classes: Tensor, sign: float) -> Tensor:
        """0 for every row, with a gradient of ±∞ for some classes of probability 0."""
        if self.space not in ("probs", "unnormalized"):
            return torch.zeros_like(self.bad, dtype=self.given.dtype)
        return steep(self.given, classes, sign)


def steep(x: Tensor, classes: Tensor, sign: float) -> Tensor:
    """0 for every row, with a gradient of ±∞ for some classes."""
    root = torch.where(classes, x - x.detach(), 1.0).sqrt()
    return torch.where(classes, sign * root, 0.0).sum(-1)


def spoiled(x: Tensor, rows: Tensor) -> Tensor:
    """0 for every row, with a gradient of NaN for some."""
    # Any finite function of all classes.
    total = x.sum(-1).sigmoid()
    return torch.where(rows, torch.where(rows, 0.0 * total, 1.0).sqrt(), 0.0)


def presence(x: Tensor, space: str) -> Tensor:
    """Classes with p > 0."""
    return x > 0 if space in ("probs", "unnormalized") else x != -torch.inf


def distribution(
    x: Tensor, space: str, temperature: Number = 1.0, nowhere: Tensor | None = None
) -> Side:
    """Rows in a space as a distribution.

    Classes that exist `nowhere`, on neither side, have no gradient, where numbers are divided by
    their sum.
    """
    present = presence(x, space)
    largest = x.amax(-1, keepdim=True).detach()
    if space in ("probs", "unnormalized"):
        valid = (x.amin(-1, keepdim=True) >= 0) & (largest < torch.inf)
        if space == "unnormalized":
            return _divided(x, present, largest, valid & (largest > 0), nowhere)
        ln = torch.where(present, torch.where(present, x, 1.0).log(), -torch.inf)
        return Side(x, space, ln, x, present, ~valid.squeeze(-1))
    if space == "log_probs":
        return Side(x, space, x, x.exp(), present, ~(largest <= LARGEST_LN).squeeze(-1))
    z = x - largest if is_one(temperature) else (x - largest) / temperature
    # Beyond the largest float it is a class all the same.
    far = present & (z == -torch.inf)
    z = torch.where(far, torch.finfo(x.dtype).min + (x - x.detach()) / temperature, z)
    ln = z.log_softmax(-1)
    return Side(x, space, ln, ln.exp(), present, ~largest.isfinite().squeeze(-1))


def _divided(
    x: Tensor, present: Tensor, largest: Tensor, valid: Tensor, nowhere: Tensor | None
) -> Side:
    """Weights divided by their sum."""
    # Relative to the largest: the sum may be beyond the largest float, and slopes are of size 1.
    top = torch.where(valid, largest, 1.0)
    weights = x / top
    counted = weights if nowhere is None else torch.where(nowhere, 0.0, weights)
    total = torch.where(valid, counted.sum(-1, keepdim=True), 1.0)
    # A quotient below the smallest float is a class all the same.
    usual = weights >= torch.finfo(x.dtype).tiny
    ln = torch.where(present, torch.where(present, x, 1.0).log() - top.log(), -torch.inf)
    ln = torch.where(usual, torch.where(usual, weights, 1.0).log(), ln) - total.log()
    return Side(weights, "unnormalized", ln, counted / total, present, ~valid.squeeze(-1))


def is_one(number: Number) -> bool:
    """Whether a number is known to be 1."""
    return isinstance(number, (float, int)) and number == 1.0
