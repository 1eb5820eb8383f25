"""Rows of two vocabularies, some of whose classes stand for the same."""

from __future__ import annotations

import math
from random import Random
from types import ModuleType
from typing import Any

import numpy as np

from . import contents
from .case import Case, draw_dtypes
from .contents import log_uniform
from .options import near
from .roundings import EPS, log_of
from .truth import Truth

Array = np.ndarray[Any, Any]

SPACES = ("logits", "log_probs", "probs")
FRONTS = ("numpy", "torch", "jax")
"""Those that compute in float64, whatever the dtypes."""
WIDEST = 80


def draw(random: Random, case: Case) -> None:
    """Two rows of different numbers of classes, and which of these are the same."""
    spaces = (random.choice(SPACES[:1] * 4 + SPACES),) * 2
    if random.random() < 0.15:
        spaces = random.choice(SPACES), random.choice(SPACES)
    if spaces != ("logits", "logits"):
        case.options["space"] = spaces
    dtypes = draw_dtypes(random, case, ("p", "q"))
    largest = min(contents.LARGEST[dtype] for dtype in dtypes)
    widths = [min(WIDEST, contents.classes(random)) for _ in "pq"]
    if random.random() < 0.2:
        widths[1] = widths[0]
    count = contents.count(random, max(widths))
    if random.random() < 0.1:
        # Shapes that JAX has compiled for.
        count, *widths = random.choice(((1, 2, 3), (1, 3, 2), (2, 3, 5), (2, 5, 3)))
    p = contents.stored(contents.logits(random, (count, widths[0]), largest), dtypes[0])
    q = contents.logits(random, (count, widths[1]), largest)
    if random.random() < 0.6:
        # The other row with some noise, or none, in another order, as far as it has classes.
        numbers = np.random.default_rng(random.getrandbits(64))
        both = min(widths)
        q[:, :both] = p[:, :both]
        if random.random() < 0.7:
            q[:, :both] += log_uniform(random, 1e-9, 1.0) * numbers.normal(0, 1, (count, both))
        if random.random() < 0.5:
            q[:, both:] = -np.inf
        q = numbers.permuted(q, axis=1)
    for z in (p, q):
        contents.mask(random, z)
    for name, dtype, space, z in zip("pq", dtypes, spaces, (p, q), strict=True):
        case.rows[name] = contents.in_space(random, z, space, dtype)
        contents.spoil(random, case.rows[name], nan_only=False)
    if random.random() < 0.6:
        _draw_ids(random, case, widths)


def _draw_ids(random: Random, case: Case, widths: list[int]) -> None:
    shared = random.randint(0, min(widths))
    sides = tuple(tuple(random.sample(range(width), shared)) for width in widths)
    case.options["id_map"] = sides
    if random.random() < 0.6:
        case.options["beta"] = random.choice(
            (0.0, 1.0, random.random(), near(random, 0.0, 1.0), near(random, 1.0, -1.0))
        )
    if random.random() < 0.5:
        for part in ("matched_weight", "unmatched_weight"):
            numbers = (0.0, 1.0, random.random(), log_uniform(random, 1e-9, 1e9))
            case.options[part] = random.choice(numbers)


