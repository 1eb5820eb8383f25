"""Losses of a student from a `TopK`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from kldiv import _kldiv
from kldiv._arrays import Array, Operand, Rows, as_float, as_rows, first_classes
from kldiv._kldiv import RULES
from kldiv._reducer import Reducer, Value
from kldiv._requests.options import as_space, pair_of
from kldiv._top_k import Flat, TopK

Rule = str | tuple[str, float]


def sparse_loss(
    loss: str,
    parameter: float,
    teacher: TopK,
    student: str,
    q: Any,
    rule: Any,
    temper_after: Any,
    space: Any,
    normalize: Any,
    temperature: Any,
    axis: int,
    classes: Any,
    where: Any,
    weights: Any,
    reduction: str,
    denominator: Any,
) -> SparseRequest:
    """A divergence, or ``"cross_entropy"``, of logits from a `TopK`.

    `student` is what the public function calls them.
    """
    name, floor = as_rule(rule)
    if pair_of("space", space, as_space)[1] != "logits" or normalize is not False:
        raise ValueError(
            f"a TopK says itself what it holds, and {student} holds logits beside it; space and "
            "normalize do not apply"
        )
    rows = as_rows(student, q, axis)
    if classes is not None:
        rows = first_classes(rows, classes)
    check_top_k(teacher, rows)
    wide = "float64" in (rows.dtype_name, teacher.values.dtype.name)
    dtype = np.dtype(np.float64 if wide else np.float32)
    reducer = Reducer.parse(rows, dtype, where, weights, reduction, denominator)
    temperatures = pair_of("temperature", temperature, as_float)
    return SparseRequest(
        loss,
        parameter,
        teacher.flat(),
        {student: rows},
        student,
        name,
        floor,
        temperatures,
        as_temper_after(temper_after),
        reducer,
    )


def as_rule(rule: Any) -> tuple[str, float]:
    """The name of a rule, and its parameter."""
    known = ", ".join(map(repr, RULES))
    if rule is None:
        raise ValueError(
            f"p is a TopK: rule says what its other classes are taken for, one of {known}"
        )
    name, given = rule if isinstance(rule, tuple) and len(rule) == 2 else (rule, None)
    if not isinstance(name, str) or name not in RULES:
        raise ValueError(f"rule must be one of {known}, got {rule!r}")
    described = RULES[name].parameter
    if described is None:
        if given is not None:
            raise ValueError(f"rule {name!r} has no parameter, got {given!r}")
        return name, 0.0
    value = described.default if given is None else as_float(described.name, given)
    assert value is not None
    return name, value


def as_temper_after(value: Any) -> bool:
    """True or False."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"temper_after must be True or False, got {value!r}")
    return bool(value)


def check_top_k(teacher: TopK, rows: Rows) -> None:
    """Raise `ValueError` unless a `TopK` is of as many rows and classes."""
    width = rows.shape[rows.axis]
    if teacher.classes != width:
        raise ValueError(
            f"the TopK is of rows of {teacher.classes} classes, but {rows.name} has {width}; "
            "where those beyond the TopK's are padding, classes= leaves them out"
        )
    if teacher.batch_shape != tuple(rows.batch_shape):
        raise ValueError(
            f"the TopK has the batch shape {teacher.batch_shape} but {rows.name}, without its "
            f"classes, {tuple(rows.batch_shape)}"
        )


def check_no_rule(rule: Any, temper_after: Any) -> None:
    """Raise where an option for a `TopK` is given without one."""
    if rule is not None or temper_after is not False:
        raise ValueError("rule and temper_after apply where p is a kldiv.TopK")


@dataclass(slots=True)
class SparseRequest:
    """See `sparse_loss`."""

    loss: str
    parameter: float
    teacher: Flat
    rows: dict[str, Rows]
    student: str
    rule: str
    floor: float
    temperatures: tuple[float, float]
    temper_after: bool
    reducer: Reducer
    gradients_at_once: ClassVar[bool] = True
    # What a TopK holds cannot be written to.
    side_inputs: ClassVar[tuple[str, ...]] = ()
    spaces: ClassVar[tuple[str, ...]] = ("logits",)

    @property
    def default_wrt(self) -> str:
        """The student."""
        return self.student

    def call(self, grad_output: Array | None, outputs: Mapping[str, Operand]) -> Value:
        """Compute the value, and write the gradient asked for."""
        values: Value = _kldiv.sparse_loss(
            self.teacher,
            self.rows[self.student],
            self,
            self.reducer,
            grad_output,
            outputs.get(self.student),
        )
        return values
