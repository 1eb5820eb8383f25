"""Every number as CSV, in full precision."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any

from kldiv.evaluation.statistics.paired import Pair
from kldiv.evaluation.statistics.summary import EvaluationSummary

_LONG = frozenset({"candidate", "per_context"})
"""What is the header, and what is a table of its own in JSON."""


def csv_table(summaries: Sequence[EvaluationSummary], pairs: Sequence[Pair] = ()) -> str:
    """A line a number: its name as in the JSON, as ``kl.p99``, and that of each candidate.

    A pair's are those of the candidate that is named first, minus the other: ``pairs.A - B.…`` in
    the column of A. Empty where there is none; infinity is ``inf``, which spreadsheets and
    `float` read.
    """
    columns = [dict(_flat(summary.as_dict())) for summary in summaries]
    names = [summary.candidate for summary in summaries]
    for pair in pairs:
        numbers = pair.as_dict()
        numbers = {name: numbers[name] for name in ("kl", "others", "better")}
        columns[names.index(pair.a)] |= dict(_flat(numbers, f"pairs.{pair.a} - {pair.b}"))
    labels = dict.fromkeys(label for column in columns for label in column)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["", *names])
    for label in labels:
        writer.writerow([label, *(column.get(label, "") for column in columns)])
    return text.getvalue().rstrip("\n")


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, item in value.items():
            if path or key not in _LONG:
                yield from _flat(item, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _flat(item, f"{path}.{_key(item, number)}")
    elif value is None:
        yield path, ""
    elif isinstance(value, float):
        yield path, repr(value)
    else:
        text = str(value)
        yield path, {"Infinity": "inf", "-Infinity": "-inf"}.get(text, text)


def _key(item: Any, number: int) -> str:
    """What an element of a list is called: by what it is of, and else its number."""
    for key in ("percent", "label", "draft", "name"):
        if isinstance(item, dict) and key in item:
            return f"{item[key]}"
    return str(number)
