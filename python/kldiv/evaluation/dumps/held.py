"""Sequences of a dump that were read, to be sent where its file cannot be read by parts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from kldiv._arrays import Array
from kldiv.evaluation.dumps.blocks import copied, joined, part
from kldiv.evaluation.dumps.protocol import Block, Dump, Kind, Sequence

STEP = 1024  # rows read at a time


@dataclass(frozen=True)
class HeldSequence:
    """The rows of a sequence, and what is known of it."""

    name: str
    rows: Block | None
    labels: Array | None
    first: int

    @classmethod
    def of(cls, sequence: Sequence) -> HeldSequence:
        """Read a sequence."""
        blocks = [copied(block) for block in sequence.read(STEP)]
        rows = joined(blocks) if blocks else None
        return cls(sequence.name, rows, sequence.labels, sequence.first)


@dataclass(frozen=True)
class HeldDump:
    """Some sequences of a dump, in memory."""

    name: str
    format: str
    kind: Kind
    width: int | None
    dtype: np.dtype[Any]
    row_bytes: int
    block_bytes: int
    head: Path | None
    held: tuple[HeldSequence, ...]

    @classmethod
    def of(cls, dump: Dump, sequences: list[Sequence]) -> HeldDump:
        """Read some sequences of a dump."""
        return cls(
            dump.name,
            dump.format,
            dump.kind,
            dump.width,
            dump.dtype,
            dump.row_bytes,
            dump.block_bytes,
            getattr(dump, "head", None),
            tuple(map(HeldSequence.of, sequences)),
        )

    @property
    def count(self) -> int:
        """How many sequences."""
        return len(self.held)

    def details(self) -> dict[str, Any]:
        """Nothing else is known."""
        return {}

    def sequences(self) -> Iterator[Sequence]:
        """The sequences."""
        for one in self.held:
            length = 0 if one.rows is None else len(one.rows)
            yield Sequence(one.name, length, partial(_rows, one.rows), one.labels, one.first)


def _rows(rows: Block | None, step: int) -> Iterator[Block]:
    if rows is not None:
        for start in range(0, len(rows), step):
            yield part(rows, start, start + step)
