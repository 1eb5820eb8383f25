"""From dumps to the table of positions: sequences paired, blocks scored, rows collected."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

import kldiv
from kldiv._arrays import Array
from kldiv._probabilities import look_like_probabilities
from kldiv.comparison import Comparison
from kldiv.evaluation.class_rules import ClassRule, compare_shared
from kldiv.evaluation.columns import COLUMNS
from kldiv.evaluation.dumps.part import first_rows
from kldiv.evaluation.dumps.protocol import DENSE, Block, Dump, DumpError, Sequence, TopKBlock
from kldiv.evaluation.dumps.server_json import TEXT_IDS, describe

NO_TOKEN = -100
"""The label of a position whose next token is not known."""

OF_TOKENS = ("token", "nll_p", "nll_q", "nll_p_llama_cpp", "nll_q_llama_cpp")
"""Columns that are null where there is no token."""

Part = Mapping[str, Array]
"""Columns of some consecutive positions."""


@dataclass(frozen=True)
class Marks:
    """What is given for every position of all sequences, in order: labels, and a mask."""

    labels: Array | None = None
    where: Array | None = None
    floor: Array | None = None
    names: tuple[str, str, str] = ("labels", "where", "floor")
    """How messages call them."""

    def between(self, start: int, stop: int) -> Marks:
        """What is given for some of the positions, which must be there.

        Raises
        ------
        DumpError
            Where there are fewer.
        """
        parts = {}
        for field_name, name in zip(("labels", "where", "floor"), self.names, strict=True):
            if (values := getattr(self, field_name)) is not None:
                if len(values) < stop:
                    raise DumpError(_too_few(name, values))
                parts[field_name] = values[start:stop]
        return replace(self, **parts)

    def check(self, positions: int) -> None:
        """Raise `DumpError` unless each has one number for each of so many positions, of all."""
        for name, values in zip(self.names, (self.labels, self.where, self.floor), strict=True):
            if values is not None and len(values) != positions:
                raise DumpError(
                    f"{name} has {len(values):,} numbers for {positions:,} positions; "
                    "expected one for every position"
                )


@dataclass(frozen=True)
class Scoring:
    """How rows become numbers."""

    spaces: tuple[str | None, str | None] = (None, None)
    """What the numbers of reference and candidates are; None for what the dumps say."""
    temperature: float = 1.0
    class_rule: ClassRule = field(default_factory=ClassRule)
    chunks: int | None = None
    """Only so many sequences, the first ones."""


@dataclass(frozen=True)
class Scorer:
    """Scores the blocks of a pair of dumps."""

    score: Callable[[Block, Block, Array | None, Array | None], Part]
    """Of p, q, labels and the mask of some rows to what the table has of them."""
    rows: int
    """How many rows are best scored at a time."""
    classes: int | None
    """How many classes are scored, where that is known."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """What else is to be known of the numbers, for people: the heads of hidden states."""


def dense_scorer(reference: Dump, candidate: Dump, scoring: Scoring) -> Scorer:
    """Of rows of all classes: what `kldiv.compare` finds, on the classes that the rule says."""
    dumps = reference, candidate
    rule = scoring.class_rule
    widths = [rule.width(dump.name, dump.width or 0) for dump in dumps]
    classes = rule.shared((reference.name, candidate.name), (widths[0], widths[1]))
    spaces = (
        scoring.spaces[0] or (reference.kind if reference.kind in DENSE else "logits"),
        scoring.spaces[1] or (candidate.kind if candidate.kind in DENSE else "logits"),
    )
    options: dict[str, Any] = {"temperature": scoring.temperature, "ignore_index": NO_TOKEN}
    warned = set()

    def score(p: Block, q: Block, labels: Array | None, where: Array | None) -> Part:
        assert not isinstance(p, TopKBlock)
        assert not isinstance(q, TopKBlock)
        p, q = p[:, : widths[0]], q[:, : widths[1]]
        for dump, rows, space in zip(dumps, (p, q), spaces, strict=True):
            if space == "logits" and dump.name not in warned and look_like_probabilities(rows):
                warned.add(dump.name)
                warnings.warn(
                    f"{dump.name} is taken for logits, but holds numbers from 0 to 1 that sum to "
                    "1 in a row; the space (--space, space=) is probs if these are probabilities",
                    kldiv.ProbabilitiesAsLogitsWarning,
                    stacklevel=2,
                )
        with warnings.catch_warnings():
            # Said of the dumps, once.
            warnings.simplefilter("ignore", kldiv.ProbabilitiesAsLogitsWarning)
            if widths[0] == widths[1]:
                found = kldiv.compare(p, q, labels, where=where, space=spaces, **options)
                return part_of(found)
            found, lost_p, lost_q = compare_shared(
                p, q, labels, where, rule=rule.rule, spaces=spaces, **options
            )
        return part_of(found) | {"lost_p": lost_p, "lost_q": lost_q}

    bytes_held = max(dump.block_bytes for dump in dumps)
    # The logarithms of probabilities are float64.
    sizes = (
        8 if space == "probs" else dump.dtype.itemsize
        for dump, space in zip(dumps, spaces, strict=True)
    )
    rows = max(1, bytes_held // (max(widths) * max(sizes)))
    return Scorer(score, rows, classes)


def part_of(comparison: Comparison) -> dict[str, Array]:
    """The columns of a comparison."""
    names = (
        *("kl", "reverse_kl", "jensen_shannon", "total_variation", "entropy_p", "entropy_q"),
        *("top1_p", "top1_q", "confidence_p", "confidence_q", "nll_p", "nll_q"),
    )
    columns = {name: getattr(comparison, name) for name in names}
    return {name: values for name, values in columns.items() if values is not None}


@dataclass(frozen=True)
class Start:
    """What comes before some sequences of a run: how many, and how many positions they have."""

    sequences: int = 0
    positions: int = 0


@dataclass(frozen=True)
class Scored:
    """Some consecutive sequences, scored."""

    tables: list[pl.DataFrame]
    """The table of positions of each candidate, without the columns that name it."""
    sequences: int
    positions: int
    """Those that a mask leaves out among them."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C while positions are scored. `tables` has those of all candidates that had been."""

    def __init__(self, tables: list[pl.DataFrame]) -> None:
        super().__init__()
        self.tables = tables


