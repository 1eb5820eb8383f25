"""`kldiv check`: numbers of a result held to bounds, for continuous integration."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from kldiv.cli.errors import CommandError
from kldiv.evaluation.results import Known, Result, read_results


@dataclass(frozen=True)
class Bound:
    """What a number must not go beyond."""

    option: str
    """``--max`` or ``--min``."""
    name: str
    limit: float
    text: str
    """The limit as typed."""

    def holds(self, value: float) -> bool:
        """Whether the value is within, the limit itself included."""
        return value <= self.limit if self.option == "--max" else value >= self.limit


def check(
    file: str, largest: Sequence[str], smallest: Sequence[str], candidate: str | None
) -> bool:
    """Print a line a bound and candidate; whether all are known to hold.

    Raises
    ------
    CommandError, DumpError, OSError
        For a file that is no result, a bound that is none, and a number that is not there or is no
        finite number.
    """
    bounds = [_bound("--max", text) for text in largest] + [
        _bound("--min", text) for text in smallest
    ]
    if not bounds:
        raise CommandError("nothing to check; expected --max NAME=NUMBER or --min NAME=NUMBER")
    results = _chosen(read_results(file), candidate)
    # All numbers are looked up before any line is printed.
    verdicts = [_verdict(*row) for row in _values(results, bounds)]
    for holds, line in verdicts:
        print(f"{'ok    ' if holds else 'FAILED'} {line}")
    return all(holds for holds, _ in verdicts)


_SIGNS: dict[Known, str] = {"exactly": "=", "at least": "≥", "at most": "≤", "not": "="}
_PROVES: dict[Known, tuple[str, ...]] = {
    "exactly": ("--max", "--min"),
    "at least": ("--min",),
    "at most": ("--max",),
    "not": (),
}


def _verdict(result: Result, bound: Bound, name: str, value: float) -> tuple[bool, str]:
    """Whether the bound is known to hold, and the line that says so.

    A lower bound below a maximum proves nothing, nor does an upper bound above a minimum.
    """
    known = result.known(name)
    line = f"{result.candidate}: {name} {_SIGNS[known]} {value:.6g}"
    within = bound.holds(value)
    if known == "not":
        return False, f"{line}: of lower bounds, which says nothing of that of KL"
    if within and bound.option not in _PROVES[known]:
        side = "a lower" if known == "at least" else "an upper"
        return False, f"{line}: {side} bound proves nothing of {bound.option} {bound.text}"
    largest = bound.option == "--max"
    sign = ("≤" if largest else "≥") if within else (">" if largest else "<")
    return within, f"{line} {sign} {bound.text}"


def _bound(option: str, text: str) -> Bound:
    name, equals, limit = (part.strip() for part in text.rpartition("="))
    try:
        number = float(limit)
    except ValueError:
        number = math.nan
    if not equals or not name or not math.isfinite(number):
        raise CommandError(f"{option} is {text!r}; expected NAME=NUMBER, as kl.p99=0.1")
    return Bound(option, name, number, limit)


def _chosen(results: list[Result], candidate: str | None) -> list[Result]:
    if candidate is None:
        return results
    found = [result for result in results if result.candidate == candidate]
    if not found:
        names = ", ".join(result.candidate for result in results)
        raise CommandError(f"{results[0].file} has no candidate {candidate!r}; there are {names}")
    return found


def _values(
    results: Sequence[Result], bounds: Sequence[Bound]
) -> Iterator[tuple[Result, Bound, str, float]]:
    for result in results:
        numbers = result.numbers()
        for bound in bounds:
            name = result.end(bound.name, largest=bound.option == "--max")
            yield result, bound, name, _number(result, numbers, name)


def _number(result: Result, numbers: dict[str, Any], name: str) -> float:
    where = f"{result.file}, {result.candidate}"
    if name not in numbers:
        known = [one for one, value in numbers.items() if isinstance(value, (int, float))]
        near = difflib.get_close_matches(name, known, 3, 0.5)
        inside = sorted(one for one in known if one.startswith(f"{name}."))
        hint = near or inside[:3] or ["kl.mean", "kl.p99", "top1_agreement"]
        raise CommandError(f"{where}: no number is called {name!r}; there are {', '.join(hint)}")
    value = numbers[name]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        said = {"Infinity": "infinite", "-Infinity": "infinite"}.get(str(value), repr(value))
        said = "not known (null)" if value is None else said
        raise CommandError(f"{where}: {name} is {said}; expected a finite number")
    return float(value)
