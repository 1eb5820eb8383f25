"""The sequences of two dumps side by side, one of them at least of top-k rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np

from kldiv._arrays import Array
from kldiv.evaluation.dumps.protocol import Block, Dump, DumpError, Sequence
from kldiv.evaluation.dumps.server_json.texts import describe


@dataclass(frozen=True)
class Pair:
    """One text, scored by both."""

    p: Sequence
    q: Sequence
    positions: int
    labels: Array | None
    """The true next tokens, −100 where neither dump says them; None where there is none at all."""

    def blocks(self, step: int) -> Iterator[tuple[Block, Block, Array | None]]:
        """Rows of both with their labels, `step` at a time.

        Raises
        ------
        DumpError
            Where a dump has fewer rows than it said.
        """
        p, q = self.p.read(step), self.q.read(step)
        for start in range(0, self.positions, step):
            stop = min(start + step, self.positions)
            first, second = next(p, None), next(q, None)
            for sequence, block in ((self.p, first), (self.q, second)):
                if block is None or len(block) < stop - start:
                    raise DumpError(f"{sequence.name} ends before position {stop}")
            assert first is not None
            assert second is not None
            yield (
                _first_rows(first, stop - start),
                _first_rows(second, stop - start),
                None if self.labels is None else self.labels[start:stop],
            )


def _first_rows(block: Block, rows: int) -> Block:
    return block if len(block) == rows else block[:rows]


def pairs(reference: Dump, candidate: Dump) -> Iterator[Pair]:
    """Every sequence of the reference with that of the candidate.

    Logits of a prompt have a row more than servers' log-probabilities of it: after the last token
    there is none to be predicted. That row is not scored.

    Raises
    ------
    DumpError
        For unequal numbers of sequences or of positions, positions that begin elsewhere in the
        text, and texts that differ.
    """
    first, second = reference.sequences(), candidate.sequences()
    for number, (p, q) in enumerate(zip_longest(first, second), 1):
        if p is None or q is None:
            more = number + sum(1 for _ in (second if p is None else first))
            counts = (number - 1, more) if p is None else (more, number - 1)
            raise DumpError(
                f"{reference.name} has {counts[0]} sequences and {candidate.name} {counts[1]}: "
                f"{(p or q).name} has none beside it"
            )
        yield _pair(p, q, reference.kind != "top_k", candidate.kind != "top_k")


def _pair(p: Sequence, q: Sequence, dense_p: bool, dense_q: bool) -> Pair:
    if p.positions is None or q.positions is None:
        raise DumpError(
            f"{p.name} and {q.name} cannot be compared: a stream that does not say its positions"
        )
    positions = min(p.positions, q.positions)
    last = (dense_p and p.positions == q.positions + 1 and _no_label(p)) or (
        dense_q and q.positions == p.positions + 1 and _no_label(q)
    )
    if p.positions != q.positions and not last:
        raise DumpError(f"{p.name} has {p.positions} positions and {q.name} {q.positions}")
    labels = [x.labels[:positions] for x in (p, q) if x.labels is not None]
    # Where the tokens of both are known, they say whether the rows belong together.
    if p.first != q.first and (len(labels) < 2 or (labels[0] < 0).any() or (labels[1] < 0).any()):
        raise DumpError(
            f"{p.name} begins after {p.first} tokens of its context and {q.name} after {q.first}"
        )
    if len(labels) == 2:
        differ = (labels[0] >= 0) & (labels[1] >= 0) & (labels[0] != labels[1])
        if differ.any():
            row = int(np.flatnonzero(differ)[0])
            tokens = (describe(int(x[row])) for x in labels)
            raise DumpError(
                f"{p.name} and {q.name} are of different texts: at position {row} the token is "
                "{} and {}".format(*tokens)
            )
        return Pair(p, q, positions, np.where(labels[0] >= 0, labels[0], labels[1]))
    return Pair(p, q, positions, labels[0] if labels else None)


def _no_label(sequence: Sequence) -> bool:
    """Whether nothing is known to follow the last row."""
    return sequence.labels is None or bool(sequence.labels[-1] < 0)
