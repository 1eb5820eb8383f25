"""Some rows of a dump, counted over all of its sequences."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from kldiv.evaluation.dumps.blocks import is_read_once
from kldiv.evaluation.dumps.protocol import Block, Dump, DumpError, Kind, Sequence, TopKBlock


@dataclass(frozen=True)
class SomeRows:
    """The rows of a range; sequences outside of it have none.

    Rows before the range are read where a format has no other way to what follows.
    """

    dump: Dump
    rows: range

    @property
    def name(self) -> str:
        """As of the whole."""
        return self.dump.name

    @property
    def format(self) -> str:
        """As of the whole."""
        return self.dump.format

    @property
    def kind(self) -> Kind:
        """As of the whole."""
        return self.dump.kind

    @property
    def width(self) -> int | None:
        """As of the whole."""
        return self.dump.width

    @property
    def dtype(self) -> np.dtype[Any]:
        """As of the whole."""
        return self.dump.dtype

    @property
    def row_bytes(self) -> int:
        """As of the whole."""
        return self.dump.row_bytes

    @property
    def block_bytes(self) -> int:
        """As of the whole."""
        return self.dump.block_bytes

    @property
    def count(self) -> int | None:
        """As of the whole."""
        return self.dump.count

    @property
    def head(self) -> Path | None:
        """As of the whole."""
        return getattr(self.dump, "head", None)

    @property
    def paths(self) -> tuple[Path, ...]:
        """As of the whole."""
        return getattr(self.dump, "paths", ())

    @property
    def source(self) -> Dump:
        """The whole."""
        return self.dump

    def details(self) -> dict[str, Any]:
        """As of the whole."""
        return self.dump.details()

    def between(self, start: int, stop: int) -> SomeRows:
        """Only some of the sequences."""
        before = sum(
            sequence.positions or 0 for sequence in itertools.islice(self.dump.sequences(), start)
        )
        bounds = (max(bound - before, 0) for bound in (self.rows.start, self.rows.stop))
        return SomeRows(between(self.dump, start, stop), range(*bounds))

    def sequences(self) -> Iterator[Sequence]:
        """All of them, each with the rows it has in the range."""
        begin = 0
        for sequence in self.dump.sequences():
            if sequence.positions is None:
                raise DumpError(f"{self.name} is a stream, of which rows cannot be chosen")
            start, stop = (
                min(max(bound - begin, 0), sequence.positions)
                for bound in (self.rows.start, self.rows.stop)
            )
            begin += sequence.positions
            yield replace(
                sequence,
                positions=stop - start,
                read=partial(_between, sequence, start, stop),
                labels=None if sequence.labels is None else sequence.labels[start:stop],
                first=sequence.first + start,
            )


def innermost(dump: Dump) -> Dump:
    """The dump that was opened, without what cuts it or leaves rows out."""
    while (source := getattr(dump, "source", None)) is not None:
        dump = source
    return dump


def is_stream(dump: Dump) -> bool:
    """Whether a dump comes through a pipe, or from an iterator."""
    inner = innermost(dump)
    found: bool = getattr(inner, "piped", is_read_once(inner))
    return found


def has_parts(dump: Dump) -> bool:
    """Whether some sequences of a dump can be had without the others."""
    if isinstance(dump, SomeRows):
        return has_parts(dump.dump)
    found: bool = getattr(dump, "has_parts", hasattr(dump, "between"))
    return found


def between(dump: Dump, start: int, stop: int) -> Dump:
    """Only some sequences of a dump that `has_parts`."""
    found: Dump = dump.between(start, stop)  # type: ignore[attr-defined]
    return found


def _between(sequence: Sequence, start: int, stop: int, step: int) -> Iterator[Block]:
    """Rows of a sequence, `step` at a time."""
    if start >= stop:
        return
    if isinstance(sequence.read, partial) and isinstance(sequence.read.args[-1], range):
        # Of what lies in a file as an array, any rows can be read.
        rows = sequence.read.args[-1][start:stop]
        yield from partial(sequence.read.func, *sequence.read.args[:-1], rows)(step)
        return
    raise DumpError(f"of {sequence.name} rows cannot be chosen")


def first_rows(sequence: Sequence, count: int) -> Sequence:
    """A sequence without the rows from `count` on."""

    def read(step: int) -> Iterator[Block]:
        start = 0
        for block in sequence.read(step):
            if start < count:
                yield block if start + len(block) <= count else _cut(block, count - start)
            start += len(block)

    labels = None if sequence.labels is None else sequence.labels[:count]
    return replace(sequence, positions=count, read=read, labels=labels)


def _cut(block: Block, count: int) -> Block:
    if isinstance(block, TopKBlock):
        parts: dict[str, Any] = {one.name: getattr(block, one.name) for one in fields(block)}
        return TopKBlock(**{name: part[:count] for name, part in parts.items()})
    return block[:count]


def total_rows(dump: Dump, chunks: int | None = None) -> int | None:
    """The rows of all sequences, or the first; None where a sequence has not said yet."""
    if dump.count is None:
        return None
    lengths = [one.positions for one in itertools.islice(dump.sequences(), chunks)]
    known: list[int] = [length for length in lengths if length is not None]
    return sum(known) if len(known) == len(lengths) else None
