"""Several summaries as one: labels down, candidates across."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
    tables = [
        {section.title: dict(section.lines) for section in summary.sections()}
        for summary in summaries
    ]
    blocks = []
    for title in _in_order(list(table) for table in tables):
        columns = [table.get(title, {}) for table in tables]
        labels = _in_order(list(column) for column in columns)
        rows = (Row(label, tuple(one.get(label, "") for one in columns)) for label in labels)
        blocks.append(Block(title, tuple(rows)))
    return blocks


def _in_order(lists: Iterable[list[str]]) -> list[str]:
    """Every name once, those that only a later list has behind what comes before them there."""
    order: list[str] = []
    for names in lists:
        place = 0
        for name in names:
            if name in order:
                place = order.index(name) + 1
            else:
                order.insert(place, name)
                place += 1
    return order
