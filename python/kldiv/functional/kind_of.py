"""Which divergence a function is that was passed to another one."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from kldiv._kldiv import DIVERGENCES
from kldiv._reducer import Value
from kldiv._requests import DivergenceRequest
from kldiv.functional import divergences
from kldiv.functional.divergences import kl


def kind_of(caller: str, function: Any, parameters: Mapping[str, Any]) -> tuple[str, float]:
    """What the extension calls a function with these options, and its parameter."""
    name = getattr(function, "__name__", "")
    if name not in DIVERGENCES or getattr(divergences, name) is not function:
        hint = ""
        if isinstance(function, str):
            hint = f"; pass kldiv.{function}" if function in DIVERGENCES else ""
        elif name in DIVERGENCES:
            hint = f"; pass kldiv.{name}, and detached tensors"
        given = name or (repr(function) if isinstance(function, str) else type(function).__name__)
        raise TypeError(f"{caller} takes a divergence of kldiv, got {given}{hint}")
    own = _parameters_of(function)
    for option in parameters:
        if option not in own:
            known = ", ".join(own) or "none"
            raise TypeError(
                f"{caller} got an unexpected keyword argument {option!r} for {name}, whose "
                f"parameters are: {known}"
            )
    one_class = np.zeros(1)
    request: DivergenceRequest = function.request(one_class, one_class, **parameters)
    return request.kind, request.parameter


@functools.cache
def _parameters_of(function: Callable[..., Value]) -> tuple[str, ...]:
    """The names of the parameters that a divergence has beside those that all have."""
    common = inspect.signature(kl).parameters
    return tuple(name for name in inspect.signature(function).parameters if name not in common)
