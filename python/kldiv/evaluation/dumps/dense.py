"""Dumps of rows of numbers: arrays, from wherever, as the sequences of one model."""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from kldiv._arrays import Array
from kldiv.evaluation.dumps.keys import kind_of
from kldiv.evaluation.dumps.protocol import Dump, DumpError, Kind, Sequence
from kldiv.evaluation.dumps.stored_arrays import LABELS


class Rows(Protocol):
    """An array ``[..., width]``, read as rows of the flattened batch shape."""

    @property
    def name(self) -> str:
        """How messages call it."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The whole shape, the width last."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the blocks."""

    @property
    def block_bytes(self) -> int:
        """How many bytes of rows it takes to read them fast."""

    def blocks(self, rows: range, step: int) -> Iterator[Array]:
        """Rows, `step` at a time, as arrays ``[step, width]``.

        A block lasts until the next is asked for.
        """


@dataclass(frozen=True)
class Part:
    """An array of a dump: a sequence, or several where it has more than two axes."""

    name: str
    array: Rows
    labels: Array | None = None
    """One for every row, flat."""
    first: int = 0
    """As in `Sequence`."""

    def sequences(self) -> Iterator[Sequence]:
        """The sequences of it: all axes but the last two count them."""
        *batch, positions = self.array.shape[:-1] or (1,)
        for number in range(math.prod(batch)):
            rows = range(number * positions, (number + 1) * positions)
            yield Sequence(
                f"{self.name}[{number}]" if batch else self.name,
                positions,
                partial(self.array.blocks, rows),
                None if self.labels is None else self.labels[rows.start : rows.stop],
                self.first,
            )

    def between(self, start: int, stop: int) -> list[Part]:
        """Some of its sequences, as parts of the same names."""
        *batch, positions = self.array.shape[:-1] or (1,)
        if (start, stop) == (0, math.prod(batch)):
            return [self]
        found = []
        for number in range(start, stop):
            rows = range(number * positions, (number + 1) * positions)
            labels = None if self.labels is None else self.labels[rows.start : rows.stop]
            name = f"{self.name}[{number}]"
            found.append(Part(name, rows_between(self.array, rows, name), labels, self.first))
        return found


