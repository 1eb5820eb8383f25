"""Positions a second of an evaluation on 1 and 2 worker processes, and the bytes that move.

    python benches/scale.py --save     measures, a few minutes, and keeps the run

For each form that outputs are kept in, dumps of the real width are made and compared by
`kldiv.evaluation.evaluate` on a cluster of Dask of 1 and of 2 processes of one thread. A rate is
the slope between a run of some sequences and one of more, so that what a run costs once (starting,
reading an output layer of a gigabyte) is not in it. ``docs/scale.md`` is made of the kept run.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

import report
import runs

CLASSES = 128_256
SIZE = 4096
TOP_K = 20
BILLION = 10**9
# The machines that the table of a billion positions is of.
CORES, MACHINES, READ = 64, 16, 3e9
PROCESSES = (1, 2)


@dataclass(frozen=True)
class Form:
    """A form of outputs: how many sequences are compared in the shorter and the longer run."""

    name: str
    title: str
    positions: int
    sequences: tuple[int, int]


FORMS = (
    Form("logits", f"logits, float16, {CLASSES:,} classes", 64, (4, 20)),
    Form("hidden", f"hidden states, bfloat16, {SIZE:,} numbers", 48, (2, 4)),
    Form("top-k", f"top-{TOP_K} of a server, JSON", 256, (10, 60)),
)


def make(form: Form, folder: Path, rng: np.random.Generator) -> tuple[str, str]:
    """Write both sides of the longer run, each sequence a file; return their names."""
    count = form.sequences[1]
    if form.name == "top-k":
        for side in "pq":
            with (folder / f"{side}.jsonl").open("w") as file:
                for number in range(count):
                    json.dump(_response(form.positions, number, rng), file)
                    file.write("\n")
        return str(folder / "p.jsonl"), str(folder / "q.jsonl")
    width, dtype = (CLASSES, np.float16) if form.name == "logits" else (SIZE, ml_dtypes.bfloat16)
    stem = "logits" if form.name == "logits" else "hidden"
    for side in "pq":
        (folder / side).mkdir()
    for number in range(count):
        rows = rng.normal(0, 2, (form.positions, width)).astype(np.float32)
        near = rows + rng.normal(0, 0.1, rows.shape).astype(np.float32)
        for side, array in (("p", rows), ("q", near)):
            _save(folder / side / f"{stem}_{number:04}.safetensors", array.astype(dtype), stem)
    if form.name == "hidden":
        (folder / "lm-head").mkdir()
        weight = rng.standard_normal((CLASSES, SIZE), np.float32) * np.float32(SIZE**-0.5)
        _save(folder / "lm-head" / "weight.safetensors", weight.astype(dtype), "weight")
    return str(folder / "p"), str(folder / "q")


def _save(path: Path, array: np.ndarray[Any, Any], key: str) -> None:
    name = {"float16": "F16", "bfloat16": "BF16"}[array.dtype.name]
    key = {"hidden": "hidden_states"}.get(key, key)
    entry = {"dtype": name, "shape": list(array.shape), "data_offsets": [0, array.nbytes]}
    header = json.dumps({key: entry}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + array.tobytes())


def _response(positions: int, number: int, rng: np.random.Generator) -> dict[str, Any]:
    tokens = np.random.default_rng(number).integers(0, CLASSES, positions + 1)
    rows: list[Any] = [None]
    for own in tokens[1:].tolist():
        scores = -np.sort(rng.exponential(2, TOP_K))
        log_probs = scores - np.log(np.exp(scores).sum()) - 0.1
        ids = dict.fromkeys((own, *rng.integers(0, CLASSES, TOP_K - 1).tolist()))
        rows.append(
            {
                str(token): {"logprob": round(float(log_prob), 6), "rank": rank}
                for rank, (token, log_prob) in enumerate(zip(ids, log_probs, strict=False), 1)
            }
        )
    choice = {"index": 0, "prompt_logprobs": rows, "prompt_token_ids": tokens.tolist()}
    return {"object": "text_completion", "choices": [choice]}


class Moved:
    """Bytes that go to workers and come back, counted on the way."""

    def __init__(self) -> None:
        from kldiv.evaluation.engines import finished, worker

        self.sent = self.back = 0
        self._packed, self._decode = worker.packed, finished.Finished.decode
        worker.packed = self._sent
        finished.Finished.decode = self._back  # type: ignore[method-assign]

    def _sent(self, *arguments: Any) -> bytes:
        data = self._packed(*arguments)
        self.sent += len(data)
        return data

    def _back(self, data: bytes) -> Any:
        self.back += len(data)
        return self._decode(data)


def measure(form: Form, names: tuple[str, str], repeats: int, moved: Moved) -> Iterator[Any]:
    """Compare on 1 and 2 processes, in turns; of all rounds the fastest counts.

    Beside the time there is what the workers' processors worked, which other work on the machine
    changes less.
    """
    import distributed

    from kldiv.evaluation import evaluate, open_dump

    disk = sum(path.stat().st_size for path in open_dump(names[0]).paths)
    positions = [form.positions * count for count in form.sequences]
    found = {"form": form.name, "title": form.title, "row_bytes": disk / positions[1]}
    best: dict[tuple[str, int, int], float] = {}

    def cpu(client: Any) -> float:
        return float(sum(client.run(time.process_time).values()))

    with contextlib.ExitStack() as stack:
        clients = {}
        for processes in PROCESSES:
            cluster = distributed.LocalCluster(
                n_workers=processes, threads_per_worker=1, dashboard_address=":0", silence_logs=50
            )
            client = distributed.Client(stack.enter_context(cluster), set_as_default=False)
            clients[processes] = stack.enter_context(client)
        for round_ in range(repeats + 1):
            for count, processes in itertools.product(form.sequences, PROCESSES):
                moved.sent = moved.back = 0
                client = clients[processes]
                worked, begin = cpu(client), time.perf_counter()
                result = evaluate(
                    *names,
                    chunks=count,
                    client=client,
                    block_positions=form.positions,
                )
                took = time.perf_counter() - begin
                for what, value in (("wall", took), ("cpu", cpu(client) - worked)):
                    if round_:
                        key = what, processes, count
                        best[key] = min(value, best.get(key, value))
        found |= {"sent": moved.sent / len(result), "back": moved.back / len(result)}
    for processes in PROCESSES:
        more = positions[1] - positions[0]
        wall, work = (
            best[what, processes, form.sequences[1]] - best[what, processes, form.sequences[0]]
            for what in ("wall", "cpu")
        )
        yield {**found, "processes": processes, "rate": more / wall, "cpu": work / more}


def rates(found: dict[str, Any]) -> Iterator[str]:
    """Lay out what was measured."""
    run = found["scale"]
    yield from (report.source(run["header"]), "", run["header"]["protocol"], "")
    titles = (
        *("form", "positions/s, 1 process", "2 processes", "gain", "work of a worker"),
        *("read from storage", "sent to a worker", "and back"),
    )
    lines: list[tuple[str, ...]] = [titles]
    for one, two in _pairs(run):
        gain = f"{two['rate'] / one['rate']:.2f} ×"
        rate = (f"{each['rate']:,.0f}" for each in (one, two))
        moved = (f"{_bytes(each)}" for each in (2 * one["row_bytes"], one["sent"], one["back"]))
        lines.append((one["title"], *rate, gain, f"{1e3 * one['cpu']:.2g} ms", *moved))
    yield from report.in_markdown(lines, 1)
    yield from (
        "",
        "Work, in time of a processor, and bytes are a position's, of both sides together.",
    )


def billion(found: dict[str, Any]) -> Iterator[str]:
    """Lay out what follows for a billion positions."""
    run = found["scale"]
    titles = (
        *("form", "storage", "core hours", f"on {MACHINES} machines of {CORES} cores"),
        *("a machine reads then", f"hours where it reads {READ / 1e9:g} GB/s at most"),
    )
    lines: list[tuple[str, ...]] = [titles]
    for one, _ in _pairs(run):
        storage = 2 * one["row_bytes"] * BILLION
        # Rows that the process that asks reads are its work, which is the time of the run.
        core_hours = BILLION * (1 / one["rate"] if one["form"] == "top-k" else one["cpu"]) / 3600
        cores = 1 if one["form"] == "top-k" else MACHINES * CORES
        machines = 1 if one["form"] == "top-k" else MACHINES
        hours = core_hours / cores
        reading = storage / machines / (hours * 3600)
        limited = max(hours, storage / machines / READ / 3600)
        lines.append(
            (
                one["title"],
                _bytes(storage),
                _number(core_hours),
                f"{_number(hours)} h" + (" on one core, which reads it" if cores == 1 else ""),
                f"{_bytes(reading)}/s",
                f"{_number(limited)} h",
            )
        )
    yield from report.in_markdown(lines, 1)


def _pairs(run: dict[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    by_form: dict[str, dict[int, Any]] = {}
    for each in run["results"]:
        by_form.setdefault(each["form"], {})[each["processes"]] = each
    for each in by_form.values():
        yield each[1], each[2]


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def _bytes(value: float) -> str:
    for unit, size in (("PB", 1e15), ("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.0f} B"


def main() -> None:
    """Measure, and print or keep it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--forms", default=",".join(form.name for form in FORMS))
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    import distributed
    import polars as pl

    moved = Moved()
    results = []
    for form in FORMS:
        if form.name not in options.forms.split(","):
            continue
        with tempfile.TemporaryDirectory() as folder:
            names = make(form, Path(folder), np.random.default_rng(0))
            for result in measure(form, names, options.repeats, moved):
                print(json.dumps(result), flush=True)
                results.append(result)
    load = f"Load of the machine: {os.getloadavg()[1]:.1f} on {os.cpu_count()} processors."
    header = runs.header(
        "python benches/scale.py --save",
        threads=1,
        protocol=load,
        versions={
            "distributed": distributed.__version__,
            "numpy": np.__version__,
            "polars": pl.__version__,
        },
    )
    run = {"header": header, "results": results}
    if options.save:
        # Forms that were not measured are those of the run before.
        kept = runs.newest().get("scale", {"results": []})["results"]
        new = {each["form"] for each in results}
        merged = [each for each in kept if each["form"] not in new] + results
        order = [form.name for form in FORMS]
        run["results"] = sorted(merged, key=lambda each: order.index(each["form"]))
        print(runs.save("scale", run))
    else:
        for lay_out in (rates, billion):
            print("\n".join(lay_out({"scale": run})))


if __name__ == "__main__":
    main()
