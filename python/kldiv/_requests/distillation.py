"""Distillation: a divergence from a teacher mixed with cross-entropy on labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from kldiv import _kldiv
from kldiv._arrays import Array, Operand, Rows, as_float, as_rows, check_same_shape, result_dtype
from kldiv._reducer import Reducer, Value
from kldiv._side_inputs import as_class_index, as_labels, check_beyond


def distillation(
    kind: str,
    parameter: float,
    teacher: Any,
    student: Any,
    labels: Any,
    temperature: float,
    divergence_weight: float,
    cross_entropy_weight: float,
    ignore_index: int | None,
    label_smoothing: float,
    where: Any,
    weights: Any,
    reduction: str,
    denominator: Any,
) -> DistillationRequest:
    """A divergence from a teacher mixed with cross-entropy on labels."""
    rows = {
        "teacher": as_rows("teacher_logits", teacher, -1),
        "student": as_rows("student_logits", student, -1),
    }
    check_same_shape(rows["teacher"], rows["student"])
    ignore_index = as_class_index("ignore_index", ignore_index)
    indices = None
    reducer = Reducer.parse(
        rows["student"], result_dtype(*rows.values()), where, weights, reduction, denominator
    )
    if labels is not None:
        given_index = ignore_index
        indices, ignore_index, beyond = as_labels("labels", labels, rows["student"], ignore_index)
        if beyond is not None:
            check_beyond(beyond, rows["student"], given_index, reducer.kept())
    return DistillationRequest(
        rows,
        indices,
        kind,
        parameter,
        as_float("temperature", temperature),
        divergence_weight,
        cross_entropy_weight,
        ignore_index,
        as_float("label_smoothing", label_smoothing),
        reducer,
    )


@dataclass(slots=True)
class DistillationRequest:
    """See `distillation`."""

    rows: dict[str, Rows]
    labels: Array | None
    kind: str
    parameter: float
    temperature: float
    divergence_weight: float
    cross_entropy_weight: float
    ignore_index: int | None
    label_smoothing: float
    reducer: Reducer
    default_wrt: ClassVar[str] = "student"
    gradients_at_once: ClassVar[bool] = False
    side_inputs: ClassVar[tuple[str, ...]] = ("labels",)
    spaces: ClassVar[tuple[str, ...]] = ("logits", "logits")

    def call(self, grad_output: Array | None, outputs: Mapping[str, Operand]) -> Value:
        """Compute the value, and write the gradients asked for."""
        values: Value = _kldiv.distillation(
            self.rows["teacher"],
            self.rows["student"],
            self.labels,
            self,
            self.reducer,
            grad_output,
            outputs.get("teacher"),
            outputs.get("student"),
        )
        return values
