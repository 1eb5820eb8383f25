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

from . import contents
from .case import Case, draw_rows
from .exact import oracle_for, wide

SPACES = ("logits", "log_probs", "probs")
EPS = float(np.finfo(np.float64).eps)


@dataclass
class Truth:
    """What one row should give, and how far off it may be beyond the bound of its dtype."""

    value: Any
    gradient: Callable[[str], Any] = lambda _: np.zeros(0)
    least: float | None = None
    """The value counts as this large when its error is made relative; else by its dtype."""
    first_order: bool = False
    """Whether the value is of first order where rows are close, as gradients are."""
    rounding: float = 0.0
    """Of the value: what is rounded in f64 although the value may be small."""
    gradient_rounding: Callable[[str], Any] = lambda _: 0.0
    relative: float = 0.0
    """Of the value: parts whose own relative error is bounded."""
    gradient_relative: float = 0.0
    conditioning: Callable[[], float] = lambda: 1.0
    """What formulas in torch operations multiply their rounding by."""
    scale: Callable[[str], float] = lambda _: 1.0
    """What gradients are multiplied by, from which small ones count as 0."""
    never_negative: bool = False


def divergence(o: ModuleType, name: str, row: dict[str, Any], options: dict[str, Any]) -> Truth:
    """A divergence of two rows."""
    p, q = row["p"], row["q"]
    sides = {k: options[k] for k in ("space", "temperature") if k in options}
    parameter = {k: options[k] for k in ("beta", "alpha") if k in options}
    if name == "jensen_shannon":
        parameter.setdefault("beta", 0.5)
    value = o.divergence(name, p, q, **sides, **parameter)
    spaces, temperatures = o._pair(options.get("space", "logits")), o._pair(options.get("temperature", 1))
    truth = Truth(value, first_order=name == "total_variation")
    truth.gradient = lambda wrt: o.gradient(name, p, q, wrt, **sides, **parameter)
    truth.scale = lambda wrt: 1 / temperatures["pq".index(wrt)] if spaces["pq".index(wrt)] == "logits" else 1.0
    given = spaces != ("logits", "logits")
    order = abs(parameter["alpha"] - 1) if name == "renyi" and parameter["alpha"] != 1 else 1.0
    truth.never_negative = not given
    if o.mp.isnan(value):
        return truth
    a, b = (
        o.probabilities(r, space=s, temperature=t)
        for r, s, t in zip((p, q), spaces, temperatures, strict=True)
    )

    def logarithms() -> tuple[list[float], list[float]]:
        return [_log(o, x) for x in a], [_log(o, x) for x in b]

    def entropies() -> float:
        sides = zip((a, b), logarithms(), strict=True)
        return sum(float(x) * ln for side, lns in sides for x, ln in zip(side, lns, strict=True))

    if given:
        moved = sum(abs(float(x) - float(y)) for x, y in zip(a, b, strict=True))
        mixed = 1 + entropies() if spaces[0] != spaces[1] else 0.0
        truth.rounding = (moved + (name == "renyi") + mixed) / order
        if mixed:
            # Every logarithm that the two spaces meet as is rounded.
            truth.gradient_rounding = lambda wrt: _rounded_logarithms(
                truth, wrt, spaces, temperatures, *logarithms(), mixed
            )
    if name == "total_variation":
        truth.gradient_rounding = lambda wrt: _kinks(wrt, spaces, temperatures, a, b, *logarithms())
    truth.conditioning = lambda: (1 + entropies() + sum(map(max, logarithms()))) / min(order, 1.0)
    return truth


def _log(o: ModuleType, x: Any) -> float:
    """|ln x| as a float, and 0 for 0."""
    if x <= 0:
        return 0.0
    double = float(x)
    return abs(math.log(double)) if double > 1e-300 else abs(float(o.mp.log(x)))


def _rounded_logarithms(truth: Truth, wrt: str, spaces: Any, temperatures: Any, ln_a: Any, ln_b: Any, mixed: float) -> Any:
    side = "pq".index(wrt)
    if spaces[side] == "logits":
        return mixed / temperatures[side]
    gradient = np.nan_to_num(np.abs(wide(truth.gradient(wrt))), posinf=0.0)
    return mixed + (1 + gradient) * (np.array(ln_a) + np.array(ln_b))


