"""What all writers of dumps share: rows in order, counted, as they are to lie in a file."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from kldiv._arrays import Array
from kldiv.evaluation.dumps.blocks import is_read_once
from kldiv.evaluation.dumps.keys import KEY_OF
from kldiv.evaluation.dumps.protocol import Dump, DumpError, Sequence, TopKBlock


@dataclass
class Source:
    """A dump that is written, and what has been read of it."""

    dump: Dump
    advance: Callable[[int], None] = lambda rows: None
    """Told the number of rows just read."""
    sequences: int = 0
    positions: int = 0
    lost: dict[str, None] = field(default_factory=dict)
    """What the format that is written has no place for, for people; in order."""

    @property
    def key(self) -> str:
        """What the rows are written as."""
        return KEY_OF[self.dump.kind]

    @property
    def width(self) -> int:
        """Numbers a row."""
        assert self.dump.width is not None
        return self.dump.width

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the rows, little-endian."""
        return self.dump.dtype.newbyteorder("<") if self.dump.dtype.kind == "f" else self.dump.dtype

    @property
    def step(self) -> int:
        """Rows to read at a time."""
        return max(1, self.dump.block_bytes // max(1, self.width * self.dtype.itemsize))

    def shapes(self) -> list[tuple[int, bool]] | None:
        """Of every sequence, its positions and whether it has labels; None of a stream."""
        if is_read_once(self.dump):
            return None
        found = [(s.positions, s.labels is not None) for s in self.dump.sequences()]
        known = [(positions, labels) for positions, labels in found if positions is not None]
        return known if len(known) == len(found) else None

    def each(self) -> Iterator[Sequence]:
        """The sequences, counted."""
        for sequence in self.dump.sequences():
            self.sequences += 1
            yield sequence

    def rows(self, sequence: Sequence) -> Iterator[Array]:
        """The rows of a sequence, C-contiguous, as many as it says it has."""
        count = 0
        for block in sequence.read(self.step):
            assert not isinstance(block, TopKBlock)
            count += len(block)
            self.positions += len(block)
            yield np.ascontiguousarray(block, self.dtype)
            self.advance(len(block))
        if sequence.positions is not None and count != sequence.positions:
            raise DumpError(
                f"{sequence.name} of {self.dump.name} gave {count:,} of {sequence.positions:,} rows"
            )

    def lose(self, what: str) -> None:
        """Note that something has no place."""
        self.lost[what] = None


class Writer(Protocol):
    """What writes a format: all of a dump to a path that is not there yet."""

    def __call__(self, source: Source, path: Path) -> None:
        """Write.

        Raises
        ------
        DumpError
            For a dump that the format cannot hold.
        """


def write_bytes(file: Any, array: Array) -> None:
    """Append the bytes of a contiguous array to a file."""
    file.write(array.reshape(-1).view(np.uint8).data)


def npy_header(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
    """The beginning of a ``.npy`` file, of the same length for any lengths of axes."""
    # As numpy.save writes bfloat16, which its format does not know.
    descr = dtype.str if dtype.kind in "fiu" else "<V2"
    text = repr({"descr": descr, "fortran_order": False, "shape": shape})
    length = 246
    return (
        b"\x93NUMPY\x01\x00"
        + length.to_bytes(2, "little")
        + text.ljust(length - 1).encode()
        + b"\n"
    )


def bytes_of(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    """The size of an array."""
    return math.prod(shape) * dtype.itemsize


def check_dtype(source: Source, holder: str) -> None:
    """Raise `DumpError` for bfloat16, which only some formats hold."""
    if source.dtype.name not in ("float16", "float32", "float64"):
        raise DumpError(
            f"{holder} holds no {source.dtype.name}, the dtype of {source.dump.name}; write "
            ".safetensors, .npy or a directory"
        )
