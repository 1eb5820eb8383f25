"""``.safetensors``: a JSON header, then the tensors; one of them, or numbered ones, are sequences.

The format is read here because the package safetensors gives copies, and bfloat16 in its newer
versions only.
"""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from kldiv.evaluation.dumps import keys
from kldiv.evaluation.dumps.dense import DenseDump, Part, kind_by_name, labels_beside
from kldiv.evaluation.dumps.protocol import DumpError, Kind, Sequence
from kldiv.evaluation.dumps.stored_arrays import (
    FLOATING,
    LOGITS,
    Content,
    StoredArray,
    is_countable,
)
from kldiv.evaluation.dumps.writing import Source, write_bytes

SUFFIXES = (".safetensors",)
DTYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U64": np.dtype("<u8"),
    "U32": np.dtype("<u4"),
    "U16": np.dtype("<u2"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
MAX_HEADER = 100_000_000  # bytes, the format's own limit


@dataclass(frozen=True)
class Entry:
    """A tensor as a header describes it."""

    path: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    """In the file."""

    @property
    def floating(self) -> bool:
        """Whether it can be rows of numbers."""
        dtype = DTYPES.get(self.dtype)
        return dtype is not None and dtype.name in FLOATING and bool(self.shape)

    def array(self, content: Content | None = LOGITS) -> StoredArray:
        """The tensor, checked to be whole and `content` where that is given."""
        dtype = DTYPES.get(self.dtype)
        if dtype is None:
            raise DumpError(
                f"tensor {self.name!r} of {self.path} has the unknown dtype {self.dtype}"
            )
        name = f"{self.path}:{self.name}"
        array = StoredArray(name, self.path, dtype, self.shape, self.offset)
        if content is not None:
            array.check(content)
        return array


def read_header(path: Path) -> tuple[dict[str, Entry], dict[str, str]]:
    """The tensors of a file by name, and what it says of itself.

    Raises
    ------
    DumpError
        For a file without such a header.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= MAX_HEADER:
            raise DumpError(f"{path} is not a safetensors file")
        header = file.read(length)
    if len(header) < length:
        raise DumpError(f"{path} is not a safetensors file, or it is truncated")
    unreadable = DumpError(f"{path} has no readable safetensors header")
    try:
        tensors = json.loads(header)
        said = dict(tensors.pop("__metadata__", None) or {})
        # The format has texts only.
        metadata = {name: text for name, text in said.items() if isinstance(text, str)}
        entries = {}
        for name, tensor in tensors.items():
            shape = tuple(map(operator.index, tensor["shape"]))
            begin, end = map(operator.index, tensor["data_offsets"])
            dtype = str(tensor["dtype"])
            size = DTYPES[dtype].itemsize if dtype in DTYPES else None
            if begin < 0 or min(shape, default=0) < 0 or not is_countable(shape, size or 1):
                raise unreadable
            if size is not None and end - begin != math.prod(shape) * size:
                raise unreadable
            entries[name] = Entry(path, name, dtype, shape, 8 + length + begin)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise unreadable from None
    return entries, metadata


class SafetensorsFile(StoredArray):
    """One tensor of a file: that named, or the only one that can be `content`."""

    def __init__(self, path: Path, tensor: str | None, content: Content) -> None:
        entries, _ = read_header(path)
        array = entries[_choose(path, entries, tensor, content)].array(content)
        super().__init__(array.name, path, array.dtype, array.shape, array.offset)


def described(entries: Mapping[str, Entry]) -> str:
    """Tensors, as messages list them."""
    return ", ".join(f"{name} ({entry.dtype})" for name, entry in entries.items()) or "none"


def probe(path: Path) -> bool:
    """Whether a file has the name of one."""
    return path.is_file() and path.suffix.lower() in SUFFIXES


def open(  # noqa: A001 - of every format
    path: Path, *, key: str | None = None, kind: Kind | None = None
) -> DenseDump:
    """Open the sequences of a file."""
    entries, metadata = read_header(path)
    return dump_of(entries, metadata, path, "safetensors", key, kind)


def dump_of(
    entries: Mapping[str, Entry],
    metadata: Mapping[str, str],
    path: Path,
    format: str,  # noqa: A002 - as in the protocol
    key: str | None,
    kind: Kind | None,
) -> DenseDump:
    """The sequences among the tensors of one or more files."""
    names = chosen(entries, path, key, kind)
    notes: dict[str, Any] = {}
    parts = []
    for name in names:
        array = entries[name].array()
        beside = entries.get(keys.labels_key(name))
        known = None if beside is None or beside.dtype not in DTYPES else beside.array(None)
        labels = labels_beside(array, known, notes)
        parts.append(Part(name, array, labels, _first(metadata, name)))
    found, notes["kind from"] = kind_by_name(kind, names[0], path.stem)
    paths = tuple(dict.fromkeys(entries[name].path for name in names))
    return DenseDump.of(str(path), format, found, parts, paths, notes=notes)


def chosen(
    entries: Mapping[str, Entry], path: Path, key: str | None, kind: Kind | None
) -> list[str]:
    """The names of the tensors that are sequences."""
    if key is not None:
        if names := keys.members(key, entries):
            return names
        raise DumpError(f"{path} has no tensor {key!r}; its tensors: {described(entries)}")
    fitting = [name for name, entry in entries.items() if entry.floating]
    return keys.choose(fitting, described(entries), str(path), "tensor", kind)


def _first(metadata: Mapping[str, str], name: str) -> int:
    """How many tokens come before the first row, as `kldiv convert` notes it."""
    text = metadata.get(f"first.{name}", "0")
    return int(text) if text.isdecimal() and len(text) < 10 else 0


def _choose(path: Path, entries: Mapping[str, Entry], tensor: str | None, content: Content) -> str:
    listed = described(entries)
    if tensor is not None:
        if tensor in entries:
            return tensor
        raise DumpError(f"{path} has no tensor {tensor!r}; its tensors: {listed}")
    fitting = [
        name
        for name, entry in entries.items()
        if (dtype := DTYPES.get(entry.dtype)) is not None and dtype.name in content.dtypes
    ]
    if content.name in fitting:
        return content.name
    if len(fitting) == 1:
        return fitting[0]
    problem = (
        f"several tensors of {content.numbers} and none named {content.name!r}; "
        f"choose one as {path.name}:NAME"
        if fitting
        else f"no tensor of {content.numbers}"
    )
    raise DumpError(f"{path} has {problem}; its tensors: {listed}")


STREAM_HEADER = 1 << 20  # bytes, where the number of tensors is known at the end


def write(source: Source, path: Path) -> None:
    """Write the sequences of a dump as numbered tensors, or the only one without a number."""
    shapes = source.shapes()
    several = shapes is None or len(shapes) > 1
    write_tensors(source, source.each(), path, shapes, several=several)


def write_tensors(
    source: Source,
    sequences: Iterable[Sequence],
    path: Path,
    shapes: list[tuple[int, bool]] | None,
    *,
    several: bool,
) -> None:
    """Write some sequences of a dump; `shapes` are theirs, where they are known."""
    dtype = next(name for name, known in DTYPES.items() if known == source.dtype)
    header = _Header(source, dtype, several)
    if shapes is not None:
        # All labels come first, so that tensors of any dtype begin where numbers of it may.
        for number, (positions, labels) in enumerate(shapes):
            header.add(number, positions, labels, first=1 << 31)
        reserved = len(header.text()) + 7 & ~7
        header = _Header(source, dtype, several)
    else:
        reserved = STREAM_HEADER
    with path.open("wb") as file:
        file.seek(8 + reserved)
        if shapes is not None and any(labels for _, labels in shapes):
            sequences = list(sequences)
            for sequence in sequences:
                if sequence.labels is not None:
                    write_bytes(file, sequence.labels.astype("<i8"))
        for number, sequence in enumerate(sequences):
            before = source.positions
            for block in source.rows(sequence):
                write_bytes(file, block)
            labelled = sequence.labels is not None
            if shapes is None and labelled:
                source.lose("labels")
            header.add(
                number, source.positions - before, labelled and shapes is not None, sequence.first
            )
        text = header.text()
        if len(text) > reserved:
            raise DumpError(
                f"{source.dump.name} is a stream of more sequences than a file can list whose "
                "header is written first; write a directory"
            )
        file.seek(0)
        file.write(reserved.to_bytes(8, "little") + text.ljust(reserved))


class _Header:
    """The header of a file whose labels come before its rows."""

    def __init__(self, source: Source, dtype: str, several: bool) -> None:
        self._source = source
        self._dtype = dtype
        self._several = several
        self._rows: list[tuple[str, int]] = []
        self._labels: list[tuple[str, int]] = []
        self._metadata: dict[str, str] = {}

    def add(self, number: int, positions: int, labels: bool, first: int) -> None:
        """Another sequence."""
        name = f"{self._source.key}_{number}" if self._several else self._source.key
        self._rows.append((name, positions))
        if labels:
            self._labels.append((keys.labels_key(name), positions))
        if first:
            self._metadata[f"first.{name}"] = str(first)

    def text(self) -> bytes:
        """As it is written."""
        entries: dict[str, Any] = {"__metadata__": self._metadata} if self._metadata else {}
        offset = 0
        width, itemsize = self._source.width, self._source.dtype.itemsize
        for tensors, dtype, inner, size in (
            (self._labels, "I64", [], 8),
            (self._rows, self._dtype, [width], width * itemsize),
        ):
            for name, positions in tensors:
                end = offset + positions * size
                shape = [positions, *inner]
                entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, end]}
                offset = end
        return json.dumps(entries, separators=(",", ":")).encode()
