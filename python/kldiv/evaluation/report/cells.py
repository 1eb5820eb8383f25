"""Tables of a page: what a cell says, and which number of the JSON that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from kldiv.evaluation.report import numbers
from kldiv.evaluation.report.words import Words
from kldiv.evaluation.statistics.estimate import Estimate


@dataclass(frozen=True)
class Cell:
    """One value, as text."""

    text: str
    name: str | None = None
    """Of the number in the JSON, dotted, as `kldiv check` takes it."""
    value: float | None = None
    """The number itself, which the page has in full precision for whoever reads it by program."""
    note: str | None = None
    """Small, below it."""


EMPTY = Cell("")


@dataclass(frozen=True)
class Row:
    """A label, a small word below it, and a cell a column."""

    label: str
    cells: Sequence[Cell]
    note: str | None = None


@dataclass(frozen=True)
class Table:
    """Rows under a header; where columns are candidates their places give their colours."""

    name: str
    title: str
    header: Sequence[str]
    rows: Sequence[Row]
    candidates_from: int | None = None
    """The first column, counted without that of the labels, that is a candidate's."""


def of_number(value: float, name: str, *, percents: bool = False, note: str | None = None) -> Cell:
    """A number that has no error."""
    text = numbers.percent(value) if percents else numbers.number(value)
    return Cell(text, name, value, note)


def of_estimate(
    found: Estimate | None,
    name: str,
    words: Words,
    *,
    percents: bool = False,
    note: str | None = None,
) -> Cell:
    """A mean with its error; nothing where there is none."""
    if found is None:
        return EMPTY
    if found.rows and found.rows_infinite:
        infinite = words("value.infinite_in", count=f"{found.rows_infinite:,}")
        note = infinite if note is None else f"{infinite} · {note}"
        found = replace(found, rows_infinite=0)
    text = numbers.estimate(found, words, percents=percents)
    return Cell(text, name, found.mean if found.rows else None, note)
