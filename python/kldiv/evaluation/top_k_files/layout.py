"""What files of top-k rows hold, whatever their format: what is written, and what is read back.

Kept classes lie row after row: ``ids`` in the smallest dtype for the number of classes, and
``log_probs`` or ``logits`` in the dtype they have; beside them ``normalizer`` and ``weights`` where
there are any. What is needed to use them is JSON under the key ``kldiv`` of the file's metadata.
A dump of several texts has the ``labels`` of its rows, and of each text its number of rows and how
many tokens came before the first.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kldiv._arrays import Array
from kldiv._top_k import checks
from kldiv._top_k.container import TopK
from kldiv.evaluation.dumps.protocol import DumpError

KEY = "kldiv"
FORMAT = "TopK"
VERSION = 1
KINDS = ("log_probs", "logits")
PIECE_ELEMENTS = 1 << 20
"""Kept classes that are written, or read, at a time."""


@dataclass(frozen=True)
class Head:
    """What is known of all rows before the first is written."""

    kind: str
    classes: int
    values: np.dtype[Any]
    normalizer: np.dtype[Any] | None = None
    weights: np.dtype[Any] | None = None
    labelled: bool = False
    """Whether every row has a label, −100 where it is not known."""
    batch_shape: tuple[int, ...] | None = None
    """None where it is the number of rows, which only the end says."""
    ragged: bool | None = None
    """None where rows are ragged if their numbers of classes differ."""

    @property
    def ids(self) -> np.dtype[Any]:
        """The smallest dtype for ids, of those that torch computes with."""
        for limit, name in ((1 << 8, "u1"), (1 << 16, "<u2"), (1 << 31, "<i4")):
            if self.classes <= limit:
                return np.dtype(name)
        return np.dtype("<i8")

    def metadata(self, rows: int, ragged: bool) -> str:
        """What the file says of itself, once its rows are counted."""
        shape = (rows,) if self.batch_shape is None else self.batch_shape
        return json.dumps(
            {
                "format": FORMAT,
                "version": VERSION,
                "kind": self.kind,
                "classes": self.classes,
                "batch_shape": list(shape),
                "ragged": ragged,
            }
        )


@dataclass(frozen=True)
class Piece:
    """Consecutive rows: flat arrays, and the number of classes of each."""

    ids: Array
    values: Array
    counts: Array
    normalizer: Array | None = None
    weights: Array | None = None
    labels: Array | None = None
    begins: bool = False
    """Whether a text begins with the first of them."""
    first: int = 0
    """How many tokens of that text come before."""


@dataclass
class Texts:
    """The texts that pieces are of, counted while they are written."""

    lengths: list[int] = field(default_factory=list)
    firsts: list[int] = field(default_factory=list)

    def add(self, piece: Piece) -> None:
        """Count the rows of a piece."""
        if piece.begins:
            self.lengths.append(0)
            self.firsts.append(piece.first)
        if self.lengths:
            self.lengths[-1] += len(piece.counts)


def described(metadata: Mapping[str, str]) -> dict[str, Any] | None:
    """What a file says of itself; None of one that is no such file."""
    try:
        found = json.loads(metadata[KEY])
    except (KeyError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and found.get("format") == FORMAT else None


@dataclass(frozen=True)
class Described:
    """What the metadata of a file says, checked."""

    kind: str
    classes: int
    batch_shape: tuple[int, ...]
    ragged: bool

    @classmethod
    def of(cls, found: dict[str, Any], path: Path) -> Described:
        """Raise `DumpError` for what no file of this version says."""
        if found.get("version") != VERSION:
            raise DumpError(
                f"{path} holds top-k rows of version {found.get('version')}; this kldiv reads "
                f"version {VERSION}"
            )
        kind, classes, shape = (found.get(key) for key in ("kind", "classes", "batch_shape"))
        sound = (
            kind in KINDS
            and type(classes) is int
            and classes >= 1
            and isinstance(shape, list)
            and all(type(length) is int and length >= 0 for length in shape)
            and isinstance(found.get("ragged"), bool)
        )
        if not sound:
            raise DumpError(f"{path} says of its top-k rows what none are: {json.dumps(found)}")
        return cls(str(kind), int(classes or 0), tuple(shape or ()), bool(found["ragged"]))


def pieces_of(top_k: TopK) -> Iterator[Piece]:
    """The rows of a `TopK`, some at a time."""
    begins = top_k.begins
    counts = np.diff(begins)
    step = max(1, PIECE_ELEMENTS // max(1, int(counts.max(initial=1))))
    ids, values = top_k.ids.reshape(-1), top_k.values.reshape(-1)
    for start in range(0, top_k.rows, step):
        stop = min(start + step, top_k.rows)
        elements = slice(int(begins[start]), int(begins[stop]))
        yield Piece(
            ids[elements],
            values[elements],
            counts[start:stop],
            None if top_k.normalizer is None else top_k.normalizer.reshape(-1)[start:stop],
            None if top_k.weights is None else top_k.weights.reshape(-1)[elements],
        )


def head_of(top_k: TopK) -> Head:
    """What a file of a `TopK` says of it."""
    return Head(
        top_k.kind,
        top_k.classes,
        top_k.values.dtype,
        None if top_k.normalizer is None else top_k.normalizer.dtype,
        None if top_k.weights is None else top_k.weights.dtype,
        batch_shape=top_k.batch_shape,
        ragged=top_k.offsets is not None,
    )


def check(said: Described, piece: Piece, start: int, path: Path) -> None:
    """Raise `DumpError`, naming the row, for rows that are no top-k rows."""
    begins = np.zeros(len(piece.counts) + 1, np.int64)
    np.cumsum(piece.counts, out=begins[1:])
    alike = len(piece.counts) > 0 and bool((piece.counts == piece.counts[0]).all())
    try:
        if piece.normalizer is not None and not np.isfinite(piece.normalizer).all():
            row = start + int(np.argmin(np.isfinite(piece.normalizer)))
            raise ValueError(f"row {row} of normalizer is not finite")
        checks.check(
            checks.Kept(
                piece.ids,
                piece.values,
                said.kind,
                said.classes,
                (len(piece.counts),),
                int(piece.counts[0]) if alike else None,
                begins,
                piece.normalizer,
                piece.weights,
                first=start,
            )
        )
    except ValueError as error:
        raise DumpError(f"{path}: {error}") from None
