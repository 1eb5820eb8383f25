"""Dumps from Python: arrays, lists of them, and anything that gives them one after the other."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from kldiv._arrays import Array, as_array
from kldiv.evaluation.dumps.blocks import regrouped
from kldiv.evaluation.dumps.dense import DenseDump, Part
from kldiv.evaluation.dumps.protocol import DumpError, Kind, Sequence
from kldiv.evaluation.dumps.stored_arrays import BLOCK_BYTES, FLOATING


@dataclass(frozen=True)
class Blocks:
    """One sequence that comes in blocks of rows, of any lengths, as a model makes them.

    Wrapped around an iterable, it says that what comes are not sequences by themselves.
    """

    blocks: Iterable[Any]


@dataclass(frozen=True)
class ArrayRows:
    """An array, as rows."""

    name: str
    array: Array

    @property
    def shape(self) -> tuple[int, ...]:
        """The whole shape."""
        return tuple(self.array.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype."""
        dtype: np.dtype[Any] = self.array.dtype
        return dtype

    @property
    def block_bytes(self) -> int:
        """As of files."""
        return BLOCK_BYTES

    def blocks(self, rows: range, step: int) -> Iterator[Array]:
        """Rows, where they lie if they do one after the other."""
        flat = self.array.reshape(-1, self.shape[-1])
        for start in rows[::step]:
            yield flat[start : min(start + step, rows.stop)]

    def between(self, rows: range, name: str) -> ArrayRows:
        """Some of the rows, where they lie."""
        flat = self.array.reshape(-1, self.shape[-1])
        return ArrayRows(name, flat[rows.start : rows.stop])


def of_memory(value: Any, name: str, kind: Kind = "logits") -> DenseDump | Arriving:
    """Make a dump of what a program holds.

    Parameters
    ----------
    value
        * An array ``[positions, width]``, or ``[sequences, positions, width]``.
        * A list of such arrays, or a mapping of their names to them: a sequence each.
        * An iterator of arrays: sequences, each read when it comes. Nothing is kept.
        * `Blocks` of an iterable of arrays: the blocks of one sequence.
        * An iterator of `Blocks`: sequences that come in blocks.

        Arrays are NumPy's, torch's or of any other library that NumPy understands, of float64,
        float32, float16 or bfloat16.
    name
        How messages call it.
    kind
        What the numbers are.

    Raises
    ------
    DumpError
        For arrays of other numbers, of several widths or dtypes, or without a row. Of iterators,
        when that array comes.
    """
    if isinstance(value, Blocks):
        return Arriving(iter((value,)), name, kind)
    if isinstance(value, Iterator):
        return Arriving(value, name, kind)
    if isinstance(value, Mapping):
        items = [(str(key), item) for key, item in value.items()]
    elif isinstance(value, (list, tuple)) and not _is_matrix(value):
        items = [(f"{name}[{number}]", item) for number, item in enumerate(value)]
    elif hasattr(value, "__array__") or hasattr(value, "__dlpack__") or _is_matrix(value):
        items = [(name, value)]
    elif isinstance(value, Iterable):
        return Arriving(iter(value), name, kind)
    else:
        raise DumpError(f"{name} is {type(value).__name__}; expected arrays of {kind}")
    if not items:
        raise DumpError(f"{name} holds no sequence")
    parts = [Part(title, ArrayRows(title, rows_of(title, item))) for title, item in items]
    return DenseDump.of(name, "memory", kind, parts, (), notes={"kind from": "as told"})


def rows_of(name: str, value: Any) -> Array:
    """An array of rows, checked to be of floating numbers."""
    try:
        array = as_array(name, value)
    except ValueError as error:
        raise DumpError(f"{name} is not an array: {error}") from None
    if array.dtype.name not in FLOATING:
        raise DumpError(f"{name} has dtype {array.dtype}; expected floating numbers")
    return array


def _is_matrix(value: Any) -> bool:
    """Whether nested lists are one array, rows of Python's numbers."""
    if not isinstance(value, (list, tuple)):
        return False
    while isinstance(value, (list, tuple)) and value:
        value = value[0]
    return isinstance(value, (int, float))


class Arriving:
    """Sequences that come one after the other, and are read once."""

    format = "memory, as it comes"
    count: int | None = None
    once = True
    """Sequences and blocks can be read once."""

    def __init__(self, values: Iterator[Any], name: str, kind: Kind) -> None:
        self.name = name
        self.kind: Kind = kind
        self._given = False
        # Width and dtype are known only of the first block.
        try:
            first = next(values)
        except StopIteration:
            raise DumpError(f"{name} gives no sequence") from None
        if isinstance(first, Blocks):
            blocks = iter(first.blocks)
            try:
                head = next(blocks)
            except StopIteration:
                raise DumpError(f"{name}[0] gives no block") from None
            first = Blocks(itertools.chain((head,), blocks))
        else:
            head = first
        array = rows_of(f"{name}[0]", head)
        if not array.ndim or not array.size:
            raise DumpError(f"{name}[0] has shape {array.shape}, without a logit")
        self.width: int = array.shape[-1]
        self.dtype: np.dtype[Any] = array.dtype
        self._values = itertools.chain((first,), values)

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return self.width * self.dtype.itemsize

    @property
    def block_bytes(self) -> int:
        """As of files."""
        return BLOCK_BYTES

    def details(self) -> dict[str, Any]:
        """Nothing else is known."""
        return {}

    def sequences(self) -> Iterator[Sequence]:
        """The sequences as they come, each to be read before the next is asked for."""
        if self._given:
            raise DumpError(f"{self.name} is an iterator, which has been read")
        self._given = True
        return self._sequences()

    def _sequences(self) -> Iterator[Sequence]:
        number = 0
        for value in self._values:
            name = f"{self.name}[{number}]"
            if isinstance(value, Blocks):
                pending = self._checked(value.blocks, name)

                def read(step: int, pending: Iterator[Array] = pending) -> Iterator[Array]:
                    return regrouped(pending, step)

                yield Sequence(name, None, read)
                for _ in pending:  # What was left out of this sequence is not of the next.
                    pass
                number += 1
                continue
            array = next(self._checked((value,), name, flat=False))
            for sequence in Part(name, ArrayRows(name, array)).sequences():
                yield sequence
                number += 1

    def _checked(self, blocks: Iterable[Any], name: str, *, flat: bool = True) -> Iterator[Array]:
        for block in blocks:
            array = rows_of(name, block)
            if not array.ndim or array.shape[-1] != self.width or array.dtype != self.dtype:
                raise DumpError(
                    f"{name} has shape {array.shape} and dtype {array.dtype.name}; expected rows "
                    f"of {self.width:,} {self.dtype.name}, as before"
                )
            if not flat and not array.size:
                raise DumpError(f"{name} has shape {array.shape}, without a logit")
            yield array.reshape(-1, self.width) if flat else array
