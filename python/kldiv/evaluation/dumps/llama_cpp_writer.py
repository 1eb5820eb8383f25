"""Writes base files of llama.cpp, code for code as llama.cpp does."""

from __future__ import annotations

import contextlib
import stat
import struct
from collections.abc import Iterator
from io import RawIOBase
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from kldiv import _kldiv
from kldiv._arrays import Array
from kldiv.evaluation.dumps.llama_cpp import SCALED, Header
from kldiv.evaluation.dumps.protocol import Dump, DumpError, Sequence, TopKBlock
from kldiv.evaluation.whole_file import whole_file

CLIPS = {"llama.cpp": 16.0, "ik_llama.cpp": 24.0}
"""How many nats below the most probable class each reaches, under the same magic."""


def write(
    path: Path,
    dump: Dump,
    tokens: ArrayLike | None = None,
    *,
    magic: str = "_logits_",
    clip: float = CLIPS["llama.cpp"],
) -> Header:
    """Write the second half of every sequence as a base file.

    A file has its name once it is whole; until then it is a hidden one beside it, that is removed
    on errors. A named pipe is written to as it goes.

    Parameters
    ----------
    path
        The file, which is replaced, or a named pipe.
    dump
        Logits or log-probabilities, a sequence a chunk. Of a chunk of ``n_ctx`` tokens the
        rows after token ``n_ctx // 2`` to the last but one are taken.
    tokens
        Integers ``[sequences, n_ctx]``; those of the dump where it has them.
    magic
        ``_logits_``, or ``_logits2``, which clips nothing and which llama.cpp does not read.
    clip
        How far ``_logits_`` reaches below the most probable class of a row, in nats: `CLIPS`.

    Raises
    ------
    DumpError
        For a dump of other numbers, sequences that do not have these rows, labels that are not
        the tokens, and rows that are no distribution.
    """
    if magic not in SCALED:
        raise DumpError(f"{path} can be {' or '.join(sorted(SCALED))}, not {magic}")
    if not 0 < clip < np.inf:
        raise DumpError(f"{path}: clip must be positive and finite, got {clip}")
    if dump.kind not in ("logits", "log_probs") or dump.width is None:
        raise DumpError(f"{dump.name} holds {dump.kind}; a base file is made of logits")
    ids = _tokens(dump, tokens)
    header = Header(magic, ids.shape[1], dump.width, len(ids))
    if header.rows < 1:
        raise DumpError(f"{dump.name} has chunks of {header.context} tokens; 3 are the fewest")
    with _file(path) as file:
        start = struct.pack("<8s3i", magic.encode(), header.context, header.classes, header.chunks)
        _write_all(file, memoryview(start + ids.astype("<i4").tobytes()))
        written = 0
        for chunk, sequence in enumerate(dump.sequences()):
            if chunk == header.chunks:
                raise DumpError(f"{dump.name} has more sequences than the {len(ids)} of the tokens")
            _check_labels(dump, sequence, ids[chunk])
            _write_chunk(file, dump, sequence, header, clip)
            written += 1
        if written < header.chunks:
            raise DumpError(
                f"{dump.name} has {written} sequences, but there are tokens of {len(ids)}"
            )
    return header


def _tokens(dump: Dump, tokens: ArrayLike | None) -> Array:
    if tokens is None:
        tokens = getattr(dump, "tokens", None)
    if tokens is None:
        raise DumpError(
            f"{dump.name} has no token ids, which a base file holds; give them "
            "(--tokens FILE, tokens=)"
        )
    ids = np.asarray(tokens)
    if ids.ndim != 2 or ids.dtype.kind not in "iu" or not ids.size:
        raise DumpError(
            f"tokens have shape {ids.shape} and dtype {ids.dtype}; expected integers "
            "[sequences, tokens of each]"
        )
    bad = (ids < 0) | (ids >= (dump.width or 0))
    if bad.any():
        chunk, at = divmod(int(bad.argmax()), ids.shape[1])
        raise DumpError(
            f"token {at} of sequence {chunk} has id {ids[chunk, at]}, outside of the vocabulary "
            f"of {dump.width:,}"
        )
    if dump.count is not None and dump.count != len(ids):
        raise DumpError(
            f"{dump.name} has {dump.count} sequences, but there are tokens of {len(ids)}"
        )
    return ids


def _check_labels(dump: Dump, sequence: Sequence, ids: Array) -> None:
    """Labels are the next tokens: others mean that rows and tokens are not of one text."""
    if sequence.labels is None:
        return
    nexts = ids[sequence.first + 1 :][: len(sequence.labels)]
    labels = sequence.labels[: len(nexts)]
    bad = (labels != nexts) & (labels != -100)
    if bad.any():
        row = int(bad.argmax())
        raise DumpError(
            f"{dump.name}, {sequence.name}: row {row} has the label {labels[row]}, but the next "
            f"token is {nexts[row]}"
        )


def _write_chunk(
    file: RawIOBase, dump: Dump, sequence: Sequence, header: Header, clip: float
) -> None:
    begin = header.first - sequence.first
    end = begin + header.rows
    known = sequence.positions
    if begin < 0 or (known is not None and known < end):
        raise DumpError(
            f"{dump.name}, {sequence.name}: has the rows after tokens {sequence.first} to "
            f"{sequence.first + (known or 0) - 1}; a chunk of {header.context} tokens needs those "
            f"after {header.first} to {header.context - 2}"
        )
    where = f"{dump.name}, {sequence.name}"
    at = 0
    for block in sequence.read(max(1, dump.block_bytes // dump.row_bytes)):
        if isinstance(block, TopKBlock):
            raise DumpError(f"{dump.name} holds the most probable classes only")
        rows = block[max(0, begin - at) : max(0, end - at)]
        if len(rows):
            _write_all(file, _encoded(rows, header, clip, where, max(at, begin)).data)
        at += len(block)
        if at >= end:
            return
    raise DumpError(f"{where}: has {at} rows, fewer than {end}")


def _encoded(rows: Array, header: Header, clip: float, where: str, first: int) -> Array:
    """Rows as stored, uint8; the first of them is row `first`."""
    with np.errstate(over="ignore"):
        logits = np.ascontiguousarray(rows, np.float32)
    coded = np.empty(len(rows) * header.row_bytes, np.uint8)
    sums = _kldiv.encode_log_probs(logits.reshape(-1), header.classes, header.magic, clip, coded)
    if (bad := np.isnan(sums)).any():
        raise DumpError(
            f"{where}: row {first + int(bad.argmax())} holds NaN or +inf, or no class with a "
            f"probability, which {header.magic} cannot say"
        )
    return coded


def _write_all(file: RawIOBase, data: memoryview) -> None:
    while data:
        data = data[file.write(data) or 0 :]


@contextlib.contextmanager
def _file(path: Path) -> Iterator[RawIOBase]:
    """A new file that becomes `path` once all is written; a pipe is itself."""
    if path.exists() and not stat.S_ISREG(path.stat().st_mode):
        with path.open("wb", buffering=0) as file:
            yield file
        return
    with whole_file(path) as partial, partial.open("wb", buffering=0) as file:
        yield file
