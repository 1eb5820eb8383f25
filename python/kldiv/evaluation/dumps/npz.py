"""``.npz``: NumPy arrays by name in a zip archive; one, or numbered ones, are sequences.

Arrays that are stored are read by pieces where they lie, as those of ``.npy``. Of compressed ones
no piece can be found: they are read in order.
"""

from __future__ import annotations

import errno
import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from kldiv._arrays import Array
from kldiv.evaluation.dumps import keys
from kldiv.evaluation.dumps.blocks import Forward
from kldiv.evaluation.dumps.dense import DenseDump, Part, kind_by_name, labels_beside
from kldiv.evaluation.dumps.npy import read_header
from kldiv.evaluation.dumps.protocol import DumpError, Kind
from kldiv.evaluation.dumps.stored_arrays import BLOCK_BYTES, FLOATING, StoredArray
from kldiv.evaluation.dumps.writing import Source, npy_header, write_bytes

SUFFIXES = (".npz",)
MOST_COMPRESSED = 1100


@dataclass(frozen=True)
class Member:
    """An array of an archive, from the beginning of which its header was read."""

    path: Path
    key: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran_order: bool
    stored_at: int | None
    """Where its elements lie in the file; None of compressed ones."""

    @property
    def name(self) -> str:
        """The file and the array, as `open_dump` takes them."""
        return f"{self.path}:{self.key}"

    @property
    def block_bytes(self) -> int:
        """As of other files."""
        return BLOCK_BYTES

    def rows(self) -> StoredArray | Member:
        """What reads its rows, checked to be readable."""
        if self.stored_at is not None:
            order = self.fortran_order and len(self.shape) > 1
            array = StoredArray(self.name, self.path, self.dtype, self.shape, self.stored_at, order)
            if self.path.stat().st_size < array.end:
                raise DumpError(f"{self.path} is truncated, in array {self.key!r}")
            return array
        if self.fortran_order and len(self.shape) > 1:
            raise DumpError(
                f"{self.name} is compressed and in Fortran order, of which no row can be read "
                "before the last number; this line of Python converts it: import numpy; numpy.save("
                f"{str(self.path.with_suffix('.npy'))!r}, "
                f"numpy.ascontiguousarray(numpy.load({str(self.path)!r})[{self.key!r}]))"
            )
        return self

    def all(self) -> Array:
        """All rows of the flattened batch shape."""
        rows = range(math.prod(self.shape))
        flat = Member(self.path, self.key, (len(rows), 1), self.dtype, False, None)
        return next(flat.blocks(rows, len(rows))).reshape(self.shape)

    @cached_property
    def _forward(self) -> Forward[Array]:
        return Forward(self._start, self.name)

    def blocks(self, rows: range, step: int) -> Iterator[Array]:
        """Rows, decompressed up to the last of them."""
        return self._forward.blocks(rows, step)

    def _start(self, row: int, step: int) -> tuple[int, Iterator[Array]]:
        return 0, self._decompressed(step)

    def _decompressed(self, step: int) -> Iterator[Array]:
        count, width = math.prod(self.shape[:-1]), self.shape[-1]
        with (
            _reading(f"{self.path} is corrupt, in array {self.key!r}"),
            self.path.open("rb") as raw,
            zipfile.ZipFile(raw) as archive,
            archive.open(f"{self.key}.npy") as file,
        ):
            read_header(file, self.name)
            for start in range(0, count, step):
                block = np.empty((min(step, count - start), width), self.dtype)
                self._fill(file, block)
                yield block

    def _fill(self, file: Any, block: Array) -> None:
        left = block.view(np.uint8).reshape(-1).data
        while left:
            if not (length := file.readinto(left)):
                raise DumpError(f"{self.name} ends before its last row")
            left = left[length:]


@contextmanager
def _reading(problem: str) -> Iterator[None]:
    """Make a `DumpError` of what a broken archive raises, by whatever it is compressed with."""
    try:
        yield
    except DumpError:
        raise
    except Exception as error:
        # Places before the beginning of a file are invalid arguments.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        raise DumpError(f"{problem}: {str(error) or type(error).__name__}") from None


def probe(path: Path) -> bool:
    """Whether a file has the name of one."""
    return path.is_file() and path.suffix.lower() in SUFFIXES


