"""Blocks of rows, cut and joined: rows come as they are stored, and go as they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar, cast

import numpy as np

from kldiv._arrays import Array
from kldiv.evaluation.dumps.protocol import Block, Dump, DumpError, TopKBlock

B = TypeVar("B", bound=Block)


def is_read_once(dump: Dump) -> bool:
    """Whether sequences and blocks of a dump come once, in order.

    A dump that has no attribute ``once`` does where it does not say how many sequences it has.
    """
    once: bool = getattr(dump, "once", dump.count is None)
    return once


def part(block: B, start: int, stop: int) -> B:
    """Consecutive rows of a block."""
    if isinstance(block, TopKBlock):
        return cast(B, _each(block, lambda array: array[start:stop]))
    return cast(B, block[start:stop])


def copied(block: B) -> B:
    """A block that lasts."""
    if isinstance(block, TopKBlock):
        return cast(B, _each(block, lambda array: array.copy()))
    return cast(B, block.copy())


def joined(blocks: list[B]) -> B:
    """The rows of several blocks; of top-k rows, each as wide as the widest."""
    if len(blocks) == 1:
        return blocks[0]
    several = [block for block in blocks if isinstance(block, TopKBlock)]
    if not several:
        return cast(B, np.concatenate(cast(list[Array], blocks)))
    k = max(block.ids.shape[1] for block in several)

    def wide(array: Array, missing: float) -> Array:
        missing_columns = ((0, 0), (0, k - array.shape[1]))
        return np.pad(array, missing_columns, constant_values=missing)

    bounds = [block.at_most for block in several if block.at_most is not None]
    found = TopKBlock(
        np.concatenate([wide(block.ids, -1) for block in several]),
        np.concatenate([wide(block.log_probs, -np.inf) for block in several]),
        np.concatenate([block.top1 for block in several]),
        np.concatenate(bounds) if len(bounds) == len(several) else None,
    )
    return cast(B, found)


def _each(block: TopKBlock, change: Callable[[Array], Array]) -> TopKBlock:
    arrays = (block.ids, block.log_probs, block.top1, block.at_most)
    return TopKBlock(*(None if array is None else change(array) for array in arrays))  # type: ignore[arg-type]


def regrouped(blocks: Iterator[B], step: int) -> Iterator[B]:
    """The rows of blocks of any length, `step` at a time; only the last is shorter."""
    held: list[B] = []
    count = 0
    for block in blocks:
        start = 0
        if held:
            # Of a block that lasts until the next is asked for only a copy can be kept.
            start = min(step - count, len(block))
            held.append(copied(part(block, 0, start)))
            count += start
            if count < step:
                continue
            yield joined(held)
            held, count = [], 0
        while len(block) - start >= step:
            yield part(block, start, start + step)
            start += step
        if start < len(block):
            held, count = [copied(part(block, start, len(block)))], len(block) - start
    if held:
        yield joined(held)


class Forward(Generic[B]):
    """Rows that come in order only, as those of compressed data.

    Consecutive ranges are read in one pass; any other begins anew and leaves rows out.
    """

    def __init__(self, start: Callable[[int, int], tuple[int, Iterator[B]]], what: str) -> None:
        """`start` is given a row and a number of rows.

        It gives blocks of about so many rows, of which the first begins at that row or before,
        and the row where it does.
        """
        self._start = start
        self._what = what
        self._blocks: Iterator[B] = iter(())
        self._held: B | None = None
        self._next: int | None = None
        """The row that comes next; None before the first and after an error."""

    def __reduce__(self) -> Any:
        # What has been read is of this process; in another it begins anew.
        return Forward, (self._start, self._what)

    def blocks(self, rows: range, step: int) -> Iterator[B]:
        """Rows, `step` at a time."""
        return regrouped(self._pieces(rows, step), step)

    def goes_on_after(self, row: int) -> bool:
        """Whether there are more rows, where all before `row` and no other have been read."""
        if self._next == row and self._held is None:
            self._held = next(self._blocks, None)
        return self._next == row and self._held is not None

    def _pieces(self, rows: range, step: int) -> Iterator[B]:
        wanted = rows.start
        while wanted < rows.stop:
            if self._next is None or self._next > wanted:
                self._held = None
                self._next, self._blocks = self._start(wanted, step)
            if self._held is None:
                self._held = next(self._blocks, None)
            if self._held is None:
                found, self._next = self._next, None
                raise DumpError(f"{self._what} ends after {found:,} rows")
            begin, block = self._next, self._held
            end = min(begin + len(block), rows.stop)
            self._next = end
            length = end - begin
            self._held = part(block, length, len(block)) if length < len(block) else None
            if end > wanted:
                yield part(block, wanted - begin, length)
                wanted = end
