"""Instructions of small calls, kldiv's and torch's, counted by callgrind in one process.

    python benches/overhead.py                             every call: some minutes
    python benches/overhead.py --shapes 1x1000 --jobs kl   some of them

What a call of a few rows takes is mostly around its rows, and on a busy machine no clock tells two
libraries apart in it. Valgrind knows no AVX-512, so that what is counted is AVX2, with one thread:
`CALLS` calls, after some that are not counted. Their times are the run "small" of ``peers.py``.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import kldiv.torch
import report
from contenders import Torch
from instructions import control, count, totals
from jobs import JOBS, Call, Inputs, Job, as_tensor, ours

SHAPES = "1x1000,8x1000"
KEYS = "cross_entropy,cross_entropy+grad,cross_entropy+autograd,kl,kl+grad,kl+autograd"
CALLS = 50
WAYS = ("arrays", "tensors", "kldiv.torch", "torch eager")


def ways(job: Job, inputs: Inputs) -> dict[str, Call]:
    """Make the calls of a job: of arrays, of tensors, by `kldiv.torch`, and torch's own."""
    theirs = Torch().prepare(job, inputs)
    assert theirs is not None
    if job.autograd:
        return {"kldiv.torch": ours(job, inputs), "torch eager": theirs}
    found = {
        "arrays": ours(job, inputs, fresh=True),
        "tensors": ours(job, inputs, fresh=True, tensors=True),
    }
    if not job.gradient:
        p, q, labels = (as_tensor(array) for array in (inputs.p, inputs.q, inputs.labels))
        if job.function == "cross_entropy":
            found["kldiv.torch"] = lambda: (
                kldiv.torch.cross_entropy(q, labels, reduction="none"),
                None,
            )
        else:
            function = getattr(kldiv.torch, job.function)
            found["kldiv.torch"] = lambda: (function(p, q, **job.parameter), None)
    return {**found, "torch eager": theirs}


def main() -> None:
    """Count, and print a line for each job."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", default=SHAPES)
    parser.add_argument("--jobs", default=KEYS)
    parser.add_argument("--dtypes", default="float32")
    parser.add_argument("--counted", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.counted:
        count_here(options)
        return
    chosen = ["--shapes", options.shapes, "--jobs", options.jobs, "--dtypes", options.dtypes]
    with tempfile.TemporaryDirectory() as folder:
        count(__file__, folder, chosen)
        counted = json.loads((Path(folder) / "calls.json").read_text(encoding="utf-8"))
        found = totals(folder)
    lines: dict[tuple[str, ...], dict[str, str]] = {}
    for number, (*line, way) in enumerate(counted):
        lines.setdefault(tuple(line), {})[way] = f"{found[str(number)] / CALLS:,.0f}"
    rows = [
        ("shape", "dtype", "call", *WAYS),
        *((*line, *(each.get(way, "") for way in WAYS)) for line, each in lines.items()),
    ]
    print("\n".join(report.in_markdown(rows, 3)))


def count_here(options: argparse.Namespace) -> None:
    """Under callgrind: make the calls of each job, and dump what they took."""
    known = {job.key: job for job in JOBS}
    counted: list[tuple[str, ...]] = []
    gc.disable()
    for shape in options.shapes.split(","):
        rows, classes = map(int, shape.split("x"))
        for dtype in options.dtypes.split(","):
            inputs = Inputs.make(rows, classes, dtype, None)
            for key in options.jobs.split(","):
                for way, call in ways(known[key], inputs).items():
                    repeat(call)
                    control("--zero")
                    control("--instr=on")
                    repeat(call)
                    control("--instr=off")
                    control(f"--dump={len(counted)}")
                    counted.append((f"{rows} × {classes:,}", dtype, known[key].title, way))
    path = Path(options.counted) / "calls.json"
    path.write_text(json.dumps(counted), encoding="utf-8")


def repeat(call: Call) -> Any:
    """Call as often as is counted."""
    for _ in range(CALLS):
        call()


if __name__ == "__main__":
    sys.exit(main())
