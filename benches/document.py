"""Makes every table and picture of measured numbers in the documents, of the runs that are kept.

    python benches/document.py     what `make docs` does: nothing is measured

A table stands between the markers ``<!-- name: begin -->`` and ``<!-- name: end -->``, and is what
`BLOCKS` makes under that name of the newest runs in ``benches/results``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import accuracy_tables
import report
import scale
from runs import ROOT, Run, newest

Runs = dict[str, Run]

DOCUMENTS = (
    "README.md",
    "README.zh.md",
    "docs/performance.md",
    "docs/numerics.md",
    "docs/torch.md",
    "docs/scale.md",
)
BLOCK = re.compile(r"<!-- ([\w-]+): begin -->\n(.*?)<!-- \1: end -->", re.DOTALL)

SHOWN = ("kl", "kl+grad", "cross_entropy", "cross_entropy+grad", "probs")
DTYPES = ("float32", "bfloat16")
"""What the tables show of which there would be too much."""

IN_CHINESE = {
    "KL": "KL",
    "KL and ∂q": "KL 和 ∂q",
    "cross-entropy": "交叉熵",
    "cross-entropy and ∂z": "交叉熵和 ∂z",
    "KL of probabilities": "概率的 KL",
}


def main_table(found: Runs) -> Iterator[str]:
    """Lay out all functions of the largest shape."""
    run = found["main"]
    yield from (*sources(run), report.LIMIT, "")
    ((_, results),) = report.by_shape(run)
    yield from report.in_markdown(report.table(run["header"], results), 2)


def family_table(found: Runs) -> Iterator[str]:
    """Lay out every divergence with its gradient."""
    run = found["family"]
    yield from sources(run)
    yield from report.in_markdown(report.family(run, ("float32",)), 1)


def close_table(found: Runs) -> Iterator[str]:
    """Lay out rows that are close."""
    run = found["close"]
    yield from sources(run)
    ((_, results),) = report.by_shape(run)
    yield from report.in_markdown(report.table(run["header"], results), 2)


def with_sources(name: str, lay_out: Callable[[Run], report.Table], texts: int) -> Any:
    """Make a block of a run of `peers.py`: how it was made, and a table."""

    def block(found: Runs) -> Iterator[str]:
        yield from sources(found[name])
        yield from report.in_markdown(lay_out(found[name]), texts)

    return block


def sources(run: Run) -> tuple[str, ...]:
    """Say how a run of `peers.py` was made, in two paragraphs."""
    return (report.source(run["header"]), "", report.protocol(run["header"]), "")


def speed(found: Runs) -> Iterator[str]:
    """Lay out the README's table."""
    header = found["main"]["header"]
    yield (
        f"`{header['command']}` on {report.machine(header)}, {header['isa']}, "
        f"{header['threads']} threads, torch {header['versions']['torch']}, "
        f"at commit {header['commit']}, {header['date']}:"
    )
    titles = ("job", "kldiv", "torch eager takes", "torch.compile takes")
    yield ""
    yield from _speed(found, (*titles, "error of kldiv", "error of torch"), "{}, {}".format)


def speed_in_chinese(found: Runs) -> Iterator[str]:
    """Lay it out for the Chinese README."""
    header = found["main"]["header"]
    yield (
        f"测量命令 `{header['command']}`，{report.machine(header)}，{header['isa']}，"
        f"{header['threads']} 个线程，torch {header['versions']['torch']}，"
        f"提交 {header['commit']}，{header['date']}："
    )
    yield ""
    titles = ("任务", "kldiv", "torch eager 用时", "torch.compile 用时")
    yield from _speed(
        found,
        (*titles, "kldiv 的误差", "torch 的误差"),
        lambda title, dtype: f"{IN_CHINESE[title]}，{dtype}",
    )


def _speed(found: Runs, titles: tuple[str, ...], label: Callable[[str, str], str]) -> Any:
    results = {(each["job"], each["dtype"]): each for each in found["main"]["results"]}
    lines = [titles]
    for dtype in DTYPES:
        for job in SHOWN:
            entries = results[job, dtype]["entries"]
            ours, torch = entries["kldiv"], entries["torch"]
            ratios = (
                f"{report.significant(report.ratio(ours, entries[name]))} ×"
                if "failed" not in entries.get(name, {"failed": "not installed"})
                else "–"
                for name in ("torch", "compile")
            )
            errors = (f"{entry['error']:.0e}" for entry in (ours, torch))
            title = label(results[job, dtype]["title"], dtype)
            lines.append((title, report.duration(ours["seconds"]), *ratios, *errors))
    return report.in_markdown(lines, 1)


