"""Estimators of sampled tokens: rows are the log-probabilities of tokens, without classes."""

from __future__ import annotations

from random import Random
from types import ModuleType
from typing import Any

import numpy as np

from . import contents
from .case import Case, draw_dtypes
from .contents import log_uniform
from .roundings import UNDECIDED
from .truth import Truth

Array = np.ndarray[Any, Any]

FRONTS = ("numpy", "torch", "torch.func")
"""Those that compute in float64, whatever the dtypes."""


def draw(random: Random, case: Case) -> None:
    """Tokens: of two logarithms each, mostly ones of probabilities."""
    dtypes = draw_dtypes(random, case, ("p", "q"))
    largest = min(contents.LARGEST[dtype] for dtype in dtypes)
    count = random.choice((1, 2, 3, 4, 4, 7, 16))
    numbers = np.random.default_rng(random.getrandbits(64))
    q = -numbers.exponential(random.choice((0.1, 1.0, 10.0)), count)
    match random.choice(("close", "close", "far", "same", "alike", "huge", "tiny")):
        case "close":
            p = q + log_uniform(random, 1e-15, 1.0) * numbers.normal(0, 1, count)
        case "far":
            p = -numbers.exponential(random.choice((1.0, 10.0, 100.0, 1000.0)), count)
        case "same":
            p = q.copy()
        case "alike":
            p, q = np.round(q), np.round(q + numbers.normal(0, 2, count))
        case "huge":
            q, p = numbers.uniform(-1, 1, (2, count)) * log_uniform(random, 10.0, largest)
        case _:
            q, p = numbers.normal(0, 1, (2, count)) * log_uniform(random, 1e-320, 1e-3)
    for name, dtype, z in zip(("p", "q"), dtypes, (p, q), strict=True):
        if random.random() < 0.15:
            z[numbers.random(count) < 0.3] = random.choice((-np.inf, 0.0))
        z = contents.stored(z[:, None], dtype)
        contents.spoil(random, z, nan_only=False)
        case.rows[name] = z


def truth(o: ModuleType, name: str, row: dict[str, Any], options: dict[str, Any]) -> Truth:
    """The value of a token, and what r, a difference, is rounded by."""
    name = name.removeprefix("estimators.")
    (p,), (q,) = row["p"], row["q"]
    bounds = {one: options[one] for one in ("clamp_log_ratio", "clamp") if one in options}
    through = bool(options.get("straight_through"))
    found = Truth(o.estimator(name, p, q, **bounds))
    found.gradient = lambda wrt: [
        o.estimator_gradient(name, p, q, wrt, straight_through=through, **bounds)
    ]
    found.never_negative = name != "k1"
    r = o.log_ratio(p, q)
    if o.mp.isnan(r) or abs(r) == o.mp.inf:
        return found
    found.in_float64, found.of_few = FRONTS, True
    cut = bounds.get("clamp_log_ratio")
    inner = r if cut is None else max(-o.mp.mpf(cut), min(r, o.mp.mpf(cut)))
    # How much of r value and slope change by with it.
    steps = {"k1": (1, 0), "k2": (r, 1), "k3": (1 - o.mp.exp(-inner), o.mp.exp(-inner))}[name]
    found.of_difference = tuple(abs(step * r) for step in steps)
    if through:
        found.of_difference = found.of_difference[0], abs(r)
    value = o.VALUES[name](inner)
    edges = [(abs(r), cut), (abs(value), bounds.get("clamp"))]
    for x, bound in edges if not through else ():
        # 0 beyond a bound: where rounding says what is beyond.
        if bound is not None and abs(x - bound) <= (1e-12 if options["wide"] else 1e-5) * bound:
            found.gradient_rounding = lambda wrt: UNDECIDED
    return found
