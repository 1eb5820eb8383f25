"""Requests of the NumPy functions as calls of an operator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from kldiv._arrays import Operand
from kldiv._requests import Request
from kldiv.torch.formulas import value_dtype


class RequestCall:
    """A request, run with tensors."""

    def __init__(self, request: Request, names: dict[str, str] | None = None) -> None:
        self.request = request
        # What the request calls the inputs of the operator, where the names differ.
        self.names = names or {}

    @property
    def value_dtype(self) -> torch.dtype:
        """The dtype of the value."""
        return torch.float64 if self.request.reducer.dtype.itemsize == 8 else torch.float32

    def run(self, grad_output: Tensor | None, gradients: Mapping[str, Operand]) -> Any:
        """Compute the value, and write the gradients."""
        upstream = self.request.reducer.upstream(grad_output)
        named = {self.names.get(name, name): operand for name, operand in gradients.items()}
        return self.request.call(upstream, named)


def row_values_like(rows: Sequence[Tensor], reduction: str) -> Tensor:
    """A tensor of the shape and dtype of the value of rows."""
    shape = rows[0].shape[:-1] if reduction == "none" else ()
    return rows[0].new_empty(shape, dtype=value_dtype(*rows))
