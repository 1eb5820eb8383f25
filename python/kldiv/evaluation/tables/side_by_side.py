"""Several summaries as one: labels down, candidates across."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kldiv.evaluation.statistics.summary import EvaluationSummary


@dataclass(frozen=True)
class Row:
    """A label, and the value of each candidate; empty where it has none."""

    label: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Block:
    """Rows under a title."""

    title: str
    rows: tuple[Row, ...]


def side_by_side(summaries: Sequence[EvaluationSummary]) -> list[Block]:
    """The sections of all, each line once, in the order in which they come."""
    titles: dict[str, dict[str, list[str]]] = {}
    for place, summary in enumerate(summaries):
        for section in summary.sections():
            rows = titles.setdefault(section.title, {})
            labels = [label for label, _ in section.lines]
            if place and any(label not in rows for label in labels):
                titles[section.title] = rows = _merged(rows, labels, len(summaries))
            for label, value in section.lines:
                rows.setdefault(label, [""] * len(summaries))[place] = value
    return [
        Block(title, tuple(Row(label, tuple(values)) for label, values in rows.items()))
        for title, rows in titles.items()
    ]


def _merged(rows: dict[str, list[str]], labels: list[str], count: int) -> dict[str, list[str]]:
    """New labels put in behind the one that comes before them."""
    order = list(rows)
    place = 0
    for label in labels:
        if label in rows:
            place = max(place, order.index(label) + 1)
        else:
            order.insert(place, label)
            place += 1
    return {label: rows.get(label, [""] * count) for label in order}
