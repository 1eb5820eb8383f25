"""What a server answered for one text: the most probable tokens of every position, as arrays."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kldiv._arrays import Array
from kldiv.evaluation.dumps.protocol import DumpError, TopKBlock
from kldiv.evaluation.dumps.server_json.texts import AMBIGUOUS, TEXT_IDS, describe
from kldiv.evaluation.top_k import fault

NO_LABEL = -100
UNKNOWN = -9999.0
"""Servers write this or less for "very unlikely" and for places without a token."""
SAME = 1e-3
"""Nats by which log-probabilities of one token may differ that a server states twice."""


@dataclass
class Answer:
    """Positions of one text, in Python's lists, as a reader finds them."""

    scored: str
    """``"prompt"``, or ``"completion"``."""
    part: str = ""
    """Which of several in a response, as "choice 1"."""
    first: int = 0
    """How many tokens of the context come before the first position's own."""
    ids: list[list[int]] = field(default_factory=list)
    log_probs: list[list[float]] = field(default_factory=list)
    own: list[int] = field(default_factory=list)
    """The token of the text itself, `NO_LABEL` where the response does not say."""
    own_log_prob: list[float] = field(default_factory=list)
    """Its log-probability, NaN where it is not said apart from the others."""
    has_top: list[bool] = field(default_factory=list)
    """Whether the most probable token is certain to be among `ids`."""

    def add(
        self,
        ids: list[int],
        log_probs: list[float],
        own: int = NO_LABEL,
        own_log_prob: float | None = None,
        *,
        has_top: bool,
    ) -> None:
        """Append a position; one without a token is a position of which nothing is known."""
        self.ids.append(ids)
        self.log_probs.append(log_probs)
        self.own.append(own if own >= 0 else NO_LABEL)
        self.own_log_prob.append(math.nan if own_log_prob is None else own_log_prob)
        self.has_top.append(has_top)


@dataclass(frozen=True)
class Rows:
    """The same as arrays, checked."""

    block: TopKBlock
    labels: Array

    def __len__(self) -> int:
        return len(self.block)


def rows_of(answer: Answer, name: str) -> Rows:
    """The arrays of an answer, every token once, that of the text itself among them.

    A text that stands for several tokens of a row, and what a server writes for "very unlikely",
    is left out: bounds hold all the same, as its mass is among what is not known.

    No token that is not listed is more probable than the least probable one that is, the text's own
    left aside, which servers add to the list; where it is not known which that is, the second
    least.

    Raises
    ------
    DumpError
        For numbers that are no log-probabilities of different tokens.
    """
    n, width = len(answer.ids), max(map(len, answer.ids), default=0)
    own = _ids([[x] for x in answer.own], 1, name).reshape(n)
    own_log_probs = _numbers([[x] for x in answer.own_log_prob], 1, name)
    listed = _numbers(answer.log_probs, width, name)
    ids = _ids(answer.ids, width, name)
    gone = np.isnan(own_log_probs) | (own_log_probs <= UNKNOWN) & np.isfinite(own_log_probs)
    apart = np.where(gone | (own[:, None] < 0), -1, own[:, None])
    ids = np.concatenate([ids, apart], axis=1)
    log_probs = np.concatenate([listed, np.where(apart < 0, -np.inf, own_log_probs)], axis=1)

    present = np.concatenate([_present(answer.ids, width), apart >= 0], axis=1)
    placeholder = present & np.isfinite(log_probs) & (log_probs <= UNKNOWN)
    present &= ~placeholder
    if found := fault(
        np.where(present, np.where(ids == AMBIGUOUS, 0, ids), -1), log_probs, present
    ):
        row, reason = found
        raise DumpError(f"{name}, position {row}: {reason}")

    unclear = present & (ids == AMBIGUOUS)
    repeated = _repeated(ids, log_probs, present & ~unclear, unclear, name)
    kept = present & ~unclear & ~repeated
    ids, log_probs_kept = np.where(kept, ids, -1), np.where(kept, log_probs, -np.inf)
    if found := fault(ids, log_probs_kept, kept, sums=True):
        row, reason = found
        raise DumpError(f"{name}, position {row}: {reason}")

    bound = at_most(ids, log_probs_kept, kept, own)
    hidden = np.where(unclear, log_probs, -np.inf).max(axis=1, initial=-np.inf)
    bound = np.where(unclear.any(axis=1), np.maximum(bound, hidden), bound)
    block = TopKBlock(ids, log_probs_kept, _top1(ids, log_probs_kept, hidden, answer), bound)
    return Rows(block, own)


