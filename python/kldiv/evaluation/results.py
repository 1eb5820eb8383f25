"""Results that are kept as JSON: read back, and their numbers by name."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from kldiv.evaluation.dumps.names import check_exists
from kldiv.evaluation.dumps.protocol import DumpError
from kldiv.evaluation.statistics.flat import flat, named_numbers

_OF_ALL = frozenset({"candidates", "pairs"})

Known = Literal["exactly", "at least", "at most", "not"]
"""What a number of a result says of the truth."""

_INTERVALS = {"total_variation": "total_variation", "acceptance.rate": "acceptance"}
"""Numbers that top-k rows have two ends of: what they are called there."""
_ABOUT = frozenset({"rows", "clusters", "samples", "rows_infinite", "percentiles_rank_error"})
_OF_ERRORS = frozenset({"standard_error", "standard_error_independent"})
_SHARES = frozenset({"share", "share_of_kl", "changed_share_of_kl"})


@dataclass(frozen=True)
class Result:
    """What is known of one candidate."""

    file: str
    candidate: str
    about: dict[str, Any]
    """What was compared, and how; empty of JSON that does not say."""
    summary: dict[str, Any]
    """As `EvaluationSummary.as_dict` gives it."""

    @property
    def bounded(self) -> bool:
        """Whether all that is called KL is of lower bounds, of top-k rows."""
        return bool(self.summary.get("kl_is_lower_bound"))

    def known(self, name: str) -> Known:
        """What the number of that name says of what is meant: of top-k rows, a bound."""
        parts = name.split(".")
        if parts[-1] in _ABOUT | _OF_ERRORS:
            return "exactly"
        for part in parts:
            if part.endswith("_lower"):
                return "at least"
            if part.endswith("_upper"):
                return "at most"
        if not self.bounded:
            return "exactly"
        if parts[-1] in _SHARES or "tail_shares" in parts:
            return "not"
        of_kl = parts[0] in ("kl", "uncertainty", "bootstrap") or any(
            part == "kl" or part.startswith("kl_") for part in parts[1:]
        )
        return "at least" if of_kl or parts[:2] == ["floor", "difference"] else "exactly"

    def end(self, name: str, *, largest: bool) -> str:
        """The name of the end of an interval that a limit is held to; of other numbers their own.

        A largest value is held to the upper end, a smallest to the lower one.
        """
        called = _INTERVALS.get(name.removesuffix(".mean"))
        if not self.bounded or called is None:
            return name
        return f"bounds.{called}_{'upper' if largest else 'lower'}.mean"

    def numbers(self) -> dict[str, Any]:
        """Everything that has one value, by its dotted name; what has a mean also by its own.

        A value is a number, a text, or None, as in the JSON.
        """
        outer = {name: value for name, value in self.about.items() if name not in self.summary}
        return dict(flat(outer, without=_OF_ALL)) | named_numbers(self.summary)


def read_results(path: str | os.PathLike[str]) -> list[Result]:
    """The candidates of a file that ``kldiv compare --json`` or `Evaluation.to_json` wrote.

    Raises
    ------
    DumpError
        For a file that is none.
    """
    name = os.fspath(path)
    check_exists(Path(name), (".json",))
    try:
        content = json.loads(Path(name).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise DumpError(f"{name} is no JSON: {reason}") from None
    if not isinstance(content, dict):
        raise DumpError(f"{name} holds {type(content).__name__}; expected a result of kldiv")
    about = content.get("about", content)
    candidates = content.get("candidates", [content])
    if not isinstance(candidates, list) or not isinstance(about, dict):
        raise DumpError(f"{name} is no result of kldiv: candidates is no list")
    for place, one in enumerate(candidates):
        if not (
            isinstance(one, dict)
            and isinstance(one.get("kl"), dict)
            and isinstance(one.get("candidate"), str)
            and isinstance(one.get("num_positions"), int)
        ):
            raise DumpError(
                f"{name} is no result of kldiv: entry {place} of its candidates lacks candidate, "
                "num_positions or kl"
            )
    if not candidates:
        raise DumpError(f"{name} holds no candidate")
    return [Result(name, one["candidate"], about, one) for one in candidates]
