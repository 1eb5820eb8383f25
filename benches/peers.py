"""kldiv against other libraries and against the speed of memory, interleaved in one process.

    python benches/peers.py --quick                        small shapes: under a minute
    python benches/peers.py --run main --save              a run that the documents show, kept
    python benches/peers.py --shapes 256x128256 --dtypes float32,bfloat16 --jobs kl,kl+grad
    python benches/peers.py --json run.json                everything: 25 minutes, a file of one run
    python benches/peers.py --from run.json --markdown     the tables of a run, without running

Every contender gets the same inputs. For each job: two warm-ups of each, then rounds in which they
take turns, each round in another order, and the median. The limit of a job is the time in which
kldiv's threads move its data and compute nothing. Errors are against the oracle of the tests.
``jobs.py`` says what is computed, ``contenders.py`` how the others do it; those that are not
installed are left blank.
`NAMED` has the runs of the documents; ``document.py`` makes tables and pictures of what is kept.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import math
import random
import shlex
import statistics
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import kldiv
import report
import runs
from accuracy import DTYPES
from contenders import CONTENDERS, installed, versions
from jobs import FAMILY, IN_JAX, JOBS, TOP_K, Call, Inputs, Job, errors, limits, ours

SHAPES = "1x1000,8x1000,1x262144,32x50257,512x32000,256x128256,64x262144"
QUICK_SHAPES = "1x1000,8x1000"
QUICKER = ("shapes", "repeats")
"""What --quick takes from a named run."""
PAUSE = 2e-3
"""Seconds before each sample, in which the threads of the contender before stop spinning."""
SAMPLE = 1e-3
"""Calls that take less than these seconds are timed by the dozen."""
SLOW = 0.5
"""Calls that take more than these seconds are timed in `FEWER_ROUNDS`, and so are `SLOW_PEERS`."""
SLOW_PEERS = ("scipy", "numpy")
FEWER_ROUNDS = 3


ROW_JOBS = "kl,kl+grad,cross_entropy,cross_entropy+grad"
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
CLASSES = (1_000, 4_096, 16_384, 32_000, 65_536, 128_256, 262_144)
NAMED: dict[str, dict[str, Any]] = {
    # All functions at the largest shape, of which README.md shows a part.
    "main": {
        "shapes": "256x128256",
        "dtypes": "float32,float16,bfloat16",
        "peers": "torch,compile,simsimd,numkong",
    },
    # Every divergence with its gradient.
    "family": {
        "shapes": "256x128256",
        "dtypes": "float32",
        "jobs": ",".join(job.key for job in FAMILY),
        "peers": "none",
    },
    # Every shape, dtype, job and other library.
    "shapes": {"peers": ",".join(name for name in CONTENDERS if name != "kldiv_jax")},
    # Teachers kept as top-k, beside what costs as much as they are to.
    "top_k": {
        "shapes": "256x128256",
        "dtypes": "float32,bfloat16",
        "jobs": ",".join(["cross_entropy+grad", *(job.key for job in TOP_K)]),
        "peers": "none",
    },
    # A student that is close to its teacher.
    "close": {
        "shapes": "256x128256",
        "dtypes": "float32,bfloat16",
        "jobs": "kl,kl+grad,js+grad",
        "peers": "torch,compile",
        "noise": 0.1,
    },
    # Calls in which checks and conversions take longer than the rows.
    "small": {
        "shapes": QUICK_SHAPES,
        "dtypes": "float32,bfloat16",
        "jobs": f"{ROW_JOBS},js,js+grad,kl+autograd,cross_entropy+autograd",
        "peers": "torch",
        "tensors": True,
        "repeats": 100,
    },
    "autograd": {
        "shapes": "256x128256,32x50257,1x1000",
        "dtypes": "float32,bfloat16",
        "jobs": "kl+autograd,cross_entropy+autograd",
        "peers": "torch,compile",
    },
    # In JAX, beside optax; kldiv's own column is NumPy's call.
    "jax": {
        "shapes": "512x32000,256x128256",
        "dtypes": "float32,bfloat16",
        "jobs": ",".join(
            [
                *("kl", "kl+grad", "js", "js+grad", "cross_entropy", "cross_entropy+grad"),
                *(job.key for job in IN_JAX),
            ]
        ),
        "peers": "jax,kldiv_jax",
    },
    # How the time grows.
    "rows": {
        "shapes": ",".join(f"{rows}x128256" for rows in ROWS),
        "dtypes": "float32",
        "jobs": ROW_JOBS,
        "peers": "none",
    },
    "classes": {
        "shapes": ",".join(f"64x{classes}" for classes in CLASSES),
        "dtypes": "float32",
        "jobs": ROW_JOBS,
        "peers": "none",
    },
    "threads": {
        "shapes": "256x128256",
        "dtypes": "float32",
        "jobs": f"{ROW_JOBS},probs",
        "peers": "none",
        "threads": ",".join(map(str, range(1, kldiv.get_num_threads() + 1))),
    },
}
"""Options of the runs that the documents show."""


def main() -> None:
    """Measure, or read what was measured; print the tables."""
    options = parse()
    if options.read is not None:
        run = json.loads(options.read.read_text(encoding="utf-8"))
        if "results" not in run:  # a file of named runs
            if options.run not in run:
                there = ", ".join(name for name in NAMED if name in run)
                sys.exit(f"peers.py: error: --run of {options.read}: one of {there}")
            run = run[options.run]
    else:
        run = {"header": {}, "results": []}
        measure(options, run)
    report.show(run, markdown=options.markdown)


def parse() -> argparse.Namespace:
    """Read the command line; what it says prevails over what a named run is."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    keys = [job.key for job in JOBS]
    parser.add_argument("--run", choices=NAMED, help="options of a run of the documents")
    parser.add_argument("--quick", action="store_true", help="small shapes and few repeats")
    parser.add_argument("--shapes", help=f"default: {SHAPES}")
    parser.add_argument("--dtypes", help=f"of {', '.join(DTYPES)}")
    usual = ",".join(job.key for job in JOBS if job.form is None)
    parser.add_argument("--jobs", default=usual, help=f"of {', '.join(keys)}")
    parser.add_argument("--peers", help=f"of {', '.join(CONTENDERS)}, or none")
    parser.add_argument("--threads", help="counts, separated by commas; default: those there are")
    parser.add_argument("--noise", type=float, help="q is p plus so much noise; default: another p")
    parser.add_argument("--tensors", action="store_true", help="kldiv on torch's tensors too")
    parser.add_argument("--repeats", type=int, help="rounds; default: 7, or 3 with --quick")
    parser.add_argument("--save", action="store_true", help="keep it in benches/results, by --run")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured")
    parser.add_argument("--from", dest="read", type=Path, metavar="FILE", help="read it instead")
    parser.add_argument("--markdown", action="store_true", help="print tables in Markdown")
    options = parser.parse_args()
    quick = options.quick
    named = NAMED.get(options.run, {})
    parser.set_defaults(**{k: v for k, v in named.items() if not (quick and k in QUICKER)})
    options = parser.parse_args()
    if options.save and (quick or options.run is None):
        parser.error("--save keeps whole runs that have a name, with --run and without --quick")
    peers = [name for name in CONTENDERS if not (quick and name == "compile")]
    options.shapes = options.shapes or (QUICK_SHAPES if quick else SHAPES)
    options.repeats = options.repeats or (3 if quick else 7)
    options.dtypes = options.dtypes or ("float32,bfloat16" if quick else ",".join(DTYPES))
    options.peers = ",".join(peers) if options.peers is None else options.peers
    try:
        options.shapes = [tuple(map(int, s.split("x"))) for s in options.shapes.split(",")]
        threads = options.threads or str(kldiv.get_num_threads())
        options.threads = [int(count) for count in threads.split(",")]
    except ValueError:
        parser.error(
            f"--shapes {options.shapes}, --threads {options.threads}: expected ROWSxCLASSES and "
            "counts, separated by commas"
        )
    for name, known in (("dtypes", [*DTYPES]), ("jobs", keys), ("peers", [*CONTENDERS, "none"])):
        chosen = getattr(options, name).split(",")
        if unknown := set(chosen) - set(known):
            parser.error(f"--{name} {', '.join(sorted(unknown))}: not one of {', '.join(known)}")
        setattr(options, name, [each for each in known if each in chosen and each != "none"])
    return options


