"""Charts as SVG, in the colours of the page: by Altair and vl-convert, without a browser."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import altair as alt
import vl_convert  # noqa: F401 - what Altair draws with; it is missed here, by its name

from kldiv.evaluation.report.colours import ROLES, series

FONT = "system-ui, sans-serif"
WIDTH, HEIGHT = 360, 230
"""Pixels: so small that letters can be read where a phone shows it smaller."""
TALL = ("stratum", "history")
"""Charts with a line for each of many."""
TICKS = 6
PADDING = {"left": 20, "right": 20, "top": 4, "bottom": 4}
"""Pixels. What is drawn with is not the reader's font, whose letters may be wider."""


@dataclass(frozen=True)
class Figure:
    """A chart for a page."""

    name: str
    title: str
    svg: str
    """Its text is escaped."""
    caption: str
    notes: tuple[str, ...] = ()
    """What is counted beside it."""

    def called(self, name: str, title: str) -> Figure:
        """The same under another name."""
        return replace(self, name=name, title=title)


def figure(
    name: str, chart: Any, caption: str, candidates: Sequence[str], first_colour: int = 0
) -> Figure:
    """A chart in the colours of the page; title and notes are taken out, for HTML to say them."""
    colours = [ROLES[series(first_colour + place)][0] for place in range(len(candidates))]
    with alt.theme.enable("none"), alt.data_transformers.enable("default"):
        chart = chart.copy()
        chart.width = WIDTH
        chart.height = min(chart.height, HEIGHT) if name not in TALL else chart.height
        title = chart.title
        chart.title = alt.Undefined
        file = io.StringIO()
        _styled(chart, colours).save(file, format="svg")
    notes: Any = getattr(title, "subtitle", alt.Undefined)
    notes = () if notes is alt.Undefined else tuple(notes)
    return Figure(name, title.text, file.getvalue(), caption, notes)


def _styled(chart: Any, colours: Sequence[str]) -> Any:
    ink, soft, line = (ROLES[name][0] for name in ("ink", "soft", "line"))
    styled = (
        chart.configure(font=FONT, background="transparent", padding=PADDING, aria=False)
        .configure_view(stroke=None)
        .configure_axis(
            labelColor=soft,
            titleColor=ink,
            gridColor=line,
            domainColor=soft,
            tickColor=soft,
            labelFontSize=12.5,
            titleFontSize=13,
            titleFontWeight="normal",
            titlePadding=8,
            labelOverlap="greedy",
            labelSeparation=6,
        )
        .configure_axisQuantitative(tickCount=TICKS, labelFlush=False)
        .configure_mark(color=colours[0])
        .configure_rule(color=colours[0])
        .configure_point(size=36)
        .configure_line(strokeWidth=2)
    )
    if len(colours) > 1:
        # A colour each, whichever of them a chart shows; the page says whose they are.
        styled = styled.configure_range(category=list(colours)).configure_legend(disable=True)
    return styled