@dataclass(frozen=True)
class DenseDump:
    """One model's rows, as sequences that can be read any number of times."""

    name: str
    format: str
    kind: Kind
    parts: tuple[Part, ...]
    paths: tuple[Path, ...] = ()
    """The files that are read."""
    head: Path | None = None
    """Of hidden states: the file of the output layer that was found beside them."""
    notes: dict[str, Any] = field(default_factory=dict)
    numbers: tuple[int, ...] | None = None
    """Of its files, where each sequence is one: their numbers."""

    @classmethod
    def of(
        cls,
        name: str,
        format: str,  # noqa: A002 - as in the protocol
        kind: Kind,
        parts: list[Part],
        paths: tuple[Path, ...],
        *,
        head: Path | None = None,
        notes: dict[str, Any] | None = None,
    ) -> DenseDump:
        """Make one of arrays that have been found to be of one width and dtype.

        Raises
        ------
        DumpError
            For arrays that differ in that, or one without a row or a width.
        """
        for part in parts:
            _check(part.array, parts[0].array)
        return cls(name, format, kind, tuple(parts), paths, head, dict(notes or {}))

    @property
    def width(self) -> int:
        """Numbers a row."""
        return self.parts[0].array.shape[-1]

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the blocks."""
        return self.parts[0].array.dtype

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return self.width * self.dtype.itemsize

    @property
    def block_bytes(self) -> int:
        """How many bytes of rows it takes to read them fast."""
        return max(part.array.block_bytes for part in self.parts)

    @property
    def count(self) -> int:
        """How many sequences."""
        return sum(math.prod(part.array.shape[:-2]) for part in self.parts)

    def sequences(self) -> Iterator[Sequence]:
        """All of them, in order."""
        for part in self.parts:
            yield from part.sequences()

    def details(self) -> dict[str, Any]:
        """Where the kind is known from, and what else was found."""
        return dict(self.notes)

    @cached_property
    def _ends(self) -> list[int]:
        """How many sequences there are up to and with each part."""
        counts = (math.prod(part.array.shape[:-2]) for part in self.parts)
        return list(itertools.accumulate(counts))

    def between(self, start: int, stop: int) -> DenseDump:
        """Only some of the sequences, with nothing of the others."""
        first = bisect_right(self._ends, start)
        last = bisect_left(self._ends, stop)
        before = self._ends[first - 1] if first else 0
        chosen: list[Part] = []
        for part, end in zip(
            self.parts[first : last + 1], self._ends[first : last + 1], strict=True
        ):
            chosen += part.between(max(start, before) - before, min(stop, end) - before)
            before = end
        return replace(self, parts=tuple(chosen), paths=(), numbers=None)

    def noting(self, **changes: Any) -> DenseDump:
        """The same dump, with other fields."""
        return replace(self, **changes)


def check_same_numbers(dumps: Iterable[Dump]) -> None:
    """Raise `DumpError` for directories of which others have other numbers of files.

    Where one lacks a file and another one another, there are as many files, and the wrong ones
    beside each other. Counting from 0 and from 1 is the same.
    """
    known = [dump for dump in dumps if isinstance(dump, DenseDump) and dump.numbers is not None]
    for dump in known[1:]:
        ours, theirs = known[0].numbers or (), dump.numbers or ()
        for mine, its in zip(ours, theirs, strict=False):
            if mine - ours[0] != its - theirs[0]:
                raise DumpError(
                    f"{known[0].name} has a file of number {mine} where {dump.name} has one of "
                    f"number {its}; expected files of the same texts"
                )


ASSUMED = "assumed, as no name says it"


def kind_by_name(told: Kind | None, *names: str) -> tuple[Kind, str]:
    """The kind of numbers by their key, else the stem of their file, and what said it."""
    if told is not None:
        return told, "as told"
    for name in names:
        if (kind := kind_of(name)) is not None:
            return kind, f"the name {name!r}"
    return "logits", ASSUMED


class Stored(Protocol):
    """An array that may be labels."""

    @property
    def name(self) -> str:
        """How messages call it."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The whole shape."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype stored."""

    def all(self) -> Array:
        """All of it."""


def labels_beside(array: Rows, labels: Stored | None, notes: dict[str, Any]) -> Array | None:
    """Labels that lie beside an array, one for each row, flat.

    Where they are not that, the notes say so.
    """
    if labels is None:
        return None
    if math.prod(labels.shape) != math.prod(array.shape[:-1]):
        shape = list(labels.shape)
        notes["labels"] = f"{labels.name} has shape {shape}, not one for each row: not read"
        return None
    if labels.dtype.name not in LABELS.dtypes:
        notes["labels"] = f"{labels.name} has dtype {labels.dtype.name}, not integers: not read"
        return None
    return labels.all().reshape(-1).astype(np.int64)


@dataclass(frozen=True)
class Slice:
    """Consecutive rows of an array."""

    array: Rows
    rows: range
    name: str

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and width."""
        return len(self.rows), self.array.shape[-1]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the array."""
        return self.array.dtype

    @property
    def block_bytes(self) -> int:
        """Of the array."""
        return self.array.block_bytes

    def blocks(self, rows: range, step: int) -> Iterator[Array]:
        """Rows of the slice."""
        return self.array.blocks(self.rows[rows.start : rows.stop], step)


def rows_between(array: Rows, rows: range, name: str) -> Rows:
    """Consecutive rows of an array; of what lies in memory, without the others."""
    between = getattr(array, "between", None)
    found: Rows = Slice(array, rows, name) if between is None else between(rows, name)
    return found


def _check(array: Rows, first: Rows) -> None:
    shape = array.shape
    if not shape:
        raise DumpError(f"{array.name} has shape (), without a vocabulary axis")
    if not math.prod(shape):
        raise DumpError(f"{array.name} has shape {shape}, without a logit")
    if shape[-1] != first.shape[-1]:
        raise DumpError(
            f"{array.name} has rows of {shape[-1]:,} numbers, but {first.name} of "
            f"{first.shape[-1]:,}; expected one width"
        )
    if array.dtype.name != first.dtype.name:
        raise DumpError(
            f"{array.name} has dtype {array.dtype.name}, but {first.name} "
            f"{first.dtype.name}; expected one dtype"
        )
