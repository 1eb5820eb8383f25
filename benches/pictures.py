"""What `peers.py` measured, as pictures in SVG."""

from __future__ import annotations

import io
import itertools
import math
import textwrap
from collections.abc import Iterator
from typing import Any

import matplotlib as mpl

from report import Entry, duration, machine, over_limit, shape
from runs import Run

mpl.use("Agg")

from matplotlib import pyplot as plt

JOBS = ("kl", "kl+grad", "cross_entropy", "cross_entropy+grad", "probs")
DTYPES = ("float32", "bfloat16")
LEAST = 1.03
"""What caches hold may be computed with in less time than the limit; then a line is drawn."""
WRONG = 1e-3
"""Relative errors above it are drawn in red."""


def speed(run: Run) -> str:
    """Draw the times of the largest shape, in units of the limit."""
    largest = max((each["shape"] for each in run["results"]), key=math.prod)
    results = [each for each in run["results"] if each["shape"] == largest]
    found = {(each["job"], each["dtype"]): each for each in results}
    dtypes = [dtype for dtype in DTYPES if any(dtype == key[1] for key in found)]
    jobs = [job for job in JOBS if any(job == key[0] for key in found)]
    bars = {
        key: [*_bars(run["header"], found[key])]
        for key in itertools.product(jobs, dtypes)
        if key in found
    }
    counts = [max(len(bars.get((job, dtype), [])) for dtype in dtypes) for job in jobs]
    most = max(factor for each in bars.values() for _, factor, _, _ in each)
    figure, axes = plt.subplots(
        len(jobs),
        len(dtypes),
        figsize=(5.6 * len(dtypes), sum(0.25 * count + 0.55 for count in counts) + 0.9),
        height_ratios=[count + 0.3 for count in counts],
        sharex=True,
        squeeze=False,
        layout="constrained",
    )
    for (row, job), (column, dtype) in itertools.product(enumerate(jobs), enumerate(dtypes)):
        axis = axes[row][column]
        if (job, dtype) not in bars:
            axis.set_visible(False)
            continue
        _panel(axis, bars[job, dtype], counts[row])
        axis.set_xscale("log")
        axis.set_xlim(1, most * 12)
        title = found[job, dtype]["title"]
        axis.set_title(f"{title}, {dtype}", loc="left", fontsize=10, fontweight="bold")
    ticks = [10**power for power in range(math.ceil(math.log10(most)) + 1)]
    for axis in axes[-1]:
        axis.set_xticks(ticks, [f"{tick}×" for tick in ticks])
        axis.set_xlabel("time ÷ time to move the data through memory", fontsize=9)
    header = run["header"]
    title = (
        f"{largest[0]} rows × {largest[1]:,} classes, {header['threads']} threads of "
        f"{machine(header)}, {header['isa']}; kldiv {header['kldiv']} at {header['commit']}",
        "beside each bar its time and the largest relative error of a row's value, "
        f"red above {WRONG:g}",
    )
    width = 64 * len(dtypes)
    figure.suptitle("\n".join(textwrap.fill(line, width) for line in title), fontsize=9.5)
    return _svg(figure)


def _bars(header: Entry, result: Entry) -> Iterator[tuple[str, float, str, float]]:
    """Name, multiple of the limit, time and error of each contender."""
    for name, title in {"kldiv": "kldiv", **header["contenders"]}.items():
        entry = result["entries"].get(name, {})
        if "seconds" in entry:
            yield title, over_limit(result, entry), duration(entry["seconds"]), entry["error"]


def _panel(axis: Any, bars: list[tuple[str, float, str, float]], places: int) -> None:
    ours, theirs, wrong = "#d1495b", "#9fb3c8", "#b00020"
    axis.barh(
        [name for name, *_ in bars],
        # From 1, the limit, where the axis starts.
        [max(factor, LEAST) - 1 for _, factor, *_ in bars],
        left=1,
        height=0.72,
        color=[ours if name == "kldiv" else theirs for name, *_ in bars],
    )
    for place, (_, factor, time, error) in enumerate(bars):
        place_of_text = max(factor, LEAST) * 1.08
        text = axis.annotate(time, (place_of_text, place), va="center", fontsize=8.5)
        axis.annotate(
            f"  {error:.0e}",
            (1, 0.5),
            xycoords=text,
            va="center",
            fontsize=8.5,
            color=wrong if error > WRONG else "#667788",
        )
    axis.set_ylim(places - 0.4, -0.6)
    axis.tick_params(axis="y", length=0, labelsize=9)
    axis.tick_params(axis="x", which="both", labelsize=8.5, bottom=False)
    axis.grid(axis="x", color="#e3e8ee")
    axis.set_axisbelow(True)
    for label in axis.get_yticklabels():
        label.set_fontweight("bold" if label.get_text() == "kldiv" else "normal")
    for side in ("top", "right", "bottom"):
        axis.spines[side].set_visible(False)


def scaling(rows: Run, classes: Run, threads: Run) -> str:
    """Draw how the time grows with each, all else equal."""
    figure, panels = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    jobs = [*dict.fromkeys(each["title"] for each in rows["results"])]
    for panel, name, run, constant in (
        (panels[0], "rows", rows, f"{rows['results'][0]['shape'][1]:,} classes"),
        (panels[1], "classes", classes, f"{classes['results'][0]['shape'][0]:,} rows"),
        (panels[2], "threads", threads, f"{shape(threads['results'][0])}, rows × classes"),
    ):
        _growth(panel, name, run["results"], jobs)
        panel.set_title(constant)
    counts = [*dict.fromkeys(each["threads"] for each in threads["results"])]
    panels[2].set_xticks(counts, [str(count) for count in counts])
    panels[0].legend(fontsize=8)
    header = rows["header"]
    figure.suptitle(
        f"{machine(header)}, {header['isa']}, kldiv {header['kldiv']} at {header['commit']}"
    )
    return _svg(figure)


def _growth(axes: Any, name: str, results: list[Entry], jobs: list[str]) -> None:
    """Draw one plot, both axes logarithmic, with a dotted line of slope 1 (threads: −1) a job."""
    for job in jobs:
        found = [each for each in results if each["title"] == job]
        at = [each["threads"] if name == "threads" else _varied(each, name) for each in found]
        times = [1e3 * each["entries"]["kldiv"]["seconds"] for each in found]
        (line,) = axes.loglog(at, times, marker="o", markersize=3, label=job)
        if name == "threads":
            ideal = [times[0] * at[0] / x for x in at]
        else:
            ideal = [times[-1] * x / at[-1] for x in at]
        axes.loglog(at, ideal, linestyle=":", linewidth=1, color=line.get_color())
    axes.set_xlabel(name)
    axes.set_ylabel("ms")
    axes.grid(visible=True, which="major", alpha=0.3)


def _varied(result: Entry, name: str) -> int:
    rows, classes = result["shape"]
    number: int = rows if name == "rows" else classes
    return number


def _svg(figure: Any) -> str:
    """Write a figure, and close it; the same text for the same numbers."""
    file = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "kldiv"}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    plt.close(figure)
    return file.getvalue()