def _kinks(wrt: str, spaces: Any, temperatures: Any, a: Any, b: Any, ln_a: Any, ln_b: Any) -> Any:
    """Classes whose p and q agree to rounding may get either sign."""
    if spaces[0] == spaces[1] == "probs":
        return 0.0
    side = "pq".index(wrt)
    near = np.array(
        [
            x != y and abs(x - y) <= 1e-6 * max(x, y) * (1 + l + m)
            for x, y, l, m in zip(a, b, ln_a, ln_b, strict=True)
        ]
    )
    own = np.array([float(x) for x in (a, b)[side]])
    if spaces[side] == "logits":
        return float((near * own).sum()) / temperatures[side] / EPS
    return near * (own if spaces[side] == "log_probs" else 1.0) / EPS


def cross_entropy(o: ModuleType, name: str, row: dict[str, Any], options: dict[str, Any]) -> Truth:
    """Cross-entropy with a label or a distribution; options are those of the oracle."""
    logits = row["logits"]
    target = row["targets"] if "targets" in row else row["label"]
    options = {k: v for k, v in options.items() if v is not None}
    kept = {k: v for k, v in options.items() if k in _CROSS_ENTROPY}
    smoothing = kept.get("label_smoothing", 0.0)
    truth = Truth(o.cross_entropy(logits, target, **kept))
    truth.gradient = lambda wrt: o.cross_entropy_gradient(logits, target, wrt, **kept)
    temperature = kept.get("temperature", 1.0)
    truth.scale = lambda wrt: 1 / temperature if wrt == "logits" else 1.0
    weights = kept.get("class_weights")
    m = o.masses(len(logits), target, smoothing, kept.get("class_weights"))
    if o.mp.isnan(truth.value):
        return truth
    total = float(sum(abs(x) for x in m))
    sides = {k: kept[k] for k in ("space", "temperature", "softcap") if k in kept}

    def surprises() -> list[float]:
        return [_log(o, x) for x in o.probabilities(logits, **sides)]

    if kept.get("space", "logits") != "logits" or min(m) < 0:
        truth.rounding = sum(abs(float(x)) * y for x, y in zip(m, surprises(), strict=True))
    if "targets" in row:
        truth.gradient_rounding = lambda wrt: total / temperature if wrt == "logits" else 0.0
    if kept.get("z_loss"):
        lse = o.logsumexp(logits, temperature=temperature, softcap=kept.get("softcap"))
        lse = abs(float(lse))
        if math.isfinite(lse):
            truth.relative = 2 * kept["z_loss"] * lse * max(1.0, lse)
            truth.gradient_relative = 2 * kept["z_loss"] * max(1.0, lse) / temperature
    truth.conditioning = lambda: 1 + total * (1 + max(surprises())) + truth.relative
    return truth


_CROSS_ENTROPY = ("space", "temperature", "label_smoothing", "class_weights", "z_loss", "softcap")


def entropy(o: ModuleType, name: str, row: dict[str, Any], options: dict[str, Any]) -> Truth:
    """The entropy of a row."""
    kept = {k: options[k] for k in ("space", "temperature") if k in options}
    truth = Truth(o.entropy(row["p"], **kept))
    truth.gradient = lambda wrt: o.entropy_gradient(row["p"], **kept)
    truth.scale = lambda wrt: 1 / kept.get("temperature", 1.0)
    p = o.probabilities(row["p"], **kept)
    if o.mp.isnan(truth.value):
        return truth
    terms = [abs(float(o.rel_entr(x, 1))) for x in p]
    if kept.get("space", "logits") != "logits":
        truth.rounding = sum(terms)
    truth.conditioning = lambda: 1 + max(_log(o, x) for x in p)
    return truth


def logsumexp(o: ModuleType, name: str, row: dict[str, Any], options: dict[str, Any]) -> Truth:
    """The log-sum-exp of a row."""
    temperature = options.get("temperature", 1.0)
    truth = Truth(o.logsumexp(row["z"], temperature=temperature), least=1.0)
    truth.gradient = lambda wrt: o.logsumexp_gradient(row["z"], temperature=temperature)
    truth.scale = lambda wrt: 1 / temperature
    return truth


