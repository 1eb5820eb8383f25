"""Top-k rows in Parquet, through pyarrow: a row a position, its classes in columns of lists."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from kldiv import _optional
from kldiv._arrays import Array
from kldiv.evaluation.dumps.parquet import LABELS, SEQUENCE, guard, library, open_file
from kldiv.evaluation.dumps.protocol import DumpError
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

SUFFIX = ".parquet"
FIRSTS = "kldiv.firsts"
_DTYPES = ("float16", "float32", "float64")


def write(path: Path, head: Head, pieces: Iterable[Piece]) -> int:
    """Write rows as they come, and count them."""
    arrow = _optional.module("pyarrow")
    for dtype in (head.values, head.normalizer, head.weights):
        if dtype is not None and dtype.name not in _DTYPES:
            raise DumpError(f"Parquet holds no {dtype.name}; write .safetensors")
    schema = _schema(arrow, head)
    texts, rows, width, ragged = Texts(), 0, None, False
    with library().ParquetWriter(path, schema, compression="none", use_dictionary=False) as file:
        for piece in pieces:
            texts.add(piece)
            begins = np.zeros(len(piece.counts) + 1, np.int32)
            np.cumsum(piece.counts, out=begins[1:])

            def listed(array: Array, dtype: Any, begins: Array = begins) -> Any:
                values = arrow.array(np.ascontiguousarray(array, dtype))
                return arrow.ListArray.from_arrays(arrow.array(begins), values)

            columns = [listed(piece.ids, head.ids), listed(piece.values, head.values)]
            if head.weights is not None:
                assert piece.weights is not None
                columns.append(listed(piece.weights, head.weights))
            if head.normalizer is not None:
                assert piece.normalizer is not None
                columns.append(arrow.array(np.ascontiguousarray(piece.normalizer)))
            if head.labelled:
                number = max(0, len(texts.lengths) - 1)
                columns.append(arrow.array(np.full(len(piece.counts), number, np.int32)))
                columns.append(arrow.array(np.ascontiguousarray(piece.labels, np.int64)))
            file.write_batch(arrow.record_batch(columns, schema=schema))
            rows += len(piece.counts)
            for count in (piece.counts.min(initial=1 << 62), piece.counts.max(initial=-1)):
                if len(piece.counts):
                    width = count if width is None else width
                    ragged |= bool(count != width)
        said = ragged if head.ragged is None else head.ragged
        metadata = {KEY: head.metadata(rows, said)}
        if any(texts.firsts):
            metadata[FIRSTS] = json.dumps(texts.firsts)
        file.add_key_value_metadata(metadata)
    return rows


def _schema(arrow: Any, head: Head) -> Any:
    def listed(dtype: Any) -> Any:
        return arrow.list_(arrow.from_numpy_dtype(dtype))

    fields = [("ids", listed(head.ids)), (head.kind, listed(head.values))]
    if head.weights is not None:
        fields.append(("weights", listed(head.weights)))
    if head.normalizer is not None:
        fields.append(("normalizer", arrow.from_numpy_dtype(head.normalizer)))
    if head.labelled:
        fields += [(SEQUENCE, arrow.int32()), (LABELS, arrow.int64())]
    return arrow.schema(fields)


@dataclass(frozen=True)
class Stored:
    """Top-k rows in a file, of which some at a time are read, from their row group on."""

    path: Path
    said: Described
    names: list[str]
    row_groups: tuple[int, ...]
    dtype: np.dtype[Any]
    firsts: list[int]

    @classmethod
    def of(cls, path: Path) -> Stored:
        """Raise `DumpError` for a file that holds no top-k rows."""
        with guard(path), open_file(path) as file:
            found = described(_texts(file.metadata.metadata))
            if found is None:
                raise DumpError(f"{path} holds no top-k rows that kldiv wrote")
            said = Described.of(found, path)
            types = {field.name: field.type for field in file.schema_arrow}
            for name in ("ids", said.kind):
                if name not in types or not hasattr(types[name], "value_type"):
                    raise DumpError(f"{path} lacks the column {name!r} of its top-k rows")
            dtype = np.dtype(types[said.kind].value_type.to_pandas_dtype())
            if dtype.name not in _DTYPES or "int" not in str(types["ids"].value_type):
                raise DumpError(f"{path} holds {types['ids']} and {types[said.kind]} as its rows")
            if file.metadata.num_rows != math.prod(said.batch_shape):
                raise DumpError(
                    f"{path} holds {file.metadata.num_rows:,} rows for a batch of "
                    f"{said.batch_shape}"
                )
            groups = tuple(
                file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)
            )
            firsts = json.loads(_texts(file.metadata.metadata).get(FIRSTS, "[]"))
        return cls(path, said, list(types), groups, dtype, firsts)

    @property
    def rows(self) -> int:
        """How many."""
        return sum(self.row_groups)

    @cached_property
    def marks(self) -> dict[str, Array]:
        """The labels and the number of the text of every row, where the file has them."""
        names = [name for name in (SEQUENCE, LABELS) if name in self.names]
        with guard(self.path), open_file(self.path) as file:
            table = file.read(columns=names, use_threads=False)
            return {name: self._plain(table.column(name), name) for name in names}

    def pieces(self, rows: range) -> Iterator[Piece]:
        """Rows from the first of the row group of `rows` on, up to the last of `rows`, checked."""
        ends = np.cumsum((0, *self.row_groups))
        group = max(0, int(np.searchsorted(ends, rows.start, side="right")) - 1)
        start = int(ends[group])
        groups = list(range(group, len(self.row_groups)))
        if not groups:  # which pyarrow 18 and 19 refuse
            return
        columns = [name for name in self.names if name != SEQUENCE]
        step = max(1, PIECE_ELEMENTS // 64)
        with guard(self.path), open_file(self.path) as file:
            for batch in file.iter_batches(step, groups, columns, use_threads=False):
                if start >= rows.stop:
                    return
                piece = self._piece(batch, start)
                check(self.said, piece, start, self.path)
                yield piece
                start += batch.num_rows

    def first_row(self, row: int) -> int:
        """Where `pieces` begins that is asked for rows from `row` on."""
        ends = np.cumsum((0, *self.row_groups))
        return int(ends[max(0, int(np.searchsorted(ends, row, side="right")) - 1)])

    def _piece(self, batch: Any, start: int) -> Piece:
        by_name = dict(zip(batch.schema.names, batch.columns, strict=True))
        counts = None
        flat: dict[str, Array] = {}
        for name in ("ids", self.said.kind, "weights"):
            if name not in by_name:
                continue
            lengths = np.asarray(by_name[name].value_lengths().fill_null(-1), np.int64)
            wrong = lengths < 0 if counts is None else lengths != counts
            if wrong.any():
                row = start + int(np.argmax(wrong))
                raise DumpError(
                    f"{self.path}: row {row} has another number of {name!r} than of ids"
                )
            counts = lengths
            flat[name] = self._plain(by_name[name].flatten(), name)
        assert counts is not None
        rest = {
            name: self._plain(by_name[name], name)
            for name in ("normalizer", LABELS)
            if name in by_name
        }
        return Piece(
            flat["ids"],
            flat[self.said.kind],
            counts,
            rest.get("normalizer"),
            flat.get("weights"),
            rest.get(LABELS),
        )

    def _plain(self, column: Any, name: str) -> Array:
        if column.null_count:
            raise DumpError(f"{self.path} holds a null in column {name!r}")
        found: Array = (
            column.to_numpy()
            if hasattr(column, "num_chunks")
            else column.to_numpy(zero_copy_only=False)
        )
        return found


def load(path: Path) -> tuple[Described, dict[str, Array | None]]:
    """All of a file: what it says, and its arrays by name."""
    stored = Stored.of(path)
    said = stored.said
    pieces = list(stored.pieces(range(stored.rows)))
    found: dict[str, Array | None] = {}
    for name in ("ids", "values", "normalizer", "weights"):
        parts = [getattr(piece, name) for piece in pieces]
        there = name in stored.names or name == "values"
        empty = np.zeros(0, stored.dtype if name != "ids" else np.int64)
        found[name] = np.concatenate(parts) if parts and there else (empty if there else None)
    counts = np.concatenate([np.zeros(0, np.int64), *(piece.counts for piece in pieces)])
    if said.ragged:
        found["offsets"] = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        return said, found
    width = int(counts[0]) if len(counts) else 0
    if (counts != width).any():
        row = int(np.argmax(counts != width))
        raise DumpError(f"{path} holds {counts[row]} classes in row {row}; expected {width}")
    for name in ("ids", "values", "weights"):
        if (array := found[name]) is not None:
            found[name] = array.reshape(*said.batch_shape, width)
    if (normalizer := found["normalizer"]) is not None:
        found["normalizer"] = normalizer.reshape(said.batch_shape)
    return said, found | {"offsets": None}


def is_one(path: Path) -> bool:
    """Whether a file holds top-k rows."""
    try:
        with guard(path), open_file(path) as file:
            return described(_texts(file.metadata.metadata)) is not None
    except (OSError, DumpError):
        return False


def _texts(metadata: dict[bytes, bytes] | None) -> dict[str, str]:
    return {
        key.decode(errors="replace"): value.decode(errors="replace")
        for key, value in (metadata or {}).items()
    }
