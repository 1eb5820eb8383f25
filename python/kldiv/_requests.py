"""Checked calls of the extension: what a public function was asked for, before it is computed."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, ParamSpec, Protocol, TypeVar

import numpy as np

from kldiv import _kldiv
from kldiv._arrays import (
    Array,
    Operand,
    Output,
    Rows,
    as_float,
    as_labels,
    as_rows,
    check_same_shape,
    floating_name,
    fresh_output,
    given_output,
    over_batch,
    result_dtype,
)

P = ParamSpec("P")
T = TypeVar("T")
Value = Array | np.floating[Any]
REDUCTIONS = ("none", "sum", "mean", "batchmean")
SPACES = ("logits", "log_probs", "probs")


class Request(Protocol):
    """A checked call."""

    rows: dict[str, Rows]
    """The arguments that have a gradient, by name."""
    default_wrt: ClassVar[str]
    gradients_at_once: ClassVar[bool]
    """Whether all gradients of a class are written after all that belongs to it was read."""
    reducer: Reducer

    def call(self, grad_output: Array | None, outputs: dict[str, Operand]) -> Value:
        """Compute the value, and write the gradients asked for."""
        ...


def differentiable(build: Callable[P, Request]) -> Callable[P, Value]:
    """Make a public function of one that builds a request.

    `value_and_grad` finds the request behind the function in its attribute ``request``.
    """

    @functools.wraps(build)
    def function(*args: P.args, **kwargs: P.kwargs) -> Value:
        return build(*args, **kwargs).call(None, {})

    function.request = build  # type: ignore[attr-defined]
    return function


@dataclass(slots=True)
class Reducer:
    """Masks, weights and the reduction, over the batch of `rows`."""

    rows: Rows
    where: Array | None
    weights: Array | None
    reduction: str
    denominator: float | None
    dtype: np.dtype[Any]

    @classmethod
    def parse(
        cls,
        rows: Rows,
        dtype: np.dtype[Any],
        where: Any,
        weights: Any,
        reduction: str,
        denominator: Any,
    ) -> Reducer:
        """Check what can be checked without reading a row."""
        if reduction not in REDUCTIONS:
            raise ValueError(f"reduction must be one of {', '.join(REDUCTIONS)}, got {reduction!r}")
        if reduction == "batchmean" and not rows.batch_shape:
            raise ValueError(
                f"reduction='batchmean' divides by the first batch axis, and {rows.name} of shape "
                f"{rows.shape} has none"
            )
        if denominator is not None:
            denominator = as_float("denominator", denominator)
        return cls(
            rows,
            None if where is None else over_batch("where", where, rows, np.bool_),
            None if weights is None else over_batch("weights", weights, rows, np.float64),
            reduction,
            denominator,
            dtype,
        )

    def options(self, grad_output: Array | None) -> tuple[Any, ...]:
        """As the extension takes them."""
        name = floating_name(self.dtype)
        return (self.where, self.weights, self.reduction, self.denominator, grad_output, name)

    def upstream(self, grad_output: Any) -> Array | None:
        """The upstream gradient, one number or one a row."""
        if grad_output is None:
            return None
        if self.reduction == "none":
            return over_batch("grad_output", grad_output, self.rows, np.float64)
        array = np.asarray(grad_output, dtype=np.float64)
        if array.ndim != 0:
            raise ValueError(
                f"grad_output has shape {array.shape}, but the result of "
                f"reduction={self.reduction!r} has shape ()"
            )
        return array.reshape(1)

    def wrap(self, result: Array | float) -> Value:
        """The result of the extension; a number in its dtype, as an array already is."""
        if isinstance(result, float):
            scalar: np.floating[Any] = self.dtype.type(result)
            return scalar
        return result


def pair_of(name: str, value: Any, check: Callable[[str, Any], T]) -> tuple[T, T]:
    """One thing for both sides, or a pair."""
    if isinstance(value, (tuple, list)):
        if len(value) != 2:
            raise ValueError(f"{name} is one value or a pair (for p and q), got {value!r}")
        return check(name, value[0]), check(name, value[1])
    one = check(name, value)
    return one, one


def as_space(name: str, value: Any) -> str:
    """One of `SPACES`."""
    if value not in SPACES:
        raise ValueError(f"{name} must be one of {', '.join(SPACES)}, got {value!r}")
    return str(value)


def sides_of(space: Any, temperature: Any) -> tuple[tuple[str, str], tuple[float, float]]:
    """Space and temperature of p and of q."""
    spaces = pair_of("space", space, as_space)
    temperatures = pair_of("temperature", temperature, as_float)
    if spaces != ("logits", "logits") and not isinstance(temperature, (tuple, list)):
        # One temperature is for those sides that have one.
        if "logits" not in spaces and temperatures[0] != 1.0:
            raise ValueError(f"temperature applies to logits only, and space is {space!r}")
        p_one, q_one = (
            one if side == "logits" else 1.0 for one, side in zip(temperatures, spaces, strict=True)
        )
        temperatures = p_one, q_one
    return spaces, temperatures


def divergence(
    kind: str,
    parameter: float,
    p: Any,
    q: Any,
    space: Any,
    temperature: Any,
    axis: int,
    where: Any,
    weights: Any,
    reduction: str,
    denominator: Any,
) -> DivergenceRequest:
    """A divergence of two arrays of rows."""
    p_rows, q_rows = as_rows("p", p, axis), as_rows("q", q, axis)
    check_same_shape(p_rows, q_rows)
    spaces, temperatures = sides_of(space, temperature)
    reducer = Reducer.parse(
        p_rows, result_dtype(p_rows, q_rows), where, weights, reduction, denominator
    )
    return DivergenceRequest(
        kind, parameter, {"p": p_rows, "q": q_rows}, spaces, temperatures, reducer
    )


@dataclass(slots=True)
class DivergenceRequest:
    """See `divergence`."""

    kind: str
    parameter: float
    rows: dict[str, Rows]
    spaces: tuple[str, str]
    temperatures: tuple[float, float]
    reducer: Reducer
    default_wrt: ClassVar[str] = "q"
    gradients_at_once: ClassVar[bool] = True

    def call(self, grad_output: Array | None, outputs: dict[str, Operand]) -> Value:
        """Compute the value, and write the gradients asked for."""
        values = _kldiv.divergence(
            self.kind,
            self.parameter,
            self.rows["p"].operand,
            self.rows["q"].operand,
            self.spaces,
            self.temperatures,
            self.reducer.options(grad_output),
            outputs.get("p"),
            outputs.get("q"),
        )
        return self.reducer.wrap(values)


@dataclass(slots=True)
class CrossEntropyRequest:
    """Cross-entropy with class indices (`labels`) or distributions (``rows["targets"]``)."""

    rows: dict[str, Rows]
    labels: Array | None
    ignore_index: int | None
    loss: tuple[Any, ...]
    reducer: Reducer
    default_wrt: ClassVar[str] = "logits"
    gradients_at_once: ClassVar[bool] = False

    def call(self, grad_output: Array | None, outputs: dict[str, Operand]) -> Value:
        """Compute the value, and write the gradients asked for."""
        targets = self.rows.get("targets")
        values = _kldiv.cross_entropy(
            self.rows["logits"].operand,
            self.labels,
            None if targets is None else targets.operand,
            self.ignore_index,
            self.loss,
            self.reducer.options(grad_output),
            outputs.get("logits"),
            outputs.get("targets"),
        )
        return self.reducer.wrap(values)


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
    rows = {"teacher": as_rows("teacher", teacher, -1), "student": as_rows("student", student, -1)}
    check_same_shape(rows["teacher"], rows["student"])
    return DistillationRequest(
        rows,
        None if labels is None else as_labels("labels", labels, rows["student"]),
        (
            kind,
            parameter,
            as_float("temperature", temperature),
            (divergence_weight, cross_entropy_weight),
            ignore_index,
            as_float("label_smoothing", label_smoothing),
        ),
        Reducer.parse(
            rows["student"], result_dtype(*rows.values()), where, weights, reduction, denominator
        ),
    )


@dataclass(slots=True)
class DistillationRequest:
    """See `distillation`."""

    rows: dict[str, Rows]
    labels: Array | None
    loss: tuple[Any, ...]
    reducer: Reducer
    default_wrt: ClassVar[str] = "student"
    gradients_at_once: ClassVar[bool] = False

    def call(self, grad_output: Array | None, outputs: dict[str, Operand]) -> Value:
        """Compute the value, and write the gradients asked for."""
        values = _kldiv.distillation(
            self.rows["teacher"].operand,
            self.rows["student"].operand,
            self.labels,
            self.loss,
            self.reducer.options(grad_output),
            outputs.get("teacher"),
            outputs.get("student"),
        )
        return self.reducer.wrap(values)


@dataclass(slots=True)
class EntropyRequest:
    """Entropy of rows in a space."""

    rows: dict[str, Rows]
    space: str
    temperature: float
    reducer: Reducer
    default_wrt: ClassVar[str] = "p"
    gradients_at_once: ClassVar[bool] = True

    def call(self, grad_output: Array | None, outputs: dict[str, Operand]) -> Value:
        """Compute the value, and write the gradient asked for."""
        options = self.reducer.options(grad_output)
        operand = self.rows["p"].operand
        values = _kldiv.entropy(operand, self.space, self.temperature, options, outputs.get("p"))
        return self.reducer.wrap(values)


@dataclass(slots=True)
class LogSumExpRequest:
    """Log-sum-exp of rows of logits."""

    rows: dict[str, Rows]
    temperature: float
    reducer: Reducer
    default_wrt: ClassVar[str] = "z"
    gradients_at_once: ClassVar[bool] = True

    def call(self, grad_output: Array | None, outputs: dict[str, Operand]) -> Value:
        """Compute the value, and write the gradient asked for."""
        options = self.reducer.options(grad_output)
        operand = self.rows["z"].operand
        return self.reducer.wrap(
            _kldiv.logsumexp(operand, self.temperature, options, outputs.get("z"))
        )


def value_and_grad(
    request: Request, wrt: Any, out: Any, grad_output: Any
) -> tuple[Value, Array | tuple[Array, ...]]:
    """Compute value and gradients of a request."""
    names = request.default_wrt if wrt is None else wrt
    single = isinstance(names, str)
    wanted: tuple[str, ...] = (names,) if single else tuple(names)
    distinct = set(wanted)
    if not wanted or len(distinct) != len(wanted) or not distinct <= request.rows.keys():
        known = ", ".join(repr(name) for name in request.rows)
        raise ValueError(f"wrt must be one or several of {known}, got {wrt!r}")
    outs: tuple[Any, ...] = (out,)
    if not single:
        outs = (None,) * len(wanted) if out is None else tuple(out)
    if len(outs) != len(wanted):
        raise ValueError(
            f"out has {len(outs)} arrays for the {len(wanted)} gradients of wrt={wrt!r}"
        )
    upstream = request.reducer.upstream(grad_output)
    outputs: dict[str, Output] = {}
    for name, given in zip(wanted, outs, strict=True):
        rows = request.rows[name]
        if given is None:
            outputs[name] = fresh_output(rows, request.reducer.dtype)
        else:
            in_place = request.gradients_at_once or len(wanted) == 1
            inputs = list(request.rows.values())
            dtype = request.reducer.dtype
            outputs[name] = given_output("out", given, rows, dtype, inputs, in_place)
    if len(outputs) == 2:
        _check_distinct(*outputs.values())
    value = request.call(upstream, {name: output.operand for name, output in outputs.items()})
    gradients = tuple(output.finish() for output in outputs.values())
    return value, gradients[0] if single else gradients


def _check_distinct(first: Output, second: Output) -> None:
    if np.may_share_memory(first.array, second.array):
        raise ValueError("the two arrays of out overlap in memory")
