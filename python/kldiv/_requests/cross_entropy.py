"""Cross-entropy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from kldiv import _kldiv
from kldiv._arrays import Array, Operand, Rows
from kldiv._reducer import Reducer, Value
from kldiv._requests.negative import check_probabilities


@dataclass(slots=True)
class CrossEntropyRequest:
    """Cross-entropy with class indices (`labels`) or distributions (``rows["targets"]``)."""

    rows: dict[str, Rows]
    labels: Array | None
    ignore_index: int | None
    space: str
    temperature: float
    label_smoothing: float
    class_weights: Array | None
    z_loss: float
    softcap: float | None
    reducer: Reducer
    default_wrt: ClassVar[str] = "logits"
    gradients_at_once: ClassVar[bool] = False
    side_inputs: ClassVar[tuple[str, ...]] = ("labels", "class_weights")

    @property
    def spaces(self) -> tuple[str, ...]:
        """What the numbers of `rows` are, in their order."""
        return (self.space, "probs")[: len(self.rows)]

    def call(self, grad_output: Array | None, outputs: Mapping[str, Operand]) -> Value:
        """Compute the value, and write the gradients asked for."""
        targets = self.rows.get("targets")
        values: Value = _kldiv.cross_entropy(
            self.rows["logits"],
            self.labels,
            targets,
            self.ignore_index,
            self,
            self.reducer,
            grad_output,
            outputs.get("logits"),
            outputs.get("targets"),
        )
        if self.space == "probs" or targets is not None:
            ignored = None if self.labels is None else self.labels == self.ignore_index
            check_probabilities(self, values, outputs, ignored)
        return values
