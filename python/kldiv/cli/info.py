"""`kldiv info`: what runs here, and how fast memory is; or what a dump is."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np

import kldiv
from kldiv import _kldiv
from kldiv._arrays import as_rows
from kldiv.cli.errors import CommandError
from kldiv.cli.output import show_table
from kldiv.evaluation.dumps.describe import describe, lines
from kldiv.evaluation.dumps.formats import open_dump
from kldiv.evaluation.dumps.llama_cpp import LlamaCppDump
from kldiv.evaluation.dumps.llama_cpp_doctor import examine
from kldiv.evaluation.dumps.protocol import DumpError, Kind
from kldiv.evaluation.dumps.sequences import cut, read_lengths
from kldiv.evaluation.evaluation import read_positions
from kldiv.evaluation.results import read_results

MEASURED_BYTES = 256 << 20  # more than the last-level cache of most machines
CLASSES = 1 << 17  # of a large vocabulary


def show(
    file: str | None = None,
    *,
    kind: Kind | None = None,
    sequences: str | None = None,
    expect_ppl: float | None = None,
    as_json: bool = False,
) -> bool:
    """Print what runs here, or what the dump `file` is; whether it is what was expected.

    Raises
    ------
    DumpError, OSError
        For a dump that cannot be read.
    """
    if file is None:
        show_machine()
        return True
    if kind is None and expect_ppl is None and sequences is None:
        kept = describe_kept(file)
        if kept is not None:
            if as_json:
                print(json.dumps(kept, indent=2, allow_nan=False))
            else:
                show_table([(name, str(value)) for name, value in kept.items()])
            return True
    dump = open_dump(file, kind)
    if isinstance(dump, LlamaCppDump):
        found = examine(dump, expect_ppl)
        if as_json:
            print(json.dumps(found.as_dict(), indent=2))
        else:
            show_table(found.lines())
        return found.fits is not False
    if expect_ppl is not None:
        raise CommandError(f"--expect-ppl is for llama.cpp's base files; {file} is {dump.format}")
    if sequences is not None:
        dump = cut(dump, read_lengths(Path(sequences)))
    described = describe(dump)
    if as_json:
        print(json.dumps(described, indent=2, allow_nan=False))
    else:
        show_table(lines(described))
    return True


def describe_kept(file: str) -> dict[str, str | int] | None:
    """What a file is that kldiv wrote of an evaluation; None of any other."""
    path = Path(file)
    if not path.is_file():
        return None
    try:
        if path.suffix == ".parquet":
            result = read_positions(file)
            about, names, table = result.about, result.candidates, result.positions
            each = len(table) // max(1, len(names))
            next_step = f"kldiv compare {file} computes its statistics"
            columns = {"columns": ", ".join(table.columns)}
        elif path.suffix == ".json":
            results = read_results(file)
            about, names = results[0].about, [one.candidate for one in results]
            each = results[0].summary["num_positions"]
            next_step = f"kldiv check {file} --max NAME=NUMBER holds its numbers to bounds"
            columns = {}
        else:
            return None
    except DumpError:
        # Of something else; what cannot be opened at all is said by those who open dumps.
        return None
    what = "table of positions" if path.suffix == ".parquet" else "result"
    reference = about.get("reference")
    return {
        "file": file,
        "format": f"{what} of kldiv {about.get('kldiv', '')}".rstrip(),
        "computed on": str(about.get("date", "not known")),
        "reference": str((reference or {}).get("file", "not known")),
        "candidates": ", ".join(names),
        "positions of each": each,
        **columns,
        "next": next_step,
    }


def show_machine() -> None:
    """Print version, instruction set, threads and memory bandwidth."""
    build = kldiv.build_info()
    speed = read_bandwidth() / 1e9
    optimised = "" if build["optimized"] else " (a debug build: slow)"
    show_table(
        [
            ("version", build["version"]),
            ("target", build["target"] + optimised),
            ("instruction set", f"{kldiv.isa()} (available: {', '.join(build['isas'])})"),
            ("threads", f"{kldiv.get_num_threads()}"),
            ("memory bandwidth", f"{speed:.1f} GB/s (reading {MEASURED_BYTES >> 20} MiB)"),
        ]
    )


def read_bandwidth() -> float:
    """Bytes per second at which all threads together read memory: the best of three."""
    data = as_rows("data", np.ones((MEASURED_BYTES // (4 * CLASSES), CLASSES), np.float32), -1)
    times = []
    for _ in range(3):
        start = time.perf_counter()
        _kldiv.stream(data)
        times.append(time.perf_counter() - start)
    return MEASURED_BYTES / min(times)
