"""Runs kept as data: ``benches/results/<date>-<cpu>.json``, each an object of named runs.

A run is a header, which says how its numbers came about, and a list of results. Documents show the
newest run of each name. A run that is `transcribed` has the numbers that a document stated, as
rounded as they were there: ratios that it gave are kept, since they were made of more digits.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "benches" / "results"

Run = dict[str, Any]
"""With the keys "header" and "results"."""


def header(command: str, **more: Any) -> dict[str, Any]:
    """State what every run says of itself."""
    import kldiv

    return {
        "command": command,
        "machine": cpu_name(),
        "isa": kldiv.isa(),
        "threads": kldiv.get_num_threads(),
        "kldiv": kldiv.__version__,
        "commit": commit(),
        "python": platform.python_version(),
        "date": dt.date.today().isoformat(),
        **more,
    }


def commit() -> str:
    """Name the commit that is measured."""

    def git(*arguments: str) -> str:
        command = ["git", *arguments]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    changed = git("status", "--porcelain", "src", "python")
    return git("rev-parse", "--short", "HEAD") + (" with uncommitted changes" if changed else "")


def cpu_name() -> str:
    """Name the processor."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":")[1].strip() for line in text.splitlines() if "model name" in line]
    return names[0] if names else platform.machine()


def file_of(run: Run) -> Path:
    """Name the file that keeps a run."""
    cpu = re.sub(r"[^a-z0-9]+", "-", run["header"]["machine"].lower()).strip("-")
    return FOLDER / f"{run['header']['date']}-{cpu}.json"


def save(name: str, run: Run) -> Path:
    """Keep a run under its name, in the place of one of that day."""
    path = file_of(run)
    kept = read(path) if path.exists() else {}
    kept[name] = run
    path.parent.mkdir(parents=True, exist_ok=True)
    # The file is whole at any time, also for a run that saves what it has so far.
    new = path.with_suffix(".new")
    new.write_text(dumps(kept), encoding="utf-8")
    os.replace(new, path)
    return path


def dumps(kept: dict[str, Run]) -> str:
    """Lay named runs out with one line for each result."""
    runs = []
    for name, run in kept.items():
        results = ",\n".join("   " + _line(result) for result in run["results"])
        parts = [f'  "header": {_line(run["header"])}', f'  "results": [\n{results}\n  ]']
        runs.append(f" {_line(name)}: {{\n" + ",\n".join(parts) + "\n }")
    return "{\n" + ",\n".join(runs) + "\n}\n"


def _line(thing: Any) -> str:
    return json.dumps(thing, ensure_ascii=False)


def read(path: Path) -> dict[str, Run]:
    """Read the named runs of a file."""
    kept: dict[str, Run] = json.loads(path.read_text(encoding="utf-8"))
    return kept


def newest() -> dict[str, Run]:
    """Give the newest run of each name."""
    found: dict[str, Run] = {}
    for path in sorted(FOLDER.glob("*.json")):  # names begin with the date
        found |= read(path)
    return found
