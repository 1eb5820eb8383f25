"""Classes of a row that a sampler keeps, or that are named, and what is computed of them."""

from __future__ import annotations

import math
from random import Random
from types import ModuleType
from typing import Any

import numpy as np

import kldiv

from .case import Case, draw_rows
from .contents import log_uniform
from .options import AT_ONCE, near
from .roundings import UNDECIDED, log_of
from .truth import Truth

Array = np.ndarray[Any, Any]

OPTIONS = ("support", "top_k", "top_p", "min_p")
FORMULAS = ("torch.func", "jax")
"""Front ends that find the classes kept, and the mass, by operations of their own."""
EDGE, EDGE_OF_FORMULAS = 1e-12, 1e-4
"""A share of the probability by which rounding may say which class is the last one."""


def draw(name: str) -> Any:
    """One array of logits, of whose rows some classes are kept."""

    def drawn(random: Random, case: Case) -> None:
        draw_rows(random, case, (name,), ("logits",))
        if random.random() < 0.15:
            # As few as JAX has compiled for.
            few = random.choice(AT_ONCE)
            case.rows[name] = case.rows[name][: few[0], : few[1]]
        count, classes = case.shape
        if random.random() < 0.4:
            widths = [random.randint(1, classes) for _ in range(count)]
            if random.random() < 0.5:
                widths = widths[:1] * count
            ids = (random.sample(range(classes), width) for width in widths)
            case.options["support"] = tuple(map(tuple, ids))
            return
        rules = random.choice((("top_k",), ("top_p",), ("min_p",), OPTIONS[1:], OPTIONS[1:3]))
        if "top_k" in rules:
            case.options["top_k"] = random.randint(1, classes)
        if "top_p" in rules:
            case.options["top_p"] = random.choice(
                (0.5, 0.9, 1.0, random.random() or 1.0, near(random, 0, 1), near(random, 1, -1))
            )
        if "min_p" in rules:
            numbers = (0.0, 1.0, 0.5, random.random(), log_uniform(random, 1e-300, 1.0))
            case.options["min_p"] = random.choice(numbers)

    return drawn


def support_of(case: Case) -> Any:
    """The classes named, as a call from NumPy takes them."""
    ids, (kind, dtype) = case.support, case.support_as
    if kind == "array" and len(set(map(len, ids))) == 1:
        return np.array(ids, dtype).reshape((*case.batch_shape, -1))
    if kind == "list" and case.batch_shape:
        return [np.array(one, dtype) for one in ids]
    offsets = np.cumsum([0, *map(len, ids)])
    numbers = np.array([i for one in ids for i in one], dtype)
    if len(case.batch_shape) == 1:
        return kldiv.TopK(
            numbers, logits=np.zeros(len(numbers)), classes=case.shape[1], offsets=offsets
        )
    if len(set(map(len, ids))) == 1:
        numbers = numbers.reshape((*case.batch_shape, -1))
        return kldiv.TopK(numbers, logits=np.zeros(numbers.shape), classes=case.shape[1])
    return [list(one) for one in ids]


def entropy(o: ModuleType, name: str, row: dict[str, Any], options: dict[str, Any]) -> Truth:
    """The entropy of the classes kept."""
    z, temperature, kept = (
        row["p"],
        options.get("temperature", 1.0),
        _kept(o, row["p"], row, options),
    )
    if kept is None:
        return _invalid(o, z)
    found = Truth(o.kept_entropy(z, kept, temperature=temperature))
    found.gradient = lambda wrt: o.kept_entropy_gradient(z, kept, temperature=temperature)
    if not o.mp.isnan(found.value):
        of_kept = o.probabilities(tuple(z[i] for i in kept), temperature=temperature)
        terms = [abs(float(o.rel_entr(x, 1))) for x in of_kept]
        found.terms = lambda wrt: math.hypot(*terms) / temperature
        found.conditioning = lambda: 1 + max(log_of(o, x) for x in of_kept)
    return _with_mass(o, found, z, kept, options)