def measure(options: argparse.Namespace, run: dict[str, Any]) -> None:
    """Fill the run in, and keep the file of it up to date."""
    contenders = installed(options.peers)
    unkept = {"--save", "--markdown"}
    gc.freeze()
    run["header"] = runs.header(
        shlex.join(["python", "benches/peers.py", *(a for a in sys.argv[1:] if a not in unkept)]),
        versions=versions(contenders),
        contenders={name: each.title for name, each in CONTENDERS.items() if name in contenders},
        noise=options.noise,
        repeats=options.repeats,
        slow=SLOW,
        slow_peers=[CONTENDERS[name].title for name in SLOW_PEERS],
        fewer_rounds=FEWER_ROUNDS,
    )
    for rows, classes in options.shapes:
        for dtype in options.dtypes:
            inputs = Inputs.make(rows, classes, dtype, options.noise)
            for count, job in itertools.product(options.threads, JOBS):
                if job.key in options.jobs:
                    announce(f"{rows} × {classes:,}, {dtype}, {job.title}, {count} threads")
                    run["results"].append(result(job, inputs, contenders, count, options))
            if options.json is not None:
                options.json.write_text(json.dumps(run, indent=1), encoding="utf-8")
            if options.save:
                runs.save(options.run, run)
    gc.unfreeze()
    announce("")


