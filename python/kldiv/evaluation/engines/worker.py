"""A block as it is sent to another process, and what is done with it there.

What is sent is the dumps with the sequences of the block only: where in which files their rows
are, not the rows, except of what lies in memory or of files that can only be read from their
beginning. Paths are sent absolute; names, which tables and messages show, as they were typed.
"""

from __future__ import annotations

import io
import os
import pickle
import threading
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import kldiv
from kldiv.evaluation.dumps.held import HeldDump
from kldiv.evaluation.dumps.names import is_remote
from kldiv.evaluation.dumps.part import between, has_parts
from kldiv.evaluation.dumps.protocol import Dump, DumpError
from kldiv.evaluation.engines.errors import EngineError
from kldiv.evaluation.engines.finished import Finished, recorded
from kldiv.evaluation.engines.job import Block, Job
from kldiv.evaluation.positions import (
    Marks,
    Scorer,
    Scoring,
    Start,
    score_sequences,
    sequences_together,
)
from kldiv.evaluation.scorers import Heads, scorer_of


@dataclass(frozen=True)
class Task:
    """All that it takes to score a block."""

    run: str
    """Tasks of one run have the same: what they share is made once a process."""
    dumps: list[Dump]
    """The reference, then the candidates, with the sequences of the block only."""
    scoring: Scoring
    heads: Heads
    marks: Marks
    start: Start


@dataclass(frozen=True)
class Outcome:
    """What became of a task."""

    data: bytes | None
    """The finished block, encoded."""
    problem: str | None
    """What of its data cannot be scored."""
    version: str
    isa: str


def packed(job: Job, block: Block, run: str) -> bytes:
    """The task of a block, to be sent."""
    first, last = block.start.sequences, block.stop.sequences
    dumps = [
        between(dump, first, last)
        if has_parts(dump)
        else HeldDump.of(dump, [together[place] for together in block.sequences])
        for place, dump in enumerate(job.dumps)
    ]
    heads = Heads(_absolute(job.heads.reference), tuple(map(_absolute, job.heads.candidates)))
    task = Task(run, dumps, job.scoring, heads, block.marks(job), block.start)
    memory = io.BytesIO()
    _Pickler(memory, protocol=5).dump(task)
    return memory.getvalue()


def check_heads(heads: Heads) -> None:
    """Raise `EngineError` for an output layer that workers cannot read by themselves."""
    for head in (heads.reference, *heads.candidates):
        if head is not None and not isinstance(head, (str, os.PathLike)):
            raise EngineError(
                "the head is an array in memory, which would be sent with every block; give the "
                "name of a file that workers can read"
            )


class _Pickler(pickle.Pickler):
    """Makes paths absolute: a worker has another working directory."""

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, PurePath) and not value.is_absolute():
            return type(value), (os.path.abspath(value),)
        return NotImplemented


def _absolute(head: Any) -> Any:
    if head is None or is_remote(head := os.fspath(head)):
        return head
    return os.path.abspath(head)


# A worker of several threads scores a block at a time, on all of them: settings of the process,
# warnings among them, are those of one block, and so is the memory that it takes.
_alone = threading.Lock()
_scorers: dict[str, list[Scorer]] = {}


def score(task: bytes, threads: int | None = None) -> Outcome:
    """Score a block; what is wrong with its data is in the outcome, and not raised."""
    with _alone:
        before = kldiv.get_num_threads()
        if threads is not None:
            kldiv.set_num_threads(threads)
        try:
            data, problem = _scored(task), None
        except (DumpError, OSError, ValueError, MemoryError) as error:
            data, problem = None, _said(error)
        finally:
            kldiv.set_num_threads(before)
    return Outcome(data, problem, kldiv.__version__, kldiv.isa())


def _scored(packed_task: bytes) -> bytes:
    task: Task = pickle.loads(packed_task)
    reference, *candidates = task.dumps
    with recorded() as warned:
        if task.run not in _scorers:
            # Heads are in them, which are large and read from files.
            _scorers.clear()
            _scorers[task.run] = [
                scorer_of(reference, dump, task.scoring, task.heads.of(place))
                for place, dump in enumerate(candidates)
            ]
        found = score_sequences(
            sequences_together(task.dumps, None),
            task.dumps,
            _scorers[task.run],
            task.marks,
            start=task.start,
        )
    start = [task.start.sequences, task.start.positions]
    return Finished(found.tables, found.positions, warned).encode(start=start)


def _said(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "out of memory"
    if isinstance(error, OSError) and error.filename is not None:
        hint = ""
        if isinstance(error, FileNotFoundError):
            hint = "; workers read files by themselves, from storage that all of them share"
        return f"{error.filename}: {error.strerror}{hint}"
    return " ".join(str(error).split())
