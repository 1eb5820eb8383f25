"""Top-k rows of any dump, written as the files that `kldiv.TopK` is kept in."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from kldiv.evaluation.dumps.part import innermost
from kldiv.evaluation.dumps.protocol import Dump, DumpError, Sequence, TopKBlock
from kldiv.evaluation.dumps.server_json.texts import TEXT_IDS, describe
from kldiv.evaluation.dumps.top_k import TopKFile
from kldiv.evaluation.dumps.writing import Source, Writer
from kldiv.evaluation.top_k_files import FORMATS
from kldiv.evaluation.top_k_files.layout import Described, Head, Piece, check

ROWS = 4096
"""Read at a time."""
NO_LABEL = -100


def writer(dump: Dump, out: str, format: str | None, classes: int | None) -> Writer:  # noqa: A002
    """What writes a dump of top-k rows.

    Raises
    ------
    DumpError
        For a format that does not hold them, and a number of classes that is missing, or another
        than the dump's.
    """
    end = Path(out).suffix.lower() if format is None else f".{format.removeprefix('.')}"
    module = FORMATS.get(end)
    if module is None:
        raise DumpError(
            f"{dump.name} holds only the most probable classes of each row, which are written as "
            f"{' or '.join(FORMATS)}; {out} is to be {end or 'a directory'}"
        )
    own = getattr(innermost(dump), "classes", None)
    if own is None and classes is None:
        raise DumpError(
            f"{dump.name} does not say how many classes whole rows have: --vocab-size N (classes=N)"
        )
    if own is not None and classes not in (None, own):
        raise DumpError(f"{dump.name} is of {own:,} classes, not of {classes:,}")
    return partial(_write, module, int(own or classes or 0))


def _write(module: Any, classes: int, source: Source, path: Path) -> None:
    dump = source.dump
    if isinstance(dump, TopKFile):
        # As it is stored: also logits, and samples.
        source.sequences = dump.count
        module.write(path, dump.layout(), _counted(source, dump.pieces()))
        return
    # Servers compute log-probabilities in float32.
    head = Head("log_probs", classes, np.dtype(np.float32), labelled=True)
    module.write(path, head, _counted(source, _pieces(source, classes)))


def _counted(source: Source, pieces: Iterator[Piece]) -> Iterator[Piece]:
    for piece in pieces:
        yield piece
        source.positions += len(piece.counts)
        source.advance(len(piece.counts))


def _pieces(source: Source, classes: int) -> Iterator[Piece]:
    for sequence in source.each():
        yield from pieces_of(source, sequence, classes, np.dtype(np.float32))


def pieces_of(
    source: Source, sequence: Sequence, classes: int, dtype: np.dtype[Any]
) -> Iterator[Piece]:
    """The rows of a sequence, checked; of digits that the dtype has not the source is told."""
    said = Described("log_probs", classes, (), True)
    done = 0
    for block in sequence.read(ROWS):
        assert isinstance(block, TopKBlock)
        piece = _piece(source, sequence, block, done, dtype)
        try:
            check(said, piece, done, Path(sequence.name))
        except DumpError:
            _explain_texts(sequence, piece)
            raise
        yield piece
        done += len(block)


def _piece(
    source: Source, sequence: Sequence, block: TopKBlock, done: int, dtype: np.dtype[Any]
) -> Piece:
    present = block.ids >= 0
    values = block.log_probs[present]
    rounded = values.astype(dtype)
    if not np.array_equal(rounded, values):
        source.lose(f"what log-probabilities have beyond {dtype.name}")
    labels = np.full(len(block), NO_LABEL)
    if sequence.labels is not None:
        labels = sequence.labels[done : done + len(block)]
    return Piece(
        block.ids[present],
        rounded,
        np.count_nonzero(present, axis=1),
        labels=labels,
        begins=not done,
        first=sequence.first,
    )


def _explain_texts(sequence: Sequence, piece: Piece) -> None:
    if len(piece.ids) and int(piece.ids.max()) >= TEXT_IDS:
        text = describe(int(piece.ids[int(np.argmax(piece.ids >= TEXT_IDS))]))
        raise DumpError(
            f"{sequence.name} names tokens by their text, as {text}; top-k rows are kept by ids "
            "(return_tokens_as_token_ids of vLLM)"
        ) from None
