"""Run the fuzzer: ``python -m fuzz --minutes 10``."""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import secrets
import sys
import time
from collections import Counter
from typing import Any

from .search import search
from .subjects import SUBJECTS

PER_SIGNATURE = 1
"""Finds of one signature that are made small; the others are counted."""


def main(arguments: list[str] | None = None) -> int:
    """Search in parallel, and report."""
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--cases", type=int, default=10**12, help="stop after so many")
    parser.add_argument("--seed", type=int, default=None, help="a new one if left out")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--case", type=int, default=None, help="one case of the seed, by its number"
    )
    parser.add_argument(
        "--shrink", type=int, default=PER_SIGNATURE, help="finds shrunk a signature"
    )
    parser.add_argument(
        "--subject", action="append", default=[], help="a function by its name, and no others"
    )
    options = parser.parse_args(arguments)
    if unknown := set(options.subject) - {one.name for one in SUBJECTS}:
        parser.error(f"there is no subject {', '.join(sorted(unknown))}")
    seed = secrets.randbelow(2**31) if options.seed is None else options.seed
    if options.case is not None:
        return _one(seed, options.case)
    print(f"seed {seed}, {options.jobs} processes, {options.minutes:g} minutes", flush=True)
    jobs = [
        (
            seed,
            start,
            options.jobs,
            60 * options.minutes,
            -(-options.cases // options.jobs),
            options.shrink,
            tuple(options.subject),
        )
        for start in range(options.jobs)
    ]
    began = time.monotonic()
    if options.jobs == 1:
        results = [search(*jobs[0])]
    else:
        with multiprocessing.get_context("spawn").Pool(options.jobs) as pool:
            results = pool.starmap(search, jobs)
    return _report(results, time.monotonic() - began)


def _one(seed: int, index: int) -> int:
    from . import shrink
    from .case import make

    case = make(seed, index)
    find = shrink.find_in(case, arbiter=True)
    if find is None:
        print("nothing wrong")
        return 0
    print(shrink.snippet(case, find))
    print("\nmade small:\n" + shrink.snippet(*shrink.shrunk(case, find)))
    return 1


def _report(results: list[dict[str, Any]], seconds: float) -> int:
    done = sum(result["done"] for result in results)
    fronts = sum((result["fronts"] for result in results), Counter())
    found = sum((result["found"] for result in results), Counter())
    groups: dict[tuple[str, ...], list[str]] = {}
    times: Counter[tuple[str, ...]] = Counter()
    for signature, number in found.most_common():
        texts = list(itertools.chain(*(result["texts"].get(signature, ()) for result in results)))
        # Options that the find does not need are not in the signature of the small case.
        small = texts[0][0] if texts else signature
        times[small] += number
        groups.setdefault(small, []).extend(text for _, text in texts)
    for signature, number in times.most_common():
        print(f"\n## {' | '.join(part for part in signature if part)}: {number} times")
        for text in groups[signature][:PER_SIGNATURE]:
            print(text)
    shares = ", ".join(f"{front} {number}" for front, number in fronts.most_common())
    print(f"\n{done} cases ({shares}) in {seconds:.0f} s, {done / seconds:.0f} a second")
    print(f"{sum(times.values())} finds of {len(times)} kinds")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
