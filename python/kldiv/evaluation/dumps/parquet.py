"""Parquet, through pyarrow: a column of lists, each a row, or a column for each class.

Integers in columns ``sequence`` and ``labels`` say which sequence a row is of and what its label
is. Row groups are read in order, a few rows at a time.
"""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from kldiv._arrays import Array
from kldiv.evaluation.dumps import keys
from kldiv.evaluation.dumps.blocks import Forward
from kldiv.evaluation.dumps.dense import DenseDump, Part, Slice, kind_by_name
from kldiv.evaluation.dumps.protocol import DumpError, Kind
from kldiv.evaluation.dumps.stored_arrays import BLOCK_BYTES, FLOATING
from kldiv.evaluation.dumps.writing import Source, check_dtype

SUFFIXES = (".parquet",)
SEQUENCE, LABELS = "sequence", "labels"
_DTYPES = {"halffloat": "float16", "float": "float32", "double": "float64"}


@dataclass(frozen=True)
class ParquetRows:
    """The rows of a file, in one column of lists or in a column for each class."""

    path: Path
    columns: tuple[str, ...]
    lists: bool
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    row_groups: tuple[int, ...]
    """The rows of each."""

    @property
    def name(self) -> str:
        """The file, and the column where the rows are in one."""
        return f"{self.path}:{self.columns[0]}" if self.lists else str(self.path)

    @property
    def block_bytes(self) -> int:
        """As of other files."""
        return BLOCK_BYTES

    @cached_property
    def _forward(self) -> Forward[Array]:
        return Forward(self._start, self.name)

    def blocks(self, rows: range, step: int) -> Iterator[Array]:
        """Rows, from their row group on."""
        return self._forward.blocks(rows, step)

    def _start(self, row: int, step: int) -> tuple[int, Iterator[Array]]:
        ends = np.cumsum(self.row_groups)
        group = int(np.searchsorted(ends, row, side="right"))
        first = int(ends[group - 1]) if group else 0
        groups = list(range(group, len(self.row_groups)))
        return first, self._decoded(groups, first, step)

    def _decoded(self, groups: list[int], first: int, step: int) -> Iterator[Array]:
        columns = list(self.columns)
        with guard(self.path), open_file(self.path) as file:
            for batch in file.iter_batches(step, groups, columns, use_threads=False):
                block = self._list_rows(batch, first) if self.lists else self._plain_rows(batch)
                yield block
                first += len(block)

    def _list_rows(self, batch: Any, first: int) -> Array:
        column = batch.column(0)
        lengths = np.asarray(column.value_lengths().fill_null(-1))
        wrong = np.flatnonzero(lengths != self.shape[-1])
        if len(wrong):
            there = lengths[wrong[0]]
            found = "null" if there < 0 else f"{there:,} numbers"
            raise DumpError(
                f"{self.name} holds {found} in row {first + int(wrong[0]):,}; expected "
                f"{self.shape[-1]:,}, as in row 0"
            )
        values = column.flatten()
        if values.null_count:
            row = first + int(np.flatnonzero(np.asarray(values.is_null()))[0]) // self.shape[-1]
            raise DumpError(f"{self.name} holds a null in row {row:,}")
        numbers: Array = values.to_numpy(zero_copy_only=False)
        return numbers.reshape(len(column), -1)

    def _plain_rows(self, batch: Any) -> Array:
        block = np.empty((batch.num_rows, len(self.columns)), self.dtype)
        for place, column in enumerate(batch.columns):
            if column.null_count:
                raise DumpError(f"{self.path} holds a null in column {self.columns[place]!r}")
            block[:, place] = column.to_numpy(zero_copy_only=False)
        return block


OF_POSITIONS = frozenset({"candidate", "sequence", "position"})
"""Columns of the table that an evaluation keeps."""


