"""Dumps from a named pipe or stdin: read once, in order, in the memory of a block."""

from __future__ import annotations

import contextlib
import math
import os
import stat
import sys
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO, RawIOBase
from pathlib import Path
from typing import Any

import numpy as np

from kldiv._arrays import Array
from kldiv.evaluation.dumps import npy
from kldiv.evaluation.dumps.protocol import DumpError, Kind, Sequence
from kldiv.evaluation.dumps.stored_arrays import BLOCK_BYTES, LOGITS

STDIN = "-"
PIPE_BYTES = 1 << 20
# Four times as many as any vocabulary has. A pipe does not tell that there are not so many.
_WIDEST = 1 << 22


def is_stream(name: str) -> bool:
    """Whether a name is stdin or a pipe, of which bytes come once."""
    if name == STDIN:
        return True
    try:
        mode = os.stat(name).st_mode
    except OSError:
        return False
    # What a shell makes of <(command), and /dev/stdin, are pipes too.
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


class Stream:
    """The bytes of a pipe, in order; the first can be looked at before they are read."""

    def __init__(self, name: str, file: RawIOBase) -> None:
        self.name = name
        self._file = file
        weakref.finalize(self, file.close)
        with contextlib.suppress(ImportError, AttributeError, OSError):
            import fcntl

            # Linux gives a pipe 64 KiB, and more where it is asked to: fewer, longer reads.
            fcntl.fcntl(file.fileno(), fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self._head = b""
        self.offset = 0
        """Bytes read."""

    @classmethod
    def open(cls, name: str) -> Stream:
        """Open stdin for ``-``, or a pipe, which waits for one who writes into it."""
        if name != STDIN:
            return cls(name, Path(name).open("rb", buffering=0))
        if sys.__stdin__ is None or sys.__stdin__.closed:
            raise DumpError("stdin is closed; expected a dump from it")
        if sys.__stdin__.isatty():
            raise DumpError("stdin is a terminal; expected a dump from it, as of COMMAND | kldiv …")
        return cls("stdin", os.fdopen(os.dup(sys.__stdin__.fileno()), "rb", buffering=0))

    def peek(self, count: int) -> bytes:
        """The next bytes, fewer at the end, which are read later all the same."""
        while len(self._head) < count and (piece := self._file.read(count - len(self._head))):
            self._head += piece
        return self._head[:count]

    def read(self, count: int = -1) -> bytes:
        """So many bytes, fewer only at the end."""
        if count < 0:
            raise ValueError("of a stream, a number of bytes is read")
        memory = bytearray(count)
        return bytes(memory[: self.readinto(memoryview(memory))])

    def readinto(self, memory: memoryview) -> int:
        """Fill memory, and return how many bytes came: fewer only at the end."""
        taken = min(len(self._head), len(memory))
        memory[:taken] = self._head[:taken]
        self._head = self._head[taken:]
        while taken < len(memory) and (length := self._file.readinto(memory[taken:])):
            taken += length
        self.offset += taken
        return taken

    def close(self) -> None:
        """Let one who still writes know that nobody reads."""
        self._file.close()


@dataclass(frozen=True)
class _Header:
    """What a stream says of the array that follows."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def width(self) -> int:
        return self.shape[-1]

    @property
    def rows(self) -> int:
        return math.prod(self.shape[:-1])


class NpyStream:
    """``.npy`` from a pipe: one array, or several one after the other, as sequences."""

    format = "NumPy array from a pipe"
    count: int | None = None
    once = True
    """Sequences and blocks can be read once."""

    def __init__(self, stream: Stream, name: str, kind: Kind) -> None:
        self.name = name
        self.kind: Kind = kind
        self._stream = stream
        self._header = self._next_header()
        self._given = False

    @property
    def width(self) -> int:
        """Numbers a row."""
        return self._header.width

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the blocks."""
        return self._header.dtype

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return self.width * self.dtype.itemsize

    @property
    def block_bytes(self) -> int:
        """As of files."""
        return BLOCK_BYTES

    def details(self) -> dict[str, Any]:
        """The shape of the first array."""
        return {"shape of the first array": list(self._header.shape)}

    def sequences(self) -> Iterator[Sequence]:
        """The sequences as they come, each to be read before the next is asked for."""
        if self._given:
            raise DumpError(f"{self.name} is a stream, which has been read")
        self._given = True
        return self._sequences()

    def _sequences(self) -> Iterator[Sequence]:
        number = 0
        header = self._header
        while True:
            positions = header.shape[-2] if len(header.shape) > 1 else 1
            for start in range(0, header.rows, positions):
                rest = _Rest(self._stream, self.name, header, start, start + positions)
                yield Sequence(f"{self.name}[{number}]", positions, rest.blocks)
                rest.leave_out()
                number += 1
            if not self._stream.peek(1):
                self._stream.close()
                return
            header = self._next_header()
            if (header.width, header.dtype) != (self.width, self.dtype):
                raise DumpError(
                    f"{self.name} goes on, after {number} sequences, with rows of {header.width:,} "
                    f"{header.dtype.name}; expected {self.width:,} {self.dtype.name}, as before"
                )

    def _next_header(self) -> _Header:
        offset = self._stream.offset
        where = f"{self.name} at offset {offset:,}" if offset else self.name
        # NumPy reads headers of files only, and this one of no more than it needs.
        start = self._stream.peek(12)
        length = 8 + (
            2 + int.from_bytes(start[8:10], "little")
            if start[6:7] == b"\x01"
            else 4 + int.from_bytes(start[8:12], "little")
        )
        if start[:6] != npy.MAGIC or length > 1 << 20:
            raise DumpError(f"{where} is not a readable .npy file")
        shape, fortran_order, dtype = npy.read_header(BytesIO(self._stream.read(length)), where)
        if dtype.hasobject or dtype.name not in LOGITS.dtypes:
            raise DumpError(f"{where} has dtype {dtype.name}; expected {LOGITS.numbers}")
        if fortran_order and len(shape) > 1:
            raise DumpError(f"{where} is in Fortran order, which cannot be read from a pipe")
        if not shape or not math.prod(shape):
            raise DumpError(f"{where} has shape {shape}, without a logit")
        if shape[-1] > _WIDEST:
            raise DumpError(f"{where} has rows of {shape[-1]:,} numbers, more than any vocabulary")
        return _Header(shape, dtype)


class _Rest:
    """The rows of a sequence that have not come yet."""

    def __init__(self, stream: Stream, name: str, header: _Header, start: int, stop: int) -> None:
        self._stream = stream
        self._name = name
        self._header = header
        self._next = start
        self._stop = stop
        self._begun = False

    def blocks(self, step: int) -> Iterator[Array]:
        """Rows, `step` at a time, in the same memory."""
        if self._begun:
            raise DumpError(f"{self._name} is a stream, which has been read")
        self._begun = True
        return self._blocks(step)

    def leave_out(self) -> None:
        """Read what is left, for the next sequence to come."""
        row_bytes = self._header.width * self._header.dtype.itemsize
        for _ in self._blocks(max(1, BLOCK_BYTES // row_bytes)):
            pass

    def _blocks(self, step: int) -> Iterator[Array]:
        header = self._header
        memory = np.empty((min(step, self._stop - self._next), header.width), header.dtype)
        while self._next < self._stop:
            block = memory[: self._stop - self._next]
            wanted = block.view(np.uint8).reshape(-1).data
            came = self._stream.readinto(wanted)
            if came < len(wanted):
                rows = self._next + came // (header.width * header.dtype.itemsize)
                raise DumpError(f"{self._name} ends after {rows:,} of {header.rows:,} rows")
            self._next += len(block)
            yield block


def probe_stream(head: bytes) -> bool:
    """Whether a stream begins as an array of NumPy's."""
    return head.startswith(npy.MAGIC)


def open_stream(stream: Stream, name: str, *, kind: Kind | None = None) -> NpyStream:
    """Open the arrays of a stream."""
    return NpyStream(stream, name, kind or "logits")
