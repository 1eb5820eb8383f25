"""What `peers.py` measured, as tables."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from kldiv.cli.output import show_table
from runs import Run

Entry = dict[str, Any]
Table = Iterator[tuple[str, ...]]
"""The line of titles first."""

LIMIT = (
    "limit: reading and writing the same memory with the same threads, nothing computed. "
    "fresh: the gradient allocated, rather than written to out=. Errors are the largest "
    "relative ones of a value (of a gradient: ‖error‖/‖gradient‖). Other libraries: how many "
    "times kldiv's time they take, and the error of their values."
)


def show(run: Run, *, markdown: bool) -> None:
    """Print the header, and a table for each shape."""
    print("\n".join((source(run["header"]), protocol(run["header"]), LIMIT)))
    for title, results in by_shape(run):
        lines = [*table(run["header"], results)]
        print(f"\n{'### ' if markdown else ''}{title}\n")
        if markdown:
            print("\n".join(in_markdown(lines, 2)))
        else:
            show_table(lines[1:], header=lines[0])


def in_markdown(lines: Table | list[tuple[str, ...]], texts: int) -> Iterator[str]:
    """Lay a table out, whose columns hold numbers after the first few."""
    titles, *rest = lines
    for line in (titles, ["---"] * texts + ["---:"] * (len(titles) - texts), *rest):
        yield f"| {' | '.join(line)} |"


def source(header: Entry) -> str:
    """Say by what a run was made."""
    versions = [f"{name} {version}" for name, version in header["versions"].items()]
    if "python" in header:
        versions.insert(0, f"Python {header['python']}")
    parts = [
        f"{machine(header)}, {header['isa']}, {header['threads']} threads",
        f"kldiv {header['kldiv']} at commit {header['commit']}",
        *([", ".join(versions)] if versions else []),
        header["date"],
    ]
    return f"`{header['command']}`: {'; '.join(parts)}."


def machine(header: Entry) -> str:
    """Name the processor, and its kind where that is known."""
    kind = header.get("microarchitecture")
    return header["machine"] + (f" ({kind})" if kind else "")


def protocol(header: Entry) -> str:
    """Say what was computed with, and how often."""
    if "protocol" in header:
        return str(header["protocol"])
    noise = header.get("noise")
    logits = "Logits N(0, 3²)" + ("." if noise is None else f", q = p + {noise:g}·N(0, 1).")
    slow = [each for each in header["slow_peers"] if each in header["contenders"].values()]
    fewer = f"{' and '.join(slow)}, and for " if slow else ""
    return (
        f"{logits} Medians of {header['repeats']} interleaved rounds after two warm-ups "
        f"({header['fewer_rounds']} rounds for {fewer}calls of more than {header['slow']:g} s)."
    )


def by_shape(run: Run) -> Iterator[tuple[str, list[Entry]]]:
    """Group the results by shape and threads, and name the groups; jobs before dtypes."""
    groups: dict[tuple[str, int | None], list[Entry]] = {}
    for each in run["results"]:
        groups.setdefault((shape(each), each.get("threads")), []).append(each)
    one = len({threads for _, threads in groups}) == 1
    for (title, threads), results in groups.items():
        order = [*dict.fromkeys(each["job"] for each in results)]
        results.sort(key=lambda each: order.index(each["job"]))
        yield title if one else f"{title}, threads: {threads}", results


def shape(result: Entry) -> str:
    """Name a shape."""
    rows, classes = result["shape"]
    return f"{rows:,} × {classes:,}"


def table(header: Entry, results: list[Entry]) -> Table:
    """Lay out the results of a shape."""
    peers = [
        name for name in header["contenders"] if any(name in each["entries"] for each in results)
    ]
    tensors = any("kldiv, tensors" in each["entries"] for each in results)
    titles = ["job", "dtype", "kldiv", "÷ limit", "fresh", *["tensors"] * tensors]
    titles += ["error", "error of ∂", *(header["contenders"][name] for name in peers)]
    yield tuple(titles)
    for each in results:
        ours = each["entries"]["kldiv"]
        others = ["kldiv, fresh", *["kldiv, tensors"] * tensors]
        also = (each["entries"].get(name) for name in others)
        yield (
            each["title"],
            each["dtype"],
            duration(ours["seconds"]),
            f"{over_limit(each, ours):.2f}",
            *(duration(entry["seconds"]) if entry else "" for entry in also),
            f"{ours['error']:.0e}" if "error" in ours else "",
            f"{ours['gradient_error']:.0e}" if "gradient_error" in ours else "",
            *(versus(ours, each["entries"].get(name)) for name in peers),
        )


def times(run: Run, dtypes: tuple[str, ...]) -> Table:
    """Lay out kldiv's time at every shape, and how many times that the fastest other takes."""
    shapes = [*dict.fromkeys(shape(each) for each in run["results"])]
    yield "job", "dtype", *shapes
    for (title, dtype), found in _by_job(run, dtypes):
        cells = {}
        for each in found:
            ours = each["entries"]["kldiv"]
            others = _others(run, each).values()
            fastest = min((ratio(ours, other) for other in others), default=None)
            beside = "" if fastest is None else f" ({significant(fastest)}×)"
            cells[shape(each)] = duration(ours["seconds"]) + beside
        yield title, dtype, *(cells.get(each, "") for each in shapes)


