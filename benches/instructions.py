"""Instructions for eight classes, counted by callgrind: the same on every machine, however busy.

    python benches/instructions.py                         every job: some minutes
    python benches/instructions.py --run rows              other kinds of rows
    python benches/instructions.py --save                  kept, as documents show it
    python benches/instructions.py --jobs kl,compare --dtypes float32

Valgrind knows no AVX-512, so that what is counted is AVX2, with one thread: the difference of a
call with `MANY` rows and one with `FEW`, by which what a call costs beside falls out. `far` rows
are independent, a `close` one is the other and a little noise. `offset` rows are independent, and
one has 30 added to all its logits; of `dominated` rows, which differ by more noise, a few classes
have most.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import kldiv
import report
import runs
from jobs import FAMILY, JOBS, Inputs, ours

CLASSES = 65_536
FEW, MANY = 1, 4
ROWS: dict[str, dict[str, Any]] = {
    "far": {"noise": None},
    "close": {"noise": 0.1},
    "offset": {"noise": None, "offset": 30.0},
    "dominated": {"noise": 1.0, "tops": 4},
}
KEYS = [
    "kl",
    "kl+grad",
    "cross_entropy",
    "cross_entropy+grad",
    "js",
    "probs",
    "compare",
    *(job.key for job in FAMILY),
]
RUNS = {
    "dtypes": ("instructions", "float32,float16,bfloat16,float64", "far,close"),
    "rows": ("instructions_rows", "float32", "far,offset,dominated"),
}
"""The name of what is kept, dtypes and rows."""
PROTOCOLS = {
    "dtypes": "; close: q = p + 0.1·N(0, 1).",
    "rows": "; offset: 30 added to q; dominated: q = p + N(0, 1), 1 to 4 classes 8 to 22 higher.",
}


def main() -> None:
    """Count, print, and save if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", default=",".join(dict.fromkeys(KEYS)))
    parser.add_argument("--run", choices=RUNS, default="dtypes")
    parser.add_argument("--dtypes")
    parser.add_argument("--rows")
    parser.add_argument("--classes", type=int, default=CLASSES)
    parser.add_argument("--save", action="store_true", help="keep the run under benches/results")
    parser.add_argument("--counted", help=argparse.SUPPRESS)
    options = parser.parse_args()
    name, dtypes, rows = RUNS[options.run]
    options.dtypes, options.rows = options.dtypes or dtypes, options.rows or rows
    if options.counted:
        count_here(options)
        return
    command = "python benches/instructions.py" + (" --run rows" if options.run == "rows" else "")
    results = counted(options)
    protocol = f"Rows of {options.classes:,} classes, logits N(0, 3²)" + PROTOCOLS[options.run]
    header = runs.header(command, isa="avx2", threads=1, versions={}, protocol=protocol)
    run = {"header": header, "results": results}
    print("\n".join(report.in_markdown(report.instructions(run), 1)))
    if options.save:
        print(f"saved in {runs.save(name, run)}", file=sys.stderr)


def counted(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Run this file under callgrind; instructions for eight classes of each job."""
    chosen = ["--jobs", options.jobs, "--dtypes", options.dtypes, "--rows", options.rows]
    with tempfile.TemporaryDirectory() as folder:
        count(__file__, folder, [*chosen, "--classes", str(options.classes)])
        results = json.loads((Path(folder) / "jobs.json").read_text(encoding="utf-8"))
        found = totals(folder)
    for number, result in enumerate(results):
        difference = found[f"{number}-many"] - found[f"{number}-few"]
        result["instructions"] = difference / (MANY - FEW) / options.classes * 8
    return results


def count(script: str, folder: str, arguments: list[str]) -> None:
    """Run a script under callgrind with ``--counted``, whose dumps go to a folder."""
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        sys.exit("instructions are counted by valgrind, which is not installed")
    out = f"--callgrind-out-file={Path(folder) / 'calls'}"
    tool = (valgrind, "--tool=callgrind", "--instr-atstart=no", out, "--log-file=" + os.devnull)
    # Nothing else that counts: no threads, and no memory that is asked for at random.
    environment = os.environ | {"KLDIV_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    command = [*tool, sys.executable, script, *arguments, "--counted", folder]
    subprocess.run(command, check=True, env=environment)


def totals(folder: str) -> dict[str, int]:
    """Instructions of each dump, by its name."""
    found = {}
    for path in Path(folder).glob("calls.*"):
        text = path.read_text(encoding="utf-8", errors="replace")
        name = re.search(r"^desc: Trigger: .*?(\S+)$", text, re.MULTILINE)
        total = re.search(r"^totals: (\d+)", text, re.MULTILINE)
        if name and total:
            found[name[1]] = int(total[1])
    return found


def count_here(options: argparse.Namespace) -> None:
    """Under callgrind: make the calls of each job between two dumps."""
    known = {job.key: job for job in JOBS}
    results: list[dict[str, Any]] = []
    gc.disable()
    for dtype in options.dtypes.split(","):
        for rows in options.rows.split(","):
            whole = Inputs.make(MANY, options.classes, dtype, **ROWS[rows])
            batches = {"few": whole.first(FEW), "many": whole}
            for key in options.jobs.split(","):
                for name, inputs in batches.items():
                    call = ours(known[key], inputs)
                    call()
                    control("--zero")
                    control("--instr=on")
                    call()
                    control("--instr=off")
                    control(f"--dump={len(results)}-{name}")
                title = known[key].title
                results.append({"job": key, "title": title, "dtype": dtype, "rows": rows})
    assert kldiv.isa() == "avx2"
    (Path(options.counted) / "jobs.json").write_text(json.dumps(results), encoding="utf-8")


def control(what: str) -> None:
    """Tell callgrind, which runs this process."""
    done = subprocess.run(
        ["callgrind_control", what, str(os.getpid())], capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"callgrind_control {what}: {done.stderr or done.stdout}")


if __name__ == "__main__":
    main()
