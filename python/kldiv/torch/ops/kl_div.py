"""``kldiv::kl_div``: the reduced pointwise loss of `torch.nn.functional.kl_div`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from kldiv import _kldiv
from kldiv._arrays import Operand, as_rows
from kldiv.torch.ops.loss import Loss


class KlDivCall:
    """Two tensors of one shape."""

    def __init__(self, input: Tensor, target: Tensor, log_target: bool, divisor: int) -> None:  # noqa: A002
        self.value_dtype = torch.promote_types(input.dtype, target.dtype)
        self.ln_q = as_rows("input", input, -1)
        self.p = as_rows("target", target, -1)
        self.log_target, self.divisor = log_target, divisor

    def run(self, grad_output: Tensor | None, gradients: Mapping[str, Operand]) -> float:
        """Compute the value, and write the gradients."""
        upstream = 1.0 if grad_output is None else grad_output.item()
        total = _kldiv.pointwise_kl(
            self.p,
            self.ln_q,
            self.log_target,
            upstream / self.divisor,
            gradients.get("target"),
            gradients.get("input"),
        )
        return total / self.divisor


def _value_like(*, input: Tensor, target: Tensor, **_: Any) -> Tensor:  # noqa: A002
    return input.new_empty((), dtype=torch.promote_types(input.dtype, target.dtype))


def formula(*, input: Tensor, target: Tensor, log_target: bool, divisor: int) -> Tensor:  # noqa: A002
    """The same in torch operations."""
    total = torch.nn.functional.kl_div(input, target, reduction="sum", log_target=log_target)
    return total / divisor


kl_div = Loss(
    "kl_div",
    ("input", "target"),
    (("log_target", "bool"), ("divisor", "SymInt")),
    prepare=KlDivCall,
    value_like=_value_like,
    formula=formula,
)