def family(run: Run, dtypes: tuple[str, ...]) -> Table:
    """Lay out the times of the jobs of a run, and how many times the limit they take."""
    yield "job", *(f"{dtype}, ÷ limit" for dtype in dtypes)
    for title in dict.fromkeys(each["title"] for each in run["results"]):
        found = {each["dtype"]: each for each in run["results"] if each["title"] == title}
        ours = {dtype: found[dtype]["entries"]["kldiv"] for dtype in dtypes}
        yield (
            title,
            *(
                f"{duration(ours[dtype]['seconds'])}, {over_limit(found[dtype], ours[dtype]):.1f}"
                for dtype in dtypes
            ),
        )


def instructions(run: Run) -> Table:
    """Lay out the instructions for eight classes of each job, far rows and close ones."""
    kinds = list(dict.fromkeys((each["dtype"], each["rows"]) for each in run["results"]))
    yield "job", *(dtype if rows == "far" else f"{dtype}, {rows}" for dtype, rows in kinds)
    for title in dict.fromkeys(each["title"] for each in run["results"]):
        found = {
            (each["dtype"], each["rows"]): f"{each['instructions']:.1f}"
            for each in run["results"]
            if each["title"] == title
        }
        yield title, *(found.get(kind, "") for kind in kinds)


def libraries(run: Run, dtypes: tuple[str, ...]) -> Table:
    """Lay out how many times kldiv's time each library takes, from shape to shape."""
    contenders = run["header"]["contenders"]
    yield "job", "dtype", *contenders.values()
    for (title, dtype), found in _by_job(run, dtypes):
        cells = []
        for name in contenders:
            both = [
                (each["entries"]["kldiv"], _others(run, each)[name])
                for each in found
                if name in _others(run, each)
            ]
            if not both:
                cells.append("")
                continue
            ratios = [ratio(ours, theirs) for ours, theirs in both]
            error = max(theirs["error"] for _, theirs in both)
            least, most = significant(min(ratios)), significant(max(ratios))
            cells.append(f"{least} – {most}× ({error:.0e})")
        yield title, dtype, *cells


def _by_job(run: Run, dtypes: tuple[str, ...]) -> Iterator[tuple[tuple[str, str], list[Entry]]]:
    found: dict[tuple[str, str], list[Entry]] = {}
    for each in run["results"]:
        found.setdefault((each["title"], each["dtype"]), []).append(each)
    order = [*dict.fromkeys(title for title, _ in found)]
    for key in sorted(found, key=lambda key: order.index(key[0])):
        if key[1] in dtypes:
            yield key, found[key]