def library() -> Any:
    """The package.

    Raises
    ------
    DumpError
        Where it is not installed.
    """
    try:
        return importlib.import_module("pyarrow.parquet")
    except ModuleNotFoundError:
        raise DumpError("Parquet is read and written by pyarrow: pip install pyarrow") from None


def probe(path: Path) -> bool:
    """Whether a file has the name of one."""
    return path.is_file() and path.suffix.lower() in SUFFIXES


def open(  # noqa: A001 - of every format
    path: Path, *, key: str | None = None, kind: Kind | None = None
) -> DenseDump:
    """Open the rows of a file, and cut them where the sequence changes."""
    with guard(path), open_file(path) as file:
        schema = file.schema_arrow
        metadata = file.metadata
        groups = tuple(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))
        columns, lists, dtype = _columns(schema, path, key, kind)
        if not metadata.num_rows:
            raise DumpError(f"{path} holds no row")
        width = _list_length(file, columns[0], schema, path) if lists else len(columns)
        marks = {
            name: _integers(file, name, path)
            for name in (SEQUENCE, LABELS)
            if name in schema.names and str(schema.field(name).type).lstrip("u").startswith("int")
        }
    shape = (metadata.num_rows, width)
    rows = ParquetRows(path, columns, lists, shape, np.dtype(dtype), groups)
    labels = marks.get(LABELS)
    parts = []
    for name, piece in _pieces(marks.get(SEQUENCE), path, metadata.num_rows):
        there = None if labels is None else labels[piece.start : piece.stop]
        parts.append(Part(name, Slice(rows, piece, f"{path}, {name}"), there))
    found, source = kind_by_name(kind, *columns[: int(lists)], path.stem)
    return DenseDump.of(str(path), "Parquet", found, parts, (path,), notes={"kind from": source})


