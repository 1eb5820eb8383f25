"""Top-k rows in ``.safetensors``: a tensor for each array, written as a stream.

What is written goes to unnamed files first, one a tensor, since the header comes before all and
says how long each is.
"""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np

from kldiv._arrays import Array
from kldiv.evaluation.dumps.protocol import DumpError
from kldiv.evaluation.dumps.safetensors import DTYPES, Entry, read_header
from kldiv.evaluation.dumps.writing import write_bytes
from kldiv.evaluation.top_k_files.layout import (
    KEY,
    PIECE_ELEMENTS,
    Described,
    Head,
    Piece,
    Texts,
    check,
    described,
)

SUFFIX = ".safetensors"
_COPIED = 16 << 20  # bytes at a time


class _Spool:
    """A tensor on its way: its elements in a file without a name."""

    def __init__(self, folder: Path, dtype: np.dtype[Any]) -> None:
        self.dtype = dtype.newbyteorder("<") if dtype.kind in "iuf" else dtype
        self.count = 0
        self.file: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115

    def add(self, array: Array) -> None:
        write_bytes(self.file, np.ascontiguousarray(array, self.dtype))
        self.count += array.size


def write(path: Path, head: Head, pieces: Iterable[Piece]) -> int:
    """Write rows as they come, and count them; `path` is whole at the end only."""
    counts: list[Array] = []
    texts = Texts()
    with contextlib.ExitStack() as stack:
        spools: dict[str, _Spool] = {}
        for name, dtype in (
            ("labels", np.dtype(np.int64) if head.labelled else None),
            ("normalizer", head.normalizer),
            (head.kind, head.values),
            ("weights", head.weights),
            ("ids", head.ids),
        ):
            if dtype is not None:
                spools[name] = _Spool(path.parent, dtype)
                stack.enter_context(spools[name].file)
        for piece in pieces:
            texts.add(piece)
            counts.append(piece.counts)
            arrays = {head.kind: piece.values, "ids": piece.ids}
            for name, spool in spools.items():
                array = arrays.get(name, getattr(piece, name, None))
                assert array is not None
                spool.add(array)
        _assemble(path, head, spools, np.concatenate([*counts, np.zeros(0, np.int64)]), texts)
    return sum(map(len, counts))


def _assemble(
    path: Path, head: Head, spools: dict[str, _Spool], counts: Array, texts: Texts
) -> None:
    ragged = head.ragged
    if ragged is None:
        ragged = len(counts) == 0 or bool((counts != counts[0]).any())
    batch = (len(counts),) if head.batch_shape is None else head.batch_shape
    shape = batch
    small: dict[str, Array] = {}
    if ragged:
        small["offsets"] = np.concatenate([[0], np.cumsum(counts)]).astype("<i8")
        shape = (int(counts.sum()),)
    else:
        # Of no row the width is not known from counts, and is 0.
        shape = (*batch, int(counts[0]) if len(counts) else 0)
    if texts.lengths:
        small |= {
            "lengths": np.array(texts.lengths, "<i8"),
            "firsts": np.array(texts.firsts, "<i8"),
        }
    shapes = {"labels": (len(counts),), "normalizer": batch}
    entries: dict[str, Any] = {"__metadata__": {KEY: head.metadata(len(counts), ragged)}}
    # Wide numbers come first, so that all of them begin where their dtype may.
    order = sorted(spools, key=lambda name: -spools[name].dtype.itemsize)
    offset = 0
    for name in (*small, *order):
        dtype = small[name].dtype if name in small else spools[name].dtype
        of_tensor = small[name].shape if name in small else shapes.get(name, shape)
        end = offset + math.prod(of_tensor) * dtype.itemsize
        code = next(code for code, known in DTYPES.items() if known == dtype)
        entries[name] = {"dtype": code, "shape": list(of_tensor), "data_offsets": [offset, end]}
        offset = end
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for array in small.values():
            write_bytes(file, array)
        for name in order:
            spools[name].file.seek(0)
            shutil.copyfileobj(spools[name].file, file, _COPIED)


