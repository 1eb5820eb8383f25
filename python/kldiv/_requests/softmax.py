"""The functions of one array of rows: entropy, log-sum-exp."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from kldiv import _kldiv
from kldiv._arrays import Array, Operand, Rows, as_float, as_rows, result_dtype
from kldiv._reducer import Reducer, Value
from kldiv._requests.negative import PROBABILITIES, check_probabilities


def entropy_of_side(
    p: Any,
    space: str,
    temperature: Any,
    axis: int,
    where: Any,
    weights: Any,
    reduction: str,
    denominator: Any,
) -> EntropyRequest:
    """Entropy of rows whose space is named as the extension names it."""
    rows = as_rows("p", p, axis)
    reducer = Reducer.parse(rows, result_dtype(rows), where, weights, reduction, denominator)
    return EntropyRequest({"p": rows}, space, as_float("temperature", temperature), reducer)


@dataclass(slots=True)
class EntropyRequest:
    """See `entropy_of_side`."""

    rows: dict[str, Rows]
    space: str
    temperature: float
    reducer: Reducer
    default_wrt: ClassVar[str] = "p"
    gradients_at_once: ClassVar[bool] = True
    side_inputs: ClassVar[tuple[str, ...]] = ()

    @property
    def spaces(self) -> tuple[str, ...]:
        """What the numbers of `rows` are, in their order."""
        return (self.space,)

    def call(self, grad_output: Array | None, outputs: Mapping[str, Operand]) -> Value:
        """Compute the value, and write the gradient asked for."""
        values: Value = _kldiv.entropy(
            self.rows["p"],
            self.space,
            self.temperature,
            self.reducer,
            grad_output,
            outputs.get("p"),
        )
        if self.space in PROBABILITIES:
            check_probabilities(self, values, outputs)
        return values


@dataclass(slots=True)
class LogSumExpRequest:
    """Log-sum-exp of rows of logits."""

    rows: dict[str, Rows]
    temperature: float
    reducer: Reducer
    default_wrt: ClassVar[str] = "z"
    gradients_at_once: ClassVar[bool] = True
    side_inputs: ClassVar[tuple[str, ...]] = ()
    spaces: ClassVar[tuple[str, ...]] = ("any numbers",)

    def call(self, grad_output: Array | None, outputs: Mapping[str, Operand]) -> Value:
        """Compute the value, and write the gradient asked for."""
        values: Value = _kldiv.logsumexp(
            self.rows["z"], self.temperature, self.reducer, grad_output, outputs.get("z")
        )
        return values
