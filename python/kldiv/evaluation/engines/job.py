"""A run and its blocks: some sequences of all dumps, one after the other."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import polars as pl

from kldiv.evaluation.dumps.part import total_rows
from kldiv.evaluation.dumps.protocol import Dump, Sequence
from kldiv.evaluation.engines.finished import Finished
from kldiv.evaluation.positions import Marks, Scorer, Scoring, Start, sequences_together
from kldiv.evaluation.scorers import Heads

BLOCK_CLASSES = 1 << 28
"""Classes of a block, over all of its rows: what a kill costs, and what the milliseconds of handing
a block over are spread on. Half a second of logits on one core, two minutes of hidden states."""
BLOCK_POSITIONS = 1 << 16
"""Positions of a block of rows whose number of classes is not known."""
MOST_BLOCKS = 10_000
"""A work directory has a file for each."""


@dataclass
class Job:
    """All that decides the table of positions, and who is told of its progress."""

    dumps: list[Dump]
    """The reference, then the candidates."""
    scorers: list[Scorer]
    """One for each candidate."""
    scoring: Scoring
    heads: Heads
    marks: Marks
    block_positions: int | None = None
    """About how many positions a block has; None for the rule of `positions_of_a_block`."""
    progress: Callable[[int], None] = lambda positions: None
    scored: int = 0
    """Positions scored so far."""
    kept: int = 0
    """Positions that an earlier run had scored."""
    seconds: float = 0.0
    """What it took, without the start of a cluster and the digests of inputs."""
    _said: set[tuple[str, str]] = field(default_factory=set)

    def advance(self, positions: int) -> None:
        """Tell of positions just scored."""
        self.scored += positions
        self.progress(positions)

    def found(self, positions: int) -> None:
        """Tell of positions that were scored by an earlier run."""
        self.kept += positions
        getattr(self.progress, "found", self.progress)(positions)

    def say(self, warned: list[tuple[str, str]]) -> None:
        """Warn of what was warned of in a block, once a run."""
        for category, text in warned:
            if (category, text) not in self._said:
                self._said.add((category, text))
                module, _, name = category.rpartition(".")
                warnings.warn(text, getattr(importlib.import_module(module), name), stacklevel=2)

    def positions_of_a_block(self) -> int:
        """How many positions a block has at least, unless it is the last."""
        if self.block_positions is not None:
            return self.block_positions
        classes = self.scorers[0].classes
        goal = BLOCK_POSITIONS if classes is None else max(1, BLOCK_CLASSES // classes)
        total = total_rows(self.dumps[0], self.scoring.chunks)
        return goal if total is None else max(goal, -(-total // MOST_BLOCKS))


@dataclass(frozen=True)
class Block:
    """Consecutive sequences, side by side of all dumps."""

    number: int
    start: Start
    sequences: list[list[Sequence]]
    positions: int

    @property
    def stop(self) -> Start:
        """What comes before the next block."""
        return Start(
            self.start.sequences + len(self.sequences), self.start.positions + self.positions
        )

    def marks(self, job: Job) -> Marks:
        """What is given for its positions."""
        return job.marks.between(self.start.positions, self.stop.positions)

    def __str__(self) -> str:
        first, last = self.start.sequences, self.stop.sequences - 1
        names = self.sequences[0][0].name
        if first == last:
            return f"block {self.number} (sequence {first}, {names})"
        names += f" to {self.sequences[-1][0].name}"
        return f"block {self.number} (sequences {first:,} to {last:,}, {names})"


def blocks_of(job: Job) -> Iterator[Block]:
    """The blocks of a run, each once the one before is done with.

    They follow from the lengths of the sequences alone. Of streams, whose sequences say no length
    and are read as they come, there are none.
    """
    goal = job.positions_of_a_block()
    number, start = 0, Start()
    sequences: list[list[Sequence]] = []
    positions = 0
    for together in sequences_together(job.dumps, job.scoring.chunks):
        length = next((one.positions for one in together if one.positions is not None), None)
        assert length is not None, "only streams do not say the lengths of their sequences"
        sequences.append(together)
        positions += length
        if positions >= goal:
            block = Block(number, start, sequences, positions)
            yield block
            number, start, sequences, positions = number + 1, block.stop, [], 0
    if sequences:
        yield Block(number, start, sequences, positions)


@dataclass(frozen=True)
class Run:
    """What an engine found."""

    tables: list[pl.DataFrame]
    """The table of positions of each candidate, without the columns that name it."""
    isa: str
    threads: int


class Engine(Protocol):
    """Where blocks are scored."""

    def run(self, job: Job) -> Run:
        """Score all blocks of a run.

        Raises
        ------
        DumpError, EngineError, OSError
            For what ends the run.
        Interrupted
            For Ctrl-C, with the positions of what is done, once there is any.
        """
        ...


def joined(finished: dict[int, Finished]) -> list[pl.DataFrame]:
    """The tables of blocks, in their order, by candidate."""
    in_order = [finished[number].tables for number in sorted(finished)]
    # Of sequences without labels there are no columns of tokens.
    return [pl.concat(tables, how="diagonal") for tables in zip(*in_order, strict=True)]
