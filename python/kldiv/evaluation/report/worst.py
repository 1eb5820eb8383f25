"""The worst positions, with their text and what both models held most probable."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from kldiv.evaluation.report import numbers
from kldiv.evaluation.report.cells import Cell
from kldiv.evaluation.report.contexts import Speller, Texts
from kldiv.evaluation.report.words import Words


@dataclass(frozen=True)
class Said:
    """A token as it is shown."""

    text: str
    is_text: bool
    """Whether that is its text, and no number."""


@dataclass(frozen=True)
class Choice:
    """What one model held: its most probable token, and the true one."""

    model: str
    most_probable: Said | None
    probability: str
    of_true: str | None


@dataclass(frozen=True)
class Position:
    """One of the worst positions."""

    kl: Cell
    place: str
    passage: tuple[str, str, str] | None
    """The text before the true token, its own and that behind; None where it is not known."""
    cut: bool
    """Whether the text begins before what is shown."""
    true: Said | None
    choices: tuple[Choice, Choice]


def positions(
    rows: pl.DataFrame, texts: Texts, speller: Speller, words: Words
) -> Sequence[Position]:
    """Of rows of the table, in their order."""
    return [_position(row, texts, speller, words) for row in rows.iter_rows(named=True)]


def _position(row: dict[str, Any], texts: Texts, speller: Speller, words: Words) -> Position:
    column = "kl" if "kl" in row else "kl_lower"
    context = texts.around(row["sequence"], row["position"])
    name = row.get("name")
    return Position(
        kl=Cell(numbers.number(row[column]), column, row[column]),
        place=words(
            "worst.place",
            name=row["sequence"] if name is None else name,
            position=f"{row['position']:,}",
        ),
        passage=speller.passage(context),
        cut=not context.from_the_start,
        true=None if row.get("token") is None else _said(speller, row["token"]),
        choices=(
            _choice(words["worst.reference"], row, "p", speller),
            _choice(words["worst.candidate"], row, "q", speller),
        ),
    )


def _choice(model: str, row: dict[str, Any], side: str, speller: Speller) -> Choice:
    top = row.get(f"top1_{side}")
    confidence, loss = row.get(f"confidence_{side}"), row.get(f"nll_{side}")
    return Choice(
        model=model,
        most_probable=None if top is None or top < 0 else _said(speller, top),
        probability="" if confidence is None else _probability(confidence),
        of_true=None if loss is None else _probability(math.exp(-loss)),
    )


def _said(speller: Speller, token: int) -> Said:
    text, is_text = speller.one(token)
    # Whether a token begins with a space is half of what it is.
    return Said(text.replace(" ", "␣"), is_text)


def _probability(value: float) -> str:
    """In percent; as a power of ten where percents would say nothing."""
    if math.isnan(value) or value >= 0.0001 or value == 0:
        return numbers.percent(value)
    return numbers.number(value, 2)
