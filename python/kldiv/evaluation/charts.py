"""Charts of KL, by Altair: what `plot_…` of `Comparison` and `Evaluation` show, and reports.

Each is given a table of positions with a column `kl`, or of top-k rows `kl_lower`, and draws one
colour a `candidate` where there is that column. Numbers are binned here, so that a chart is small
however many rows there are. Titles are those of `kldiv.evaluation.report.words`.
"""

from __future__ import annotations

import math
from typing import Any

import altair as alt
import numpy as np
import polars as pl

from kldiv._arrays import Array
from kldiv.evaluation.report.words import Words, words_of
from kldiv.evaluation.statistics.by_stratum import by_stratum
from kldiv.evaluation.statistics.rows import main_column
from kldiv.evaluation.statistics.tail_share import tail_share

BINS = (12, 60)
"""Of the histogram, at least and at most: twice the root of the rows."""
POSITION_BINS = 100
CONFIDENCE_BINS = 20
PROBABILITY_BINS = 25
POINTS = 41
"""Edges of bins up to which each mean is marked; more of them would hide the line."""
MOST_STRATA = 30
FAR_APART = 20.0
"""Ratio of the means of candidates beyond which their axis is logarithmic."""
WIDTH, HEIGHT = 480, 280
DECADES = 16
"""A logarithmic axis begins so many below its end at the lowest: what is less is rounding."""

ENGLISH = words_of("en")


def kl_histogram(frame: pl.DataFrame, words: Words = ENGLISH) -> alt.Chart:
    """Share of positions by KL, on a logarithmic axis; what is not on it is counted beside."""
    every = frame[main_column(frame)].to_numpy()
    positive = every[np.isfinite(every) & (every > 0)]
    high = positive.max() if len(positive) else 1.0
    lowest = high * 0.1**DECADES
    low = positive[positive >= lowest].min() if len(positive) else 1e-6
    rows = len(positive) / max(1, len(_parts(frame)))
    bins = int(np.clip(2 * math.sqrt(rows), *BINS))
    edges = np.geomspace(low, max(high, low * 1.01), bins + 1)
    # Rounding must not put the smallest and the largest outside.
    edges[0], edges[-1] = low, max(high, edges[-1])
    parts, notes = [], []
    for name, (kl,) in _by_candidate(frame):
        counts, _ = np.histogram(kl[np.isfinite(kl) & (kl >= low)], edges)
        share = counts / max(1, len(kl))
        # A step begins at each edge; the last edge ends the last one.
        columns = {"from": edges, "share": np.append(share, share[-1])}
        parts.append(pl.DataFrame({"candidate": [name] * len(edges)} | columns))
        others = {
            "chart.zero": int((kl == 0).sum()),
            "chart.tiny": int(((kl > 0) & (kl < low)).sum()),
            "chart.negative": int((kl < 0).sum()),
            "chart.infinite": int((kl == np.inf).sum()),
            "chart.nan": int(np.isnan(kl).sum()),
        }
        said = words["list.comma"].join(
            words(what, count=f"{count:,}") for what, count in others.items() if count
        )
        if said:
            notes.append(words("chart.of", name=name, said=said) if name else said)
    chart = alt.Chart(pl.concat(parts)).mark_area(
        interpolate="step-after", fillOpacity=0.25, line={"strokeWidth": 1.5}
    )
    finished: alt.Chart = _finished(
        chart.encode(
            x=alt.X("from:Q", title=_kl_title(frame, words))
            .scale(type="log", nice=False)
            .axis(**_powers(edges)),
            y=alt.Y("share:Q", title=words["chart.share"]).stack(None).axis(format="%"),
            **_colour(frame),
        ),
        words["chart.histogram"],
        notes,
    )
    return finished


