"""What is printed of summaries: formats by name, each a function of summaries and pairs to text."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kldiv.evaluation.statistics.paired import Pair
from kldiv.evaluation.statistics.summary import EvaluationSummary
from kldiv.evaluation.tables.csv import csv_table
from kldiv.evaluation.tables.json import json_table
from kldiv.evaluation.tables.markdown import markdown_table
from kldiv.evaluation.tables.plain import plain_table

Format = Callable[[Sequence[EvaluationSummary], Sequence[Pair]], str]

TABLES: dict[str, Format] = {
    "plain": plain_table,
    "markdown": markdown_table,
    "csv": csv_table,
    "json": json_table,
}
"""Each writes the candidates side by side, and below what pairs of them say; the text ends
without a line break."""
