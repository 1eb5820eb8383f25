"""What kept classes may be: looked at a chunk of rows at a time, and the first fault named."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from kldiv._arrays import Array

EXCESS = 1e-3
"""By how much probabilities of a row may add up to more than 1, and a logarithm be above 0."""

# Elements looked at together: their copies in float64 and their sorted ids stay in cache.
_CHUNK = 1 << 17

# What rounding to a dtype of 16 bits changes at most, relatively.
_ROUNDING = {"float16": 2.0**-11, "bfloat16": 2.0**-8}


@dataclass(slots=True)
class Kept:
    """What is to be checked: flat arrays, and where their rows begin and end."""

    ids: Array
    values: Array
    name: str
    """What the caller calls the values: log_probs or logits."""
    classes: int
    batch_shape: tuple[int, ...]
    width: int | None
    """Classes of every row; None where they differ."""
    offsets: Array
    normalizer: Array | None
    weights: Array | None
    first: int = 0
    """The number of the first row, where these are some of a file's."""

    def row(self, element: int) -> int:
        """The row of an element."""
        return int(np.searchsorted(self.offsets, element, side="right")) - 1

    def label(self, row: int) -> str:
        """A row as users index it."""
        if not self.batch_shape:
            return "the row"
        index = tuple(int(i) for i in np.unravel_index(row, self.batch_shape))
        return f"row {index[0] + self.first if len(index) == 1 else index}"


def check(kept: Kept) -> None:
    """Raise `ValueError`, naming the first row and id, unless every row is sound."""
    _check_counts(kept)
    for start, stop in chunks(kept.offsets, kept.classes):
        _check_ids(kept, start, stop)
        _check_values(kept, start, stop)
        if kept.weights is not None:
            _check_weights(kept, start, stop)


