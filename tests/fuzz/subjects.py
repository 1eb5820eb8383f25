"""The functions under test: what they take, and what is true of them. One line each.

A new function is a line in `SUBJECTS`: its arrays, its options, and its truth, which says with the
oracle what the value of a row is and its gradients.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from types import ModuleType
from typing import Any

import numpy as np

from kldiv._kldiv import DIVERGENCES
from kldiv.estimators import ESTIMATORS

from . import classes, estimators, kept, kept_sets, uld
from .case import Case, draw_rows
from .exact import oracle_for, wide
from .options import OPTIONS
from .truth import (
    Truth,
    comparison,
    cross_entropy,
    distillation,
    divergence,
    entropy,
    gather_log_probs,
    log_softmax,
    logsumexp,
    top_k,
)

SPACES = ("logits", "log_probs", "probs")


def _two_spaces(random: Random, case: Case) -> None:
    spaces = (random.choice(SPACES[:1] * 4 + SPACES),) * 2
    if random.random() < 0.15:
        spaces = random.choice(SPACES), random.choice(SPACES)
    draw_rows(random, case, ("p", "q"), spaces)
    if spaces != ("logits", "logits"):
        case.options["space"] = (
            spaces if random.random() < 0.5 or spaces[0] != spaces[1] else spaces[0]
        )


def _one_space(*names: str) -> Callable[[Random, Case], None]:
    def draw(random: Random, case: Case) -> None:
        space = random.choice(SPACES[:1] * 4 + SPACES)
        draw_rows(random, case, names, (space, "probs")[: len(names)])
        if space != "logits":
            case.options["space"] = space

    return draw


def _only_logits(*names: str) -> Callable[[Random, Case], None]:
    return lambda random, case: draw_rows(random, case, names, ("logits",) * len(names))


def _distillation(random: Random, case: Case) -> None:
    draw_rows(random, case, ("student_logits", "teacher_logits"), ("logits", "logits"))
    kind = random.choice(tuple(DIVERGENCES))
    if kind != "kl":
        case.options["divergence"] = kind
    case.options["batch"] = (case.shape[0],)


@dataclass(frozen=True)
class Subject:
    """A function of kldiv."""

    name: str
    draw: Callable[[Random, Case], None]
    truth: Callable[[ModuleType, str, dict[str, Any], dict[str, Any]], Truth]
    differentiable: tuple[str, ...]
    options: tuple[str, ...]
    pair: bool = False
    """Whether space and temperature may be pairs."""
    has_classes: bool = True
    """Whether rows have an axis of classes."""
    jax: float | None = None
    """The share of cases that JAX runs at once, where it computes something by itself; None where
    XLA calls the extension."""
    gives_classes: bool = False
    """Whether it gives a `TopK`, or refuses rows."""
    own_classes: bool = False
    """Whether each array has classes of its own."""

    def __repr__(self) -> str:
        return self.name


_CALL = ("isa", "front", "threads", "flush", "batch", "axis", "where")
_ROWS = (*_CALL, "weights", "reduction", "denominator", "wrt", "grad_output", "out", "layouts")
_PAIR = ("space", "temperature", *_ROWS)
_SAMPLED = tuple(option for option in _ROWS if option not in ("isa", "flush", "axis"))
_AS_CLASSES = ("temperature", "isa", "threads", "flush", "batch", "axis", "layouts")
_GATHERED = ("labels", "ignore_index", *_CALL, "wrt", "grad_output", "layouts")
_KEPT_SETS = ("temperature", "support", "top_k", "top_p", "min_p", "support_as", "return_mass")
_LOSS = ("space", "temperature", "label_smoothing", "class_weights", "z_loss", "softcap")
_P, _PQ, _Z, _LOGITS = ("p",), ("p", "q"), ("z",), ("logits",)


def _parameter_of(name: str) -> tuple[str, ...]:
    """What it is called, if there is one."""
    described = DIVERGENCES[name].parameter
    return () if described is None else (described.name,)


KEPT = ("kl", "reverse_kl", "jensen_shannon", "squared_hellinger")
"""Divergences from a teacher kept as top-k: what differs is what a rule makes of it."""

SUBJECTS = (
    *(
        Subject(name, _two_spaces, divergence, _PQ, (*_parameter_of(name), *_PAIR), pair=True)
        for name in DIVERGENCES
    ),
    *(
        Subject(name, kept.draw, top_k, ("q",), ("kept", "rule", "temperature", *_ROWS), pair=True)
        for name in KEPT
    ),
    Subject(
        "cross_entropy",
        _one_space("logits"),
        cross_entropy,
        _LOGITS,
        (*_LOSS, "labels", "ignore_index", *_ROWS),
    ),
    Subject(
        "cross_entropy",
        _one_space("logits", "targets"),
        cross_entropy,
        ("logits", "targets"),
        (*_LOSS, *_ROWS),
    ),
    Subject("entropy", _one_space("p"), entropy, _P, _PAIR),
    Subject("entropy", kept_sets.draw("p"), kept_sets.entropy, _P, (*_KEPT_SETS, *_ROWS), jax=0.04),
    Subject("logsumexp", _only_logits("z"), logsumexp, _Z, ("temperature", *_ROWS)),
    Subject(
        "log_softmax", _only_logits("z"), log_softmax, (), ("temperature", *_CALL, "out", "layouts")
    ),
    Subject(
        "compare",
        _only_logits("p", "q"),
        comparison,
        (),
        ("temperature", "labels", *_CALL, "layouts"),
    ),
    Subject(
        "gather_log_probs",
        _only_logits("z"),
        gather_log_probs,
        _Z,
        ("temperature", *_GATHERED),
    ),
    Subject(
        "gather_log_probs",
        kept_sets.draw("z"),
        kept_sets.gather_log_probs,
        _Z,
        (*_KEPT_SETS, *_GATHERED),
        jax=0.04,
    ),
    Subject(
        "uld",
        uld.draw,
        uld.truth,
        _PQ,
        ("id_map", "beta", "matched_weight", "unmatched_weight", "padding", "id_dtype", *_PAIR),
        pair=True,
        own_classes=True,
        jax=0.05,
    ),
    *(
        Subject(
            f"estimators.{name}",
            estimators.draw,
            estimators.truth,
            _PQ,
            ("straight_through", "clamp_log_ratio", "clamp", *_SAMPLED),
            has_classes=False,
            jax=0.04,
        )
        for name in ESTIMATORS
    ),
    Subject(
        "top_k", classes.draw_top_k, classes.top_k, (), ("k", *_AS_CLASSES), gives_classes=True
    ),
    Subject(
        "sample_k",
        classes.draw_sample_k,
        classes.sample_k,
        (),
        ("k", "seed", "first_row", "power", *_AS_CLASSES),
        gives_classes=True,
    ),
    Subject(
        "distillation_loss",
        _distillation,
        distillation,
        ("student_logits",),
        (
            "divergence",
            "beta",
            "order",
            "mu",
            "eta",
            "temperature",
            "scale_by_t_squared",
            "mix",
            "label_smoothing",
            "labels",
            "ignore_index",
            "isa",
            "front",
            "threads",
            "flush",
            "where",
            "weights",
            "reduction",
            "denominator",
            "wrt",
            "grad_output",
            "layouts",
            "inplace",
        ),
    ),
)


def truths(case: Case, row: int, *, arbiter: bool = False) -> Truth:
    """What is true of one row of a case."""
    subject = case.subject
    numbers = {name: tuple(rows[row].tolist()) for name, rows in case.rows.items()}
    if "labels" in case.options:
        numbers["label"] = int(case.options["labels"][row])
    if "first_row" in subject.options:
        numbers["number"] = row
    if "support" in case.options:
        numbers["support"] = case.options["support"][row]
    options = {
        name: tuple(value.tolist()) if isinstance(value, np.ndarray) else value
        for name, value in case.options.items()
        if name in OPTIONS and OPTIONS[name].of_numbers and name not in _OF_ROWS
    }
    options["wide"] = case.is_wide
    options["wide of p"] = case.dtype_of("p") == "float64"
    # Functions of one name may be several subjects.
    key = (subject.truth, subject.name, *numbers.items(), *options.items())
    if not arbiter and key in _known:
        return _known[key]
    o = oracle_for(_spread(case, row), arbiter=arbiter)
    truth = subject.truth(o, subject.name, numbers, options)
    _widen(case, row, truth, arbiter)
    if arbiter:
        return truth
    if len(_known) > 2000:
        _known.clear()
    _known[key] = truth
    return truth


def _widen(case: Case, row: int, truth: Truth, arbiter: bool) -> None:
    """Numbers of the oracle as longdoubles, gradients when they are asked for."""
    truth.value = wide(truth.value) if isinstance(truth.value, list) else wide([truth.value])[0]
    for field in (truth.fields or {}).values():
        field.value = wide([field.value])[0]
    if truth.mass is not None:
        _widen(case, row, truth.mass, arbiter)
    gradient, known = truth.gradient, {}

    def once(wrt: str) -> Any:
        if wrt not in known:
            # The precision may have been set for another row since.
            oracle_for(_spread(case, row), arbiter=arbiter)
            known[wrt] = wide(gradient(wrt))
        return known[wrt]

    truth.gradient = once


_OF_ROWS = ("dtypes", "labels", "support")
"""Options that `truths` takes apart."""
_known: dict[Any, Truth] = {}


def _spread(case: Case, row: int) -> float:
    """The largest exponent of a row, or how much smaller the value may be."""
    temperature = case.options.get("temperature", 1.0)
    both = temperature if isinstance(temperature, tuple) else (temperature, temperature)
    coldest, hottest = min(both), max(both)
    largest = 0.0
    for rows in case.rows.values():
        finite = [abs(x) for x in rows[row].tolist() if math.isfinite(x)]
        largest = max(largest, max(finite, default=0.0))
    return (
        largest
        / min(coldest, 1.0)
        # What is of second order in the differences at a high temperature.
        * max(hottest, 1.0) ** 2
        * max(1.0, *(abs(case.options.get(name, 1.0)) for name in ("alpha", "order", "power")))
    )