def open(  # noqa: A001 - of every format
    path: Path, *, key: str | None = None, kind: Kind | None = None
) -> DenseDump:
    """Open the sequences of an archive."""
    members = read_members(path)
    described = ", ".join(f"{name} ({m.dtype.name})" for name, m in members.items()) or "none"
    if key is not None:
        names = keys.members(key, members)
        if not names:
            raise DumpError(f"{path} has no array {key!r}; its arrays: {described}")
    else:
        fitting = [
            name
            for name, member in members.items()
            if member.dtype.name in FLOATING and member.shape
        ]
        names = keys.choose(fitting, described, str(path), "array", kind)
    for name in names:
        if members[name].dtype.name not in FLOATING:
            raise DumpError(
                f"{path}:{name} has dtype {members[name].dtype.name}; expected floating numbers "
                "as logits"
            )
    notes: dict[str, Any] = {}
    parts = []
    for name in names:
        rows, beside = members[name].rows(), members.get(keys.labels_key(name))
        labels = labels_beside(rows, None if beside is None else beside.rows(), notes)
        parts.append(Part(name, rows, labels))
    found, notes["kind from"] = kind_by_name(kind, names[0], path.stem)
    return DenseDump.of(str(path), "NumPy archive", found, parts, (path,), notes=notes)


def read_members(path: Path) -> dict[str, Member]:
    """The arrays of an archive by name.

    Raises
    ------
    DumpError
        For a file that is no such archive.
    """
    with (
        _reading(f"{path} is no readable .npz file"),
        path.open("rb") as raw,
        zipfile.ZipFile(raw) as archive,
    ):
        infos = archive.infolist()
        names: set[str] = set()
        for info in infos:
            if info.filename in names:
                raise DumpError(f"{path} holds {info.filename!r} twice")
            names.add(info.filename)
        return {
            info.filename.removesuffix(".npy"): _member(archive, info, path)
            for info in infos
            if info.filename.endswith(".npy")
        }


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> Member:
    key = info.filename.removesuffix(".npy")
    with archive.open(info) as file:
        shape, fortran_order, dtype = read_header(file, f"{path}:{key}")
        header = file.tell()
    # What deflate can do at most, and the directory of an archive may claim anything.
    if info.file_size > MOST_COMPRESSED * path.stat().st_size:
        raise DumpError(
            f"{path}:{key} says that it is {info.file_size:,} bytes, which it cannot be"
        )
    if info.file_size < header + math.prod(shape) * dtype.itemsize and not dtype.hasobject:
        raise DumpError(
            f"{path}:{key} is truncated: {info.file_size:,} bytes, but its header describes "
            f"{header + math.prod(shape) * dtype.itemsize:,}"
        )
    stored_at = None
    if info.compress_type == zipfile.ZIP_STORED:
        with path.open("rb") as raw:
            raw.seek(info.header_offset + 26)
            lengths = raw.read(4)
        begin = info.header_offset + 30
        begin += int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little")
        stored_at = begin + header
    return Member(path, key, shape, dtype, fortran_order, stored_at)


def write(source: Source, path: Path) -> None:
    """Write the sequences of a dump as arrays, not compressed, so that pieces can be read."""
    shapes = source.shapes()
    if shapes is None:
        raise DumpError(
            f"{source.dump.name} is a stream, which does not say how long its sequences are before "
            "they end, as .npz needs it; write .safetensors or a directory"
        )
    numbers = [f"_{number}" for number in range(len(shapes))] if len(shapes) > 1 else [""]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for number, sequence in zip(numbers, source.each(), strict=True):
            name = f"{source.key}{number}.npy"
            with archive.open(name, "w", force_zip64=True) as file:
                file.write(npy_header((sequence.positions or 0, source.width), source.dtype))
                for block in source.rows(sequence):
                    write_bytes(file, block)
            if sequence.first:
                source.lose("where in their texts sequences begin")
            if sequence.labels is not None:
                labels = sequence.labels.astype("<i8")
                with archive.open(f"labels{number}.npy", "w", force_zip64=True) as file:
                    file.write(npy_header(labels.shape, labels.dtype))
                    write_bytes(file, labels)
