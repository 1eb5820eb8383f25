"""A dump cut into other sequences than its files or keys: those of a list of lengths."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from kldiv._arrays import Array
from kldiv.evaluation.dumps.blocks import Forward, is_read_once
from kldiv.evaluation.dumps.dense import DenseDump
from kldiv.evaluation.dumps.npy import NpyFile
from kldiv.evaluation.dumps.part import SomeRows, between
from kldiv.evaluation.dumps.protocol import Block, Dump, DumpError, Kind, Sequence
from kldiv.evaluation.dumps.stored_arrays import LABELS


@dataclass(frozen=True)
class Lengths:
    """How many positions each sequence has, and its name."""

    source: str
    """What says so, for messages."""
    lengths: tuple[int, ...]
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        for number, length in enumerate(self.lengths):
            if not 1 <= length < 1 << 62:
                raise DumpError(
                    f"{self.source} says that sequence {number} has {length} positions; expected "
                    "at least 1, and fewer than can be counted"
                )
        if not self.lengths:
            raise DumpError(f"{self.source} holds no length")


def read_lengths(path: Path) -> Lengths:
    """Read the lengths of sequences.

    Parameters
    ----------
    path
        Text with a line ``LENGTH`` or ``LENGTH NAME`` for every sequence; ``.json`` with a list
        of lengths, a list of objects with ``length`` and perhaps ``name``, or an object of
        lengths by name; or ``.npy`` with a list of integers.

    Raises
    ------
    DumpError
        For a file that holds something else.
    OSError
        For a file that cannot be read.
    """
    if path.suffix.lower() == ".npy":
        array = NpyFile(path, None, LABELS).all()
        if array.ndim != 1:
            raise DumpError(f"{path} has shape {array.shape}; expected one length a sequence")
        pairs: list[tuple[int, str | None]] = [(int(length), None) for length in array]
    else:
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise DumpError(f"{path} is not text in UTF-8") from None
        pairs = _of_json(text, path) if path.suffix.lower() == ".json" else _of_text(text, path)
    return Lengths(
        str(path),
        tuple(length for length, _ in pairs),
        tuple(name or str(number) for number, (_, name) in enumerate(pairs)),
    )


def _of_text(text: str, path: Path) -> list[tuple[int, str | None]]:
    pairs: list[tuple[int, str | None]] = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split(maxsplit=1)
        if not words or words[0].startswith("#"):
            continue
        if not (words[0].isascii() and words[0].isdigit() and len(words[0]) < 20):
            raise DumpError(f"{path} has {line.strip()!r} in line {number}; expected LENGTH [NAME]")
        pairs.append((int(words[0]), words[1].strip() if len(words) > 1 else None))
    return pairs


def _of_json(text: str, path: Path) -> list[tuple[int, str | None]]:
    try:
        value = json.loads(text)
        if isinstance(value, dict):
            value = [{"length": length, "name": name} for name, length in value.items()]
        items = [item if isinstance(item, dict) else {"length": item} for item in value]
        if not all(type(item["length"]) is int for item in items):
            raise TypeError("a length that is no integer")
    except (ValueError, TypeError, KeyError, RecursionError):
        raise DumpError(
            f"{path} is no JSON list of lengths, of objects with length and name, nor an object of "
            "lengths by name"
        ) from None
    return [(item["length"], None if (n := item.get("name")) is None else str(n)) for item in items]


class CutDump:
    """A dump whose rows, all sequences one after the other, are cut anew.

    Its sequences are read in one pass over the dump where they are read in order. One that is
    read again, or before the one that came last, has the dump read from its beginning.
    """

    def __init__(self, dump: Dump, lengths: Lengths) -> None:
        """Cut a dump.

        Raises
        ------
        DumpError
            For lengths that are not in sum the positions of the dump. Of a stream, which has not
            said how many it has, when its end comes.
        """
        self._dump = dump
        self._lengths = lengths
        self._labels: Array | None = None
        self._ends = (0, *itertools.accumulate(lengths.lengths))
        wanted = sum(lengths.lengths)
        if self.once:
            return
        sources = list(dump.sequences())
        if any(source.positions is None for source in sources):
            return
        there = sum(source.positions or 0 for source in sources)
        if there != wanted:
            raise DumpError(
                f"{lengths.source} describes {len(lengths.lengths):,} sequences of {wanted:,} "
                f"positions in all, but {dump.name} has {there:,}"
            )
        if any(source.labels is not None for source in sources):
            self._labels = np.concatenate(
                [
                    np.full(source.positions or 0, -100, np.int64)
                    if source.labels is None
                    else source.labels
                    for source in sources
                ]
            )

    @property
    def name(self) -> str:
        """That of the dump."""
        return self._dump.name

    @property
    def format(self) -> str:
        """That of the dump, cut."""
        return f"{self._dump.format}, cut by {self._lengths.source}"

    @property
    def kind(self) -> Kind:
        """That of the dump."""
        return self._dump.kind

    @property
    def width(self) -> int | None:
        """That of the dump."""
        return self._dump.width

    @property
    def dtype(self) -> np.dtype[Any]:
        """That of the dump."""
        return self._dump.dtype

    @property
    def row_bytes(self) -> int:
        """That of the dump."""
        return self._dump.row_bytes

    @property
    def block_bytes(self) -> int:
        """That of the dump."""
        return self._dump.block_bytes

    @property
    def count(self) -> int | None:
        """How many sequences the lengths are of."""
        return len(self._lengths.lengths)

    @property
    def once(self) -> bool:
        """Whether it can be read once only."""
        return is_read_once(self._dump)

    @property
    def head(self) -> Path | None:
        """That of the dump."""
        return getattr(self._dump, "head", None)

    @property
    def paths(self) -> tuple[Path, ...]:
        """Those of the dump."""
        return getattr(self._dump, "paths", ())

    def details(self) -> dict[str, Any]:
        """Those of the dump."""
        return self._dump.details()

    @property
    def source(self) -> Dump:
        """The dump that is cut."""
        return self._dump

    @property
    def has_parts(self) -> bool:
        """Whether some sequences can be had without the others: of arrays, whose rows can be."""
        inner = self._dump.dump if isinstance(self._dump, SomeRows) else self._dump
        return isinstance(inner, DenseDump)

    def between(self, start: int, stop: int) -> CutDump:
        """Only some of the sequences."""
        lengths = self._lengths.lengths
        rows = range(self._ends[start], self._ends[stop])
        first = last = before = end = 0
        for number, source in enumerate(self._dump.sequences()):
            if end <= rows.start:
                first, before = number, end
            if end < rows.stop:
                last = number + 1
            end += source.positions or 0
        inner = SomeRows(
            between(self._dump, first, last), range(rows.start - before, rows.stop - before)
        )
        names = self._lengths.names[start:stop]
        return CutDump(inner, Lengths(self._lengths.source, lengths[start:stop], names))

    def sequences(self) -> Iterator[Sequence]:
        """The pieces."""
        total = sum(self._lengths.lengths)
        described = f"{self._lengths.source} describes {total:,} positions in all, but"
        rows = Forward(lambda _, step: (0, self._all(step)), f"{described} {self.name}")
        start = 0
        for name, length in zip(self._lengths.names, self._lengths.lengths, strict=True):
            piece = range(start, start + length)
            labels = None if self._labels is None else self._labels[start : start + length]
            yield Sequence(name, length, partial(rows.blocks, piece), labels)
            start += length
        if rows.goes_on_after(total):
            raise DumpError(f"{described} {self.name} has more")

    def _all(self, step: int) -> Iterator[Block]:
        for sequence in self._dump.sequences():
            yield from sequence.read(step)


def cut(dump: Dump, lengths: Lengths) -> CutDump:
    """The rows of a dump in sequences of these lengths.

    Raises
    ------
    DumpError
        For lengths that are not in sum the positions of the dump.
    """
    return CutDump(dump, lengths)


def cut_like(dump: Dump, other: Dump) -> Dump:
    """A dump in the sequences of another one of the same text; itself where it has them.

    A stream is cut by their lengths as it comes.

    Raises
    ------
    DumpError
        For dumps that differ in their positions, and where the other is a stream.
    """
    theirs = [] if is_read_once(other) else list(other.sequences())
    lengths = tuple(s.positions for s in theirs if s.positions is not None)
    if not theirs or len(lengths) < len(theirs):
        raise DumpError(
            f"{other.name} is a stream, which has not said how long its sequences are; give their "
            "lengths"
        )
    if not is_read_once(dump) and lengths == tuple(s.positions for s in dump.sequences()):
        return dump
    return CutDump(dump, Lengths(other.name, lengths, tuple(s.name for s in theirs)))
