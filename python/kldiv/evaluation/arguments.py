"""What `evaluate` is given, as dumps and columns."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from kldiv._arrays import Array
from kldiv.evaluation.dumps.formats import open_dump
from kldiv.evaluation.dumps.memory import of_memory
from kldiv.evaluation.dumps.protocol import Dump, Kind
from kldiv.evaluation.dumps.row_files import read_labels, read_mask
from kldiv.evaluation.dumps.sequences import Lengths, cut, cut_like, read_lengths
from kldiv.evaluation.dumps.streams import NpyStream
from kldiv.evaluation.positions import NO_TOKEN
from kldiv.evaluation.side_files import read_floor, read_sequence_labels


def in_sequences(dumps: list[Dump], sequences: Any) -> list[Dump]:
    """The dumps in sequences of given lengths, or in those of the one that has the most."""
    if sequences is not None:
        if isinstance(sequences, (str, os.PathLike)):
            lengths = read_lengths(Path(sequences))
        else:
            count = tuple(int(length) for length in sequences)
            names = tuple(f"sequence {number}" for number in range(len(count)))
            lengths = Lengths("sequences", count, names)
        return [cut(dump, lengths) for dump in dumps]
    counts = [dump.count for dump in dumps]
    known = [count for count in counts if count is not None]
    # What is one array may be of many texts, one after the other, as may what comes from a pipe.
    single = [dump.count == 1 or isinstance(dump, NpyStream) for dump in dumps]
    if known and max(known) > 1 and any(single):
        most = dumps[counts.index(max(known))]
        return [cut_like(one, most) if cut else one for one, cut in zip(dumps, single, strict=True)]
    return dumps


def as_dump(given: Any, name: str, kind: Kind) -> Dump:
    """A path opened, a dump as it is, or a dump of arrays."""
    if isinstance(given, (str, os.PathLike)):
        return open_dump(os.fspath(given))
    if hasattr(given, "sequences") and hasattr(given, "kind"):
        dump: Dump = given
        return dump
    return of_memory(given, name, kind)


def named_dumps(candidates: tuple[Any, ...], kind: Kind) -> list[Dump]:
    """The candidates as dumps, under names of their own."""
    several = len(candidates) > 1
    dumps = [
        as_dump(one, f"candidate {place + 1}" if several else "candidate", kind)
        for place, one in enumerate(candidates)
    ]
    names = [dump.name for dump in dumps]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"two candidates have the name {twice[0]}")
    return dumps


def read_if_named(given: Any, read: Callable[[str], Any]) -> Any:
    """What a path names, read as the command line reads it; anything else as it is."""
    return read(os.fspath(given)) if isinstance(given, (str, os.PathLike)) else given


def as_floor(given: Any) -> Array | None:
    """Numbers, or a file of them, as `kldiv.evaluation.side_files.read_floor` takes it."""
    return _as_numbers("floor", read_if_named(given, read_floor), np.float64)


def as_mask(given: Any) -> Array | None:
    """Booleans, or integers 0 and 1, or a file of them.

    Raises
    ------
    ValueError
        For other integers, as labels are.
    """
    mask = read_if_named(given, partial(read_mask, batch_shape=None))
    if mask is None:
        return None
    numbers = np.asarray(mask).reshape(-1)
    if numbers.dtype.kind not in "biu":
        raise TypeError(
            f"where has dtype {numbers.dtype}; expected booleans, integers 0 and 1, or a path"
        )
    keep: Array = numbers != 0
    if (said := not_a_mask("where", numbers, keep)) is not None:
        raise ValueError(said)
    return keep


def not_a_mask(name: str, numbers: Array, of: Array) -> str | None:
    """What is wrong with numbers of a mask, of those rows that count."""
    other = of & (numbers != 0) & (numbers != 1)
    if numbers.dtype.kind == "b" or not other.any():
        return None
    row = int(other.argmax())
    return f"{name} holds {numbers[row]} in row {row}; a mask holds booleans, or integers 0 and 1"


def _as_numbers(name: str, given: Any, dtype: type) -> Array | None:
    """One number for every position, flat, of any shape."""
    if given is None:
        return None
    array = np.asarray(given)
    kinds, expected = ("biuf", "numbers") if dtype is np.float64 else ("biu", "integers")
    if array.dtype.kind not in kinds:
        raise TypeError(f"{name} has dtype {array.dtype}; expected {expected}, or a path")
    return array.reshape(-1).astype(dtype)


def as_labels(given: Any, ignore_index: int | None) -> Array | None:
    """Labels, or a file of them; `NO_TOKEN` where there is none."""
    given = read_if_named(given, partial(read_labels, batch_shape=None))
    labels = _as_numbers("labels", given, np.int64)
    if labels is None or ignore_index == NO_TOKEN:
        return labels
    none = np.zeros(len(labels), np.bool_) if ignore_index is None else labels == ignore_index
    # It would pass for a position without a token; as a class it is out of range.
    labels[(labels == NO_TOKEN) & ~none] = -1
    labels[none] = NO_TOKEN
    return labels


def with_sequence_labels(frame: pl.DataFrame, column: str, given: Any) -> pl.DataFrame:
    """Add what each sequence belongs to: labels in order, by name, or a file of either."""
    given = read_if_named(given, read_sequence_labels)
    if isinstance(given, Mapping):
        table = {str(name): str(label) for name, label in given.items()}
        names = frame["name"].unique(maintain_order=True).to_list()
        if missing := [name for name in names if name not in table]:
            raise ValueError(f"no {column} is given for sequence {missing[0]!r}")
        values = pl.Series(column, [table[name] for name in frame["name"]], pl.String)
        return frame.with_columns(values)
    if isinstance(given, bytes) or not isinstance(given, Iterable):
        raise TypeError(
            f"{column} labels are {type(given).__name__}; expected a list of them, a mapping of "
            "names of sequences to them, or a path"
        )
    labels = [str(label) for label in given]
    count = int(frame["sequence"].to_numpy().max()) + 1 if len(frame) else 0
    if len(labels) < count:
        raise ValueError(f"{len(labels)} {column} labels are given for {count} sequences")
    values = pl.Series(column, labels, pl.String).gather(frame["sequence"])
    return frame.with_columns(values.alias(column))
