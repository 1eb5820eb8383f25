"""A table in plain text, aligned."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from kldiv.evaluation.statistics.paired import Pair
from kldiv.evaluation.statistics.summary import EvaluationSummary
from kldiv.evaluation.tables.side_by_side import side_by_side


def plain_table(summaries: Sequence[EvaluationSummary], pairs: Sequence[Pair] = ()) -> str:
    """Labels down, candidates across, in columns; sections apart, and pairs below."""
    blocks = side_by_side(summaries)
    header = ("", *(summary.candidate for summary in summaries))
    table = [header, *((row.label, *row.values) for block in blocks for row in block.rows)]
    widths = [max(map(_width, cells)) for cells in zip(*table, strict=True)]

    def line(cells: tuple[str, ...]) -> str:
        padded = (
            cell + " " * (width - _width(cell)) for cell, width in zip(cells, widths, strict=True)
        )
        return "  ".join(padded).rstrip()

    lines = [line(header)] if len(summaries) > 1 else []
    for block in blocks:
        lines += [*([""] if lines else []), block.title]
        lines += [line((row.label, *row.values)) for row in block.rows]
    if pairs:
        lines += ["", "paired", *(pair.verdict for pair in pairs)]
    return "\n".join(lines)


def _width(text: str) -> int:
    """Columns of a terminal."""
    return sum(
        0 if unicodedata.combining(one) else 2 if unicodedata.east_asian_width(one) in "WF" else 1
        for one in text
    )