def _numbers(lists: list[list[float]], width: int, name: str) -> Array:
    """Log-probabilities as rows, −∞ where they are fewer."""
    return _rows(lists, width, -math.inf, np.float64, {int, float}, "a log-probability", name)


def _ids(lists: list[list[int]], width: int, name: str) -> Array:
    """Ids as rows, −1 where they are fewer."""
    return _rows(lists, width, -1, np.int64, {int}, "a token id", name)


def _rows(
    lists: list[list[Any]],
    width: int,
    padding: float,
    dtype: type[np.generic],
    types: set[type],
    what: str,
    name: str,
) -> Array:
    for row, numbers in enumerate(lists):
        if not types.issuperset(map(type, numbers)):
            wrong = next(x for x in numbers if type(x) not in types)
            raise DumpError(f"{name}, position {row}: {what} is {wrong!r}; expected a number")
    padded = (x + [padding] * (width - len(x)) for x in lists)
    try:
        flat = np.fromiter(itertools.chain.from_iterable(padded), dtype, len(lists) * width)
    except OverflowError:
        raise DumpError(f"{name}: {what} is an integer of more than 64 bits") from None
    return flat.reshape(len(lists), width)


def _present(lists: list[list[int]], width: int) -> Array:
    lengths = np.array([len(x) for x in lists], np.int64)
    return np.arange(width) < lengths[:, None]


def _repeated(ids: Array, log_probs: Array, present: Array, unclear: Array, name: str) -> Array:
    """Which entries are of a token that the row has before; marks what is unclear as such.

    Two tokens of one text have different log-probabilities, which says so. Of one id they may not
    differ.
    """
    order = np.argsort(np.where(present, ids, -1), axis=1, kind="stable")
    sorted_ids = np.take_along_axis(np.where(present, ids, -1), order, axis=1)
    sorted_values = np.take_along_axis(log_probs, order, axis=1)
    again = np.zeros(ids.shape, bool)
    again[:, 1:] = (sorted_ids[:, 1:] == sorted_ids[:, :-1]) & (sorted_ids[:, 1:] >= 0)
    with np.errstate(invalid="ignore"):
        step = np.abs(sorted_values[:, 1:] - sorted_values[:, :-1])
    differ = np.zeros(ids.shape, bool)
    differ[:, 1:] = again[:, 1:] & (step > SAME)
    if (wrong := differ & (sorted_ids < TEXT_IDS)).any():
        row, column = np.argwhere(wrong)[0]
        first, second = sorted_values[row, column - 1 : column + 1]
        raise DumpError(
            f"{name}, position {row}: token {describe(int(sorted_ids[row, column]))} has two "
            f"log-probabilities, {first:.9g} and {second:.9g}"
        )
    for row in np.flatnonzero(differ.any(axis=1)):
        for token in np.unique(sorted_ids[row][differ[row]]):
            unclear[row] |= present[row] & (ids[row] == token)
    repeated = np.zeros(ids.shape, bool)
    np.put_along_axis(repeated, order, again, axis=1)
    return repeated | unclear


def at_most(ids: Array, log_probs: Array, kept: Array, own: Array) -> Array:
    """Of each row the log-probability that no class has more of which is not listed.

    It is the least that is listed, that of the text's own token `own` aside, which need not be
    among the most probable; where it is not known which that is, the second least.
    """
    others = kept & (ids != own[:, None])
    least = np.where(others, log_probs, np.inf)
    if least.shape[1] < 2:
        return np.zeros(len(ids))
    two = np.partition(least, 1, axis=1)[:, :2]
    found = np.where(own >= 0, two[:, 0], two[:, 1])
    return np.where(found == np.inf, 0.0, np.minimum(found, 0.0))


def _top1(ids: Array, log_probs: Array, hidden: Array, answer: Answer) -> Array:
    best = log_probs.argmax(axis=1)
    rows = np.arange(len(ids))
    value = log_probs[rows, best]
    # More than half of the mass is the largest part of it, in any company.
    certain = np.array(answer.has_top, bool).reshape(len(ids)) | (value > math.log(0.5))
    certain &= (value > hidden) & (value > -np.inf)
    return np.where(certain, ids[rows, best], -1)
