"""Functions on tensors that adopt the signatures of `kldiv`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from kldiv import functional
from kldiv._kldiv import PlainCalls
from kldiv._signatures import adopt, adopted, defaults
from kldiv._top_k import TopK  # noqa: F401  (what signatures name)
from kldiv.torch.functional.top_k import TopKTensors  # noqa: F401
from kldiv.torch.ops.loss import as_value
from kldiv.torch.ops.modes import composes, is_traced
from kldiv.torch.private import is_watched

MODULE = "kldiv.torch"

TYPES = {
    "ArrayLike": "Tensor",
    "ArrayLike | TopK": "Tensor | TopK | TopKTensors",
    "IdMap | None": "tuple[Tensor | list[int], Tensor | list[int]] | None",
    "Rule | None": "str | tuple[str, float] | None",
    "ArrayLike | None": "Tensor | None",
    "float": "float | Tensor",
    "float | None": "float | Tensor | None",
    "Temperature": "float | Tensor | tuple[float | Tensor, float | Tensor]",
    "Space": "str | tuple[str, str]",
}
"""What stands for NumPy's types."""


def on_tensors(
    compute: Callable[..., Tensor],
    name: str | None = None,
    *,
    source: ModuleType = functional,
    module: str = MODULE,
) -> Callable[..., Tensor]:
    """The function of `kldiv` of the name of another one, which gets all its options.

    `source` is where NumPy's is, and `module` where this one is to be.

    `torch.compile` goes through it without a break: no argument is bound by hand. Plain calls
    without a gradient are those of `kldiv`.
    """
    name = name or compute.__name__
    model = getattr(source, name)
    plain: PlainCalls | None = getattr(model, "plain", None)
    signature = adopted(model, TYPES, "Tensor")
    given = defaults(signature)
    # Python names it where arguments do not fit.
    compute.__qualname__ = name

    def function(*args: Any, **options: Any) -> Tensor:
        if plain is not None and not is_traced() and not composes() and not is_watched():
            value = plain.value_of_tensors(args, options)
            if value is not None:
                wide = value.dtype.itemsize == 8
                return as_value(value, torch.float64 if wide else torch.float32)
        return compute(*args, **{**given, **options})

    function.__doc__ = inspect.cleandoc(compute.__doc__ or "")
    return adopt(function, model, module, signature)
