"""Many results as one page: a row a result, and how far each has drifted from a baseline."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import altair as alt
import polars as pl

import kldiv
from kldiv.evaluation.report import numbers
from kldiv.evaluation.report.cells import EMPTY, Cell
from kldiv.evaluation.report.figures import Figure, figure
from kldiv.evaluation.report.letters import visible
from kldiv.evaluation.report.names import short_names
from kldiv.evaluation.report.render import render
from kldiv.evaluation.report.words import Words, words_of
from kldiv.evaluation.results import Result

COLUMNS = (
    *("model", "date", "mean", "drift", "p99", "top1", "ratio", "median", "max", "positions"),
    *("infinite", "nan", "reference", "file", "version"),
)
MOST_CHARTED = 60


@dataclass(frozen=True)
class Entry:
    """One result, with the file's own date where the result has none."""

    result: Result
    file: str
    """Below the folder."""
    date: str

    @property
    def names(self) -> tuple[str, ...]:
        """What a baseline may be called: file:candidate, file, candidate or the end of its path."""
        candidate = self.result.candidate
        end = candidate.rstrip("/").rpartition("/")[2]
        return f"{self.file}:{candidate}", self.file, candidate, f"{self.file}:{end}", end

    @property
    def reference(self) -> str:
        """Its file, as it was named."""
        described = self.result.about.get("reference")
        return str(described.get("file", "")) if isinstance(described, dict) else ""

    @property
    def same(self) -> tuple[str, ...]:
        """What two results must share for a difference to mean something."""
        summary, reference = self.result.summary, self.result.about.get("reference")
        digest = reference.get("digest") if isinstance(reference, dict) else None
        whose = digest.get("sha256") if isinstance(digest, dict) else self.reference
        numbers = (summary.get(name) for name in ("num_positions", "kld_vocab_size"))
        return tuple(map(str, (whose, *numbers, self.result.bounded)))


@dataclass(frozen=True)
class Line:
    """A row of the page."""

    cells: Sequence[Cell]
    mean: float | None
    error: float
    same: str
    """Rows that have the same can be compared."""
    is_baseline: bool


def baseline_of(entries: Sequence[Entry], name: str | None) -> Entry | None:
    """The entry that is called so; the first, which is the oldest, without a name.

    Raises
    ------
    ValueError
        For a name of none, and for one of several.
    """
    if name is None:
        return entries[0]
    found = [entry for entry in entries if name in entry.names]
    if len(found) == 1:
        return found[0]
    called = ", ".join(entry.names[0] for entry in found or entries[:8])
    if found:
        raise ValueError(f"{name!r} is {len(found)} results; expected one of {called}")
    raise ValueError(f"no result is called {name!r}; there are {called}")


def history_page(
    folder: str,
    entries: Sequence[Entry],
    baseline: Entry | None,
    left_out: Sequence[tuple[str, str]] = (),
    *,
    lang: str = "en",
) -> str:
    """The page, with rows in the order of `entries`."""
    words = words_of(lang)
    kinds = {same: str(place) for place, same in enumerate(dict.fromkeys(e.same for e in entries))}
    called = short_names(entry.result.candidate for entry in entries)
    against = short_names(entry.reference for entry in entries)
    lines = [
        _line(entry, baseline, kinds[entry.same], (called, against), words) for entry in entries
    ]
    files = len({entry.file for entry in entries})
    counts = {
        "results": words.count(len(entries), "result"),
        "files": words.count(files, "file"),
    }
    name = "history.answer" if baseline is None else "history.answer_drift"
    chosen = "" if baseline is None else f"{baseline.file}: {called[baseline.result.candidate]}"
    return render(
        "history.html.jinja",
        words,
        title=words("history", folder=folder),
        sentence=words(name, baseline=chosen, **counts),
        columns=COLUMNS,
        lines=lines,
        chart=_chart(entries, called, words),
        left_out=left_out,
        version=kldiv.__version__,
    )


def drift(entry: Entry, baseline: Entry) -> tuple[float, float] | None:
    """Mean KL less that of the baseline, and its error; None where that says nothing."""
    means = [_mean(one.result.summary) for one in (entry, baseline)]
    if entry.same != baseline.same or None in means:
        return None
    errors = [_error(one.result.summary) for one in (entry, baseline)]
    first, second = (mean for mean in means if mean is not None)
    return first - second, math.hypot(*errors)


