"""Teachers of which the most probable classes are kept, of rows of the fuzzer."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np

import kldiv
from kldiv._kldiv import DIVERGENCES, RULES, infinite_where

from .case import Case, draw_rows
from .contents import stored
from .options import OPTIONS

Array = np.ndarray[Any, Any]

WIDEST = 20
"""Classes: gradients of the oracle are differences, two values a class."""
SUMS = {"kl", "reverse_kl", "jeffreys", "jensen_shannon", "total_variation", "skew_kl"}
SUMS |= {"skew_reverse_kl", "chi_squared"}
"""Divergences that `truncate` gives a meaning."""


def draw(random: Random, case: Case) -> None:
    """Two rows, of whose first some classes are kept, and a rule."""
    draw_rows(random, case, ("p", "q"), ("logits", "logits"))
    p = np.nan_to_num(case.rows["p"][:, :WIDEST], posinf=0.0, neginf=-50.0)
    # What p has elsewhere is 1 − Σp, of which rounding leaves nothing where it is small.
    case.rows["p"] = stored(np.maximum(p, p.max(-1, keepdims=True) - 8), case.dtype_of("p"))
    q = case.rows["q"][:, :WIDEST]
    # Beside them an infinite value has no difference that a gradient could be.
    case.rows["q"] = np.where(np.isneginf(q), stored(np.array(-50.0), case.dtype_of("q")), q)
    case.options["kept"] = random.randint(1, case.shape[1])
    of_q = OPTIONS["temperature"].draw(random, case) or 1.0
    case.options["temperature"] = (1.0, of_q[1] if isinstance(of_q, tuple) else of_q)
    name = case.subject.name
    case.options["rule"] = random.choice([rule for rule in RULES if has_meaning(rule, name)])


def has_meaning(rule: str, name: str) -> bool:
    """Whether a rule is one for a divergence, whatever its parameter."""
    if rule == "sampled":
        return False
    if rule == "truncate":
        return name in SUMS
    described = DIVERGENCES[name].parameter
    parameter = 0.5 if described is None else described.default or 0.5
    return rule != "renormalize_p" or not infinite_where(name, parameter)[1]


def classes_of(rows: Array, k: int, wide: bool) -> tuple[Array, Array]:
    """The ids and log-probabilities that are kept of rows of logits."""
    shifted = rows - rows.max(-1, keepdims=True)
    log_probs = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    ids = np.argsort(-log_probs, axis=-1, kind="stable")[..., :k]
    values = np.take_along_axis(log_probs, ids, axis=-1)
    return ids, np.minimum(values.astype(np.float64 if wide else np.float32), 0)


def positional_of(case: Case, arrays: dict[str, Any], names: list[str]) -> list[Any]:
    """The arguments that come first, of which p may be kept as top-k."""
    if not case.kept:
        return [arrays[name] for name in names]
    rows = case.rows["p"].reshape((*case.batch_shape, -1))
    wide = case.dtype_of("p") == "float64"
    ids, values = classes_of(rows, case.kept, wide)
    top_k = kldiv.TopK(ids, values, classes=rows.shape[-1])
    return [top_k if name == "p" else arrays[name] for name in names]
