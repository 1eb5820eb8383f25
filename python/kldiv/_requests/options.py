"""What the options of divergences may be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from kldiv._arrays import as_float

Space = str | tuple[str, str]
Temperature = float | tuple[float, float]

T = TypeVar("T")
SPACES = ("logits", "log_probs", "probs")
ENDPOINTS = ("formula", "trl")
"""Rules for what Jensen–Shannon is at the weights 0 and 1: 0, or `kl` and `reverse_kl`."""


def pair_of(name: str, value: Any, check: Callable[[str, Any], T]) -> tuple[T, T]:
    """One thing for both sides, or a pair."""
    if isinstance(value, (tuple, list)):
        if len(value) != 2:
            raise ValueError(f"{name} is one value or a pair (for p and q), got {value!r}")
        return check(name, value[0]), check(name, value[1])
    one = check(name, value)
    return one, one


def as_space(name: str, value: Any) -> str:
    """One of `SPACES`."""
    if value not in SPACES:
        raise ValueError(f"{name} must be one of {', '.join(SPACES)}, got {value!r}")
    return str(value)


def sides_of(space: Any, temperature: Any) -> tuple[tuple[str, str], tuple[float, float]]:
    """Space and temperature of p and of q."""
    if space == "logits" and type(temperature) is float:
        return ("logits", "logits"), (temperature, temperature)
    spaces = pair_of("space", space, as_space)
    temperatures = pair_of("temperature", temperature, as_float)
    if spaces != ("logits", "logits") and not isinstance(temperature, (tuple, list)):
        # One temperature is for those sides that have one.
        if "logits" not in spaces and temperatures[0] != 1.0:
            raise ValueError(f"temperature applies to logits only, and space is {space!r}")
        p_one, q_one = (
            one if side == "logits" else 1.0 for one, side in zip(temperatures, spaces, strict=True)
        )
        temperatures = p_one, q_one
    return spaces, temperatures


def normalized(space: str, normalize: Any) -> str:
    """What the extension calls the numbers of a space, taken as given or divided by their sum."""
    if normalize is False:
        return space
    if not isinstance(normalize, (bool, np.bool_)):
        raise TypeError(f"normalize must be True or False, got {normalize!r}")
    # Log-probabilities that are normalised are what logits are.
    return (
        {"log_probs": "logits", "probs": "unnormalized"}.get(space, space) if normalize else space
    )


def at_endpoints(beta: Any, endpoints: Any) -> str:
    """The name of the divergence that Jensen–Shannon with a weight is, by a rule for 0 and 1."""
    if endpoints not in ENDPOINTS:
        raise ValueError(f"endpoints must be one of {', '.join(ENDPOINTS)}, got {endpoints!r}")
    if endpoints == "trl" and beta == 0.0:
        return "kl"
    if endpoints == "trl" and beta == 1.0:
        return "reverse_kl"
    return "jensen_shannon"
