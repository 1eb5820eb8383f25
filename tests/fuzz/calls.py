"""The arrays and options of a case as kldiv takes them, and the call from NumPy."""

from __future__ import annotations

import contextlib
import importlib
import operator
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import kldiv
from kldiv._kldiv import DIVERGENCES

from . import classes, kept, kept_sets
from .case import Case
from .contents import DTYPES
from .layouts import inside, lay, memory_of, shifted
from .options import OPTIONS

Array = np.ndarray[Any, Any]

_AS_KEYWORD = {"mix": "alpha"}
_SIDES = ("labels", "where", "weights", "class_weights", "grad_output")


@dataclass
class Outcome:
    """What a call gave."""

    value: Array | None = None
    gradients: dict[str, Array] = field(default_factory=dict)
    top_k: kldiv.TopK | None = None
    error: str = ""
    """Of a call that is to be refused, where nothing is written."""
    mass: Array | None = None
    """Of classes kept, where it was asked for."""
    mass_gradients: dict[str, Array] = field(default_factory=dict)
    fields: dict[str, Array] = field(default_factory=dict)
    """Of a function that gives several numbers a row."""
    refused: bool = False
    """Whether the call was refused as it may be, with everything left as it was."""
    complaint: str = ""
    """What is wrong beside the numbers."""


def is_refusal(error: ValueError) -> bool:
    """Whether an error says that two arrays overlap."""
    return any(word in str(error) for word in ("overlap", "memory", "share"))


def full_shape(case: Case, name: str | None = None) -> tuple[int, ...]:
    """The shape of rows as passed: of those of a name, or of the first."""
    shape = [*case.batch_shape]
    if not case.subject.has_classes:
        return tuple(shape)
    axis = case.axis
    at = axis if axis >= 0 else len(shape) + 1 + axis
    classes = case.shape[1] if name is None else case.rows[name].shape[1]
    shape.insert(at, classes + case.padding_of(name))
    return tuple(shape)


def arranged(case: Case, rows: Array) -> Array:
    """``[rows, classes]`` in the shape passed."""
    if not case.subject.has_classes:
        return rows.reshape(case.batch_shape)
    return np.ascontiguousarray(np.moveaxis(rows.reshape((*case.batch_shape, -1)), -1, case.axis))


def flat(case: Case, array: Array) -> Array:
    """Rows as passed, as ``[rows, classes]``."""
    if case.subject.has_classes:
        array = np.moveaxis(array, case.axis, -1)
    return array.reshape((case.shape[0], -1))


def padded(case: Case, name: str) -> Array:
    """Rows with what comes after their classes, which nothing is to look at."""
    rows, more = case.rows[name], case.padding_of(name)
    return np.concatenate([rows, np.full((len(rows), more), np.nan)], axis=1) if more else rows


def function_of(case: Case, module: Any) -> Any:
    """The function of a case in a module of one front end."""
    return operator.attrgetter(case.subject.name)(module)


@contextlib.contextmanager
def subnormals_kept(flush: bool) -> Iterator[None]:
    """Where the thread flushes subnormal numbers, keep them for as long as arrays are made."""
    if not flush:
        yield
        return
    torch = importlib.import_module("torch")
    torch.set_flush_denormal(False)
    yield
    torch.set_flush_denormal(True)


def arrays_of(case: Case) -> dict[str, Array]:
    """Every array of a case as NumPy passes it, but for overlaps."""
    found = {}
    with np.errstate(all="ignore"), subnormals_kept(case.flush):
        for name in case.rows:
            stored = padded(case, name).astype(DTYPES[case.dtype_of(name)])
            found[name] = lay(arranged(case, stored), case.layout_of(name))
    for name in _SIDES:
        value = case.options.get(name)
        if value is not None:
            if name != "class_weights" and value.ndim:
                value = value.reshape(case.batch_shape)
            found[name] = lay(value, case.layout_of(name))
    return found