def _others(run: Run, result: Entry) -> dict[str, Entry]:
    """Entries of the contenders that have the job."""
    entries = result["entries"]
    return {
        name: entries[name]
        for name in run["header"]["contenders"]
        if name in entries and "failed" not in entries[name]
    }


def small_calls(run: Run) -> Table:
    """Lay out the times in µs of arrays, of tensors and of torch; gradients in new memory."""
    yield "shape", "dtype", "call", "kldiv, NumPy", "kldiv, tensors", "torch eager", "ratios"
    for each in run["results"]:
        entries = each["entries"]
        ours = entries.get("kldiv, fresh") or entries["kldiv"]
        theirs = entries["torch"]
        if "kldiv, tensors" not in entries:  # by autograd there are no arrays
            numbers = (f"{1e6 * entry['seconds']:.1f}" for entry in (ours, theirs))
            ratios = f"{ratio(ours, theirs):.1f} ×"
            yield shape(each), each["dtype"], each["title"], "", *numbers, ratios
            continue
        tensors = entries["kldiv, tensors"]
        to_tensors = theirs.get("ratio_to_tensors") or theirs["seconds"] / tensors["seconds"]
        numbers = (f"{1e6 * entry['seconds']:.1f}" for entry in (ours, tensors, theirs))
        ratios = f"{ratio(ours, theirs):.1f}, {to_tensors:.1f} ×"
        yield shape(each), each["dtype"], each["title"], *numbers, ratios


def autograd(run: Run) -> Table:
    """Lay out times through autograd on both sides."""
    contenders = run["header"]["contenders"]
    yield "job", "shape", "dtype", "kldiv", *contenders.values()
    for _, results in by_shape(run):
        for each in results:
            ours, others = each["entries"]["kldiv"], _others(run, each)
            cells = (
                f"{significant(ratio(ours, others[name]))} ×" if name in others else ""
                for name in contenders
            )
            title = each["title"].removesuffix(" by autograd")
            yield title, shape(each), each["dtype"], duration(ours["seconds"]), *cells


def in_jax(run: Run) -> Table:
    """Lay out times in JAX against those of NumPy's call, gradients in new memory on all sides."""
    contenders = run["header"]["contenders"]
    yield "job", "shape", "dtype", "kldiv, NumPy", "with out=", *contenders.values()
    for _, results in by_shape(run):
        for each in results:
            given = each["entries"]["kldiv"]
            ours = each["entries"].get("kldiv, fresh", given)
            others = _others(run, each)
            cells = (
                f"{significant(ratio(ours, others[name]))} ×" if name in others else ""
                for name in contenders
            )
            beside = duration(given["seconds"]) if ours is not given else ""
            first = each["title"], shape(each), each["dtype"]
            yield *first, duration(ours["seconds"]), beside, *cells


def ratio(ours: Entry, theirs: Entry) -> float:
    """How many times our time they take."""
    stated: float | None = theirs.get("ratio")
    return theirs["seconds"] / ours["seconds"] if stated is None else stated


def over_limit(result: Entry, entry: Entry) -> float:
    """How many times the limit an entry takes."""
    stated: float | None = entry.get("times_limit")
    return entry["seconds"] / result["limit"] if stated is None else stated


def versus(ours: Entry, theirs: Entry | None) -> str:
    """Give the ratio of times, and the error of theirs."""
    if theirs is None or "failed" in theirs:
        return ""
    error = f" ({theirs['error']:.0e})" if "error" in theirs else ""
    return f"{significant(ratio(ours, theirs))}×{error}"


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
    rounded = round(number, places)
    # 9.96 has become 10, which has its two digits without a place.
    places = digits - 1 - math.floor(math.log10(rounded))
    return f"{rounded:.{max(places, 0)}f}"