def _line(
    entry: Entry,
    baseline: Entry | None,
    same: str,
    short: tuple[Mapping[str, str], Mapping[str, str]],
    words: Words,
) -> Line:
    """A row; `short` has the short names of candidates and of references."""
    summary, about = entry.result.summary, entry.result.about
    found = entry.result.numbers()
    mean, error = _mean(summary), _error(summary)
    bound = words["history.bound"] if entry.result.bounded else None
    cells = {
        "model": Cell(short[0][entry.result.candidate]),
        "mean": _of(found, "kl.mean")
        if mean is None
        else Cell(numbers.with_error(mean, error), "kl.mean", mean, bound),
        "drift": _drift_cell(entry, baseline, words),
        "median": _of(found, "kl.median"),
        "p99": _of(found, "kl.p99"),
        "max": _of(found, "kl.max"),
        "top1": _of(found, "top1_agreement", percents=True),
        "ratio": _of(found, "perplexity.ratio.mean", digits=4),
        "positions": _whole(found, "num_positions"),
        "infinite": _whole(found, "num_infinite"),
        "nan": _whole(found, "num_nan"),
        "reference": Cell(short[1][entry.reference]),
        "date": Cell(entry.date[:16].replace("T", " ")),
        "version": Cell(str(about.get("kldiv", ""))),
        "file": Cell(entry.file),
    }
    if entry.result.bounded:
        for name in ("mean", "median", "p99", "max"):
            if cells[name].value is not None:
                cells[name] = replace(cells[name], text=f"≥ {cells[name].text}")
    return Line([cells[name] for name in COLUMNS], mean, error, same, entry is baseline)


def _drift_cell(entry: Entry, baseline: Entry | None, words: Words) -> Cell:
    if baseline is None:
        return EMPTY
    if entry is baseline:
        return Cell(words["history.baseline"], "drift", 0.0)
    found = drift(entry, baseline)
    if found is None:
        return Cell(words["value.none"], note=words["history.other"])
    change, error = found
    sign = "+" if change > 0 else ""
    return Cell(f"{sign}{numbers.with_error(change, error)}", "drift", change)


def _of(found: dict[str, Any], name: str, *, percents: bool = False, digits: int = 3) -> Cell:
    value = found.get(name)
    if value in ("Infinity", "-Infinity"):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return EMPTY
    text = numbers.percent(value) if percents else numbers.number(value, digits)
    return Cell(text, name, float(value))


def _whole(found: dict[str, Any], name: str) -> Cell:
    value = found.get(name)
    return Cell(f"{value:,}", name, value) if isinstance(value, int) else EMPTY


def _mean(summary: dict[str, Any]) -> float | None:
    mean = summary["kl"].get("mean")
    known = isinstance(mean, (int, float)) and not isinstance(mean, bool) and math.isfinite(mean)
    return float(mean) if known else None


def _error(summary: dict[str, Any]) -> float:
    error = summary["kl"].get("standard_error")
    return float(error) if isinstance(error, (int, float)) else math.nan


def _chart(entries: Sequence[Entry], called: Mapping[str, str], words: Words) -> Figure | None:
    """The means with their errors, in the order of the rows."""
    rows = []
    for place, entry in enumerate(entries[-MOST_CHARTED:]):
        mean, error = _mean(entry.result.summary), _error(entry.result.summary)
        if mean is not None:
            error = 0.0 if math.isnan(error) else error
            name = visible(f"{called[entry.result.candidate]} · {entry.file}")
            rows.append({"place": place, "name": name, "mean": mean, "error": error})
    if not rows:
        return None
    table = pl.DataFrame(rows).with_columns(
        low=(pl.col("mean") - 2 * pl.col("error")).clip(lower_bound=0),
        high=pl.col("mean") + 2 * pl.col("error"),
    )
    order = table["name"].to_list()
    base = alt.Chart(table).encode(
        y=alt.Y("name:N", title=None, sort=order).axis(labelLimit=200, grid=True)
    )
    x = alt.X("mean:Q", title=words["chart.mean_kl"]).scale(zero=True)
    layered = base.mark_rule(strokeWidth=2).encode(x="low:Q", x2="high:Q") + base.mark_point(
        filled=True, size=60, opacity=1
    ).encode(x=x)
    chart = layered.properties(
        width=360, height=22 * len(rows) + 20, title=alt.Title(words["history.chart"])
    )
    return figure("history", chart, "", ["mean"])
