"""Every number as CSV, in full precision."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any

from kldiv.evaluation.statistics.flat import flat
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
    columns = [dict(_cells(summary.as_dict())) for summary in summaries]
    names = [summary.candidate for summary in summaries]
    for pair in pairs:
        numbers = pair.as_dict()
        numbers = {name: numbers[name] for name in ("kl", "others", "better")}
        columns[names.index(pair.a)] |= dict(_cells(numbers, f"pairs.{pair.a} - {pair.b}"))
    labels = dict.fromkeys(label for column in columns for label in column)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["", *names])
    for label in labels:
        writer.writerow([label, *(column.get(label, "") for column in columns)])
    return text.getvalue().rstrip("\n")


def _cells(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    for name, found in flat(value, path, without=_LONG):
        if found is None:
            yield name, ""
        elif isinstance(found, float):
            yield name, repr(found)
        else:
            text = str(found)
            yield name, {"Infinity": "inf", "-Infinity": "-inf"}.get(text, text)
