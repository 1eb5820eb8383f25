"""What `peers.py` measured, as tables and as a picture."""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kldiv.cli.output import show_table

Entry = dict[str, Any]

DRAWN_JOBS = ("kl", "kl+grad", "cross_entropy", "cross_entropy+grad", "probs")
DRAWN_DTYPES = ("float32", "bfloat16")
LEAST = 1.03
"""What caches hold may be computed with in less time than the limit; then a line is drawn."""
WRONG = 1e-3
"""Relative errors above it are drawn in red."""


def show(run: dict[str, Any], *, markdown: bool) -> None:
    """Print the header, and a table for each shape."""
    print("\n".join(describe(run["header"])))
    for (rows, classes), results in by_shape(run):
        lines = [*table(run["header"], results)]
        print(f"\n{'### ' if markdown else ''}{rows} × {classes:,}\n")
        if markdown:
            align = ["---", "---", *["---:"] * (len(lines[0]) - 2)]
            for line in (lines[0], align, *lines[1:]):
                print(f"| {' | '.join(line)} |")
        else:
            show_table(lines[1:], header=lines[0])


def describe(header: Entry) -> Iterator[str]:
    """Say how the numbers came about, and what they are."""
    packages = ", ".join(f"{name} {version}" for name, version in header["versions"].items())
    yield (
        f"{header['machine']}, {header['isa']}, {header['threads']} threads; kldiv "
        f"{header['kldiv']} at commit {header['commit']}; Python {header['python']}, {packages}; "
        f"{header['date']}."
    )
    noise = header.get("noise")
    logits = "Logits N(0, 3²)" + ("." if noise is None else f", q = p + {noise:g}·N(0, 1).")
    yield (
        f"{logits} Medians of {header['repeats']} interleaved rounds after two warm-ups "
        f"({header['fewer_rounds']} rounds for {' and '.join(header['slow_peers'])}, and for "
        f"calls of more than {header['slow']:g} s)."
    )
    yield (
        "limit: reading and writing the same memory with the same threads, nothing computed. "
        "fresh: the gradient allocated, rather than written to out=. Errors are the largest "
        "relative ones of a value (of a gradient: ‖error‖/‖gradient‖). Other libraries: how many "
        "times kldiv's time they take, and the error of their values."
    )


def by_shape(run: dict[str, Any]) -> Iterator[tuple[tuple[int, int], list[Entry]]]:
    """Group the results, jobs before dtypes."""
    for shape, group in itertools.groupby(run["results"], lambda each: tuple(each["shape"])):
        results = [*group]
        order = [*dict.fromkeys(each["job"] for each in results)]
        yield shape, sorted(results, key=lambda each: order.index(each["job"]))


def table(header: Entry, results: list[Entry]) -> Iterator[tuple[str, ...]]:
    """Lay out the results of a shape, the line of titles first."""
    peers = [
        name for name in header["contenders"] if any(name in each["entries"] for each in results)
    ]
    titles = ["job", "dtype", "kldiv", "÷ limit", "fresh", "error", "error of ∂"]
    yield *titles, *(header["contenders"][name] for name in peers)
    for each in results:
        ours = each["entries"]["kldiv"]
        fresh = each["entries"].get("kldiv, fresh")
        yield (
            each["title"],
            each["dtype"],
            duration(ours["seconds"]),
            f"{ours['seconds'] / each['limit']:.2f}",
            duration(fresh["seconds"]) if fresh else "",
            f"{ours['error']:.0e}" if "error" in ours else "",
            f"{ours['gradient_error']:.0e}" if "gradient_error" in ours else "",
            *(versus(ours, each["entries"].get(name)) for name in peers),
        )


def versus(ours: Entry, theirs: Entry | None) -> str:
    """Give the ratio of times, and the error of theirs."""
    if theirs is None or "failed" in theirs:
        return ""
    return f"{significant(theirs['seconds'] / ours['seconds'])}× ({theirs['error']:.0e})"


def duration(seconds: float) -> str:
    """Format a time with three digits."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{significant(seconds / size, 3)} {unit}"
    return f"{significant(seconds / 1e-6, 3)} µs"


def significant(number: float, digits: int = 2) -> str:
    """Round to so many digits, without an exponent."""
    if number <= 0 or not math.isfinite(number):
        return str(number)
    places = digits - 1 - math.floor(math.log10(number))
    return f"{round(number, places):.{max(places, 0)}f}"


def draw(run: dict[str, Any], path: Path) -> None:
    """Draw the times of the largest shape, in units of the limit."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    mpl.rcParams["svg.hashsalt"] = "kldiv"  # the same file for the same run
    shape, results = max(by_shape(run), key=lambda each: math.prod(each[0]))
    found = {(each["job"], each["dtype"]): each for each in results}
    dtypes = [dtype for dtype in DRAWN_DTYPES if any(dtype == key[1] for key in found)]
    jobs = [job for job in DRAWN_JOBS if any(job == key[0] for key in found)]
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
        f"{shape[0]} rows × {shape[1]:,} classes, {header['threads']} threads of "
        f"{header['machine']} ({header['isa']})",
        "beside each bar its time and the largest relative error of a row's value, "
        f"red above {WRONG:g}",
    )
    width = 64 * len(dtypes)
    figure.suptitle("\n".join(textwrap.fill(line, width) for line in title), fontsize=9.5)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(figure)


def _bars(header: Entry, result: Entry) -> Iterator[tuple[str, float, str, float]]:
    """Name, multiple of the limit, time and error of each contender."""
    for name, title in {"kldiv": "kldiv", **header["contenders"]}.items():
        entry = result["entries"].get(name, {})
        if "seconds" in entry:
            seconds = entry["seconds"]
            yield title, seconds / result["limit"], duration(seconds), entry["error"]


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
