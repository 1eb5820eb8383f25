"""Base files of llama.cpp and its forks: log-probabilities of the second half of every chunk.

A file is ``char[8] magic``, ``int32 n_ctx, n_vocab, n_chunk``, ``int32 tokens[n_chunk, n_ctx]`` and
``n_chunk * (n_ctx - 1 - n_ctx // 2)`` rows of 16 bits a class, all little-endian; the extension
decodes them (`src/row/coded.rs`). The writer never goes back in the file, so that it may be a pipe.
"""

from __future__ import annotations

import copy
import functools
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np

from kldiv import _kldiv
from kldiv._arrays import Array
from kldiv.evaluation.dumps.protocol import DumpError, Kind, Sequence
from kldiv.evaluation.dumps.stored_arrays import BLOCK_BYTES

SUFFIXES = (".kld",)
MAGIC_BYTES = 8
MAGICS = frozenset({b"_logits_", b"_logits2", b"_logp16_", b"_logp16n"})
SCALED = frozenset({"_logits_", "_logits2"})
"""Magics whose rows begin with scale and min."""

_HEADER_BYTES = MAGIC_BYTES + 3 * 4
# A gigabyte of them: more than anyone has evaluated on. A larger number is a damaged header.
_MOST_TOKENS = 1 << 28
# Four times as many as any vocabulary has. Of a pipe, a row of more would be waited for in vain.
_MOST_CLASSES = 1 << 22
# Rounding lifts a log-probability of 0 by less. Beyond it, what was read is something else.
_LARGEST_LOG_PROB = 0.01


class Stream(Protocol):
    """Bytes, read from front to back."""

    def readinto(self, memory: Any, /) -> int | None:
        """Fill the memory as far as there is something by now; how far, 0 at the end."""


@dataclass(frozen=True)
class Header:
    """What a file says of itself."""

    magic: str
    context: int
    classes: int
    chunks: int

    @property
    def first(self) -> int:
        """Tokens of a chunk before the one that its first row comes after."""
        return self.context // 2

    @property
    def rows(self) -> int:
        """Rows of a chunk."""
        return self.context - 1 - self.first

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        if self.magic in SCALED:
            return 8 + 2 * (self.classes + self.classes % 2)
        return 2 * self.classes + (4 if self.magic == "_logp16n" else 0)

    @property
    def chunk_bytes(self) -> int:
        """Bytes of the rows of a chunk."""
        return self.rows * self.row_bytes

    @property
    def rows_start(self) -> int:
        """Where the first row is."""
        return _HEADER_BYTES + 4 * self.context * self.chunks

    @property
    def file_bytes(self) -> int:
        """Bytes of a whole file."""
        return self.rows_start + self.chunks * self.chunk_bytes

    def where(self, at: int) -> str:
        """What lies at byte `at`."""
        if at < self.rows_start:
            return f"byte {at:,}, in the token ids"
        chunk, rest = divmod(at - self.rows_start, self.chunk_bytes)
        return f"byte {at:,}, in row {rest // self.row_bytes} of chunk {chunk}"

    def __str__(self) -> str:
        return (
            f"{self.magic}, n_ctx {self.context:,}, n_vocab {self.classes:,}, "
            f"n_chunk {self.chunks:,}"
        )


def probe(path: Path) -> bool:
    """Whether `path` is a regular file of this format; of a pipe nothing is read."""
    try:
        if not path.is_file():
            return False
        with path.open("rb", buffering=0) as file:
            return file.read(MAGIC_BYTES) in MAGICS
    except OSError:
        return False


def open(  # noqa: A001
    path: Path, *, chunks: int | None = None, stream: Stream | None = None, start: bytes = b""
) -> LlamaCppDump:
    """Open a base file, a named pipe or, as ``-``, stdin.

    Parameters
    ----------
    path
        The file. Header, token ids and size are checked at once, rows when they are read.
    chunks
        Only so many chunks, the first ones. A file that is cut off behind them will do.
    stream
        What to read instead of opening `path`, from front to back.
    start
        Bytes that were read from the stream already.

    Raises
    ------
    DumpError
        For a file of another format, one that is cut off or has bytes to spare, and token ids
        outside of its vocabulary.
    OSError
        For a file that cannot be read.
    """
    if chunks is not None and chunks < 1:
        raise DumpError(f"{path}: chunks must be at least 1, got {chunks}")
    name = "stdin" if str(path) == "-" else str(path)
    if stream is None:
        if str(path) == "-":
            stream = cast(Stream, sys.stdin.buffer)
        elif not stat.S_ISREG(path.stat().st_mode):
            stream = path.open("rb", buffering=0)
    if stream is not None:
        source = _Source(name, stream, start)
        header, tokens = _read_header(source, None)
    else:
        with path.open("rb", buffering=0) as file:
            header, tokens = _read_header(_Source(name, file), path.stat().st_size)
        _check_size(name, header, path.stat().st_size, chunks)
        source = None
    if chunks is not None and chunks > header.chunks:
        raise DumpError(f"{name} has {header.chunks:,} chunks; {chunks:,} were asked for")
    return LlamaCppDump(name, path, header, tokens, chunks or header.chunks, source)


