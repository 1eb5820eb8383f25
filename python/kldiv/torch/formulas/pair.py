"""What the formulas of divergences are written in: two rows, and what is found of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kldiv.torch.formulas.sides import Side, steep


@dataclass(frozen=True)
class Pair:
    """Two rows as distributions."""

    p: Side
    q: Side
    normalized: bool
    """Whether both sum to one by how they are made."""
    again: Callable[[], tuple[Side, Side]]
    """Makes both anew.

    A term of sides of its own has its gradient centred before that of a larger one rounds it off.
    """

    @property
    def only_p(self) -> Tensor:
        """Classes that q lacks."""
        return self.p.present & ~self.q.present

    @property
    def only_q(self) -> Tensor:
        """Classes that p lacks."""
        return self.q.present & ~self.p.present


@dataclass(frozen=True)
class Found:
    """The values of rows, and what is still to be done for their gradients."""

    value: Tensor
    falls: tuple[Any, Any] = (False, False)
    """Whether slopes of p and of q are −∞ at probability 0."""
    unusable: Tensor | None = None
    """Rows whose value is what it is, and whose gradients are NaN."""


def exchanged(condition: Any, p: Side, q: Side) -> tuple[Side, Side]:
    """Both sides, in the other order where the condition holds."""
    if not isinstance(condition, Tensor):
        return (q, p) if condition else (p, q)
    # Of a parameter that cannot be looked at; the spaces are of no account from here on.
    parts = ("given", "ln", "p", "present", "bad")

    def mixed(first: Side, second: Side) -> Side:
        chosen = {
            name: torch.where(condition, getattr(second, name), getattr(first, name))
            for name in parts
        }
        return Side(space="mixed", **chosen)

    return mixed(p, q), mixed(q, p)


def at_least_zero(value: Tensor) -> Tensor:
    """Rounding below 0 taken off, with the gradient as it is."""
    return torch.where(value < 0, value - value.detach(), value)


def log_ratio(p: Side, q: Side, classes: Tensor) -> Tensor:
    """The difference ln p − ln q of some classes, 0 of all others."""
    return torch.where(classes, p.ln - q.ln, 0.0)


def gap_of(p: Side, q: Side, d: Tensor, both: Tensor) -> Tensor:
    """The difference q − p from ln p − ln q, consistent with it where the two are close."""
    near = both & (d > -1.0)
    return torch.where(near, p.p * torch.expm1(-d.clamp(min=-1.0)), q.p - p.p)


def infinite_where_alone(value: Tensor, p: Side, q: Side, alone: Tensor) -> Tensor:
    """The value, infinite where classes that only p has make it so, and what gradients are there.

    NaN for logits, also of a number beyond the range of floats.
    """
    value = value + torch.where(alone.any(-1), torch.inf, 0.0)
    infinite = value.isinf()
    for side, sign in ((p, 1.0), (q, -1.0)):
        if side.space in ("logits", "unnormalized"):
            value = value + side.spoiled(infinite)
        elif side is p or side.space == "probs":
            value = value + steep(side.given, alone, sign)
        else:
            # −∞ itself, of a slope of −∞.
            own = torch.where(alone, side.given, -1.0) * -torch.inf
            value = value + torch.where(alone, own, 0.0).sum(-1)
    return value