class guard:  # noqa: N801 - as contextlib names its own
    """Errors of the library, in one line that names the file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if kind is None or issubclass(kind, (DumpError, GeneratorExit)):
            return
        why = " ".join(str(error).split())
        # Names of columns are bytes of the file, which need not be text.
        strange = kind.__module__.startswith("pyarrow") or issubclass(kind, UnicodeError)
        if issubclass(kind, Exception) and strange:
            raise DumpError(f"{self._path} is no readable Parquet file: {why}") from None
        if issubclass(kind, OSError) and not getattr(error, "errno", None):
            raise DumpError(f"{self._path} cannot be read: {why}") from None


def open_file(path: Path) -> Any:
    """The file, as the library reads it."""
    # Streams of columns, not all of a row group at once.
    source = path if isinstance(path, Path) else path.open("rb")
    return library().ParquetFile(source, pre_buffer=False, buffer_size=1 << 20)


def _columns(
    schema: Any, path: Path, key: str | None, kind: Kind | None
) -> tuple[tuple[str, ...], bool, str]:
    """The columns of the rows, whether they are lists, and the dtype of the numbers."""
    types = {field.name: field.type for field in schema}
    described = ", ".join(f"{name} ({type})" for name, type in list(types.items())[:20])  # noqa: A001
    lists = {
        name: _DTYPES[str(type.value_type)]
        for name, type in types.items()  # noqa: A001
        if "list" in str(type) and str(getattr(type, "value_type", None)) in _DTYPES
    }
    if key is not None:
        if key not in lists:
            raise DumpError(f"{path} has no column {key!r} of lists; its columns: {described}")
        return (key,), True, lists[key]
    if lists:
        (name, *others) = keys.choose(list(lists), described, str(path), "column", kind)
        if others:
            raise DumpError(
                f"{path} has several columns of lists: {', '.join([name, *others])}; choose one "
                f"as {path.name}:NAME"
            )
        return (name,), True, lists[name]
    plain = {name: str(type) for name, type in types.items() if str(type) in _DTYPES}  # noqa: A001
    rest = [name for name in types if name not in plain and name not in (SEQUENCE, LABELS)]
    if types.keys() >= OF_POSITIONS:
        raise DumpError(
            f"{path} is a table of positions that kldiv kept, and no dump: kldiv compare {path}, "
            "alone, computes its statistics (kldiv.evaluation.read_positions)"
        )
    if not plain or rest:
        raise DumpError(
            f"{path} has no column of lists of floating numbers, nor such numbers alone in its "
            f"columns; its columns: {described}"
        )
    if len(set(plain.values())) > 1:
        raise DumpError(f"{path} has columns of several dtypes: {', '.join(set(plain.values()))}")
    dtype = _DTYPES[next(iter(plain.values()))]
    assert dtype in FLOATING
    return tuple(plain), False, dtype


def _list_length(file: Any, column: str, schema: Any, path: Path) -> int:
    fixed = getattr(schema.field(column).type, "list_size", None)
    if fixed is not None:
        return int(fixed)
    batch = next(file.iter_batches(1, columns=[column], use_threads=False), None)
    if batch is None or not len(batch):
        raise DumpError(f"{path}:{column} holds no row, where its file says that it does")
    length = batch.column(0).value_lengths()[0].as_py()
    if length is None:
        raise DumpError(f"{path}:{column} holds null in row 0; expected a list of numbers")
    return int(length)


def _integers(file: Any, column: str, path: Path) -> Array:
    values = file.read(columns=[column], use_threads=False).column(0)
    if values.null_count:
        raise DumpError(f"{path} holds a null in column {column!r}")
    if len(values) != file.metadata.num_rows:
        raise DumpError(f"{path} holds {len(values):,} rows in column {column!r}, not as it says")
    numbers: Array = values.to_numpy().astype(np.int64)
    return numbers


def _pieces(numbers: Array | None, path: Path, rows: int) -> Iterator[tuple[str, range]]:
    """The rows of each sequence, which must follow each other."""
    if numbers is None:
        yield path.name, range(rows)
        return
    starts = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), rows]
    seen: set[int] = set()
    for start, stop in itertools.pairwise(starts):
        number = int(numbers[start])
        if number in seen:
            raise DumpError(
                f"{path} comes back to {SEQUENCE} {number} in row {start:,}; expected the rows of "
                "a sequence one after the other"
            )
        seen.add(number)
        yield f"{SEQUENCE} {number}", range(start, stop)


def write(source: Source, path: Path) -> None:
    """Write the rows of a dump as lists, with the number of their sequence, and labels."""
    check_dtype(source, "Parquet")
    parquet, pyarrow = library(), importlib.import_module("pyarrow")
    shapes = source.shapes()
    labelled = shapes is not None and any(labels for _, labels in shapes)
    number_type = pyarrow.from_numpy_dtype(source.dtype)
    fields = [(SEQUENCE, pyarrow.int32())]
    if labelled:
        fields.append((LABELS, pyarrow.int64()))
    fields.append((source.key, pyarrow.list_(number_type, source.width)))
    schema = pyarrow.schema(fields)
    # Logits have no repeated values for a dictionary, and do not compress.
    with parquet.ParquetWriter(path, schema, compression="none", use_dictionary=False) as file:
        for number, sequence in enumerate(source.each()):
            done = 0
            for block in source.rows(sequence):
                rows = len(block)
                values = pyarrow.array(block.reshape(-1))
                columns = [pyarrow.array(np.full(rows, number, np.int32))]
                if labelled:
                    labels = sequence.labels
                    part = np.full(rows, -100) if labels is None else labels[done : done + rows]
                    columns.append(pyarrow.array(part.astype(np.int64)))
                columns.append(pyarrow.FixedSizeListArray.from_arrays(values, source.width))
                file.write_batch(pyarrow.record_batch(columns, schema=schema))
                done += rows
            if sequence.labels is not None and not labelled:
                source.lose("labels")
            if sequence.first:
                source.lose("where in their texts sequences begin")