def keywords_of(case: Case) -> dict[str, Any]:
    """Options that are passed by their names, arrays left out."""
    found = {}
    for name in case.subject.options:
        option = OPTIONS[name]
        value = case.options.get(name)
        if option.keyword and value is not None and not isinstance(value, np.ndarray):
            found[_AS_KEYWORD.get(name, name)] = value
    if case.id_map is not None:
        found["id_map"] = tuple(np.array(ids, case.id_dtype) for ids in case.id_map)
    if case.support is not None:
        found["support"] = kept_sets.support_of(case)
    if case.padding:
        found["classes"] = tuple(rows.shape[1] for rows in case.rows.values())
    required = [
        one.parameter.name
        for one in DIVERGENCES.values()
        if one.name == case.subject.name and one.parameter and one.parameter.default is None
    ]
    found |= {name: getattr(case, name) for name in required}
    ordered = [
        one.name
        for one in DIVERGENCES.values()
        if one.parameter and one.parameter.name == "alpha" and one.parameter.default is None
    ]
    if case.divergence in ordered:
        found["order"] = case.order
    if case.subject.name == "distillation_loss":
        described = DIVERGENCES[case.divergence].parameter
        for name, option in (("beta", "beta"), ("alpha", "order"), ("mu", "mu"), ("eta", "eta")):
            if described is None or described.name != name:
                found.pop(option, None)
    if case.subject.name == "distillation_loss" and "denominator" in found:
        found["num_items_in_batch"] = found.pop("denominator")
    if case.ignore_index == "none":
        found["ignore_index"] = None
    return found


def positional_of(case: Case) -> list[str]:
    """The names of the arguments that come first."""
    return [*case.rows, *(["labels"] if case.labels is not None else [])]


def with_numpy(case: Case) -> Outcome:
    arrays = arrays_of(case)
    outs = {name: _output(case, arrays, name) for name in (case.out or {})}
    before = [
        (array, array.copy(), memory_of(array)) for array in (*arrays.values(), *outs.values())
    ]
    function = function_of(case, kldiv)
    positional = kept.positional_of(case, arrays, positional_of(case))
    keywords = keywords_of(case)
    keywords.update(
        {name: arrays[name] for name in ("where", "weights", "class_weights") if name in arrays}
    )
    outcome = Outcome()
    try:
        if case.wrt is not None:
            given = tuple(outs.get(name) for name in case.wrt)
            single = len(case.wrt) == 1
            more: dict[str, Any] = {}
            if any(array is not None for array in given):
                more["out"] = given[0] if single else tuple(given)
            if "grad_output" in arrays:
                more["grad_output"] = arrays["grad_output"]
            wrt = case.wrt[0] if single else case.wrt
            value, gradients = kldiv.value_and_grad(
                function, *positional, wrt=wrt, **more, **keywords
            )
            outcome.gradients = dict(
                zip(case.wrt, (gradients,) if single else gradients, strict=True)
            )
        else:
            if "out" in outs:
                keywords["out"] = outs["out"]
            value = function(*positional, **keywords)
    except ValueError as error:
        if case.subject.gives_classes and classes.refusals(case):
            return Outcome(error=str(error))
        overlaps = any(isinstance(way, tuple) for way in (case.out or {}).values())
        if not overlaps or not is_refusal(error):
            raise
        outcome.refused = True
        if any(memory_of(array).tobytes() != memory.tobytes() for array, _, memory in before):
            outcome.complaint = "refused, but something was written"
        return outcome
    if case.subject.gives_classes:
        outcome.top_k = value
        outcome.complaint = classes.alone(case, function, keywords, value)
        value = value.values
    if case.return_mass:
        value, mass = value
        outcome.mass = np.array(mass)
    if case.subject.name == "compare":
        outcome.fields = {
            name: np.asarray(getattr(value, name))
            for name in vars(value)
            if name not in ("where", "labels", "extra") and getattr(value, name) is not None
        }
        value = value.kl
    outcome.value = np.array(value)
    if outs:
        for name, gradient in outcome.gradients.items():
            if name in outs and gradient is not outs[name]:
                outcome.complaint = "out is not what was returned"
        outcome.gradients = {name: np.array(g) for name, g in outcome.gradients.items()}
    for array, copy, _ in before:
        touched = any(np.may_share_memory(array, out) for out in outs.values())
        if not touched and array.tobytes() != copy.tobytes():
            outcome.complaint = "an input was changed"
    return outcome


def _output(case: Case, arrays: dict[str, Array], name: str) -> Array:
    """Where the gradient of `name` is to be written; may move an input into the same memory."""
    way = case.out[name]
    argument = name if name in arrays else next(iter(case.rows))
    given = arrays[argument]
    result = np.dtype(np.float64 if case.is_wide else np.float32)
    match way:
        case "in place":
            return given
        case "given as argument":
            return lay(
                np.full(given.shape, 7, given.dtype.newbyteorder("=")), case.layout_of("out")
            )
        case ("other", other):
            return arrays[other]
        case ("shifted", by):
            arrays[argument], out = shifted(given, by)
            return out
        case ("over", side, offset):
            out = np.full(given.shape, 7, result)
            moved = inside(arrays[side], out, offset)
            if moved is not None:
                arrays[side] = moved
            return out
    return lay(np.full(given.shape, 7, result), case.layout_of("out"))