def chunks(offsets: Array, classes: int = 1) -> Iterator[tuple[int, int]]:
    """Ranges of whole rows, with about as many elements each."""
    rows = len(offsets) - 1
    # The number of a row in its chunk and an id have to be one int64.
    most = max(1, min(_CHUNK, (1 << 62) // classes))
    start = 0
    while start < rows:
        end = int(np.searchsorted(offsets, offsets[start] + _CHUNK, side="right")) - 1
        stop = min(max(end, start + 1), start + most, rows)
        yield start, stop
        start = stop


def check_offsets(offsets: Array, elements: int) -> None:
    """Raise `ValueError` unless these are where rows of so many elements begin and end."""
    if not len(offsets):
        raise ValueError("offsets is empty; expected one number more than there are rows")
    if offsets[0] != 0:
        raise ValueError(f"offsets begins with {offsets[0]}; expected 0")
    if (wrong := offsets[1:] < offsets[:-1]).any():
        row = int(np.argmax(wrong))
        raise ValueError(
            f"offsets fall from {offsets[row]} to {offsets[row + 1]} at row {row}; "
            "rows begin where the one before ends"
        )
    if offsets[-1] != elements:
        raise ValueError(f"offsets end with {offsets[-1]}, but ids has {elements} elements")


def check_falling(ids: Array, values: Array, offsets: Array, name: str) -> None:
    """Raise `ValueError` for a value above the one before in its row, of the first row."""
    flat, of = values.reshape(-1), ids.reshape(-1)
    for start, stop in chunks(offsets):
        begin, end = int(offsets[start]), int(offsets[stop])
        piece = flat[begin:end].astype(np.float64)
        rises = piece[1:] > piece[:-1]
        # The first of a row follows another row's last.
        firsts = offsets[start + 1 : stop] - begin
        rises[firsts[(firsts > 0) & (firsts < len(piece))] - 1] = False
        if rises.any():
            at = begin + int(np.argmax(rises))
            row = int(np.searchsorted(offsets, at + 1, side="right")) - 1
            raise ValueError(
                f"row {row} of {name} rises from {flat[at]:.9g} at id {of[at]} to "
                f"{flat[at + 1]:.9g} at id {of[at + 1]}; expected numbers that fall, by rank"
            )


def row_sums(values: Array, offsets: Array, width: int | None) -> Array:
    """Sums of rows, in float64; `offsets` are those of the rows, from any number on."""
    total: Array = np.zeros(len(offsets) - 1)
    if width:
        return np.sum(values.reshape(-1, width), axis=1, dtype=np.float64, out=total)
    filled = np.diff(offsets) > 0
    if filled.any():
        begins = (offsets[:-1] - offsets[0])[filled]
        total[filled] = np.add.reduceat(values, begins, dtype=np.float64)
    return total


def _check_counts(kept: Kept) -> None:
    if kept.width is not None:
        if kept.width > kept.classes:
            raise ValueError(f"ids has {kept.width} classes a row, but classes is {kept.classes}")
        return
    counts = np.diff(kept.offsets)
    if (wrong := counts > kept.classes).any():
        row = int(np.argmax(wrong))
        raise ValueError(
            f"{kept.label(row)} of ids has {counts[row]} classes, but classes is {kept.classes}"
        )


def _check_ids(kept: Kept, start: int, stop: int) -> None:
    begin, end = int(kept.offsets[start]), int(kept.offsets[stop])
    ids = kept.ids[begin:end]
    if not len(ids):
        return
    if int(ids.min()) < 0 or int(ids.max()) >= kept.classes:
        wrong = (ids < 0) | (ids >= kept.classes)
        at = int(np.argmax(wrong))
        raise ValueError(
            f"{kept.label(kept.row(begin + at))} of ids has the id {ids[at]}; "
            f"expected 0 to {kept.classes - 1}, since classes is {kept.classes}"
        )
    if kept.width is not None:
        ordered = np.sort(ids.reshape(-1, kept.width), axis=1)
        twice = ordered[:, 1:] == ordered[:, :-1]
        if not twice.any():
            return
        row, column = (int(i) for i in np.argwhere(twice)[0])
        found = ordered[row, column]
    else:
        counts = np.diff(kept.offsets[start : stop + 1])
        keys = np.repeat(np.arange(stop - start), counts) * kept.classes + ids.astype(np.int64)
        keys.sort()
        twice = keys[1:] == keys[:-1]
        if not twice.any():
            return
        row, found = divmod(int(keys[int(np.argmax(twice))]), kept.classes)
    raise ValueError(f"{kept.label(start + row)} of ids has the id {found} twice")


def _check_values(kept: Kept, start: int, stop: int) -> None:
    offsets = kept.offsets[start : stop + 1]
    begin, end = int(offsets[0]), int(offsets[-1])
    stored = kept.values[begin:end]
    if not len(stored):
        return
    values = stored if stored.dtype.itemsize > 2 else stored.astype(np.float32)
    bare = kept.name == "logits"
    highest = values.max()
    if not (highest < np.inf if bare else highest <= EXCESS):
        wrong = ~((values < np.inf) if bare else (values <= EXCESS))
        at = int(np.argmax(wrong))
        expected = "no NaN or +inf" if bare else "log-probabilities, which are at most 0"
        raise ValueError(
            f"{kept.label(kept.row(begin + at))} of {kept.name} has {values[at]:.9g} "
            f"at id {kept.ids[begin + at]}; expected {expected}"
        )
    if bare and kept.normalizer is None:
        return
    if kept.normalizer is not None:
        counts = np.diff(offsets)
        values = values - np.repeat(kept.normalizer[start:stop].astype(np.float64), counts)
    # A logarithm far above 0 overflows, and is a mass too large.
    with np.errstate(over="ignore"):
        masses = np.exp(values)
    total = row_sums(masses, offsets, kept.width)
    if not (wrong := total > 1.0 + EXCESS).any():
        return
    # Logarithms of 16 bits are rounded: bfloat16 makes two halves add up to 1.0018.
    allowed = _ROUNDING.get(stored.dtype.name, 0.0) * row_sums(
        masses * np.abs(stored.astype(np.float64), where=masses > 0, out=np.zeros(len(masses))),
        offsets,
        kept.width,
    )
    if kept.normalizer is not None:
        of_normalizer = np.abs(kept.normalizer[start:stop].astype(np.float64))
        allowed += _ROUNDING.get(kept.normalizer.dtype.name, 0.0) * of_normalizer * total
    if not (wrong := total > 1.0 + EXCESS + allowed).any():
        return
    row = int(np.argmax(wrong))
    first = int(offsets[row])
    largest = first + int(np.argmax(masses[first - begin : int(offsets[row + 1]) - begin]))
    less = "" if kept.normalizer is None else " less the normalizer"
    raise ValueError(
        f"{kept.label(start + row)} of {kept.name}{less} has probabilities that add up to "
        f"{total[row]:.9g}, more than 1, the largest {masses[largest - begin]:.9g} "
        f"at id {kept.ids[largest]}"
    )


def _check_weights(kept: Kept, start: int, stop: int) -> None:
    begin, end = int(kept.offsets[start]), int(kept.offsets[stop])
    weights: Any = kept.weights
    of_chunk = weights[begin:end]
    if of_chunk.dtype.itemsize <= 2:
        of_chunk = of_chunk.astype(np.float32)
    wrong = ~((of_chunk >= 0) & (of_chunk < np.inf))
    if wrong.any():
        at = int(np.argmax(wrong))
        raise ValueError(
            f"{kept.label(kept.row(begin + at))} of weights has {of_chunk[at]:.9g} "
            f"at id {kept.ids[begin + at]}; expected finite numbers of at least 0"
        )