def probe_stream(head: bytes) -> bool:
    """Whether the first bytes of a pipe are those of this format."""
    return head[:MAGIC_BYTES] in MAGICS


def open_stream(stream: Stream, name: str) -> LlamaCppDump:
    """A base file that comes through a pipe."""
    return open(Path(name), stream=stream)


class LlamaCppDump:
    """A base file of llama.cpp: every chunk is a sequence, with its true next tokens as labels."""

    kind: Kind = "log_probs"
    dtype: np.dtype[Any] = np.dtype(np.float32)
    block_bytes = BLOCK_BYTES

    def __init__(
        self,
        name: str,
        path: Path,
        header: Header,
        tokens: Array,
        chunks: int,
        source: _Source | None,
    ) -> None:
        self.name = name
        self.header = header
        self.format = f"llama.cpp {header.magic}"
        self.width = header.classes
        self.row_bytes = header.row_bytes
        self.count = chunks
        self.tokens = tokens[:chunks]
        """int64 ``[chunks, n_ctx]``: all ids, in the order of the text."""
        self.first_chunk = 0
        """The number of the first chunk of these, in the file."""
        self._path = path
        self._source = source

    @property
    def piped(self) -> bool:
        """Whether it comes through a pipe."""
        return self._source is not None

    @property
    def has_parts(self) -> bool:
        """Whether some chunks can be had without the others."""
        return not self.piped

    @property
    def paths(self) -> tuple[Path, ...]:
        """The file."""
        return (self._path,)

    def between(self, start: int, stop: int) -> LlamaCppDump:
        """Only some of the chunks."""
        part = copy.copy(self)
        part.first_chunk = self.first_chunk + start
        part.count = stop - start
        part.tokens = self.tokens[start:stop]
        return part

    def sequences(self) -> Iterator[Sequence]:
        """The chunks."""
        first = self.header.first
        for place in range(self.count):
            chunk = self.first_chunk + place
            yield Sequence(
                name=f"chunk {chunk}",
                positions=self.header.rows,
                read=functools.partial(self._log_probs, chunk),
                labels=self.tokens[place, first + 1 :],
                first=first,
            )

    def details(self) -> dict[str, Any]:
        """What the header says."""
        return {
            "context length": self.header.context,
            "chunks": self.header.chunks,
            "rows per chunk": self.header.rows,
            "bytes": self.header.file_bytes,
        }

    def blocks(self, chunk: int, step: int) -> Iterator[tuple[Array, Array]]:
        """Rows of a chunk, `step` at a time: as stored, uint8, and their log-probabilities.

        Both are in the same memory for all blocks.
        """
        header = self.header
        step = min(step, header.rows)
        stored = np.empty((step, header.row_bytes), np.uint8)
        log_probs = np.empty((step, header.classes), np.float32)
        start = header.rows_start + chunk * header.chunk_bytes
        if self._source is not None:
            yield from self._read(self._source, start, stored, log_probs)
            if chunk == header.chunks - 1:
                self._source.expect_end(header)
            return
        with self._path.open("rb", buffering=0) as file:
            file.seek(start)
            yield from self._read(_Source(self.name, file, at=start), start, stored, log_probs)

    def _log_probs(self, chunk: int, step: int) -> Iterator[Array]:
        for _, log_probs in self.blocks(chunk, step):
            yield log_probs

    def _read(
        self, source: _Source, start: int, stored: Array, log_probs: Array
    ) -> Iterator[tuple[Array, Array]]:
        header = self.header
        source.skip_to(start, header)
        for row in range(0, header.rows, len(stored)):
            count = min(len(stored), header.rows - row)
            block, decoded = stored[:count], log_probs[:count]
            at = source.at
            source.fill(block.reshape(-1), header)
            largest = _kldiv.decode_log_probs(
                block.reshape(-1), header.magic, decoded.reshape(-1), header.classes
            )
            self._check_rows(block, largest, at)
            yield block, decoded

    def _check_rows(self, stored: Array, largest: Array, at: int) -> None:
        """Refuse what no writer has written; rows of NaN are the model's."""
        bad = largest > _LARGEST_LOG_PROB
        if self.header.magic in SCALED:
            bad |= scale_and_min(stored)[:, 0] < 0
        if bad.any():
            row = int(bad.argmax())
            raise DumpError(
                f"{self.name} has no log-probabilities at "
                f"{self.header.where(at + row * self.row_bytes)}: the largest is "
                f"{largest[row]:.3g}; it is damaged, or its vocabulary is not {self.width:,}"
            )


def scale_and_min(stored: Array) -> Array:
    """The two numbers that rows of `SCALED` begin with, float32 ``[rows, 2]``."""
    return np.ascontiguousarray(stored[:, :8]).view("<f4")


