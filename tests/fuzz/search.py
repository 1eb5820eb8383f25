"""The search for finds, as one process does it."""

from __future__ import annotations

import os
import time
from collections import Counter
from typing import Any

# A panic of the extension is reported as a find, in one line.
os.environ["RUST_BACKTRACE"] = "0"

CONFIRMED = 5
"""Finds of one signature that mpmath computes again; where these stand, the next do."""


def search(
    seed: int,
    start: int,
    step: int,
    seconds: float,
    cases: int,
    shrinking: int,
    names: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Try cases, or those of some subjects, until the time, or their number, is over."""
    from . import shrink
    from .case import cases as all_cases

    found: Counter[tuple[str, ...]] = Counter()
    texts: dict[tuple[str, ...], list[tuple[tuple[str, ...], str]]] = {}
    done = 0
    fronts: Counter[str] = Counter()
    end = time.monotonic() + seconds
    for index, case in all_cases(seed, start, step, names):
        if time.monotonic() > end or done >= cases:
            break
        done += 1
        fronts[case.front] += 1
        find = shrink.find_in(case)
        if find is None:
            continue
        signature = shrink.signature(case, find)
        if found[signature] < CONFIRMED and shrink.find_in(case, arbiter=True) is None:
            continue
        found[signature] += 1
        if found[signature] <= shrinking:
            small, now = shrink.shrunk(case, find)
            text = f"# seed {seed}, case {index}\n{shrink.snippet(small, now)}"
            texts.setdefault(signature, []).append((shrink.signature(small, now), text))
    return {"done": done, "found": found, "texts": texts, "fronts": fronts}