def log_softmax(o: ModuleType, name: str, row: dict[str, Any], options: dict[str, Any]) -> Truth:
    """All log-probabilities of a row."""
    return Truth(o.log_softmax(row["z"], temperature=options.get("temperature", 1.0)))


def gather_log_probs(o: ModuleType, name: str, row: dict[str, Any], options: dict[str, Any]) -> Truth:
    """The log-probability of the label of a row."""
    truth = cross_entropy(o, name, {"logits": row["z"], "label": row["label"]}, options)
    truth.value, gradient = -truth.value, truth.gradient
    truth.gradient = lambda wrt: [-x for x in gradient("logits")]
    truth.scale = lambda wrt: 1 / options.get("temperature", 1.0)
    return truth


def distillation(o: ModuleType, name: str, row: dict[str, Any], options: dict[str, Any]) -> Truth:
    """A divergence of teacher and student mixed with cross-entropy."""
    kind, temperature = options.get("divergence", "kl"), options.get("temperature", 1.0)
    key = {"jensen_shannon": "beta", "renyi": "alpha"}.get(kind)
    parameter = {} if key is None or options.get("parameter") is None else {key: options["parameter"]}
    pair = {"p": row["teacher_logits"], "q": row["student_logits"]}
    one = divergence(o, kind, pair, {"temperature": temperature, **parameter})
    mix = o.mp.mpf(options.get("mix", 0.5))
    factor = mix * o.mp.mpf(temperature) ** 2 if options.get("scale_by_t_squared") else mix
    if mix == 1 or "label" not in row:
        other = None
    else:
        smoothing = {"label_smoothing": options.get("label_smoothing", 0.0)}
        other = cross_entropy(o, name, {"logits": row["student_logits"], "label": row["label"]}, smoothing)
    scaled = abs(float(factor))
    truth = Truth(_mixed(factor, one.value, 1 - mix, other and other.value, o))
    truth.first_order = one.first_order
    truth.conditioning = lambda: (
        scaled * one.conditioning() + (other.conditioning() if other else 0.0)
    )
    truth.gradient = lambda wrt: [
        _mixed(factor, x, 1 - mix, y, o)
        for x, y in zip(one.gradient("q"), other.gradient("logits") if other else [None] * len(pair["q"]), strict=True)
    ]
    # Each part has its own bound; where they cancel, the sum keeps the errors of both.
    truth.gradient_relative = scaled * _norm(one.gradient("q")) + (float(1 - mix) * _norm(other.gradient("logits")) if other else 0.0)
    truth.relative = scaled * _size(one.value) + (float(1 - mix) * _size(other.value) if other else 0.0)
    truth.gradient_rounding = lambda wrt: scaled * one.gradient_rounding("q")
    truth.scale = lambda wrt: max(1.0, scaled / temperature)
    return truth


def _mixed(factor: Any, x: Any, rest: Any, y: Any, o: ModuleType) -> Any:
    parts = [f * v for f, v in ((factor, x), (rest, y)) if v is not None and f != 0]
    return o.mp.fsum(parts) if parts else o.mp.zero


def _size(x: Any) -> float:
    return abs(float(x)) if math.isfinite(float(x)) else 0.0


def _norm(x: Any) -> float:
    return math.hypot(*(_size(v) for v in x))


# --- Drawing the numbers ---------------------------------------------------------------------------


def _two_spaces(random: Random, case: Case) -> None:
    spaces = (random.choice(SPACES[:1] * 4 + SPACES),) * 2
    if random.random() < 0.15:
        spaces = random.choice(SPACES), random.choice(SPACES)
    draw_rows(random, case, ("p", "q"), spaces)
    if spaces != ("logits", "logits"):
        case.options["space"] = spaces if random.random() < 0.5 or spaces[0] != spaces[1] else spaces[0]


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
    kind = random.choice(("kl", "reverse_kl", "jensen_shannon", "total_variation", "renyi"))
    from .options import OPTIONS

    if kind != "kl":
        case.options["divergence"] = kind
    parameter = {"jensen_shannon": "beta", "renyi": "alpha"}.get(kind)
    if parameter:
        case.options["parameter"] = OPTIONS[parameter].draw(random, case)
    case.options["batch"] = (case.shape[0],)