class _Source:
    """Bytes read from front to back."""

    def __init__(self, name: str, file: Stream, start: bytes = b"", at: int = 0) -> None:
        self.name = name
        self.at = at
        self._file = file
        self._start = start

    def read_up_to(self, memory: Array) -> int:
        """Fill `memory`, uint8, as far as there is something; how far."""
        left = memory.data
        if self._start:
            length = min(len(self._start), len(left))
            left[:length] = self._start[:length]
            self._start, left = self._start[length:], left[length:]
        while left:
            # A system reads up to 2 GiB at once.
            if not (read := self._file.readinto(left)):
                break
            left = left[read:]
        length = len(memory) - len(left)
        self.at += length
        return length

    def fill(self, memory: Array, header: Header) -> None:
        """Fill `memory`, uint8."""
        if self.read_up_to(memory) < len(memory):
            raise DumpError(
                f"{self.name} is cut off at {header.where(self.at)}; its header ({header}) "
                f"describes {header.file_bytes:,} bytes"
            )

    def skip_to(self, at: int, header: Header) -> None:
        """Go on to byte `at`."""
        if at < self.at:
            raise DumpError(
                f"{self.name} is a stream, whose rows are read once and in order: "
                f"{header.where(at)}, is behind {header.where(self.at)}"
            )
        memory = np.empty(min(at - self.at, BLOCK_BYTES), np.uint8)
        while self.at < at:
            self.fill(memory[: at - self.at], header)

    def expect_end(self, header: Header) -> None:
        """Refuse bytes after the last row."""
        if self.at == header.file_bytes and self.read_up_to(np.empty(1, np.uint8)):
            raise DumpError(
                f"{self.name} goes on after its last row, at byte {header.file_bytes:,} ({header})"
            )


def _read_header(source: _Source, size: int | None) -> tuple[Header, Array]:
    """Header and token ids of a file of `size` bytes."""
    beginning = np.empty(_HEADER_BYTES, np.uint8)
    length = source.read_up_to(beginning)
    magic = beginning[: min(length, MAGIC_BYTES)].tobytes()
    if magic not in MAGICS:
        known = ", ".join(sorted(magic.decode() for magic in MAGICS))
        raise DumpError(
            f"{source.name} is no base file of llama.cpp: it begins with {magic!r}, not {known}"
        )
    if length < _HEADER_BYTES:
        raise DumpError(f"{source.name} is cut off at byte {length}, in its header")
    context, classes, chunks = (int(number) for number in beginning[MAGIC_BYTES:].view("<i4"))
    header = Header(magic.decode(), context, classes, chunks)
    sound = context >= 3 and chunks >= 1 and context * chunks <= _MOST_TOKENS
    if not (sound and 1 <= classes <= _MOST_CLASSES):
        raise DumpError(f"{source.name} has a damaged header: {header}")
    if size is not None and size < header.rows_start:
        raise DumpError(
            f"{source.name} is cut off at {header.where(size)}; its header ({header}) "
            f"describes {header.file_bytes:,} bytes"
        )
    # As they come: of a damaged header there may be more than memory, which a pipe does not tell.
    pieces = []
    for start in range(0, 4 * context * chunks, BLOCK_BYTES):
        piece = np.empty(min(4 * context * chunks - start, BLOCK_BYTES), np.uint8)
        source.fill(piece, header)
        pieces.append(piece.view("<i4"))
    tokens = np.concatenate(pieces).astype(np.int64)
    bad = (tokens < 0) | (tokens >= classes)
    if bad.any():
        at = int(bad.argmax())
        raise DumpError(
            f"{source.name} has token id {tokens[at]} at byte {_HEADER_BYTES + 4 * at:,}, token "
            f"{at % context} of chunk {at // context}, outside of its vocabulary of {classes:,}"
        )
    return header, tokens.reshape(chunks, context)


def _check_size(name: str, header: Header, size: int, chunks: int | None) -> None:
    """Refuse a file that has less or more than its header says."""
    whole = (size - header.rows_start) // header.chunk_bytes
    if size == header.file_bytes or (size < header.file_bytes and whole >= (chunks or whole + 1)):
        return
    described = f"its header ({header}) describes {header.file_bytes:,} bytes"
    other = _other_rows(header, size)
    if size > header.file_bytes:
        raise DumpError(
            f"{name} has {size - header.file_bytes:,} bytes after its last row: {size:,}, "
            f"but {described}{other}"
        )
    rest = f"; --chunks {whole} (chunks=) takes those that are whole" if whole and not other else ""
    raise DumpError(f"{name} is cut off at {header.where(size)}; {described}{other}{rest}")


def _other_rows(header: Header, size: int) -> str:
    """How a file would be whole that has rows of another vocabulary."""
    row_bytes, rest = divmod(size - header.rows_start, header.chunks * header.rows)
    fixed = {"_logp16_": 0, "_logp16n": 4}.get(header.magic, 8)
    if rest or row_bytes % 2 or row_bytes <= fixed:
        return ""
    classes = (row_bytes - fixed) // 2
    if header.magic not in SCALED:
        return f". It is whole if its vocabulary is {classes:,}"
    # Rows of an odd number of classes have one code more.
    return (
        "" if classes % 2 else f". It is whole if its vocabulary is {classes - 1:,} or {classes:,}"
    )