def truth(o: ModuleType, name: str, row: dict[str, Any], options: dict[str, Any]) -> Truth:
    """The value by ranks and by names, and where either sign of a rank is right."""
    p, q, ids = row["p"], row["q"], options.get("id_map")
    known = {one: options[one] for one in ("space", "temperature", "beta") if one in options}
    parts = tuple(options.get(part) for part in ("matched_weight", "unmatched_weight"))
    if parts != (None, None):
        known["weights"] = parts
    found = Truth(o.uld(p, q, ids=ids, **known), first_order=True)
    found.gradient = lambda wrt: o.uld_gradient(p, q, wrt, ids=ids, **known)
    spaces = o.pair_of(options.get("space", "logits"))
    temperatures = [
        t if space == "logits" else 1.0
        for t, space in zip(o.pair_of(options.get("temperature", 1.0)), spaces, strict=True)
    ]
    found.scale = lambda wrt: 1 / temperatures["pq".index(wrt)]
    found.in_float64 = FRONTS
    if o.mp.isnan(found.value):
        return found
    found.never_negative = not ids or 0 < known.get("beta", 0.5) < 1
    matched, unmatched = parts
    if parts == (None, None):
        matched = len(ids[0]) / len(p) if ids else 0.0
        unmatched = 1 - matched
    sides = o.both_probabilities(p, q, options.get("space", "logits"), tuple(temperatures))
    numbers = [np.array([float(x) for x in side]) for side in sides]
    lns = [np.array([log_of(o, x) for x in side]) for side in sides]
    entropies = sum(float((x * (1 + ln)).sum()) for x, ln in zip(numbers, lns, strict=True))
    # Of logarithms that are rounded before they meet.
    met = entropies if ids or spaces[0] != spaces[1] else 0.0
    for i, j in zip(*ids, strict=True) if ids else ():
        met += max(numbers[0][i], numbers[1][j]) * (1 + lns[0][i] + lns[1][j])
    if spaces != ("logits", "logits"):
        met += sum(map(np.sum, numbers))
    found.rounding = (matched + unmatched) * met
    same = (
        not ids
        and spaces[0] == spaces[1]
        and temperatures[0] == temperatures[1]
        and _without_padding(p, spaces[0]) == _without_padding(q, spaces[1])
    )

    def rounding(wrt: str) -> Any:
        side = "pq".index(wrt)
        own = numbers[side]
        signs = unmatched * _signs((p, q), sides, ids, spaces, lns, wrt, options["wide"])
        by_logarithms = (matched + unmatched) * met
        if spaces[side] == "logits":
            return (float((signs * own).sum()) + by_logarithms) / temperatures[side]
        if spaces[side] == "log_probs":
            return signs * own + by_logarithms
        if ids:
            # Slopes of shared classes are logarithms.
            far = max(map(np.max, lns), default=0.0)
            slopes = np.nan_to_num(np.abs([float(x) for x in found.gradient(wrt)]), posinf=0.0)
            return signs + matched * far + slopes * (1 + far)
        return signs

    # Rows that the extension puts in order first are the same then.
    if same:
        found.formula_rounding = rounding
    else:
        found.gradient_rounding = rounding
    found.terms = lambda wrt: (
        (matched + unmatched)
        * math.hypot(*numbers["pq".index(wrt)])
        / temperatures["pq".index(wrt)]
    )
    found.conditioning = lambda: (
        (matched + unmatched) * (1 + entropies + max(float(ln.max()) for ln in lns))
    )
    return found


def _signs(rows: Any, sides: Any, ids: Any, spaces: Any, lns: Any, wrt: str, wide: bool) -> Array:
    """By how much the slope of each class may be off, where two probabilities of a rank agree."""
    side = "pq".index(wrt)
    shared = ids or ((), ())
    orders = [
        sorted((i for i in range(len(x)) if i not in known), key=lambda i, x=x: (-x[i], i))
        for x, known in zip(rows, map(set, shared), strict=True)
    ]
    found = np.zeros(len(sides[side]))
    if spaces[0] == spaces[1] == "probs":
        return found
    error = 1e-13 if wide else 1e-6
    for i, j in zip(orders[side], orders[1 - side], strict=False):
        x, y = sides[side][i], sides[1 - side][j]
        if abs(x - y) <= error * max(x, y) * (1 + lns[side][i] + lns[1 - side][j]):
            found[i] = 1 / EPS
    return found


def _without_padding(row: Any, space: str) -> list[float]:
    """The numbers of the classes there are, in order."""
    absent = 0.0 if space == "probs" else -math.inf
    return sorted(x for x in row if x != absent)