def score_dumps(
    reference: Dump,
    candidates: list[Dump],
    scorers: list[Scorer],
    scoring: Scoring,
    marks: Marks,
    advance: Callable[[int], None] = lambda rows: None,
) -> list[pl.DataFrame]:
    """The table of positions of each candidate, without the columns that name it.

    The reference is read once, and all candidates beside it.

    Raises
    ------
    DumpError
        For dumps that do not fit together, or cannot be read to the end.
    Interrupted
        For Ctrl-C, once there is a position.
    """
    dumps = [reference, *candidates]
    together = sequences_together(dumps, scoring.chunks)
    found = score_sequences(together, dumps, scorers, marks, advance)
    if scoring.chunks is None:
        marks.check(found.positions)
    return found.tables


def score_sequences(
    together: Iterable[list[Sequence]],
    dumps: list[Dump],
    scorers: list[Scorer],
    marks: Marks,
    advance: Callable[[int], None] = lambda rows: None,
    start: Start = Start(),
) -> Scored:
    """Score sequences of all dumps, side by side; `marks` are of their positions.

    The dumps, the reference first, are named in messages. Nothing depends on where sequences are
    parted into several calls.
    """
    reference, *candidates = dumps
    rows_at_a_time = min(scorer.rows for scorer in scorers)
    tables = [_Table(start.sequences) for _ in candidates]
    done = blocks_done = count_of_sequences = 0
    try:
        for place, sequences in enumerate(together):
            labels = _labels_of(sequences, dumps, start.sequences + place)
            row = 0
            number = start.sequences + place
            for blocks in _blocks_together(sequences, dumps, number, rows_at_a_time):
                count = len(blocks[0])
                given = slice(done, done + count)
                truth = None if labels is None else labels[row : row + count]
                if marks.labels is not None:
                    truth = _given(marks.labels, given, marks.names[0], count)
                where = None
                if marks.where is not None:
                    where = _given(marks.where, given, marks.names[1], count)
                for dump, block, scorer, table in zip(
                    candidates, blocks[1:], scorers, tables, strict=True
                ):
                    try:
                        found = dict(scorer.score(blocks[0], block, truth, where))
                    except kldiv.NegativeProbabilityError as error:
                        which = (reference, dump)["pq".index(error.argument)]
                        raise DumpError(
                            f"{which.name} holds the negative probability {error.value:g} "
                            f"in row {start.positions + done + error.row[0]}"
                        ) from None
                    except (IndexError, ValueError) as error:
                        raise DumpError(f"{_place(reference, sequences[0])}: {error}") from None
                    if marks.floor is not None:
                        found["kl_floor"] = _given(marks.floor, given, marks.names[2], count)
                    table.add(place, sequences[0], row, count, truth, where, found)
                row += count
                done += count
                blocks_done += 1
                advance(count)
            count_of_sequences += 1
    except KeyboardInterrupt:
        if not blocks_done:
            raise
        raise Interrupted([table.frame(blocks_done) for table in tables]) from None
    return Scored([table.frame() for table in tables], count_of_sequences, done)


