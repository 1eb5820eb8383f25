"""A dump: one model's outputs on some text, as sequences, each read by blocks of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from kldiv._arrays import Array
from kldiv._text import one_line

Kind = Literal["logits", "log_probs", "probs", "hidden_states", "top_k"]
DENSE: frozenset[Kind] = frozenset({"logits", "log_probs", "probs"})


class DumpError(ValueError):
    """A dump that does not hold what is asked of it.

    The message is one line that names the file, the offset or sequence where that helps, and why.
    """

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


@dataclass(frozen=True)
class TopKBlock:
    """Rows of which only the most probable classes are known."""

    ids: Array
    """int64 ``[rows, k]``; −1 where a row has fewer. No id twice in a row."""
    log_probs: Array
    """float64 ``[rows, k]``, −∞ where a row has fewer."""
    top1: Array
    """int64 ``[rows]``: the most probable class, −1 where the row has none."""
    at_most: Array | None = None
    """float64 ``[rows]``: no class that is not among `ids` has a larger log-probability. None where
    that is not known."""

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, rows: slice) -> TopKBlock:
        at_most = None if self.at_most is None else self.at_most[rows]
        return TopKBlock(self.ids[rows], self.log_probs[rows], self.top1[rows], at_most)


Block = Array | TopKBlock


@dataclass(frozen=True)
class Sequence:
    """Consecutive positions of one text, the rows of one file or key."""

    name: str
    """How messages and tables call it: the file or key."""
    positions: int | None
    """Rows; None of a stream that has not said yet."""
    read: Callable[[int], Iterator[Block]]
    """Blocks of so many rows each, the last shorter.

    A block lasts until the next is asked for. Of a stream, sequences and their blocks are read
    once and in order.
    """
    labels: Array | None = None
    """int64: the true next token of every position, −100 where there is none."""
    first: int = 0
    """How many tokens of the context come before the first position's own."""


class Dump(Protocol):
    """One model's outputs. A format is one class like this, and a line in `formats`."""

    @property
    def name(self) -> str:
        """The file or directory, as the user named it."""

    @property
    def format(self) -> str:
        """What it is, for people: "directory of safetensors", "llama.cpp _logits_"."""

    @property
    def kind(self) -> Kind:
        """What the numbers of a row are."""

    @property
    def width(self) -> int | None:
        """Numbers a row: classes, or the size of hidden states; None of top-k rows."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the blocks, bfloat16 as that of ml_dtypes."""

    @property
    def row_bytes(self) -> int:
        """Bytes that a row takes in the file, about."""

    @property
    def block_bytes(self) -> int:
        """How many bytes of rows are to be read at a time to be read fast."""

    @property
    def count(self) -> int | None:
        """How many sequences; None of a stream that has not said yet."""

    def sequences(self) -> Iterator[Sequence]:
        """All of them, in natural order of their names. Of a stream, once."""

    def details(self) -> dict[str, Any]:
        """What else `kldiv info` says of it, plain numbers and strings by label."""
