"""Functions that give classes of every row as a `TopK`: the most probable ones, and drawn ones."""

from __future__ import annotations

from random import Random
from types import ModuleType
from typing import Any

import numpy as np

import kldiv

from .case import Case, draw_rows
from .contents import log_uniform
from .truth import Truth

Array = np.ndarray[Any, Any]

EDGE = 1e-12
"""Of cumulative sums: closer to one of them rounding says which class a number falls on."""


def draw_top_k(random: Random, case: Case) -> None:
    """Logits, and a number of classes that is seldom out of range."""
    draw_rows(random, case, ("logits",), ("logits",))
    classes = case.shape[1]
    case.options["k"] = random.randint(1, classes)
    if random.random() < 0.02:
        case.options["k"] = random.choice((0, -1, classes + 1, 2**63))


def draw_sample_k(random: Random, case: Case) -> None:
    """Logits, and how classes are drawn of them."""
    draw_rows(random, case, ("logits",), ("logits",))
    case.options |= {
        "k": random.choice((1, 2, 3, 8, random.randint(1, 100))),
        "seed": random.choice((0, 7, 2**63 + 5, 2**64 - 1, random.getrandbits(64))),
    }
    if random.random() < 0.5:
        case.options["first_row"] = random.choice((1, 2**32, 2**63, random.getrandbits(64)))
    if random.random() < 0.6:
        case.options["power"] = random.choice(
            (0.0, 0.5, 2.0, random.random(), 2 * random.random(), log_uniform(random, 1e-9, 1e3))
        )
    if random.random() < 0.02:
        name = random.choice(("k", "seed", "first_row", "power"))
        beyond = {"k": (0, 2**32), "power": (-0.5, 1001.0, np.nan)}.get(name, (-1, 2**64))
        case.options[name] = random.choice(beyond)


def top_k(o: ModuleType, name: str, row: dict[str, Any], options: dict[str, Any]) -> Truth:
    """The most probable classes with their log-probabilities."""
    z = row["logits"]
    found = Truth(_log_probs(o, z, options))
    found.classes = o.most_probable(z, max(options["k"], 0)), None
    return found


def sample_k(o: ModuleType, name: str, row: dict[str, Any], options: dict[str, Any]) -> Truth:
    """The classes that uniform numbers of NumPy fall on, and what they stand for."""
    z = row["logits"]
    found = Truth(_log_probs(o, z, options))
    if max(z) == np.inf or not max(z) > -np.inf or any(x != x for x in z):
        return found
    number = (options.get("first_row", 0) + row["number"]) % 2**64
    stream = np.random.Philox(key=options["seed"], counter=number << 64)
    uniforms = np.random.Generator(stream).random(options["k"]).tolist()
    how = {one: options[one] for one in ("power", "temperature") if one in options}
    counts, weights = o.drawn(z, uniforms, **how)
    ids = [i for i in o.most_probable(z, len(z)) if i in counts]
    found.classes = ids, [float(weights[i]) for i in ids]
    sums = np.array([float(x) for x in o.cumulative(z, **how)[:-1]])
    near = [np.abs(sums - uniform).min(initial=1.0) for uniform in uniforms]
    found.undecided = {"numpy": min(near) < EDGE}
    return found


def _log_probs(o: ModuleType, z: Any, options: dict[str, Any]) -> Any:
    return o.log_softmax(z, temperature=options.get("temperature", 1.0))


def refusals(case: Case) -> list[str]:
    """What a message may say where a call is to be refused."""
    o, found = case.options, []
    most = case.shape[1] if case.subject.name == "top_k" else 2**32 - 1
    if not 1 <= o["k"] <= most:
        found.append("k must be from 1 to")
    if not 0 <= o.get("power", 1.0) <= 1000:
        found.append("power must be from 0 to 1000")
    for name in ("seed", "first_row"):
        if not 0 <= o.get(name, 0) < 2**64:
            found.append(f"{name} must be from 0 to")
    if found:
        return found
    for row, z in enumerate(case.rows["logits"]):
        if np.isnan(z).any() or np.isposinf(z).any():
            return [f"row {row} of logits holds NaN or +inf"]
        if np.isneginf(z).all():
            return [f"row {row} of logits has no finite logit"]
    return []


def alone(case: Case, function: Any, keywords: dict[str, Any], whole: kldiv.TopK) -> str:
    """What differs where each row is computed by itself, on another number of threads."""
    from .calls import DTYPES, subnormals_kept

    with subnormals_kept(case.flush):
        rows = [z.astype(DTYPES[case.dtype_of("logits")])[None] for z in case.rows["logits"]]
    kldiv.set_num_threads(1 + case.threads % 3)
    keywords = {name: value for name, value in keywords.items() if name != "axis"}
    flat, begins = whole.flat(), whole.begins
    for row, z in enumerate(rows):
        if "seed" in keywords:
            keywords["first_row"] = (case.options.get("first_row", 0) + row) % 2**64
        one = function(z, **keywords).flat()
        part = slice(begins[row], begins[row + 1])
        for name in ("ids", "log_probs", "weights"):
            own, other = getattr(one, name), getattr(flat, name)
            if own is not None and own.tobytes() != other[part].tobytes():
                return f"{name} of row {row} by itself are {own}, and {other[part]} in its batch"
    return ""
