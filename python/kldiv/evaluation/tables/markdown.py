"""A table in Markdown, as GitHub and Hugging Face show it."""

from __future__ import annotations

from collections.abc import Sequence

from kldiv.evaluation.statistics.paired import Pair
from kldiv.evaluation.statistics.summary import EvaluationSummary
from kldiv.evaluation.tables.side_by_side import side_by_side


def markdown_table(summaries: Sequence[EvaluationSummary], pairs: Sequence[Pair] = ()) -> str:
    """One table, sections as bold rows; pairs as a list below."""
    names = [summary.candidate for summary in summaries]
    lines = [_line(["", *names]), _line(["---", *["---:"] * len(names)])]
    for block in side_by_side(summaries):
        lines.append(_line([f"**{block.title}**", *[""] * len(names)], escape=False))
        lines += [_line([row.label, *row.values]) for row in block.rows]
    if pairs:
        lines += ["", *(f"- {_escaped(pair.verdict)}" for pair in pairs)]
    return "\n".join(lines)


def _line(cells: Sequence[str], *, escape: bool = True) -> str:
    return "| " + " | ".join(_escaped(cell) if escape else cell for cell in cells) + " |"


def _escaped(text: str) -> str:
    """Names of files may hold what Markdown takes for its own."""
    for mark in "\\|`*_<>":
        text = text.replace(mark, f"\\{mark}")
    return text.replace("\n", " ")
