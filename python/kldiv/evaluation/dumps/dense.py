"""Dumps of rows of numbers: arrays, from wherever, as the sequences of one model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from kldiv._arrays import Array
from kldiv.evaluation.dumps.keys import kind_of
from kldiv.evaluation.dumps.protocol import DumpError, Kind, Sequence
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

    def noting(self, **changes: Any) -> DenseDump:
        """The same dump, with other fields."""
        return replace(self, **changes)


def kind_by_name(name: str, told: Kind | None) -> tuple[Kind, str]:
    """The kind of the numbers under a name, and where that is known from."""
    if told is not None:
        return told, "as told"
    kind = kind_of(name)
    return (kind, f"the name {name!r}") if kind else ("logits", "assumed, as no name says it")


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


def regrouped(blocks: Iterator[Array], step: int) -> Iterator[Array]:
    """The rows of blocks of any length, `step` at a time; only the last is shorter."""
    held: list[Array] = []
    count = 0
    for block in blocks:
        start = 0
        if held:
            # Of a block that lasts until the next is asked for only a copy can be kept.
            start = min(step - count, len(block))
            held.append(block[:start].copy())
            count += start
            if count < step:
                continue
            yield np.concatenate(held)
            held, count = [], 0
        while len(block) - start >= step:
            yield block[start : start + step]
            start += step
        if start < len(block):
            held, count = [block[start:].copy()], len(block) - start
    if held:
        yield held[0] if len(held) == 1 else np.concatenate(held)


class Forward:
    """Rows that come in order only, as those of compressed data.

    Consecutive ranges are read in one pass; any other begins anew and leaves rows out.
    """

    def __init__(self, start: Callable[[int, int], tuple[int, Iterator[Array]]], what: str) -> None:
        """`start` is given a row and a number of rows.

        It gives blocks of about so many rows, of which the first begins at that row or before,
        and the row where it does.
        """
        self._start = start
        self._what = what
        self._blocks: Iterator[Array] = iter(())
        self._held: Array | None = None
        self._next: int | None = None
        """The row that comes next; None before the first and after an error."""

    def blocks(self, rows: range, step: int) -> Iterator[Array]:
        """Rows, `step` at a time."""
        return regrouped(self._pieces(rows, step), step)

    def _pieces(self, rows: range, step: int) -> Iterator[Array]:
        wanted = rows.start
        while wanted < rows.stop:
            if self._next is None or self._next > wanted:
                self._held = None
                self._next, self._blocks = self._start(wanted, step)
            if self._held is None:
                self._held = next(self._blocks, None)
                if self._held is None:
                    found, self._next = self._next, None
                    raise DumpError(f"{self._what} ends after {found:,} rows")
            begin, block = self._next, self._held
            end = min(begin + len(block), rows.stop)
            self._next = end
            self._held = block[end - begin :] if end - begin < len(block) else None
            if end > wanted:
                yield block[wanted - begin : end - begin]
                wanted = end


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
