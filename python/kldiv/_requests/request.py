"""What a request is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Protocol

from kldiv._arrays import Array, Operand, Rows
from kldiv._reducer import Reducer, Value


class Request(Protocol):
    """A checked call."""

    rows: dict[str, Rows]
    """The arguments that have a gradient, by name."""

    @property
    def spaces(self) -> tuple[str, ...]:
        """What the numbers of `rows` are, in their order."""
        ...

    @property
    def default_wrt(self) -> str:
        """The argument to differentiate with respect to, unless another one is named."""
        ...

    gradients_at_once: ClassVar[bool]
    """Whether all gradients of a class are written after all that belongs to it was read."""
    side_inputs: ClassVar[tuple[str, ...]]
    """The attributes with what it reads beside the rows and what `reducer` has; `None` or arrays.

    All are listed: an output may lie over any of them.
    """
    reducer: Reducer

    def call(self, grad_output: Array | None, outputs: Mapping[str, Operand]) -> Value:
        """Compute the value, and write the gradients asked for."""
        ...
