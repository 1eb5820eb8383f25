"""The search: cases one after the other in a process of its own, which a broken file may end."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

from .limits import Find

STUCK = 300.0
"""Seconds without an answer, of a case that processor time does not end."""


@dataclass
class Found:
    """What a search has seen."""

    cases: int = 0
    bytes: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    texts: dict[str, str] = field(default_factory=dict)
    """Of each kind the first."""

    def add(self, subject: str, number: int, find: Find) -> None:
        """Count a find."""
        kind = f"{subject}: {find.kind}"
        self.kinds[kind] += 1
        self.texts.setdefault(kind, f"case {number}\n{find.text}")


def search(
    seed: int, target: int, names: tuple[str, ...] = (), start: int = 0, seconds: float = 1e9
) -> Found:
    """Read changed files until they are `target` bytes in all, or the time is over."""
    found = Found()
    end = time.monotonic() + seconds
    context = multiprocessing.get_context("spawn")
    number = start
    while found.bytes < target and time.monotonic() < end:
        ours, theirs = context.Pipe()
        process = context.Process(
            target=_work, args=(theirs, seed, number, names, target - found.bytes), daemon=True
        )
        process.start()
        theirs.close()
        number, died = _follow(ours, found, end, number)
        if not died:
            process.terminate()
        process.join()
        if died:
            found.add(died, number - 1, Find(f"the process ended with {process.exitcode}", ""))
    return found


def _follow(pipe: Connection, found: Found, end: float, number: int) -> tuple[int, str]:
    """Collect what a process says, until it is done or dead.

    The number of the next case, and what was read when it died.
    """
    subject = "none"
    while time.monotonic() < end:
        try:
            if not pipe.poll(STUCK):
                found.add(subject, number, Find("stuck", f"no answer for {STUCK:g} seconds"))
                return number + 1, ""
            said = pipe.recv()
        except EOFError:
            return number + 1, subject
        match said:
            case ("begin", int(number), str(subject)):
                pass
            case ("end", int(size), find):
                found.cases += 1
                found.bytes += size
                if find is not None:
                    found.add(subject, number, find)
            case "done":
                break
    return number + 1, ""


def _work(pipe: Connection, seed: int, start: int, names: tuple[str, ...], target: int) -> None:
    # What reserves memory for itself would take it for the file's.
    os.environ |= {"ARROW_DEFAULT_MEMORY_POOL": "system", "RUST_BACKTRACE": "0"}
    from .case import make
    from .subjects import SUBJECTS

    subjects = tuple(one for one in SUBJECTS if not names or one.name in names)
    read, number = 0, start
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as name:
        folder = Path(name) / "files"
        folder.mkdir()
        whole(subjects, folder)
        while read < target:
            case = make(seed, number, subjects)
            pipe.send(
                ("begin", number, f"{case.subject.name}, {case.subject.read[case.reader].__name__}")
            )
            found = case.find(folder)
            pipe.send(("end", case.size, found))
            read += case.size
            number += 1
    pipe.send("done")


def whole(subjects: tuple, folder: Path) -> None:
    """Read what is not changed: libraries are loaded, threads begun, when memory is limited."""
    from .case import Case
    from .subjects import named

    for subject in subjects:
        for tree in subject.trees:
            for reader in range(len(subject.read)):
                Case(subject, tree, named(tree, Path()), next(iter(tree)), reader).find(folder)
