"""Checked calls of the extension: what a public function was asked for, before it is computed."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, ParamSpec, Protocol, TypeVar

import numpy as np

from kldiv import _kldiv
from kldiv._arrays import (
    Array,
    Operand,
    Rows,
    as_float,
    as_rows,
    check_same_shape,
    result_dtype,
)
from kldiv._kldiv import DIVERGENCES
from kldiv._outputs import Output, apart, check_distinct, fresh_output, given_output, overlap
from kldiv._probabilities import (
    NegativeProbabilityWarning,
    check_logits,
    negative_probability,
    warn_once,
    was_shown,
)
from kldiv._reducer import Reducer, Value
from kldiv._side_inputs import as_class_index, as_labels, check_beyond
from kldiv._signatures import show

Space = str | tuple[str, str]
Temperature = float | tuple[float, float]

P = ParamSpec("P")
T = TypeVar("T")
SPACES = ("logits", "log_probs", "probs")
ENDPOINTS = ("formula", "trl")
"""Rules for what Jensen–Shannon is at the weights 0 and 1: 0, or `kl` and `reverse_kl`."""
PROBABILITIES = frozenset({"probs", "unnormalized"})
"""What the extension calls spaces of numbers that are no logarithms."""


class Request(Protocol):
    """A checked call."""

    rows: dict[str, Rows]
    """The arguments that have a gradient, by name."""

    @property
    def spaces(self) -> tuple[str, ...]:
        """What the numbers of `rows` are, in their order."""
        ...

    default_wrt: ClassVar[str]
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


def differentiable(build: Callable[P, Request]) -> Callable[P, Value]:
    """Make a public function of one that builds a request.

    `value_and_grad` finds the request behind the function in its attribute ``request``. What is
    shown of the function is its own signature, of a value.
    """

    @functools.wraps(build)
    def function(*args: P.args, **kwargs: P.kwargs) -> Value:
        request = build(*args, **kwargs)
        check_logits(request.rows, request.spaces)
        return request.call(None, {})

    function.request = build  # type: ignore[attr-defined]
    return show(function, inspect.signature(build).replace(return_annotation="Value"))


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
    if space == "logits" and type(temperature) is float:
        return ("logits", "logits"), (temperature, temperature)
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


def normalized(space: str, normalize: Any) -> str:
    """What the extension calls the numbers of a space, taken as given or divided by their sum."""
    if normalize is False:
        return space
    if not isinstance(normalize, (bool, np.bool_)):
        raise TypeError(f"normalize must be True or False, got {normalize!r}")
    # Log-probabilities that are normalised are what logits are.
    return (
        {"log_probs": "logits", "probs": "unnormalized"}.get(space, space) if normalize else space
    )


def at_endpoints(beta: Any, endpoints: Any) -> str:
    """The name of the divergence that Jensen–Shannon with a weight is, by a rule for 0 and 1."""
    if endpoints not in ENDPOINTS:
        raise ValueError(f"endpoints must be one of {', '.join(ENDPOINTS)}, got {endpoints!r}")
    if endpoints == "trl" and beta == 0.0:
        return "kl"
    if endpoints == "trl" and beta == 1.0:
        return "reverse_kl"
    return "jensen_shannon"


def divergence(
    kind: str,
    parameter: Any,
    p: Any,
    q: Any,
    space: Any,
    normalize: Any,
    temperature: Any,
    axis: int,
    where: Any,
    weights: Any,
    reduction: str,
    denominator: Any,
) -> DivergenceRequest:
    """A divergence of two arrays of rows; its parameter is `None` where it has none."""
    described = DIVERGENCES[kind].parameter
    parameter = 0.0 if described is None else as_float(described.name, parameter)
    (p_space, q_space), temperatures = sides_of(space, temperature)
    spaces = normalized(p_space, normalize), normalized(q_space, normalize)
    return divergence_of_sides(
        kind, parameter, p, q, spaces, temperatures, axis, where, weights, reduction, denominator
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
) -> DivergenceRequest:
    """A divergence of two arrays of rows, whose spaces are named as the extension names them."""
    p_rows, q_rows = as_rows("p", p, axis), as_rows("q", q, axis)
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


def differentiate(
    request: Request, wrt: Any, out: Any, grad_output: Any
) -> tuple[Value, Array | tuple[Array, ...]]:
    """Compute value and gradients of a request."""
    names = request.default_wrt if wrt is None else wrt
    single = isinstance(names, str)
    try:
        wanted: tuple[str, ...] = (names,) if single else tuple(names)
        distinct = set(wanted)
    except TypeError:
        # No names, and refused as such.
        wanted, distinct = (), set()
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
    memory: dict[str, Array] = {}
    for name, given in zip(wanted, outs, strict=True):
        rows = request.rows[name]
        dtype = request.reducer.dtype
        if given is None:
            outputs[name] = fresh_output(rows, dtype)
        else:
            in_place = request.gradients_at_once or len(wanted) == 1
            inputs = request.rows.values()
            outputs[name] = given_output("out", given, rows, dtype, inputs, in_place)
            memory[name] = outputs[name].array
    if memory:
        check_distinct(memory)
        upstream = separate(request, upstream, memory.values())
    value = request.call(upstream, outputs)
    gradients = tuple(output.finish() for output in outputs.values())
    return value, gradients[0] if single else gradients


def separate(request: Request, upstream: Array | None, outputs: Collection[Array]) -> Array | None:
    """Give a request copies of what it reads beside the rows, where outputs share its memory.

    The upstream gradient is returned.
    """
    reducer = request.reducer
    reducer.where = apart(reducer.where, outputs)
    reducer.weights = apart(reducer.weights, outputs)
    for name in request.side_inputs:
        setattr(request, name, apart(getattr(request, name), outputs))
    return apart(upstream, outputs)


def check_probabilities(
    request: Request,
    values: Value,
    outputs: Mapping[str, Operand],
    ignored: Array | None = None,
) -> None:
    """Warn of the first negative probability, if any made a value NaN.

    Rows that a gradient has overwritten are not looked at.
    """
    if was_shown(NegativeProbabilityWarning):
        return
    if not (np.isnan(values).any() if isinstance(values, np.ndarray) else values != values):
        return
    kept = request.reducer.kept()
    if ignored is not None:
        kept = ~ignored if kept is None else kept & ~ignored
    for (name, rows), space in zip(request.rows.items(), request.spaces, strict=True):
        memory, others = rows.memory, outputs.values()
        if space not in PROBABILITIES or any(overlap(memory, out.memory) for out in others):
            continue
        if warn_of_negative(name, memory, kept):
            return


def warn_of_negative(name: str, operand: Array, kept: Array | None) -> bool:
    """Warn of the first negative probability of the rows kept; whether there is one."""
    if (found := negative_probability(operand, kept)) is None:
        return False
    row, number = found
    where = f" in row {row[0] if len(row) == 1 else row}" if row else ""
    warn_once(
        NegativeProbabilityWarning,
        f"{name} holds the negative probability {number:g}{where}, whose result is NaN: "
        'pass space="logits" or "log_probs" if these are such',
    )
    return True