@dataclass(frozen=True)
class Stored:
    """Top-k rows in a file, of which some at a time can be read."""

    path: Path
    said: Described
    entries: dict[str, Entry]

    @classmethod
    def of(cls, path: Path) -> Stored:
        """Raise `DumpError` for a file that holds no top-k rows, or not whole."""
        entries, metadata = read_header(path)
        found = described(metadata)
        if found is None:
            raise DumpError(f"{path} holds no top-k rows that kldiv wrote")
        stored = cls(path, Described.of(found, path), entries)
        stored._check()
        return stored

    @cached_property
    def offsets(self) -> Array:
        """Where rows begin among all kept classes, and the last ends."""
        if self.said.ragged:
            return self.all("offsets")
        begins: Array = np.arange(self.rows + 1, dtype=np.int64) * self.entries["ids"].shape[-1]
        return begins

    @property
    def rows(self) -> int:
        """How many."""
        return math.prod(self.said.batch_shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the values."""
        return DTYPES[self.entries[self.said.kind].dtype]

    @property
    def names(self) -> list[str]:
        """The arrays there are."""
        return list(self.entries)

    def all(self, name: str) -> Array:
        """A whole tensor."""
        shape = self.entries[name].shape
        return self._read(name, 0, math.prod(shape)).reshape(shape)

    def first_row(self, row: int) -> int:
        """Where `pieces` begins that is asked for rows from `row` on: there."""
        return row

    def pieces(self, rows: range) -> Iterator[Piece]:
        """Some rows, checked."""
        counts = np.diff(self.offsets)
        step = max(1, PIECE_ELEMENTS // max(1, int(counts.max(initial=1))))
        for start in range(rows.start, rows.stop, step):
            stop = min(start + step, rows.stop)
            elements = int(self.offsets[start]), int(self.offsets[stop])

            def of_rows(name: str, of: tuple[int, int] = (start, stop)) -> Array | None:
                return self._read(name, *of) if name in self.entries else None

            piece = Piece(
                self._read("ids", *elements),
                self._read(self.said.kind, *elements),
                counts[start:stop],
                of_rows("normalizer"),
                of_rows("weights", elements),
                of_rows("labels"),
            )
            check(self.said, piece, start, self.path)
            yield piece

    def _read(self, name: str, start: int, stop: int) -> Array:
        entry = self.entries[name]
        dtype = DTYPES[entry.dtype]
        found: Array = np.empty(stop - start, dtype)
        left = found.view(np.uint8).data
        with self.path.open("rb") as file:
            file.seek(entry.offset + start * dtype.itemsize)
            while left:
                if not (length := file.readinto(left)):
                    raise DumpError(f"{self.path} is truncated, in tensor {name!r}")
                left = left[length:]
        return found

    def _check(self) -> None:
        said, path = self.said, self.path
        needed = {"ids": "iu", said.kind: "f"} | ({"offsets": "i"} if said.ragged else {})
        optional = {"normalizer": "f", "weights": "f", "labels": "i", "lengths": "i", "firsts": "i"}
        for name, kinds in (needed | optional).items():
            if name not in self.entries:
                if name in needed:
                    raise DumpError(f"{path} lacks the tensor {name!r} of its top-k rows")
                continue
            entry = self.entries[name]
            entry.array(None)
            dtype = DTYPES[entry.dtype]
            if dtype.kind not in kinds and not ("f" in kinds and dtype.name == "bfloat16"):
                raise DumpError(f"{path} holds {entry.dtype} as {name!r} of its top-k rows")
        shape = self.entries["ids"].shape
        expected = {
            said.kind: shape,
            "weights": shape,
            "normalizer": said.batch_shape,
            "labels": (self.rows,),
        }
        if said.ragged:
            expected["offsets"] = (self.rows + 1,)
        elif shape[:-1] != said.batch_shape or not shape:
            raise DumpError(f"{path} holds ids of shape {shape} for rows {said.batch_shape}")
        for name, of_tensor in expected.items():
            if name in self.entries and self.entries[name].shape != of_tensor:
                raise DumpError(
                    f"{path} holds {name!r} of shape {self.entries[name].shape}; expected "
                    f"{of_tensor}"
                )
        if path.stat().st_size < max(
            entry.offset + math.prod(entry.shape) * DTYPES[entry.dtype].itemsize
            for entry in self.entries.values()
            if entry.dtype in DTYPES
        ):
            raise DumpError(f"{path} is truncated")


def load(path: Path) -> tuple[Described, dict[str, Array | None]]:
    """All of a file: what it says, and its arrays by name."""
    stored = Stored.of(path)
    arrays: dict[str, Array | None] = {
        name: stored.all(name) if name in stored.entries else None
        for name in ("ids", "normalizer", "weights", "offsets")
    }
    return stored.said, arrays | {"values": stored.all(stored.said.kind)}


def is_one(path: Path) -> bool:
    """Whether a file holds top-k rows."""
    try:
        return described(read_header(path)[1]) is not None
    except (OSError, DumpError):
        return False
