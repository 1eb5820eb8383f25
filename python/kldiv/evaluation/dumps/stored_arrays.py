"""Arrays in files, read by pieces: a format is a subclass that finds where the elements lie.

Rows are mapped a block at a time, not copied: copying 2 x 262 MB from the page cache took 72 ms,
where comparing them took 115. The file is looked at before each block, so that one that was cut
off gives an error, where its map would end the process; only a cut within the milliseconds of a
block is not seen.
"""

from __future__ import annotations

import math
import mmap
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np

from kldiv._arrays import Array
from kldiv.evaluation.dumps.protocol import DumpError

# Of rows held at a time: few enough that they are still in the cache when they are computed with.
BLOCK_BYTES = 4 << 20
# Of rows that are mapped, which takes no memory: each block starts threads and maps pages. With
# 4, 8, 16, 32 and 64 MB `evaluate` took 1.43, 1.34, 1.25, 1.22 and 1.12 times as long as `compare`
# of the same arrays in memory (512 x 128,256 float32, two threads, 11 interleaved rounds).
MAPPED_BLOCK_BYTES = 32 << 20
# Where each column is to be read by itself, 1 µs apiece, rows are worth collecting.
COLUMN_BLOCK_BYTES = 64 << 20
BAND_BYTES = 8 << 20  # of columns that lie beside each other, read at a time


@dataclass(frozen=True)
class Content:
    """What is looked for in a file."""

    name: str
    """What it is called, in messages and as a tensor."""
    numbers: str
    dtypes: frozenset[str]


_INTEGERS = frozenset(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))
FLOATING = frozenset({"float64", "float32", "float16", "bfloat16"})
LOGITS = Content("logits", "floating numbers", FLOATING)
LABELS = Content("labels", "integers", _INTEGERS)
MASK = Content("where", "booleans, or integers 0 and 1", _INTEGERS | {"bool"})


def is_countable(shape: tuple[int, ...], itemsize: int) -> bool:
    """Whether an array of a shape can be, with as many elements on the axes that have some."""
    return len(shape) <= 32 and math.prod(filter(None, shape)) * itemsize <= sys.maxsize


@dataclass(frozen=True)
class StoredArray:
    """An array whose elements lie one after the other in a file.

    Errors while it is read are `DumpError` too.
    """

    name: str
    path: Path
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int
    """Where the elements start, in bytes."""
    fortran_order: bool = False

    def check(self, content: Content) -> None:
        """Raise `DumpError` unless the file is whole and can be `content`."""
        if self.dtype.hasobject:
            raise DumpError(f"{self.name} holds pickled Python objects, not numbers")
        if self.dtype.name not in content.dtypes:
            raise DumpError(
                f"{self.name} has dtype {self.dtype.name}; expected {content.numbers} "
                f"as {content.name}{self._conversion(content)}"
            )
        present = self.path.stat().st_size
        if present < self.end:
            raise DumpError(
                f"{self.path} is truncated: {present:,} bytes, but its header describes "
                f"{self.end:,}"
            )

    def _conversion(self, content: Content) -> str:
        """How integers, as counts are, become the floating numbers that are expected."""
        if self.dtype.kind not in "iub" or "float64" not in content.dtypes:
            return ""
        ids = ", or, of token ids, --labels (labels=)"
        if self.path.suffix.lower() != ".npy":
            return f"{ids}; convert it to float64"
        new = self.path.with_name(f"{self.path.stem}-float64.npy")
        return (
            f"{ids}; this line of Python converts it: import numpy; "
            f'numpy.save({str(new)!r}, numpy.load({str(self.path)!r}).astype("float64"))'
        )

    @property
    def end(self) -> int:
        """Where the elements end, in bytes."""
        return self.offset + math.prod(self.shape) * self.dtype.itemsize

    def all(self) -> Array:
        """The whole array."""
        elements = np.empty(math.prod(self.shape), self.dtype)
        with self.path.open("rb", buffering=0) as file:
            self._read_into(file, 0, elements)
        return elements.reshape(self.shape, order="F" if self.fortran_order else "C")

    @property
    def block_bytes(self) -> int:
        """How many bytes of rows it takes to read them fast."""
        return COLUMN_BLOCK_BYTES if self.fortran_order else MAPPED_BLOCK_BYTES

    def blocks(self, rows: range, step: int) -> Iterator[Array]:
        """Rows of the flattened batch shape, `step` at a time, as arrays ``[step, classes]``.

        A block may be in the memory of the one before: it lasts until the next is asked for.
        """
        *batch, classes = self.shape
        # What fsspec opens is no file of this system.
        local = isinstance(self.path, Path)
        mapped = local and not self.fortran_order and self.offset % self.dtype.itemsize == 0
        memory = np.empty((0 if mapped else min(step, len(rows)), classes), self.dtype)
        with self.path.open("rb", buffering=0) as file:
            for start in rows[::step]:
                stop = min(start + step, rows.stop)
                if mapped:
                    yield self._mapped(file, start * classes, (stop - start, classes))
                    continue
                block = memory[: stop - start]
                if self.fortran_order:
                    self._read_columns(file, batch, np.arange(start, stop), block)
                else:
                    self._read_into(file, start * classes, block.reshape(-1))
                yield block

    def _mapped(self, file: FileIO, start: int, shape: tuple[int, int]) -> Array:
        """The elements from `start` on, in the page cache; the map is gone with the array."""
        first = self.offset + start * self.dtype.itemsize
        size = math.prod(shape) * self.dtype.itemsize
        if os.fstat(file.fileno()).st_size < first + size:
            raise DumpError(f"{self.path} was truncated while it was read")
        if not size:
            return np.empty(shape, self.dtype)
        before = first % mmap.ALLOCATIONGRANULARITY
        view = mmap.mmap(
            file.fileno(), before + size, access=mmap.ACCESS_READ, offset=first - before
        )
        if hasattr(mmap, "MADV_SEQUENTIAL"):
            view.madvise(mmap.MADV_SEQUENTIAL)
        return np.frombuffer(view, self.dtype, math.prod(shape), before).reshape(shape)

    def _read_columns(self, file: FileIO, batch: list[int], rows: Array, block: Array) -> None:
        """Rows of a file that holds the first class of every row, then the second, and so on."""
        count, classes = math.prod(batch), self.shape[-1]
        places = np.ravel_multi_index(np.unravel_index(rows, batch), batch, order="F")
        first, last = int(places.min()), int(places.max()) + 1
        width = max(1, BAND_BYTES // ((last - first) * self.dtype.itemsize))
        for begin in range(0, classes, width):
            end = min(begin + width, classes)
            band = np.empty((end - begin, last - first), self.dtype)
            if last - first == count:
                self._read_into(file, begin * count, band.reshape(-1))
            else:
                for column in range(begin, end):
                    self._read_into(file, column * count + first, band[column - begin])
            block[:, begin:end] = band[:, places - first].T

    def _read_into(self, file: FileIO, start: int, elements: Array) -> None:
        """Fill a contiguous array with the elements from `start` on."""
        file.seek(self.offset + start * self.dtype.itemsize)
        left = elements.view(np.uint8).data
        while left:
            # A system reads up to 2 GiB at once.
            if not (length := file.readinto(left)):
                raise DumpError(f"{self.path} was truncated while it was read")
            left = left[length:]