def gather_log_probs(
    o: ModuleType, name: str, row: dict[str, Any], options: dict[str, Any]
) -> Truth:
    """The log-probability of a label among the classes kept."""
    z, temperature, kept = (
        row["z"],
        options.get("temperature", 1.0),
        _kept(o, row["z"], row, options),
    )
    if kept is None:
        return _invalid(o, z)
    arguments = z, kept, row["label"]
    found = Truth(o.kept_log_prob(*arguments, temperature=temperature))
    found.gradient = lambda wrt: o.kept_log_prob_gradient(*arguments, temperature=temperature)
    if "support" not in row and z[row["label"]] == -math.inf:
        # A rule that keeps every class may keep a masked one: its own gradient is 1 or 0 then.
        at_label = np.where(np.arange(len(z)) == row["label"], UNDECIDED, 0.0)
        found.gradient_rounding = lambda wrt: at_label
    found.conditioning = lambda: 1 + abs(float(found.value)) if found.value > -math.inf else 1.0
    return _with_mass(o, found, z, kept, options)


def _kept(o: ModuleType, z: Any, row: dict[str, Any], options: dict[str, Any]) -> list[int] | None:
    if "support" in row:
        return sorted(row["support"])
    rules = {one: options[one] for one in OPTIONS[1:] if one in options}
    found: list[int] | None = o.kept_classes(
        z, temperature=options.get("temperature", 1.0), **rules
    )
    return found


def _invalid(o: ModuleType, z: Any) -> Truth:
    """Of a row that no rule has a meaning for."""
    found = Truth(o.mp.nan, gradient=lambda wrt: [o.mp.nan] * len(z))
    found.mass = Truth(o.mp.nan, gradient=lambda wrt: [o.mp.nan] * len(z))
    return found


def _with_mass(
    o: ModuleType, found: Truth, z: Any, kept: list[int], options: dict[str, Any]
) -> Truth:
    temperature = options.get("temperature", 1.0)
    found.scale = lambda wrt: 1 / temperature
    mass = Truth(o.kept_mass(z, kept, temperature=temperature), scale=found.scale)
    mass.gradient = lambda wrt: o.kept_mass_gradient(z, kept, temperature=temperature)
    if not o.mp.isnan(mass.value):
        p = np.array([float(x) for x in o.probabilities(z, temperature=temperature)])
        # A difference of what is next to all and what is all.
        mass.gradient_relative = float(mass.value) * math.hypot(*p) / temperature
        mass.relative = float(mass.value) * log_of(o, mass.value)
    found.mass = mass
    found.undecided = _undecided(o, z, options)
    return found


def _undecided(o: ModuleType, z: Any, options: dict[str, Any]) -> dict[str, bool]:
    """Whether rounding says what is kept, in front ends by name."""
    found = dict.fromkeys(("numpy", "torch", *FORMULAS), False)
    temperature = options.get("temperature", 1.0)
    largest = max(z)
    if options.get("min_p"):
        bound = o.mp.log(o.mp.mpf(options["min_p"])) * o.mp.mpf(temperature)
        lowest = o.mp.mpf(largest) + bound
        size = abs(o.mp.mpf(largest)) + abs(bound)
        # A logit that the largest is, is kept whatever the rounding, and by 1 no other.
        gaps = [abs(o.mp.mpf(x) - lowest) for x in z if x > -math.inf and x != largest and bound]
        for front in found:
            eps = 1e-15 if front not in FORMULAS or options["wide"] else 1e-6
            found[front] |= any(gap <= eps * size for gap in gaps)
    share = options.get("top_p", 1.0)
    if share < 1:
        before_top_p = {one: options[one] for one in ("min_p", "top_k") if one in options}
        kept = o.kept_classes(z, temperature=temperature, **before_top_p)
        p = o.probabilities(z, temperature=temperature)
        total, held = o.mp.fsum(p[i] for i in kept), o.mp.zero
        for level in sorted({z[i] for i in kept}, reverse=True):
            held += o.mp.fsum(p[i] for i in kept if z[i] == level)
            for front in found:
                edge = EDGE if front not in FORMULAS or options["wide"] else EDGE_OF_FORMULAS
                # All that there is has no class after it.
                last = level == min(z[i] for i in kept)
                found[front] |= not last and abs(held / total - share) <= edge
    return found
