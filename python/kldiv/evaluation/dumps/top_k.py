"""Files of top-k rows that kldiv wrote, as dumps: ``.safetensors`` and ``.parquet``."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from kldiv._arrays import Array
from kldiv.evaluation.dumps.blocks import Forward, regrouped
from kldiv.evaluation.dumps.parquet import LABELS, SEQUENCE
from kldiv.evaluation.dumps.protocol import DumpError, Kind, Sequence, TopKBlock
from kldiv.evaluation.dumps.server_json.answer import NO_LABEL, at_most
from kldiv.evaluation.dumps.stored_arrays import BLOCK_BYTES
from kldiv.evaluation.top_k_files import FORMATS, parquet, safetensors
from kldiv.evaluation.top_k_files.layout import Head, Piece

SUFFIXES: tuple[str, ...] = ()
"""Their names are those of other formats; what is in them tells."""


@dataclass
class TopKFile:
    """Top-k rows of a file: of one batch axis one sequence, else one for each row of the others."""

    path: Path
    stored: safetensors.Stored | parquet.Stored
    kind: Kind = "top_k"
    width: int | None = None
    block_bytes: int = BLOCK_BYTES
    once: bool = False
    _forward: Forward[TopKBlock] | None = field(default=None, init=False)

    @property
    def name(self) -> str:
        """The file."""
        return str(self.path)

    @property
    def paths(self) -> tuple[Path, ...]:
        """The file."""
        return (self.path,)

    @property
    def format(self) -> str:
        """What it is, for people."""
        kind = "Parquet" if isinstance(self.stored, parquet.Stored) else "safetensors"
        return f"top-k rows in {kind}"

    @property
    def classes(self) -> int:
        """Of whole rows."""
        return self.stored.said.classes

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the values, as they are stored."""
        return self.stored.dtype

    @property
    def row_bytes(self) -> int:
        """Bytes of a row, about."""
        return max(1, self.path.stat().st_size // max(1, self.stored.rows))

    @property
    def count(self) -> int:
        """How many sequences."""
        return len(self._lengths)

    def details(self) -> dict[str, Any]:
        """What is kept of how many classes."""
        said, names = self.stored.said, self.stored.names
        normalised = said.kind == "log_probs" or "normalizer" in names
        return {
            "vocabulary": said.classes,
            "kept as": said.kind.replace("log_probs", "log-probabilities")
            + (" with their log-sum-exp" if "normalizer" in names else ""),
            "normalised": "yes" if normalised else "no",
            "sampled": "yes" if "weights" in names else "no",
            **self._kept(),
        }

    def sequences(self) -> Iterator[Sequence]:
        """Every text that was written, or every row of the leading axes of the batch."""
        firsts = self._firsts
        begins = itertools.accumulate(self._lengths, initial=0)
        for number, (start, length) in enumerate(zip(begins, self._lengths, strict=False)):
            rows = range(start, start + length)
            yield Sequence(
                f"{self.path.name}, sequence {number}" if self.count > 1 else self.path.name,
                length,
                partial(self._read, rows),
                None if self._labels is None else self._labels[rows.start : rows.stop],
                firsts[number] if number < len(firsts) else 0,
            )

    def layout(self) -> Head:
        """What a copy in another format says of the rows."""
        said, names = self.stored.said, self.stored.names
        dtypes: dict[str, np.dtype[Any] | None] = {"normalizer": None, "weights": None}
        if any(name in names for name in dtypes):
            piece = next(self.stored.pieces(range(min(1, self.stored.rows))), None)
            for name in dtypes:
                array = None if piece is None else getattr(piece, name)
                dtypes[name] = None if array is None else array.dtype
        return Head(
            said.kind,
            said.classes,
            self.dtype,
            dtypes["normalizer"],
            dtypes["weights"],
            labelled=self._labels is not None,
            batch_shape=said.batch_shape,
            ragged=said.ragged,
        )

    def pieces(self) -> Iterator[Piece]:
        """All rows as they are stored, and where texts begin."""
        if self._labels is None:
            yield from self.stored.pieces(range(self.stored.rows))
            return
        begins = itertools.accumulate(self._lengths, initial=0)
        firsts = self._firsts or [0] * self.count
        for start, length, first in zip(begins, self._lengths, firsts, strict=False):
            row = self.stored.first_row(start)
            begin = True
            for piece in self.stored.pieces(range(start, start + length)):
                cut = _cut(piece, max(start - row, 0), min(len(piece.counts), start + length - row))
                row += len(piece.counts)
                if len(cut.counts):
                    yield Piece(
                        cut.ids,
                        cut.values,
                        cut.counts,
                        cut.normalizer,
                        cut.weights,
                        cut.labels,
                        begin,
                        first,
                    )
                    begin = False

    @cached_property
    def _labels(self) -> Array | None:
        if isinstance(self.stored, parquet.Stored):
            return self.stored.marks.get(LABELS)
        return self.stored.all(LABELS) if LABELS in self.stored.names else None

    @cached_property
    def _lengths(self) -> list[int]:
        stored = self.stored
        if isinstance(stored, parquet.Stored):
            if (numbers := stored.marks.get(SEQUENCE)) is not None and len(numbers):
                cuts = np.flatnonzero(np.diff(numbers)) + 1
                found: list[int] = np.diff([0, *cuts.tolist(), len(numbers)]).tolist()
                return found
        elif "lengths" in stored.names:
            lengths: list[int] = stored.all("lengths").tolist()
            if min(lengths, default=0) < 0 or sum(lengths) != stored.rows:
                raise DumpError(
                    f"{self.path} has sequences of {sum(lengths):,} rows in all, but "
                    f"holds {stored.rows:,}"
                )
            return lengths
        *leading, length = stored.said.batch_shape or (1,)
        return [length] * math.prod(leading)

    @property
    def _firsts(self) -> list[int]:
        if isinstance(self.stored, parquet.Stored):
            return self.stored.firsts
        return self.stored.all("firsts").tolist() if "firsts" in self.stored.names else []

    def _kept(self) -> dict[str, str]:
        """How many classes rows keep, where that is known without reading them."""
        if isinstance(self.stored, parquet.Stored) or not self.stored.rows:
            return {}
        counts = np.diff(self.stored.offsets)
        low, high = int(counts.min()), int(counts.max())
        return {"k": f"{low} to {high}" if low < high else str(high)}

    def _read(self, rows: range, step: int) -> Iterator[TopKBlock]:
        said, names = self.stored.said, self.stored.names
        if said.kind == "logits" and "normalizer" not in names:
            raise DumpError(
                f"{self.path} holds logits without their log-sum-exp over all classes: the "
                "probabilities of its top-k rows are not known"
            )
        if "weights" in names:
            raise DumpError(
                f"{self.path} holds classes that were sampled; expected the most probable ones"
            )
        if isinstance(self.stored, parquet.Stored):
            # Row groups are decoded in order.
            if self._forward is None:
                self._forward = Forward(self._start, self.name)
            return self._forward.blocks(rows, step)
        return regrouped(map(block_of, self.stored.pieces(rows)), step)

    def _start(self, row: int, step: int) -> tuple[int, Iterator[TopKBlock]]:
        pieces = self.stored.pieces(range(row, self.stored.rows))
        return self.stored.first_row(row), map(block_of, pieces)


def block_of(piece: Piece) -> TopKBlock:
    """Rows as they are compared.

    Of a row without a label the least probable class may be the text's own, which servers add to
    the most probable: the second least then bounds the classes that are not listed.
    """
    rows, width = len(piece.counts), int(piece.counts.max(initial=0))
    present = np.arange(width) < piece.counts[:, None]
    ids = np.full((rows, width), -1, np.int64)
    log_probs = np.full((rows, width), -np.inf)
    values = piece.values.astype(np.float64)
    if piece.normalizer is not None:
        values = values - np.repeat(piece.normalizer.astype(np.float64), piece.counts)
    ids[present], log_probs[present] = piece.ids, np.minimum(values, 0.0)
    own = np.full(rows, NO_LABEL) if piece.labels is None else piece.labels
    bound = at_most(ids, log_probs, present, own)
    if not width:
        return TopKBlock(ids, log_probs, np.full(rows, -1), bound)
    best = log_probs.argmax(axis=1)
    top1, value = ids[np.arange(rows), best], log_probs[np.arange(rows), best]
    # One class alone may be the text's own; more than half of the mass is the most probable.
    others = np.count_nonzero(present & (ids != own[:, None]), axis=1)
    certain = np.where(own >= 0, others > 0, others > 1) | (value > math.log(0.5))
    return TopKBlock(ids, log_probs, np.where(certain & (value > -np.inf), top1, -1), bound)


def _cut(piece: Piece, start: int, stop: int) -> Piece:
    begins = np.concatenate([[0], np.cumsum(piece.counts)])
    elements = slice(int(begins[start]), int(begins[stop]))

    def of(array: Array | None, part: slice) -> Array | None:
        return None if array is None else array[part]

    rows = slice(start, stop)
    return Piece(
        piece.ids[elements],
        piece.values[elements],
        piece.counts[rows],
        of(piece.normalizer, rows),
        of(piece.weights, elements),
        of(piece.labels, rows),
    )


def probe(path: Path) -> bool:
    """Whether a file says that it holds such rows."""
    module = FORMATS.get(path.suffix.lower())
    return module is not None and path.is_file() and bool(module.is_one(path))


def open(path: Path) -> TopKFile:  # noqa: A001 - of every format
    """Open the rows of a file."""
    return TopKFile(path, FORMATS[path.suffix.lower()].Stored.of(path))
