"""How the time of kl grows with rows, classes and threads: docs/scaling.svg.

    python benches/scaling.py [--picture docs/scaling.svg]

float32 logits, normal of standard deviation 3; each time is the median of nine calls after two
warm-ups. The dotted lines are proportional to what varies.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np

import kldiv
from accuracy import commit, cpu_name

ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
CLASSES = (1_000, 4_096, 16_384, 32_000, 65_536, 128_256, 262_144)
JOBS = ("kl", "kl and ∂q", "cross-entropy", "cross-entropy and ∂z")


def calls(rows: int, classes: int) -> dict[str, Callable[[], object]]:
    """The jobs at one shape, gradients written to one array."""
    rng = np.random.default_rng(0)
    p, q = (3 * rng.standard_normal((rows, classes), dtype=np.float32) for _ in range(2))
    labels = rng.integers(0, classes, rows)
    out = np.zeros_like(q)
    jobs: list[Callable[[], object]] = [
        lambda: kldiv.kl(p, q),
        lambda: kldiv.value_and_grad(kldiv.kl, p, q, out=out),
        lambda: kldiv.cross_entropy(q, labels),
        lambda: kldiv.value_and_grad(kldiv.cross_entropy, q, labels, out=out),
    ]
    return dict(zip(JOBS, jobs, strict=True))


def median(call: Callable[[], object]) -> float:
    """Milliseconds of one call; short ones are repeated to fill a millisecond."""
    call()
    start = time.perf_counter()
    call()
    number = max(1, int(1e-3 / (time.perf_counter() - start)))
    times = []
    for _ in range(9):
        start = time.perf_counter()
        for _ in range(number):
            call()
        times.append((time.perf_counter() - start) / number)
    return 1e3 * statistics.median(times)


def measure(shapes: list[tuple[int, int]]) -> dict[str, list[float]]:
    """The times of every job at these shapes."""
    times: dict[str, list[float]] = {job: [] for job in JOBS}
    for rows, classes in shapes:
        for job, call in calls(rows, classes).items():
            times[job].append(median(call))
    return times


def draw(axes: plt.Axes, name: str, at: list[int], times: dict[str, list[float]]) -> None:
    """One plot, both axes logarithmic, with a line of slope 1 (−1 for threads) per job."""
    for job, values in times.items():
        (line,) = axes.loglog(at, values, marker="o", markersize=3, label=job)
        last = at[-1] if name != "threads" else at[0]
        base = values[-1] if name != "threads" else values[0]
        ideal = [base * (x / last if name != "threads" else last / x) for x in at]
        axes.loglog(at, ideal, linestyle=":", linewidth=1, color=line.get_color())
    axes.set_xlabel(name)
    axes.set_ylabel("ms")
    axes.grid(visible=True, which="major", alpha=0.3)


def main() -> None:
    """Measure and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--picture", default="docs/scaling.svg")
    options = parser.parse_args()
    mpl.rcParams["svg.hashsalt"] = "kldiv"
    threads = list(range(1, kldiv.get_num_threads() + 1))
    figure, panels = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    draw(panels[0], "rows", list(ROWS), measure([(rows, 128_256) for rows in ROWS]))
    panels[0].set_title("128,256 classes")
    draw(panels[1], "classes", list(CLASSES), measure([(64, classes) for classes in CLASSES]))
    panels[1].set_title("64 rows")
    times: dict[str, list[float]] = {job: [] for job in JOBS}
    for count in threads:
        kldiv.set_num_threads(count)
        for job, values in measure([(256, 128_256)]).items():
            times[job] += values
    draw(panels[2], "threads", threads, times)
    panels[2].set_title("256 rows × 128,256 classes")
    panels[2].set_xticks(threads, [str(count) for count in threads])
    panels[0].legend(fontsize=8)
    figure.suptitle(f"{cpu_name()}, {kldiv.isa()}, kldiv {kldiv.__version__} at {commit()}")
    figure.savefig(options.picture, metadata={"Date": None})
    for job, values in times.items():
        print(job, ", ".join(f"{value:.1f} ms" for value in values), "with", threads, "threads")


if __name__ == "__main__":
    main()