def kl_by_position(frame: pl.DataFrame, words: Words = ENGLISH) -> alt.Chart:
    """Mean KL along the text."""
    last = int(frame["position"].to_numpy().max(initial=0)) + 1
    width = -(-last // POSITION_BINS)
    edges = np.arange(0, last + width, width, dtype=np.float64)
    return _means(frame, "position", edges, "depth", words)


def kl_by_confidence(frame: pl.DataFrame, words: Words = ENGLISH) -> alt.Chart:
    """Mean KL against the probability of p's most probable class."""
    return _means(
        frame, "confidence_p", np.linspace(0, 1, CONFIDENCE_BINS + 1), "confidence", words
    )


def kl_by_stratum(frame: pl.DataFrame, words: Words = ENGLISH) -> alt.LayerChart:
    """Mean KL of each stratum with its 95 % interval, in the order in which strata come."""
    parts, order = [], []
    for name, part in _parts(frame):
        for group in by_stratum(part):
            if group.label not in order:
                order.append(group.label)
            if group.kl.rows:
                parts.append(
                    {
                        "candidate": name,
                        "stratum": group.label,
                        "mean": group.kl.mean,
                        "low": max(0.0, group.kl.ci95_low),
                        "high": group.kl.ci95_high,
                    }
                )
    shown = order[:MOST_STRATA]
    table = pl.DataFrame(
        [one for one in parts if one["stratum"] in shown],
        schema={
            "candidate": pl.String,
            "stratum": pl.String,
            **dict.fromkeys(("mean", "low", "high"), pl.Float64),
        },
    ).fill_nan(None)
    if _far_apart(frame):
        # Intervals end where a logarithmic axis does.
        table = table.filter(pl.col("mean") > 0)
        table = table.with_columns(pl.max_horizontal("low", pl.col("mean").min() / 3).alias("low"))
    offset: Any = {} if _alone(frame) else {"yOffset": alt.YOffset("candidate:N", sort=None)}
    base = alt.Chart(table).encode(
        y=alt.Y("stratum:N", title=None, sort=shown).axis(labelLimit=160), **offset
    )
    mean = alt.X("mean:Q", title=words["chart.mean_kl"]).scale(zero=True)
    if _far_apart(frame):
        mean = mean.scale(type="log", nice=False, padding=12).axis(
            **_powers(table["mean"].to_numpy())
        )
    rule = base.mark_rule(strokeWidth=2).encode(x="low:Q", x2="high:Q", **_colour(frame))
    point = base.mark_point(filled=True, size=70, opacity=1).encode(x=mean, **_colour(frame))
    notes = []
    if len(order) > len(shown):
        notes.append(words("chart.strata_left_out", count=f"{len(order) - len(shown):,}"))
    height = 36 + len(shown) * max(22, 16 * len(_parts(frame)))
    finished: alt.LayerChart = _finished(rule + point, words["chart.stratum"], notes, height=height)
    return finished


def tail_shares(frame: pl.DataFrame, words: Words = ENGLISH) -> alt.Chart:
    """The share of the total KL in the worst positions, by how many of them."""
    rows, order = [], []
    for name, part in _parts(frame):
        for one in tail_share(part, main_column(part)):
            label = f"{one.percent:g} %"
            order += [label] if label not in order else []
            rows.append({"candidate": name, "worst": label, "share": one.share})
    offset: Any = {} if _alone(frame) else {"xOffset": alt.XOffset("candidate:N", sort=None)}
    schema = {"candidate": pl.String, "worst": pl.String, "share": pl.Float64}
    table = pl.DataFrame(rows, schema=schema).fill_nan(None)
    axis = alt.Axis(labelAngle=0)
    chart = (
        alt.Chart(table)
        .mark_bar(opacity=0.85)
        .encode(
            x=alt.X("worst:N", title=words["chart.worst"], sort=order, axis=axis),
            y=alt.Y("share:Q", title=words["chart.share_of_kl"])
            .axis(format="%")
            .scale(domain=[0, 1]),
            **offset,
            **_colour(frame),
        )
    )
    finished: alt.Chart = _finished(chart, words["chart.tail"], [])
    return finished


def token_probability(
    frame: pl.DataFrame, words: Words = ENGLISH, of: str | None = None
) -> alt.LayerChart:
    """How often the true token has which probability under both, of one candidate's rows.

    The title says whose, where `of` is given.

    The stronger the colour, the more positions, on a logarithmic scale; on the diagonal both
    agree.
    """
    p, q = (np.exp(-frame[name].cast(pl.Float64).to_numpy()) for name in ("nll_p", "nll_q"))
    there = ~(np.isnan(p) | np.isnan(q))
    edges = np.linspace(0, 1, PROBABILITY_BINS + 1)
    clipped = [np.clip(x[there], 0, 1) for x in (p, q)]
    counts, _, _ = np.histogram2d(clipped[0], clipped[1], bins=(edges, edges))
    at_p, at_q = np.nonzero(counts)
    table = pl.DataFrame(
        {
            "from p": edges[at_p],
            "to p": edges[at_p + 1],
            "from q": edges[at_q],
            "to q": edges[at_q + 1],
            "rows": counts[at_p, at_q],
        }
    )
    axis = alt.Axis(format="%")
    cells = (
        alt.Chart(table)
        .mark_rect()
        .encode(
            x=alt.X("from p:Q", title=words["chart.token_p"], axis=axis).scale(domain=[0, 1]),
            x2="to p:Q",
            y=alt.Y("from q:Q", title=words["chart.token_q"], axis=axis).scale(domain=[0, 1]),
            y2="to q:Q",
            opacity=alt.Opacity("rows:Q", legend=None).scale(type="log", range=[0.15, 1]),
        )
    )
    ends = pl.DataFrame({"p": [0.0, 1.0], "q": [0.0, 1.0]})
    diagonal = (
        alt.Chart(ends).mark_line(strokeDash=[4, 4], strokeWidth=1, color="#5a6270")
    ).encode(x="p:Q", y="q:Q")
    title = words["chart.token"]
    if of is not None:
        title = words("chart.of", name=title, said=of)
    finished: alt.LayerChart = _finished(cells + diagonal, title, [])
    return finished


def _means(frame: pl.DataFrame, column: str, edges: Array, what: str, words: Words) -> alt.Chart:
    parts = []
    left_out = 0
    for name, (kl, at) in _by_candidate(frame, column):
        finite = np.isfinite(kl) & np.isfinite(at)
        left_out += int((~finite).sum())
        place = np.clip(np.searchsorted(edges, at[finite], "right") - 1, 0, len(edges) - 2)
        counts = np.bincount(place, minlength=len(edges) - 1)
        sums = np.bincount(place, kl[finite], minlength=len(edges) - 1)
        there = counts > 0
        middle = (edges[:-1] + edges[1:])[there] / 2
        parts.append(
            pl.DataFrame(
                {
                    "candidate": [name] * int(there.sum()),
                    "at": middle,
                    "mean": sums[there] / counts[there],
                    "rows": counts[there],
                }
            )
        )
    table = pl.concat(parts)
    means = alt.Y("mean:Q", title=words["chart.mean_kl"])
    if _far_apart(frame):
        # On a common linear axis the closer ones would lie on it.
        table = table.filter(pl.col("mean") > 0)
        means = means.scale(type="log", nice=False, padding=12).axis(
            **_powers(table["mean"].to_numpy())
        )
    chart = alt.Chart(table).mark_line(point=len(edges) <= POINTS)
    notes = [words("chart.left_out", count=f"{left_out:,}")] if left_out else []
    finished: alt.Chart = _finished(
        chart.encode(
            x=alt.X("at:Q", title=words[f"chart.{what}_axis"]),
            y=means,
            tooltip=["candidate", "at", "mean", "rows"],
            **_colour(frame),
        ),
        words[f"chart.{what}"],
        notes,
    )
    return finished


def _parts(frame: pl.DataFrame) -> list[tuple[str, pl.DataFrame]]:
    """The rows of each candidate by its name; of the only one without a name by none."""
    if "candidate" not in frame.columns:
        return [("", frame)]
    parts = frame.partition_by("candidate", maintain_order=True)
    return [(part["candidate"][0], part) for part in parts]


def _by_candidate(frame: pl.DataFrame, *columns: str) -> list[tuple[str, list[Array]]]:
    """KL and other columns as float64, candidate by candidate."""
    names = (main_column(frame), *columns)
    return [
        (name, [part[column].cast(pl.Float64).to_numpy() for column in names])
        for name, part in _parts(frame)
    ]


def _alone(frame: pl.DataFrame) -> bool:
    return "candidate" not in frame.columns or frame["candidate"].n_unique() < 2


def _far_apart(frame: pl.DataFrame) -> bool:
    """Whether the means of candidates are too different for a common linear axis."""
    finite = [kl[np.isfinite(kl)] for _, (kl,) in _by_candidate(frame)]
    known = [mean for kl in finite if len(kl) and (mean := float(kl.mean())) > 0]
    return len(known) > 1 and max(known) > FAR_APART * min(known)


def _powers(values: Array) -> dict[str, Any]:
    """How a logarithmic axis over numbers is labelled: at powers of ten, if two are on it."""
    low, high = (float(one) for one in (values.min(), values.max()))
    powers = np.arange(math.ceil(math.log10(low)), math.floor(math.log10(max(high, low))) + 1)
    axis: dict[str, Any] = {"format": "~g"}
    return axis | {"values": (10.0**powers).tolist()} if len(powers) > 1 else axis


def _kl_title(frame: pl.DataFrame, words: Words) -> str:
    return words["chart.kl" if main_column(frame) == "kl" else "chart.kl_lower"]


def _colour(frame: pl.DataFrame) -> dict[str, Any]:
    if _alone(frame):
        return {}
    # A candidate has its colour also in a chart that has nothing of it to show.
    names = frame["candidate"].unique(maintain_order=True).to_list()
    return {"color": alt.Color("candidate:N", title=None).scale(domain=names)}


def _finished(chart: Any, title: str, notes: list[str], height: int = HEIGHT) -> Any:
    said = alt.Title(title, subtitle=notes) if notes else alt.Title(title)
    return chart.properties(width=WIDTH, height=height, title=said)
