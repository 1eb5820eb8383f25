"""Charts of KL, by Altair: what `plot_…` of `Comparison` and `Evaluation` show.

Each is given a table with a column `kl`, and draws one line or colour a `candidate` where there
is that column. Numbers are binned here, so that a chart is small however many rows there are.
"""

from __future__ import annotations

from typing import Any

import altair as alt
import numpy as np
import polars as pl

from kldiv._arrays import Array

BINS = 60
POSITION_BINS = 100
CONFIDENCE_BINS = 20
WIDTH, HEIGHT = 480, 280


def kl_histogram(frame: pl.DataFrame) -> alt.Chart:
    """Share of positions by KL, on a logarithmic axis; what has no logarithm is counted beside."""
    positive = frame.filter((pl.col("kl") > 0) & pl.col("kl").is_finite())["kl"].to_numpy()
    low, high = (positive.min(), positive.max()) if len(positive) else (1e-6, 1.0)
    edges = np.geomspace(low, max(high, low * 1.01), BINS + 1)
    # Rounding must not put the smallest and the largest outside.
    edges[0], edges[-1] = low, max(high, edges[-1])
    parts, notes = [], []
    for name, (kl,) in _by_candidate(frame):
        counts, _ = np.histogram(kl[np.isfinite(kl) & (kl > 0)], edges)
        parts.append(
            pl.DataFrame(
                {
                    "candidate": [name] * BINS,
                    "from": edges[:-1],
                    "to": edges[1:],
                    "share": counts / max(1, len(kl)),
                }
            )
        )
        others = {
            "exactly 0": int((kl == 0).sum()),
            "below 0": int((kl < 0).sum()),
            "infinite": int(np.isinf(kl).sum()),
            "NaN": int(np.isnan(kl).sum()),
        }
        said = ", ".join(f"{count:,} {what}" for what, count in others.items() if count)
        if said:
            notes.append(f"{name}: {said}" if name else said)
    chart = alt.Chart(pl.concat(parts)).mark_bar(opacity=0.6)
    return _finished(
        chart.encode(
            x=alt.X("from:Q", title="KL(p‖q) in nats").scale(type="log"),
            x2="to:Q",
            y=alt.Y("share:Q", title="share of positions").stack(None).axis(format="%"),
            **_colour(frame),
        ),
        "Distribution of KL",
        notes,
    )


def kl_by_position(frame: pl.DataFrame) -> alt.Chart:
    """Mean KL along the text."""
    last = int(frame["position"].to_numpy().max(initial=0)) + 1
    width = -(-last // POSITION_BINS)
    edges = np.arange(0, last + width, width, dtype=np.float64)
    return _means(frame, "position", edges, "position in the text", "KL along the text")


def kl_by_confidence(frame: pl.DataFrame) -> alt.Chart:
    """Mean KL against the probability of p's most probable class."""
    edges = np.linspace(0, 1, CONFIDENCE_BINS + 1)
    title = "probability of p's most probable class"
    return _means(frame, "confidence_p", edges, title, "KL by confidence of the reference")


def _means(frame: pl.DataFrame, column: str, edges: Array, axis: str, title: str) -> alt.Chart:
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
    chart = alt.Chart(pl.concat(parts)).mark_line(point=True)
    notes = [f"{left_out:,} rows with NaN or infinite KL left out"] if left_out else []
    return _finished(
        chart.encode(
            x=alt.X("at:Q", title=axis),
            y=alt.Y("mean:Q", title="mean KL(p‖q) in nats"),
            tooltip=["candidate", "at", "mean", "rows"],
            **_colour(frame),
        ),
        title,
        notes,
    )


def _by_candidate(frame: pl.DataFrame, *columns: str) -> list[tuple[str, list[Array]]]:
    """KL and other columns as float64, candidate by candidate."""
    groups = {"": frame}
    if "candidate" in frame.columns:
        parts = frame.partition_by("candidate", maintain_order=True)
        groups = {part["candidate"][0]: part for part in parts}
    return [
        (name, [part[column].cast(pl.Float64).to_numpy() for column in ("kl", *columns)])
        for name, part in groups.items()
    ]


def _colour(frame: pl.DataFrame) -> dict[str, Any]:
    if "candidate" not in frame.columns or frame["candidate"].n_unique() < 2:
        return {}
    return {"color": alt.Color("candidate:N", title=None)}


def _finished(chart: alt.Chart, title: str, notes: list[str]) -> alt.Chart:
    said = alt.Title(title, subtitle=notes) if notes else alt.Title(title)
    finished: alt.Chart = chart.properties(width=WIDTH, height=HEIGHT, title=said)
    return finished