# --- The table -------------------------------------------------------------------------------------


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

    def __repr__(self) -> str:
        return self.name


_CALL = ("isa", "front", "threads", "flush", "batch", "axis", "where")
_ROWS = (*_CALL, "weights", "reduction", "denominator", "wrt", "grad_output", "out", "layouts")
_PAIR = ("space", "temperature", *_ROWS)
_LOSS = ("space", "temperature", "label_smoothing", "class_weights", "z_loss", "softcap")
_P, _PQ, _Z, _LOGITS = ("p",), ("p", "q"), ("z",), ("logits",)

SUBJECTS = (
    Subject("kl", _two_spaces, divergence, _PQ, _PAIR, pair=True),
    Subject("reverse_kl", _two_spaces, divergence, _PQ, _PAIR, pair=True),
    Subject("jensen_shannon", _two_spaces, divergence, _PQ, ("beta", *_PAIR), pair=True),
    Subject("total_variation", _two_spaces, divergence, _PQ, _PAIR, pair=True),
    Subject("renyi", _two_spaces, divergence, _PQ, ("alpha", *_PAIR), pair=True),
    Subject("cross_entropy", _one_space("logits"), cross_entropy, _LOGITS, (*_LOSS, "labels", "ignore_index", *_ROWS)),
    Subject("cross_entropy", _one_space("logits", "targets"), cross_entropy, ("logits", "targets"), (*_LOSS, *_ROWS)),
    Subject("entropy", _one_space("p"), entropy, _P, _PAIR),
    Subject("logsumexp", _only_logits("z"), logsumexp, _Z, ("temperature", *_ROWS)),
    Subject("log_softmax", _only_logits("z"), log_softmax, (), ("temperature", *_CALL, "out", "layouts")),
    Subject("gather_log_probs", _only_logits("z"), gather_log_probs, (), ("temperature", "labels", "ignore_index", *_CALL, "layouts")),
    Subject("distillation_loss", _distillation, distillation, ("student_logits",), ("divergence", "parameter", "temperature", "scale_by_t_squared", "mix", "label_smoothing", "labels", "ignore_index", "isa", "front", "threads", "flush", "weights", "reduction", "denominator", "wrt", "grad_output", "layouts", "inplace")),
)


def truths(case: Case, row: int, *, arbiter: bool = False) -> Truth:
    """What is true of one row of a case."""
    subject = case.subject
    numbers = {name: tuple(rows[row].tolist()) for name, rows in case.rows.items()}
    if "labels" in case.options:
        numbers["label"] = int(case.options["labels"][row])
    from .options import OPTIONS

    options = {
        name: tuple(value.tolist()) if isinstance(value, np.ndarray) else value
        for name, value in case.options.items()
        if name in OPTIONS and OPTIONS[name].of_numbers and name not in ("dtypes", "labels")
    }
    key = (subject.name, *numbers.items(), *options.items())
    if not arbiter and key in _known:
        return _known[key]
    o = oracle_for(_spread(case, row), arbiter=arbiter)
    truth = subject.truth(o, subject.name, numbers, options)
    truth.value = wide(truth.value) if isinstance(truth.value, list) else wide([truth.value])[0]
    gradient, known = truth.gradient, {}

    def once(wrt: str) -> Any:
        if wrt not in known:
            # The precision may have been set for another row since.
            oracle_for(_spread(case, row), arbiter=arbiter)
            known[wrt] = wide(gradient(wrt))
        return known[wrt]

    truth.gradient = once
    if arbiter:
        return truth
    if len(_known) > 2000:
        _known.clear()
    _known[key] = truth
    return truth


_known: dict[Any, Truth] = {}


def _spread(case: Case, row: int) -> float:
    """The largest exponent of a row."""
    temperature = case.options.get("temperature", 1.0)
    coldest = min(temperature) if isinstance(temperature, tuple) else temperature
    largest = 0.0
    for rows in case.rows.values():
        finite = [abs(x) for x in rows[row].tolist() if math.isfinite(x)]
        largest = max(largest, max(finite, default=0.0))
    return largest / min(coldest, 1.0) * max(1.0, case.options.get("alpha", 1.0), case.options.get("parameter") or 1.0)
