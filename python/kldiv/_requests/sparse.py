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
    check_spaces(space, normalize, student)
    rows = as_rows(student, q, axis)
    if classes is not None:
        rows = first_classes(rows, classes)
    width = rows.shape[rows.axis]
    check_fits(teacher.classes, teacher.batch_shape, width, rows.batch_shape, student)
    return sparse_loss_of_flat(
        loss,
        parameter,
        teacher.flat(),
        teacher.values.dtype.name == "float64",
        student,
        rows,
        name,
        floor,
        pair_of("temperature", temperature, as_float),
        as_temper_after(temper_after),
        where,
        weights,
        reduction,
        denominator,
    )


def sparse_loss_of_flat(
    loss: str,
    parameter: float,
    teacher: Flat,
    wide: bool,
    student: str,
    rows: Rows,
    rule: str,
    floor: float,
    temperatures: tuple[float, float],
    temper_after: bool,
    where: Any,
    weights: Any,
    reduction: str,
    denominator: Any,
) -> SparseRequest:
    """The same of kept classes as the extension takes them; `wide` asks for values of float64."""
    dtype = np.dtype(np.float64 if wide or rows.dtype_name == "float64" else np.float32)
    reducer = Reducer.parse(rows, dtype, where, weights, reduction, denominator)
    return SparseRequest(
        loss,
        parameter,
        teacher,
        {student: rows},
        student,
        rule,
        floor,
        temperatures,
        temper_after,
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


def check_spaces(space: Any, normalize: Any, student: str) -> None:
    """Raise `ValueError` where another space than logits is given beside a `TopK`."""
    if pair_of("space", space, as_space)[1] != "logits" or normalize is not False:
        raise ValueError(
            f"a TopK says itself what it holds, and {student} holds logits beside it; space and "
            "normalize do not apply"
        )


def check_fits(
    classes: int, batch_shape: tuple[int, ...], width: int, shape: Any, student: str
) -> None:
    """Raise `ValueError` unless a `TopK` is of as many rows and classes as the student."""
    if classes != width:
        raise ValueError(
            f"the TopK is of rows of {classes} classes, but {student} has {width}; where those "
            "beyond the TopK's are padding, classes= leaves them out"
        )
    if tuple(batch_shape) != tuple(shape):
        raise ValueError(
            f"the TopK has the batch shape {tuple(batch_shape)} but {student}, without its "
            f"classes, {tuple(shape)}"
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
