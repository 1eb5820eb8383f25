"""Divergences of two arrays of rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from kldiv import _kldiv
from kldiv._arrays import (
    Array,
    Operand,
    Rows,
    as_float,
    as_rows,
    check_same_shape,
    first_classes,
    result_dtype,
)
from kldiv._kldiv import DIVERGENCES
from kldiv._reducer import Reducer, Value
from kldiv._requests.negative import PROBABILITIES, check_probabilities
from kldiv._requests.options import normalized, sides_of
from kldiv._requests.sparse import SparseRequest, check_no_rule, sparse_loss
from kldiv._top_k import TopK


def divergence(
    kind: str,
    parameter: Any,
    p: Any,
    q: Any,
    space: Any,
    normalize: Any,
    temperature: Any,
    axis: int,
    classes: Any,
    where: Any,
    weights: Any,
    reduction: str,
    denominator: Any,
    rule: Any,
    temper_after: Any,
) -> DivergenceRequest | SparseRequest:
    """A divergence of two arrays of rows, or from a `TopK`; its parameter may be `None`."""
    described = DIVERGENCES[kind].parameter
    parameter = 0.0 if described is None else as_float(described.name, parameter)
    if type(p) is TopK:
        return sparse_loss(
            kind,
            parameter,
            p,
            "q",
            q,
            rule,
            temper_after,
            space,
            normalize,
            temperature,
            axis,
            classes,
            where,
            weights,
            reduction,
            denominator,
        )
    if rule is not None or temper_after is not False:
        check_no_rule(rule, temper_after)
    (p_space, q_space), temperatures = sides_of(space, temperature)
    spaces = normalized(p_space, normalize), normalized(q_space, normalize)
    return divergence_of_sides(
        kind,
        parameter,
        p,
        q,
        spaces,
        temperatures,
        axis,
        where,
        weights,
        reduction,
        denominator,
        classes,
    )


def divergence_of_sides(
    kind: str,
    parameter: float,
    p: Any,
    q: Any,
    spaces: tuple[str, str],
    temperatures: tuple[float, float],
    axis: int,
    where: Any,
    weights: Any,
    reduction: str,
    denominator: Any,
    classes: Any = None,
) -> DivergenceRequest:
    """A divergence of two arrays of rows, whose spaces are named as the extension names them."""
    p_rows, q_rows = as_rows("p", p, axis), as_rows("q", q, axis)
    if classes is not None:
        p_rows, q_rows = first_classes(p_rows, classes), first_classes(q_rows, classes)
    check_same_shape(p_rows, q_rows)
    reducer = Reducer.parse(
        p_rows, result_dtype(p_rows, q_rows), where, weights, reduction, denominator
    )
    return DivergenceRequest(
        kind, parameter, {"p": p_rows, "q": q_rows}, spaces, temperatures, reducer
    )


@dataclass(slots=True)
class DivergenceRequest:
    """See `divergence_of_sides`."""

    kind: str
    parameter: float
    rows: dict[str, Rows]
    spaces: tuple[str, str]
    temperatures: tuple[float, float]
    reducer: Reducer
    default_wrt: ClassVar[str] = "q"
    gradients_at_once: ClassVar[bool] = True
    side_inputs: ClassVar[tuple[str, ...]] = ()

    def call(self, grad_output: Array | None, outputs: Mapping[str, Operand]) -> Value:
        """Compute the value, and write the gradients asked for."""
        values: Value = _kldiv.divergence(
            self.kind,
            self.parameter,
            self.rows["p"],
            self.rows["q"],
            self.spaces,
            self.temperatures,
            self.reducer,
            grad_output,
            outputs.get("p"),
            outputs.get("q"),
        )
        if not PROBABILITIES.isdisjoint(self.spaces):
            check_probabilities(self, values, outputs)
        return values
