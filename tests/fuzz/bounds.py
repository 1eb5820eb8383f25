"""What a call may give: the documented bounds of docs/numerics.md around the exact values."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace
from typing import Any

import ml_dtypes
import numpy as np

import kldiv

from . import classes
from .calls import Outcome, flat, full_shape
from .case import Case
from .exact import wide as wide_numbers
from .roundings import EPS
from .subjects import truths
from .truth import Truth

Array = np.ndarray[Any, Any]

BOUND = {True: 1e-13, False: 1e-6}
"""Relative, of float64 results and of others."""
LEAST = {True: 1e-24, False: 1e-12}
"""Values below it count as this large; for what is of first order, and gradients, its root does."""
FORMULA = {True: 2e-12, False: 2e-4}
"""Of formulas in torch operations, relative to the sum of absolute terms."""
RELATIVE = 4e-15
"""Of numbers that are made of one or two others in float64."""
ROUNDINGS = 8 * EPS
TERMS = 8.0
"""Roundings of float64, of the terms that a gradient of logits is the difference of."""


@dataclass
class Find:
    """What is wrong with a call."""

    kind: str
    got: Any
    expected: Any
    allowed: Any = None

    def __str__(self) -> str:
        """In one line."""
        text = f"{self.kind}: got {_shown(self.got)}, expected {_shown(self.expected)}"
        return text if self.allowed is None else f"{text}, allowed error {_shown(self.allowed)}"


def _shown(x: Any) -> str:
    if isinstance(x, np.ndarray):
        return "[" + ", ".join(_shown(v) for v in x.ravel()[:12]) + ("…]" if x.size > 12 else "]")
    return x if isinstance(x, str) else f"{x:.17g}"


def check(case: Case, outcome: Outcome, *, arbiter: bool = False) -> Find | None:
    """What is wrong with an outcome, or None."""
    if outcome.complaint:
        return Find("memory", outcome.complaint, "nothing but the gradient to be written")
    if outcome.refused:
        return None
    if case.subject.gives_classes and (refusals := classes.refusals(case)):
        fits = any(words in outcome.error for words in refusals)
        return None if fits else Find("no error", outcome.error, " or ".join(refusals))
    with np.errstate(all="ignore"):
        return _check(case, outcome, arbiter)


def _check(case: Case, outcome: Outcome, arbiter: bool) -> Find | None:
    count = case.shape[0]
    wide = case.is_wide
    weights = _weights(case)
    kept = [row for row in range(count) if weights[row] != 0]
    known = {row: truths(case, row, arbiter=arbiter) for row in kept}
    if any(truth.undecided.get(case.front) for truth in known.values()):
        return None
    divisor = _divisor(case, kept, weights)
    value = outcome.value
    name = "float64" if wide else "float32"
    if value.dtype.name != name and not (case.subject.name == "log_softmax" and case.out):
        return Find("dtype of the value", value.dtype.name, name)
    if outcome.top_k is not None:
        return _classes(case, outcome.top_k, known)
    if outcome.fields:
        return _fields(case, outcome, known)
    if case.subject.name == "log_softmax":
        return _log_softmax(case, outcome, known)
    shape = case.batch_shape if case.reduction == "none" else ()
    if value.shape != shape:
        return Find("shape of the value", str(value.shape), str(shape))
    if divisor == 0 and kept:
        return None
    expected, allowed = np.zeros(count, np.longdouble), np.zeros(count, np.longdouble)
    for row, truth in known.items():
        factor = weights[row] / divisor
        expected[row] = truth.value * factor
        allowed[row] = _value_bound(case, truth) * factor
    if case.reduction != "none":
        expected, allowed = expected.sum(keepdims=True), allowed.sum(keepdims=True)
    got = value.astype(np.longdouble).reshape(expected.shape)
    wrong = _wrong(got, expected, allowed, value.dtype)
    if wrong.any():
        return Find(_kind("value", got, expected, wrong), got, expected, allowed)
    if (
        case.front != "torch.func"
        and known
        and all(t.never_negative for t in known.values())
        and (got < 0).any()
    ):
        return Find("value below 0", got, expected)
    upstream = np.ones(count, np.longdouble)
    if case.grad_output is not None:
        upstream = upstream * case.grad_output.astype(np.longdouble)
    factors = weights / (divisor or 1), upstream
    return _gradients(case, outcome.gradients, known, *factors) or _mass(case, outcome, known)


def _mass(case: Case, outcome: Outcome, known: dict[int, Truth]) -> Find | None:
    """The probability of the classes kept, of every row whatever the reduction."""
    if outcome.mass is None:
        return None
    if outcome.mass.shape != case.batch_shape or outcome.mass.dtype != outcome.value.dtype:
        return Find("shape or dtype of the mass", str(outcome.mass.shape), str(case.batch_shape))
    masses = {row: truth.mass for row, truth in known.items() if truth.mass is not None}
    expected, allowed = np.zeros((2, case.shape[0]), np.longdouble)
    for row, truth in masses.items():
        expected[row], allowed[row] = truth.value, _value_bound(case, truth)
    got = outcome.mass.reshape(-1).astype(np.longdouble)
    wrong = _wrong(got, expected, allowed, outcome.mass.dtype)
    if wrong.any():
        return Find(_kind("mass", got, expected, wrong), got, expected, allowed)
    ones = np.ones(case.shape[0], np.longdouble)
    found = _gradients(case, outcome.mass_gradients, masses, ones, ones)
    return found and replace(found, kind=f"mass, {found.kind}")


def _kind(what: str, got: Array, expected: Array, wrong: Array) -> str:
    g, e = got[wrong][0], expected[wrong][0]
    for number, word in ((g, "gives"), (e, "misses")):
        for test, name in ((np.isnan, "NaN"), (np.isinf, "inf")):
            if test(number):
                return f"{what} {word} {name}"
    return what


def _wrong(got: Array, expected: Array, allowed: Array, dtype: Any, before: float = 1.0) -> Array:
    """Where a result is off, its own rounding and overflow apart.

    `before` is how many times as large a result was on the way.
    """
    eps, smallest, largest = _limits(dtype)
    finite = np.isfinite(expected)
    size = np.where(finite, np.abs(expected), 0)
    fine = finite & (np.abs(got - expected) <= allowed + (2 * eps * size + smallest))
    wrong = ~(fine | (got == expected) | (np.isnan(got) & np.isnan(expected)))
    if wrong.any():
        # A factor that was multiplied first may have overflowed.
        beyond = (np.abs(expected) + allowed) * before >= largest / 16
        signed = (np.sign(got) == np.sign(expected)) | (allowed >= largest / 16)
        wrong &= ~(beyond & np.isinf(got) & signed)
    return wrong


@functools.lru_cache
def _limits(dtype: Any) -> tuple[float, float, float]:
    info = ml_dtypes.finfo(dtype)
    return float(info.eps), float(info.smallest_subnormal), float(info.max)


def _weights(case: Case) -> Array:
    """The weight of every row, 0 for those left out."""
    count = case.shape[0]
    weights = np.ones(count, np.longdouble)
    if case.weights is not None:
        weights = weights * case.weights.astype(np.longdouble)
    if case.where is not None:
        weights = weights * (case.where != 0)
    if case.labels is not None and case.ignore_index != "none":
        ignored = [int(label) == case.ignore_index for label in case.labels]
        weights = np.where(ignored, 0, weights)
    return weights


def _divisor(case: Case, kept: list[int], weights: Array) -> Any:
    if case.reduction == "batchmean":
        return np.longdouble(case.batch_shape[0])
    if case.reduction != "mean":
        return np.longdouble(1)
    if case.denominator is not None:
        return np.longdouble(case.denominator)
    shares = np.ones(case.shape[0], np.longdouble)
    if case.class_weights is not None and case.labels is not None:
        per_class = case.class_weights.astype(np.longdouble)
        per_class = np.broadcast_to(per_class, case.shape[1])
        for row in kept:
            shares[row] = per_class[int(case.labels[row])]
    return (weights * shares)[kept].sum()


def _value_bound(case: Case, truth: Truth) -> Any:
    wide = case.is_wide or case.front in truth.in_float64
    size = np.abs(truth.value) if np.isfinite(truth.value) else np.longdouble(0)
    if truth.of_few and case.front in truth.in_float64:
        return RELATIVE * size + _of_difference(case, truth, 0) + ROUNDINGS * truth.rounding
    if case.front == "torch.func":
        return (
            FORMULA[wide] * (size + truth.conditioning() * _stretch(case))
            + ROUNDINGS * truth.rounding
        )
    least = math.sqrt(LEAST[wide]) if truth.first_order else LEAST[wide]
    return (
        BOUND[wide] * (max(size, truth.least or least) + truth.relative)
        + ROUNDINGS * truth.rounding
        + _of_difference(case, truth, 0)
    )


def _of_difference(case: Case, truth: Truth, part: int) -> Any:
    """What the rounding of a difference makes of value or gradient, and underflow."""
    wide = case.is_wide or case.front in truth.in_float64
    return 2 * _limits(np.dtype("float64" if wide else "float32"))[0] * _longdouble(
        truth.of_difference[part]
    ) + np.longdouble(1e-323)


def _longdouble(x: Any) -> Any:
    """A number of the oracle; one that no double holds is infinite."""
    return wide_numbers([x])[0]


def _stretch(case: Case) -> float:
    """How large numbers are when torch subtracts them."""
    temperature = case.options.get("temperature", 1.0)
    coldest = min(temperature) if isinstance(temperature, tuple) else temperature
    largest = max(
        (float(np.abs(r[np.isfinite(r)]).max(initial=0)) for r in case.rows.values()), default=0
    )
    return 1 + largest / min(coldest, 1.0)


def _gradients(
    case: Case,
    gradients: dict[str, Array],
    known: dict[int, Truth],
    factors: Array,
    upstream: Array,
) -> Find | None:
    for name, gradient in gradients.items():
        wanted = _gradient_dtypes(case, name)
        if gradient.dtype.name not in wanted:
            return Find(f"dtype of the gradient {name}", gradient.dtype.name, " or ".join(wanted))
        shape = full_shape(case, name)
        if gradient.shape != shape:
            return Find(f"shape of the gradient {name}", str(gradient.shape), str(shape))
        rows = flat(case, gradient).astype(np.longdouble)
        rows, padding = np.split(rows, [case.rows[name].shape[1]], axis=1)
        if padding.any():
            return Find(f"gradient {name} of padding", padding, np.zeros(padding.shape))
        for row, got in enumerate(rows):
            if row not in known:
                if got.any():
                    return Find(f"gradient {name} of a row left out", got, np.zeros(len(got)))
                continue
            given = factors[row], upstream[row]
            found = _gradient_row(case, known[row], name, got, *given, gradient.dtype)
            if found is not None:
                return found
    return None


def _gradient_row(
    case: Case, truth: Truth, name: str, got: Array, weight: Any, upstream: Any, dtype: Any
) -> Find | None:
    factor = weight * upstream
    wide = case.is_wide or case.front in truth.in_float64
    expected = truth.gradient(name)
    finite = np.isfinite(expected)
    if factor == 0 and not finite.all():
        return None
    norm = np.sqrt(np.square(np.where(finite, expected, 0)).sum())
    scale = truth.scale(name)
    if truth.of_few and case.front in truth.in_float64:
        bound = RELATIVE * norm + _of_difference(case, truth, 1)
    elif case.front == "torch.func":
        terms = truth.formula_terms(name)
        if max(norm, terms) >= _limits(dtype)[2] / 16:
            # Formulas make NaN of what is beyond the range of their dtype.
            return None
        bound = FORMULA[wide] * (norm + terms + scale * truth.conditioning() * _stretch(case))
    else:
        least = math.sqrt(LEAST[wide]) * scale
        bound = BOUND[wide] * (max(norm, least) + truth.gradient_relative)
        if TERMS:
            bound += TERMS * EPS * truth.terms(name)
        bound += _of_difference(case, truth, 1)
    rounded = truth.gradient_rounding(name)
    if case.front == "torch.func":
        rounded = rounded + truth.formula_rounding(name)
    more = ROUNDINGS * rounded * np.abs(factor)
    if case.front in ("torch", "jax") and dtype.name != "float16":
        # Stored before it is multiplied by the upstream gradient, perhaps as a subnormal number.
        more = more + _limits(dtype)[1] * np.abs(upstream)
    bound, expected = bound * np.abs(factor), expected * factor
    # Slopes before they are multiplied; torch stores them before it knows the upstream gradient.
    before = max(1.0, 1 / abs(factor)) if factor else 1.0
    wrong = _wrong(got, expected, bound + more, dtype, before)
    if not wrong.any():
        eps, smallest, _ = _limits(dtype)
        room = 2 * eps * np.abs(expected) + smallest
        both = np.isfinite(got) & np.isfinite(expected)
        excess = np.where(both, np.abs(got - expected) - room - more, 0)
        if np.sqrt(np.square(np.maximum(excess, 0)).sum()) <= bound:
            return None
        wrong = excess > 0
    return Find(_kind(f"gradient {name}", got, expected, wrong), got, expected, bound)


def _gradient_dtypes(case: Case, name: str) -> tuple[str, ...]:
    result = "float64" if case.is_wide else "float32"
    if case.front != "numpy":
        return (case.dtype_of(name),)
    way = (case.out or {}).get(name)
    if way in ("given as argument", "in place") or (
        isinstance(way, tuple) and way[0] in ("other", "shifted")
    ):
        return (case.dtype_of(name),)
    return (result,)


def _log_softmax(case: Case, outcome: Outcome, known: dict[int, Truth]) -> Find | None:
    rows = flat(case, outcome.value).astype(np.longdouble)
    for row, got in enumerate(rows):
        if row not in known:
            if got.any():
                return Find("value of a row left out", got, np.zeros(len(got)))
            continue
        expected = known[row].value
        size = np.where(np.isfinite(expected), np.abs(expected), 0)
        allowed = BOUND[case.is_wide] * np.maximum(size, LEAST[case.is_wide])
        if case.front == "torch.func":
            allowed = FORMULA[case.is_wide] * (size + _stretch(case))
        wrong = _wrong(got, expected, allowed, outcome.value.dtype)
        if wrong.any():
            return Find(_kind("value", got, expected, wrong), got, expected, allowed)
    return None


def _classes(case: Case, found: kldiv.TopK, known: dict[int, Truth]) -> Find | None:
    counts = [len(truth.classes[0]) for truth in known.values() if truth.classes is not None]
    ragged = case.subject.name == "sample_k" or any(count < case.k for count in counts)
    shape = (case.shape[0],) if ragged else case.batch_shape
    if found.batch_shape != shape or (found.offsets is None) is ragged:
        return Find("shape of the batch", str(found.batch_shape), str(shape))
    if found.counts.reshape(-1).tolist() != counts:
        return Find("numbers of classes", found.counts.astype(float), np.array(counts, float))
    # What anyone may make by hand.
    arrays = {"offsets": found.offsets, "weights": found.weights}
    if found != kldiv.TopK(found.ids, found.values, classes=case.shape[1], **arrays):
        return Find("what is kept", repr(found), "the same of its own arrays")
    wide, begins = case.is_wide, found.begins
    for row, truth in known.items():
        part = slice(begins[row], begins[row + 1])
        assert truth.classes is not None
        ids, weights = truth.classes
        if found.ids.reshape(-1)[part].tolist() != ids:
            return Find("ids", found.ids.reshape(-1)[part].astype(float), np.array(ids, float))
        expected = np.array(truth.value)[ids]
        allowed = BOUND[wide] * np.maximum(np.abs(expected), LEAST[wide])
        got = found.values.reshape(-1)[part].astype(np.longdouble)
        if _wrong(got, expected, allowed, found.values.dtype).any():
            return Find("log-probabilities", got, expected, allowed)
        if found.weights is None:
            continue
        got, expected = found.weights[part].astype(np.longdouble), np.array(weights, np.longdouble)
        # Quotients of exponentials.
        exponents = np.abs(np.array(truth.value)[ids]) * (1 + case.options.get("power", 1.0))
        allowed = expected * (BOUND[wide] * (1 + exponents))
        if _wrong(got, expected, allowed, found.weights.dtype).any():
            return Find("weights", got, expected, allowed)
    return None


def _fields(case: Case, outcome: Outcome, known: dict[int, Truth]) -> Find | None:
    count = case.shape[0]
    for name, values in outcome.fields.items():
        if values.shape != case.batch_shape:
            return Find(f"shape of {name}", str(values.shape), str(case.batch_shape))
        got = values.reshape(-1).astype(np.longdouble)
        expected, allowed = np.zeros(count, np.longdouble), np.zeros(count, np.longdouble)
        if name.startswith("top1"):
            expected -= 1
        for row, truth in known.items():
            field = (truth.fields or {}).get(name)
            if field is not None:
                expected[row], allowed[row] = field.value, _value_bound(case, field)
            elif not np.isnan((truth.fields or {})["kl"].value):
                expected[row] = np.argmax(case.rows[name[-1]][row])
        dtype = values.dtype if values.dtype.kind == "f" else np.dtype(np.float64)
        wrong = _wrong(got, expected, allowed, dtype)
        if wrong.any():
            return Find(_kind(name, got, expected, wrong), got, expected, allowed)
    return None
