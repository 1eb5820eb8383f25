"""``.npy``: NumPy's format for one array; several one after the other are sequences."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import IO, Any

import ml_dtypes
import numpy as np

from kldiv.evaluation.dumps.dense import DenseDump, Part, kind_by_name
from kldiv.evaluation.dumps.protocol import DumpError, Kind
from kldiv.evaluation.dumps.stored_arrays import LOGITS, Content, StoredArray, is_countable
from kldiv.evaluation.dumps.writing import Source, npy_header, write_bytes

MAGIC = b"\x93NUMPY"
SUFFIXES = (".npy",)


class NpyFile(StoredArray):
    """One array of a file, as written by `numpy.save`."""

    def __init__(
        self, path: Path, tensor: str | None, content: Content, offset: int = 0, name: str = ""
    ) -> None:
        if tensor is not None:
            raise DumpError(f"{path} holds one array, without names to choose from")
        with path.open("rb") as file:
            file.seek(offset)
            shape, fortran_order, dtype = read_header(file, name or str(path))
            offset = file.tell()
        super().__init__(
            name or str(path), path, dtype, shape, offset, fortran_order and len(shape) > 1
        )
        self.check(content)


def read_header(file: IO[bytes], name: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read shape, order and dtype, up to where the elements begin.

    Raises
    ------
    DumpError
        For anything else than such a header.
    """
    try:
        version = np.lib.format.read_magic(file)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
            # Differs in how names of fields are encoded, which numbers do not have.
            (3, 0): np.lib.format.read_array_header_2_0,
        }[version]
        with warnings.catch_warnings():
            # Of headers that Python 2 wrote.
            warnings.simplefilter("ignore")
            shape, fortran_order, dtype = read(file)
        if min(shape, default=0) < 0 or not is_countable(shape, dtype.itemsize):
            raise ValueError("a negative length, or more than can be counted")
    except OSError:
        raise
    except Exception:
        # A header is a Python literal, and may raise whatever parsing one can.
        raise DumpError(f"{name} is not a readable .npy file") from None
    if dtype == np.dtype("V2"):
        # This is how numpy.save writes ml_dtypes.bfloat16.
        dtype = np.dtype(ml_dtypes.bfloat16)
    return shape, fortran_order, dtype


def probe(path: Path) -> bool:
    """Whether a file is one of NumPy's."""
    if not path.is_file():
        return False
    if path.suffix.lower() in SUFFIXES:
        return True
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def open(path: Path, *, kind: Kind | None = None) -> DenseDump:  # noqa: A001 - of every format
    """Open the array of a file, or the arrays that follow each other in it."""
    arrays = stored(path)
    parts = [
        Part(path.name if len(arrays) == 1 else f"{path.name}[{number}]", array)
        for number, array in enumerate(arrays)
    ]
    found, source = kind_by_name(kind, path.stem)
    notes = {"kind from": source}
    return DenseDump.of(str(path), "NumPy array", found, parts, (path,), notes=notes)


def stored(path: Path) -> list[NpyFile]:
    """The arrays of a file: one, or several that were saved one after the other.

    Raises
    ------
    DumpError
        For bytes after the last that are not an array.
    """
    arrays = [NpyFile(path, None, LOGITS)]
    size = path.stat().st_size
    while (end := arrays[-1].end) < size:
        with path.open("rb") as file:
            file.seek(end)
            if file.read(len(MAGIC)) != MAGIC:
                raise DumpError(
                    f"{path} holds {size - end:,} bytes after its array, at offset {end:,}"
                )
        arrays.append(NpyFile(path, None, LOGITS, end, f"{path}[{len(arrays)}]"))
    return arrays


def write(source: Source, path: Path) -> None:
    """Write a dump of one sequence, or of sequences of one length, as one array."""
    shapes = source.shapes()
    lengths = {} if shapes is None else {length: None for length, _ in shapes}
    if len(lengths) > 1:
        raise _unequal(source, *list(lengths)[:2])
    with path.open("wb") as file:
        # The shape of a stream is known at its end.
        file.write(npy_header((0, 0, source.width), source.dtype))
        for sequence in source.each():
            before = source.positions
            for block in source.rows(sequence):
                write_bytes(file, block)
            lengths[source.positions - before] = None
            if len(lengths) > 1:
                raise _unequal(source, *lengths)
            if sequence.labels is not None:
                source.lose("labels")
            if sequence.first:
                source.lose("where in their texts sequences begin")
        shape = (*lengths, source.width)
        if source.sequences > 1:
            shape = (source.sequences, *shape)
        file.seek(0)
        file.write(npy_header(shape, source.dtype))


def _unequal(source: Source, one: int, other: int) -> DumpError:
    return DumpError(
        f"{source.dump.name} has sequences of {one:,} and of {other:,} positions, which one array "
        "cannot hold; write .safetensors, .npz or a directory"
    )