def sequences_together(dumps: list[Dump], chunks: int | None) -> Iterator[list[Sequence]]:
    """The sequences of all dumps side by side."""
    counts = {dump.count for dump in dumps if dump.count is not None}
    if len(counts) > 1:
        said = ", ".join(f"{dump.name} {dump.count}" for dump in dumps if dump.count is not None)
        raise DumpError(f"numbers of sequences differ: {said}")
    streams = itertools.zip_longest(*(dump.sequences() for dump in dumps))
    for number, found in enumerate(itertools.islice(streams, chunks)):
        for dump, sequence in zip(dumps, found, strict=True):
            if sequence is None:
                raise DumpError(f"{dump.name} ends after {number} sequences, others have more")
        sequences = _without_the_last(dumps, list(found))
        lengths = {one.positions for one in sequences if one.positions is not None}
        if len(lengths) > 1:
            said = ", ".join(f"{one.name} {one.positions}" for one in sequences)
            raise DumpError(f"numbers of positions differ in sequence {number}: {said}")
        yield sequences


def _without_the_last(dumps: list[Dump], sequences: list[Sequence]) -> list[Sequence]:
    """Servers say nothing of what follows a text: beside them rows of all classes may have that."""
    served = {
        one.positions
        for dump, one in zip(dumps, sequences, strict=True)
        if dump.kind == "top_k" and one.positions is not None
    }
    if len(served) != 1:
        return sequences
    [count] = served
    return [
        first_rows(one, count) if dump.kind != "top_k" and one.positions == count + 1 else one
        for dump, one in zip(dumps, sequences, strict=True)
    ]


def _blocks_together(
    sequences: list[Sequence], dumps: list[Dump], number: int, rows: int
) -> Iterator[list[Block]]:
    for blocks in itertools.zip_longest(*(sequence.read(rows) for sequence in sequences)):
        lengths = [0 if block is None else len(block) for block in blocks]
        if len(set(lengths)) > 1:
            names = [dump.name for dump in dumps]
            shorter, longer = names[int(np.argmin(lengths))], names[int(np.argmax(lengths))]
            raise DumpError(f"{shorter} has fewer positions in sequence {number} than {longer}")
        yield list(blocks)