def announce(text: str) -> None:
    """Say on a terminal what is running."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def result(
    job: Job,
    inputs: Inputs,
    contenders: dict[str, Any],
    count: int,
    options: argparse.Namespace,
) -> dict[str, Any]:
    """Measure one job on one shape and dtype, with so many threads."""
    repeats = options.repeats
    calls: dict[str, Call] = {f"limit: {k}": call for k, call in limits(job, inputs).items()}
    calls["kldiv"] = ours(job, inputs)
    if job.gradient and not job.autograd:
        calls["kldiv, fresh"] = ours(job, inputs, fresh=True)
    if options.tensors and not job.autograd:
        calls["kldiv, tensors"] = ours(job, inputs, fresh=True, tensors=True)
    for name, contender in contenders.items():
        if job.peers is None or name in job.peers:
            call = contender.prepare(job, inputs)
            if call is not None:
                calls[name] = call
    truth = inputs.truth(job)
    found: dict[str, Any] = {}
    with threads(job.threads or count, contenders):
        timers = {}
        for name, call in calls.items():
            try:
                rounds = min(repeats, FEWER_ROUNDS) if name in SLOW_PEERS else repeats
                timers[name], value = warm_up(call, rounds)
            except Exception as error:  # a peer may lack a dtype, or a compiler
                if name not in contenders:
                    raise
                found[name] = {"failed": f"{type(error).__name__}: {error}".splitlines()[0]}
                continue
            found[name] = {"times": []}
            if not name.startswith("limit"):
                found[name] |= errors(job, inputs, truth, value)
        gc.collect()  # quick, since what importing the libraries made is frozen
        order = list(timers.items())
        for turn in range(repeats):
            # What was in the caches, and how busy memory is, depends on who was there before.
            random.Random(turn).shuffle(order)
            for name, (number, times) in order:
                if turn < times:
                    found[name]["times"].append(timed(calls[name], number))
    for name in timers:
        found[name]["seconds"] = statistics.median(found[name]["times"])
    return {
        "shape": inputs.p.shape,
        "dtype": inputs.dtype,
        "threads": count,
        "job": job.key,
        "title": job.title,
        "limit": min(entry["seconds"] for name, entry in found.items() if name.startswith("limit")),
        "entries": found,
    }


@contextmanager
def threads(count: int, contenders: dict[str, Any]) -> Iterator[None]:
    """Let kldiv, and contenders that can be told, use `count` threads for a while."""

    def use(count: int) -> None:
        kldiv.set_num_threads(count)
        for contender in contenders.values():
            if hasattr(contender, "set_threads"):
                contender.set_threads(count)

    before = kldiv.get_num_threads()
    use(count)
    try:
        yield
    finally:
        use(before)


def warm_up(call: Call, rounds: int) -> tuple[tuple[int, int], Any]:
    """Call twice; give the calls to a sample, the rounds to take part in, and what was computed."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        value = call()
        seconds = timed(call, 1)
        if seconds > SLOW:
            return (1, min(rounds, FEWER_ROUNDS)), value
    return (max(1, math.ceil(SAMPLE / seconds)), rounds), value


def timed(call: Call, number: int) -> float:
    """Seconds a call, freeing its results included, right after one that is not timed.

    That one finds the threads asleep and the caches full of what the contender before left there.
    """
    time.sleep(PAUSE)
    call()
    start = time.perf_counter()
    for _ in range(number):
        call()
    return (time.perf_counter() - start) / number


if __name__ == "__main__":
    main()