def model(found: Runs) -> Iterator[str]:
    """Hold the model of the time against what was measured."""
    run = found["model"]
    header = run["header"]
    rows, classes = header["shape"]
    measured = {
        each["job"]: each["entries"]["kldiv"]["seconds"]
        for each in found["threads"]["results"]
        if each["threads"] == header["threads"] and each["shape"] == header["shape"]
    }
    first = f"float32, {rows:,} × {classes:,}, {header['threads']} threads"
    titles = ("instructions", "they take", "memory takes", "predicted", "measured", "")
    lines: list[tuple[str, ...]] = [(first, *titles)]
    for each in run["results"]:
        vectors = rows * classes / header["lanes"]
        arithmetic = each["instructions"] * vectors * header["seconds_per_instruction"]
        arithmetic /= header["threads"]
        memory = each["arrays"] * rows * classes * 4 / header["bytes_per_second"]
        seconds = measured.get(each["job"]) or each["seconds"]
        predicted = max(arithmetic, memory)
        numbers = (f"{1e3 * t:.1f} ms" for t in (arithmetic, memory, predicted, seconds))
        off = f"{100 * (predicted / seconds - 1):.0f} %"
        lines.append((each["title"], str(each["instructions"]), *numbers, off))
    yield from report.in_markdown(lines, 1)


def distillation(found: Runs) -> Iterator[str]:
    """Lay out a step of training with each loss."""
    run = found["distillation"]
    yield from (report.source(run["header"]), "")
    titles = ("loss", "step", "loss and gradient", "memory for it", "first losses")
    yield f"| {' | '.join(titles)} |"
    yield "| --- | ---: | ---: | ---: | --- |"
    for each in run["results"]:
        first = " ".join(f"{loss:.4f}" for loss in each["losses"][:4])
        yield (
            f"| {each['name']} | {each['step']:.2f} s | {1e3 * each['loss']:.0f} ms "
            f"| {each['memory'] / 2**20:.0f} MiB | {first} |"
        )


BLOCKS: dict[str, Callable[[Runs], Any]] = {
    "speed": speed,
    "speed-zh": speed_in_chinese,
    "main": main_table,
    "family": family_table,
    "top-k": with_sources("top_k", lambda run: report.family(run, ("float32", "bfloat16")), 1),
    "times": with_sources("shapes", lambda run: report.times(run, DTYPES), 2),
    "libraries": lambda found: report.in_markdown(report.libraries(found["shapes"], DTYPES), 2),
    "close": close_table,
    "instructions": with_sources("instructions", report.instructions, 1),
    "instructions-rows": with_sources("instructions_rows", report.instructions, 1),
    "model": model,
    "small": with_sources("small", report.small_calls, 3),
    "autograd": with_sources("autograd", report.autograd, 3),
    "jax": with_sources("jax", report.in_jax, 3),
    "distillation": distillation,
    "accuracy": lambda found: accuracy_tables.lines(found["accuracy"]),
    "scale-rates": scale.rates,
    "scale-billion": scale.billion,
}


def tables(found: Runs) -> Iterator[tuple[str, str]]:
    """Give each document's path, and its text with the tables of these runs."""

    def made(match: re.Match[str]) -> str:
        name = match[1]
        lines = "\n".join(BLOCKS[name](found)).rstrip()
        return f"<!-- {name}: begin -->\n{lines}\n<!-- {name}: end -->"

    for path in DOCUMENTS:
        yield path, BLOCK.sub(made, (ROOT / path).read_text(encoding="utf-8"))


def pictures(found: Runs) -> Iterator[tuple[str, str]]:
    """Give each picture's path, and its text."""
    import pictures

    yield "docs/speed.svg", pictures.speed(found["main"])
    yield "docs/scaling.svg", pictures.scaling(*(found[k] for k in ("rows", "classes", "threads")))


def main() -> None:
    """Write everything."""
    found = newest()
    for path, text in (*tables(found), *pictures(found)):
        (ROOT / path).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
