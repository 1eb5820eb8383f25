"""What is true of one row of each kind of function, and how far off a result may be.

The values and gradients are the oracle's; what is said here is what docs/numerics.md allows beyond
the relative bound of a dtype.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np

from kldiv._kldiv import DIVERGENCES

from .exact import wide
from .roundings import (
    EPS,
    at_the_border,
    kinks,
    log_of,
    of_rounded_gap,
    rounded_logarithms,
    rounded_powers,
    size,
)


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
    formula_rounding: Callable[[str], Any] = lambda _: 0.0
    """Of the gradient, beside it, where it is made of torch operations."""
    formula_terms: Callable[[str], float] = lambda _: 0.0
    """The size of what a gradient of logits is the difference of there."""
    relative: float = 0.0
    """Of the value: parts whose own relative error is bounded."""
    gradient_relative: float = 0.0
    conditioning: Callable[[], float] = lambda: 1.0
    """What formulas in torch operations multiply their rounding by."""
    scale: Callable[[str], float] = lambda _: 1.0
    """What gradients are multiplied by, from which small ones count as 0."""
    never_negative: bool = False
    fields: dict[str, Truth] | None = None
    """Of a function that gives several numbers a row."""
    classes: tuple[list[int], list[float] | None] | None = None
    """Which classes there are of a row, in order, and what each stands for."""
    mass: Truth | None = None
    """Of a kept set: the probability of its classes, which a call may return too."""
    undecided: dict[str, bool] = field(default_factory=dict)
    """Front ends in which rounding says what is computed at all."""
    terms: Callable[[str], float] = lambda _: 0.0
    """The size of what a gradient of logits is the difference of."""
    in_float64: tuple[str, ...] = ()
    """Front ends that compute in float64 whatever the dtypes."""
    of_few: bool = False
    """Whether it is made of one or two numbers, so that small ones are as good as others."""
    of_difference: tuple[Any, Any] = (0.0, 0.0)
    """What value and gradient are changed by where a difference that they are made of doubles."""


def divergence(o: ModuleType, name: str, row: dict[str, Any], options: dict[str, Any]) -> Truth:
    """A divergence of two rows."""
    p, q = row["p"], row["q"]
    sides = {k: options[k] for k in ("space", "temperature") if k in options}
    described = DIVERGENCES[name].parameter
    parameter = {}
    if described is not None:
        parameter[described.name] = options.get(described.name, described.default)
    value = o.divergence(name, p, q, **sides, **parameter)
    spaces, temperatures = (
        o.pair_of(options.get("space", "logits")),
        o.pair_of(options.get("temperature", 1)),
    )
    truth = Truth(value, first_order=DIVERGENCES[name].kinked)
    truth.gradient = lambda wrt: o.gradient(name, p, q, wrt, **sides, **parameter)
    truth.scale = lambda wrt: (
        1 / temperatures["pq".index(wrt)] if spaces["pq".index(wrt)] == "logits" else 1.0
    )
    given = spaces != ("logits", "logits")
    alpha = {"chi_squared": 2.0}.get(name, parameter.get("alpha", 1.0))
    # What sums of powers are divided by.
    order = abs(alpha - 1) if alpha != 1 else 1.0
    if name == "alpha_divergence" and alpha not in (0, 1):
        order = min(order, 1.0) * min(abs(alpha), 1.0)
    largest = max(1.0, abs(alpha), abs(alpha - 1) if name == "alpha_divergence" else 0.0)
    is_power = name in ("alpha_divergence", "chi_squared") and alpha not in (0, 1)
    truth.never_negative = not given
    if o.mp.isnan(value):
        return truth
    a, b = (
        o.probabilities(r, space=s, temperature=t)
        for r, s, t in zip((p, q), spaces, temperatures, strict=True)
    )

    def logarithms() -> tuple[list[float], list[float]]:
        return [log_of(o, x) for x in a], [log_of(o, x) for x in b]

    def entropies() -> float:
        sides = zip((a, b), logarithms(), strict=True)
        return sum(float(x) * ln for side, lns in sides for x, ln in zip(side, lns, strict=True))

    def powers(wrt: str) -> float:
        """The size of slopes that are powers, next to those of p = q."""
        side = "pq".index(wrt)
        own, kind = (a, b)[side], {"space": "probs", **parameter}
        (usual,) = o.gradient(name, (1.0,), (1.0,), wrt, **kind)
        slopes = o.gradient(name, tuple(a), tuple(b), wrt, **kind)
        sizes = (size(x * (slope - usual)) for x, slope in zip(own, slopes, strict=True))
        return math.hypot(*sizes) / temperatures[side]

    def terms(wrt: str) -> float:
        side = "pq".index(wrt)
        pairs = ((x, y) for x, y in zip(a, b, strict=True) if x > 0 and y > 0)
        ratios = [(float(max(x, y)), abs(float(o.mp.log(x / y)))) for x, y in pairs]
        size = 0.0
        if spaces[side] == "logits":
            size = math.hypot(*(larger * ln for larger, ln in ratios)) / temperatures[side]
        if name == "renyi" or is_power:
            # Its weights multiply the rounding of a log-ratio by the order.
            weights = _norm(truth.gradient(wrt))
            if is_power and spaces[side] == "logits":
                # Of which all may be lost where they agree.
                weights += powers(wrt)
            size += max((ln for _, ln in ratios), default=0.0) * weights / 4
        return size * largest

    truth.terms = terms
    if name == "renyi":
        truth.relative = rounded_powers(o, a, b, parameter["alpha"])
    if given:
        moved = sum(abs(float(x) - float(y)) for x, y in zip(a, b, strict=True))
        mixed = 1 + entropies() if spaces[0] != spaces[1] else 0.0
        one = name in ("renyi", "neg_log_acceptance", "squared_hellinger", "alpha_divergence")
        truth.rounding = (moved + one + mixed) / min(order, 1.0)
        if mixed:
            # Every logarithm that the two spaces meet as is rounded.
            truth.gradient_rounding = lambda wrt: rounded_logarithms(
                truth,
                wrt,
                spaces,
                temperatures,
                *logarithms(),
                mixed,
                largest / min(order, 1.0),
            )
    if is_power:
        # Weights again, which are not in a logarithm here.
        truth.rounding += largest * max(map(max, logarithms())) * size(value)
        _beyond(o, truth, spaces)
        truth.formula_terms = lambda wrt: (
            powers(wrt) if spaces["pq".index(wrt)] == "logits" else 0.0
        )
    if DIVERGENCES[name].kinked:
        # Rows that are the same have no kink: p = q, and the slope is 0.
        same = p == q and spaces[0] == spaces[1] and temperatures[0] == temperatures[1]
        # A mixture with KL has in it what that is the difference of.
        of_kl = truth.gradient_rounding if name == "lk_hybrid" else lambda _: 0.0
        truth.gradient_rounding = lambda wrt: (
            of_kl(wrt)
            + (
                0.0
                if same
                else kinks(
                    wrt,
                    spaces,
                    temperatures,
                    a,
                    b,
                    *logarithms(),
                    1e-13 if options["wide"] else 1e-6,
                )
            )
        )
    if name == "adaptive_kl":
        if given:
            # Of the weights, whose difference is in every slope.
            mixed_rounding = truth.gradient_rounding
            truth.gradient_rounding = lambda wrt: 1.0 + mixed_rounding(wrt)
        if spaces[0] != spaces[1]:
            of_rounded_gap(o, truth, (p, q), (a, b), sides, 1 + entropies())
        rounding = 1e-13 if options["wide"] else 1e-6
        at_the_border(o, truth, p, (a, b), float(parameter["mu"]), rounding)
    steep = largest / min(order, 1.0)
    truth.conditioning = lambda: (1 + entropies() + sum(map(max, logarithms()))) * steep
    return truth


def _beyond(o: ModuleType, truth: Truth, spaces: Any) -> None:
    """A value beyond float64 is infinite, and gradients of logits are NaN then."""
    if abs(truth.value) <= sys.float_info.max:
        return
    truth.value, gradient = o.mp.inf, truth.gradient
    truth.gradient = lambda wrt: (
        [o.mp.nan] * len(gradient(wrt)) if spaces["pq".index(wrt)] == "logits" else gradient(wrt)
    )


def top_k(o: ModuleType, name: str, row: dict[str, Any], options: dict[str, Any]) -> Truth:
    """A divergence from the classes that are kept of p, by a rule."""
    from .kept import classes_of

    numbers = np.array(row["p"])
    ids, values = classes_of(numbers, options["kept"], options["wide of p"])
    q, rule, (_, of_q) = row["q"], options["rule"], options.get("temperature", (1.0, 1.0))
    arguments = (name, ids.tolist(), [float(x) for x in values], q, rule)
    described = DIVERGENCES[name].parameter
    more = {} if described is None else {described.name: described.default}
    more["temperature"] = (1, of_q)
    truth = Truth(o.sparse_loss(*arguments, **more))
    truth.gradient = lambda wrt: o.sparse_gradient(*arguments, **more)
    truth.scale = lambda wrt: 1 / of_q
    if o.mp.isnan(truth.value):
        return truth
    # What p has elsewhere is 1 − Σp, and terms have both signs: both are rounded as some nats are.
    seen = tuple(q[index] for index in ids) if rule == "renormalize" else q
    nats = sum(log_of(o, x) for x in o.probabilities(seen, temperature=of_q))
    nats += float(-values.sum())
    if rule == "floor":
        nats += 100.0
    tail = max(1.0 - math.fsum(math.exp(x) for x in values), 1e-4)
    truth.rounding = (1.0 + nats) / (tail if rule.endswith("tail") else 1.0)
    if rule in ("renormalize", "renormalize_p"):
        # Logits of the student are taken relative to the largest: log-ratios are rounded so.
        finite = [x for x in q if math.isfinite(x)]
        size = (max(finite) - min(finite)) / of_q + float(-values.min())
        gradient = np.nan_to_num(wide(truth.gradient("q")).astype(np.float64))
        truth.rounding = size * float(np.linalg.norm(gradient)) * of_q
    truth.gradient_rounding = lambda wrt: 8.0 / of_q / (tail if rule.endswith("tail") else 1.0)
    truth.conditioning = lambda: 1.0 + nats
    return truth


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
    m = o.masses(len(logits), target, smoothing, kept.get("class_weights"))
    if o.mp.isnan(truth.value):
        return truth
    total = float(sum(abs(x) for x in m))
    sides = {k: kept[k] for k in ("space", "temperature", "softcap") if k in kept}

    def surprises() -> list[float]:
        return [log_of(o, x) for x in o.probabilities(logits, **sides)]

    if kept.get("space", "logits") != "logits" or min(m) < 0:
        truth.rounding = sum(abs(float(x)) * y for x, y in zip(m, surprises(), strict=True))
    # A capped logit is a rounded number.
    capped = _cap(logits, kept.get("softcap")) / temperature
    # Beyond, it does not tell which of two logits is the larger.
    capped = math.inf if capped * EPS > 1e-3 else capped * min(total, size(truth.value))
    truth.rounding += capped
    if "targets" in row or smoothing:
        capped = max(1.0, _cap(logits, kept.get("softcap")) / temperature) * total
    # So is a mass below the normal numbers, of which the gradient of a probability is a quotient.
    subnormal = _subnormal(m, logits) if kept.get("space") == "probs" else 0.0
    truth.gradient_rounding = lambda wrt: (
        capped / temperature + subnormal
        if wrt == "logits"
        else _cap(logits, kept.get("softcap")) / temperature
    )
    if kept.get("z_loss"):
        lse = o.logsumexp(logits, temperature=temperature, softcap=kept.get("softcap"))
        lse = abs(float(lse))
        if math.isfinite(lse):
            truth.relative = 2 * kept["z_loss"] * lse * max(1.0, lse)
            truth.gradient_relative = 2 * kept["z_loss"] * max(1.0, lse) / temperature
    truth.conditioning = lambda: 1 + total * (1 + max(surprises())) + truth.relative
    return truth


def _subnormal(masses: Any, probabilities: Any) -> Any:
    """What half the smallest number is of probabilities, where a mass is rounded by it."""
    rounded = [
        5e-324 / float(p) if 0 < abs(m) < 1e-307 and p > 0 else 0.0
        for m, p in zip(masses, probabilities, strict=True)
    ]
    return np.array(rounded) / EPS


def _cap(logits: tuple[float, ...], softcap: float | None) -> float:
    """The largest capped logit."""
    if softcap is None:
        return 0.0
    return min(softcap, max((abs(x) for x in logits if math.isfinite(x)), default=0.0))


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
    truth.terms = lambda wrt: math.hypot(*terms) / kept.get("temperature", 1.0)
    if kept.get("space", "logits") != "logits":
        truth.rounding = sum(terms)
    truth.conditioning = lambda: 1 + max(log_of(o, x) for x in p)
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


def gather_log_probs(
    o: ModuleType, name: str, row: dict[str, Any], options: dict[str, Any]
) -> Truth:
    """The log-probability of the label of a row."""
    truth = cross_entropy(o, name, {"logits": row["z"], "label": row["label"]}, options)
    truth.value, gradient = -truth.value, truth.gradient
    truth.gradient = lambda wrt: [-x for x in gradient("logits")]
    truth.scale = lambda wrt: 1 / options.get("temperature", 1.0)
    return truth


def distillation(o: ModuleType, name: str, row: dict[str, Any], options: dict[str, Any]) -> Truth:
    """A divergence of teacher and student mixed with cross-entropy."""
    kind, temperature = options.get("divergence", "kl"), options.get("temperature", 1.0)
    described, parameter = DIVERGENCES[kind].parameter, {}
    if described is not None:
        option = {"alpha": "order"}.get(described.name, described.name)
        default = 0.5 if described.default is None else described.default
        parameter = {described.name: options.get(option, default)}
    pair = {"p": row["teacher_logits"], "q": row["student_logits"]}
    one = divergence(
        o, kind, pair, {"temperature": temperature, "wide": options["wide"], **parameter}
    )
    mix = o.mp.mpf(options.get("mix", 0.5))
    factor = mix * o.mp.mpf(temperature) ** 2 if options.get("scale_by_t_squared") else mix
    if mix == 1 or "label" not in row:
        other = None
    else:
        smoothing = {"label_smoothing": options.get("label_smoothing", 0.0)}
        other = cross_entropy(
            o, name, {"logits": row["student_logits"], "label": row["label"]}, smoothing
        )
    scaled = abs(float(factor))
    if pair["p"] == pair["q"] and not o.mp.isnan(one.value):
        # Times T², 60 digits of nothing may be something.
        one.value, one.gradient = o.mp.zero, lambda _: [o.mp.zero] * len(pair["q"])
    truth = Truth(_mixed(factor, one.value, 1 - mix, other and other.value, o))
    truth.first_order = one.first_order
    truth.conditioning = lambda: (
        scaled * one.conditioning() + (other.conditioning() if other else 0.0)
    )
    truth.gradient = lambda wrt: [
        _mixed(factor, x, 1 - mix, y, o)
        for x, y in zip(
            one.gradient("q"),
            other.gradient("logits") if other else [None] * len(pair["q"]),
            strict=True,
        )
    ]
    # Each part has its own bound; where they cancel, the sum keeps the errors of both.
    truth.gradient_relative = scaled * _norm(one.gradient("q")) + (
        float(1 - mix) * _norm(other.gradient("logits")) if other else 0.0
    )
    truth.relative = scaled * size(one.value) + (
        float(1 - mix) * size(other.value) if other else 0.0
    )
    truth.rounding = scaled * one.rounding + (float(1 - mix) * other.rounding if other else 0.0)
    truth.gradient_rounding = lambda wrt: (
        scaled * one.gradient_rounding("q")
        + (float(1 - mix) * other.gradient_rounding("logits") if other else 0.0)
    )
    truth.terms = lambda wrt: scaled * one.terms("q")
    truth.scale = lambda wrt: max(1.0, scaled / temperature)
    return truth


def _mixed(factor: Any, x: Any, rest: Any, y: Any, o: ModuleType) -> Any:
    parts = [f * v for f, v in ((factor, x), (rest, y)) if v is not None and f != 0]
    return o.mp.fsum(parts) if parts else o.mp.zero


def _norm(x: Any) -> float:
    return math.hypot(*(size(v) for v in x))


def comparison(o: ModuleType, name: str, row: dict[str, Any], options: dict[str, Any]) -> Truth:
    """All fields of a comparison, each with a truth of its own."""
    kept = {"temperature": options.get("temperature", 1.0), "wide": options["wide"]}
    names = ("kl", "reverse_kl", "jensen_shannon", "total_variation")
    fields = {field: divergence(o, field, row, dict(kept)) for field in names}
    for side in "pq":
        fields[f"entropy_{side}"] = entropy(o, name, {"p": row[side]}, kept)
        largest = int(np.argmax(np.asarray(row[side], np.float64)))
        top = cross_entropy(o, name, {"logits": row[side], "label": largest}, kept)
        fields[f"confidence_{side}"] = Truth(o.mp.exp(-top.value))
        if "label" in row:
            labelled = {"logits": row[side], "label": row["label"]}
            fields[f"nll_{side}"] = cross_entropy(o, name, labelled, kept)
    truth = Truth(o.mp.zero)
    truth.fields = fields
    if any(o.mp.isnan(field.value) for field in fields.values()):
        # A row that cannot be computed with is NaN in every field.
        for field in fields.values():
            field.value = o.mp.nan
    return truth