def _labels_of(sequences: list[Sequence], dumps: list[Dump], number: int) -> Array | None:
    """The true tokens as the dumps have them, which must be the same text."""
    known = [
        (dump.name, sequence.labels)
        for dump, sequence in zip(dumps, sequences, strict=True)
        if sequence.labels is not None
    ]
    if not known:
        return None
    name, labels = known[0]
    for other, others in known[1:]:
        if len(others) != len(labels):
            raise DumpError(f"{name} and {other} are of different texts in sequence {number}")
        both = (labels != NO_TOKEN) & (others != NO_TOKEN)
        if (both & ((labels >= TEXT_IDS) != (others >= TEXT_IDS))).any():
            raise DumpError(
                f"of {name} and {other} one names tokens by ids and the other by their texts"
            )
        if (wrong := both & (labels != others)).any():
            row = int(wrong.argmax())
            raise DumpError(
                f"{name} and {other} are of different texts in sequence {number}: after position "
                f"{row} comes {describe(int(labels[row]))}, or {describe(int(others[row]))}"
            )
        labels = np.where(labels == NO_TOKEN, others, labels)
    return labels


def _place(dump: Dump, sequence: Sequence) -> str:
    """How messages call a sequence: with its file, if that is not in its name."""
    inside = Path(dump.name).name in sequence.name
    return sequence.name if inside else f"{dump.name}, {sequence.name}"


def _given(values: Array, part: slice, name: str, count: int) -> Array:
    """What was given for some positions, which must be there."""
    found = values[part]
    if len(found) < count:
        raise DumpError(_too_few(name, values))
    return found


def _too_few(name: str, values: Array) -> str:
    return (
        f"{name} has {len(values):,} numbers, fewer than there are positions; "
        "expected one for every position"
    )


class _Table:
    """Columns of the positions so far."""

    def __init__(self, first: int = 0) -> None:
        """`first` is the number of the first sequence."""
        self.first = first
        self.parts: list[dict[str, Array]] = []
        self.names: list[str] = []

    def add(
        self,
        number: int,
        sequence: Sequence,
        start: int,
        count: int,
        labels: Array | None,
        where: Array | None,
        found: dict[str, Array],
    ) -> None:
        if number >= len(self.names):
            # Of sequences without a row, as --rows leaves them, no name is looked up.
            self.names += [""] * (number - len(self.names)) + [sequence.name]
        found["sequence"] = np.full(count, number)
        found["position"] = sequence.first + np.arange(start, start + count)
        if labels is not None:
            found["token"] = labels
        part = {}
        for name, values in found.items():
            kept = values if where is None else values[where]
            part[name] = np.array(kept, COLUMNS[name].dtype.to_python())
        self.parts.append(part)

    def frame(self, blocks: int | None = None) -> pl.DataFrame:
        """The table, or what its first blocks make of it."""
        parts = self.parts[:blocks]
        there = {name for part in parts for name in part}
        columns = {name: np.concatenate([_column(part, name) for part in parts]) for name in there}
        frame = pl.DataFrame(
            {
                name: pl.Series(name, columns[name]).cast(COLUMNS[name].dtype)
                for name in COLUMNS
                if name in columns
            }
        )
        if "sequence" not in frame:
            return frame
        names = pl.Series("name", self.names, pl.String)
        frame.insert_column(1, names.gather(frame["sequence"]))
        numbers = (pl.col("sequence") + self.first).cast(COLUMNS["sequence"].dtype)
        frame = frame.with_columns(numbers)
        if "token" in frame:
            no_token = pl.col("token") == NO_TOKEN
            frame = frame.with_columns(
                pl.when(~no_token).then(pl.col(name)).alias(name)
                for name in OF_TOKENS
                if name in frame.columns
            )
        return frame


def _column(part: dict[str, Array], name: str) -> Array:
    """A column of some positions; of sequences without labels, beside others with, no tokens."""
    if name in part:
        return part[name]
    count = len(part["sequence"])
    return np.full(count, NO_TOKEN) if name == "token" else np.full(count, np.nan)
