"""Zarr, through its library: an array, or a group of arrays; numbered ones are sequences."""

from __future__ import annotations

import importlib
import math
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kldiv._arrays import Array
from kldiv.evaluation.dumps import keys
from kldiv.evaluation.dumps.blocks import regrouped
from kldiv.evaluation.dumps.dense import DenseDump, Part, kind_by_name, labels_beside
from kldiv.evaluation.dumps.protocol import DumpError, Kind
from kldiv.evaluation.dumps.stored_arrays import BLOCK_BYTES, FLOATING
from kldiv.evaluation.dumps.writing import Source, check_dtype

SUFFIXES = (".zarr",)
LARGE_CHUNK = 1 << 26
MOST_COMPRESSED = 10_000
"""Times that a large chunk may be as large as all that is stored: it is held as a whole."""
_MARKS = ("zarr.json", ".zarray", ".zgroup")


@dataclass(frozen=True)
class ZarrRows:
    """An array of Zarr's, read by whole chunks."""

    name: str
    stored: Any

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape stored."""
        return tuple(self.stored.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype stored."""
        dtype: np.dtype[Any] = self.stored.dtype
        return dtype

    @property
    def block_bytes(self) -> int:
        """As of files."""
        return BLOCK_BYTES

    def blocks(self, rows: range, step: int) -> Iterator[Array]:
        """Rows, of chunks that are decoded once each."""
        return regrouped(self._pieces(rows, step), step)

    def _pieces(self, rows: range, step: int) -> Iterator[Array]:
        *batch, positions = self.shape[:-1] or (1,)
        chunk = self.stored.chunks[-2] if len(self.shape) > 1 else 1
        slab = max(1, step // chunk) * chunk
        start = rows.start
        while start < rows.stop:
            place, first = divmod(start, positions)
            last = min((first // slab + 1) * slab, positions, first + rows.stop - start)
            where: tuple[Any, ...] = tuple(int(i) for i in np.unravel_index(place, batch or (1,)))
            where = (*where, slice(first, last)) if batch else (slice(first, last),)
            yield self._read(where if len(self.shape) > 1 else ()).reshape(last - first, -1)
            start += last - first

    def _read(self, where: tuple[Any, ...]) -> Array:
        try:
            return np.asarray(self.stored[where])
        except Exception as error:
            # Codecs raise what they like.
            reason = str(error) or type(error).__name__
            raise DumpError(f"{self.name} cannot be read: {reason}") from None

    def all(self) -> Array:
        """The whole array."""
        return self._read((...,))


def probe(path: Path) -> bool:
    """Whether a directory is one of Zarr's."""
    return path.is_dir() and (
        path.suffix.lower() in SUFFIXES or any((path / mark).is_file() for mark in _MARKS)
    )


def library() -> Any:
    """The package.

    Raises
    ------
    DumpError
        Where it is not installed.
    """
    try:
        return importlib.import_module("zarr")
    except ModuleNotFoundError:
        raise DumpError("Zarr is read by its library: pip install zarr") from None


def open(  # noqa: A001 - of every format
    path: Path, *, key: str | None = None, kind: Kind | None = None
) -> DenseDump:
    """Open the sequences of an array or a group."""
    zarr = library()
    try:
        with warnings.catch_warnings():
            # Of groups without consolidated metadata, and of dtypes that are no standard yet.
            warnings.simplefilter("ignore")
            # From elsewhere it reads through fsspec by itself.
            stored = zarr.open(path if isinstance(path, Path) else str(path), mode="r")
            arrays = dict(stored.arrays()) if isinstance(stored, zarr.Group) else None
    except Exception as error:
        raise DumpError(f"{path} is no readable Zarr array or group: {error}") from None
    if arrays is None:
        if key is not None:
            raise DumpError(f"{path} is one array, without names to choose {key!r} from")
        names, by_name = [path.stem], {path.stem: ZarrRows(str(path), stored)}
    else:
        by_name = {name: ZarrRows(f"{path}:{name}", array) for name, array in arrays.items()}
        names = _chosen(by_name, path, key, kind)
    for name in names:
        _check(by_name[name])
    notes: dict[str, Any] = {}
    parts = []
    for name in names:
        labels = labels_beside(by_name[name], by_name.get(keys.labels_key(name)), notes)
        parts.append(Part(name, by_name[name], labels))
    found, notes["kind from"] = kind_by_name(kind, names[0], path.stem)
    return DenseDump.of(str(path), "Zarr", found, parts, (path,), notes=notes)


def _chosen(
    arrays: Mapping[str, ZarrRows], path: Path, key: str | None, kind: Kind | None
) -> list[str]:
    described = ", ".join(f"{name} ({a.dtype})" for name, a in sorted(arrays.items())) or "none"
    if key is not None:
        if names := keys.members(key, arrays):
            return names
        raise DumpError(f"{path} has no array {key!r}; its arrays: {described}")
    fitting = [name for name, a in arrays.items() if a.dtype.name in FLOATING and a.shape]
    return keys.choose(sorted(fitting), described, str(path), "array", kind)


def _check(rows: ZarrRows) -> None:
    """Raise `DumpError` for an array of other numbers, or with chunks that are not there.

    Zarr takes these for the fill value, which no one could tell from numbers.
    """
    if rows.dtype.name not in FLOATING:
        raise DumpError(f"{rows.name} has dtype {rows.dtype}; expected floating numbers as logits")
    there, all_of_them = rows.stored.nchunks_initialized, rows.stored.nchunks
    chunk = math.prod(rows.stored.chunks) * rows.dtype.itemsize
    if chunk > LARGE_CHUNK and chunk > MOST_COMPRESSED * rows.stored.nbytes_stored():
        raise DumpError(
            f"{rows.name} has chunks of {list(rows.stored.chunks)} numbers, which the bytes that "
            "are stored cannot be: its metadata is damaged"
        )
    if there < all_of_them:
        raise DumpError(
            f"{rows.name} lacks {all_of_them - there:,} of its {all_of_them:,} chunks; where they "
            "hold nothing but the fill value, write them with the option write_empty_chunks"
        )


def write(source: Source, path: Path) -> None:
    """Write the sequences of a dump as the arrays of a group, in chunks of whole rows."""
    check_dtype(source, "Zarr")
    group = library().open_group(path, mode="w")
    # Chunks of nothing but the fill value would look like chunks that are missing.
    config = {"write_empty_chunks": True}
    for number, sequence in enumerate(source.each()):
        array = group.create_array(
            f"{source.key}_{number}",
            shape=(0, source.width),
            chunks=(source.step, source.width),
            dtype=source.dtype,
            config=config,
        )
        count = 0
        for block in source.rows(sequence):
            array.resize((count + len(block), source.width))
            array[count : count + len(block)] = block
            count += len(block)
        if sequence.labels is not None:
            labels = group.create_array(
                f"labels_{number}",
                shape=sequence.labels.shape,
                chunks=sequence.labels.shape,
                dtype="int64",
                config=config,
            )
            labels[:] = sequence.labels
        if sequence.first:
            source.lose("where in their texts sequences begin")
