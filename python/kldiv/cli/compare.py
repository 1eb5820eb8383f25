"""`kldiv compare`: dumps, or a table of positions, to statistics."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import kldiv
from kldiv._arrays import Array
from kldiv.cli.errors import CommandError, warn
from kldiv.cli.output import progress
from kldiv.evaluation.arguments import not_a_mask
from kldiv.evaluation.assumed_kinds import with_kinds
from kldiv.evaluation.class_rules import RULES
from kldiv.evaluation.dumps.dense import DenseDump
from kldiv.evaluation.dumps.formats import open_dump
from kldiv.evaluation.dumps.names import check_exists
from kldiv.evaluation.dumps.part import SomeRows, total_rows
from kldiv.evaluation.dumps.protocol import Dump
from kldiv.evaluation.dumps.row_files import read_labels, read_mask
from kldiv.evaluation.dumps.sequences import cut, read_lengths
from kldiv.evaluation.evaluate_dumps import (
    EvaluationInterrupted,
    ImprobableTextWarning,
    evaluate,
)
from kldiv.evaluation.evaluation import Evaluation, read_positions
from kldiv.evaluation.positions import NO_TOKEN
from kldiv.evaluation.side_files import read_floor, read_sequence_labels
from kldiv.evaluation.statistics.counts import nan_and_infinite
from kldiv.evaluation.wording import counted


@dataclass(frozen=True)
class Inputs:
    """What is compared, and what is given beside it, as typed."""

    reference: str
    candidates: tuple[str, ...]
    labels: str | None = None
    where: str | None = None
    sequences: str | None = None
    head: str | None = None
    candidate_heads: tuple[str, ...] = ()
    clusters: str | None = None
    strata: str | None = None
    floor: str | None = None

    def names(self) -> list[str]:
        """Every file among them."""
        beside = (self.labels, self.where, self.sequences, self.head)
        others = (self.clusters, self.strata, self.floor)
        given = (self.reference, *self.candidates, *beside, *self.candidate_heads, *others)
        return [name for name in given if name is not None]


@dataclass(frozen=True)
class Options:
    """How it is compared."""

    rows: str | None = None
    """As in a Python slice, ``A:B``."""
    chunks: int | None = None
    ignore_index: int | None = None
    space: str | None = None
    """One of the spaces, or one for each side with a comma between them."""
    temperature: float = 1.0
    classes: int | None = None
    vocab: str = "error"
    work: str | None = None
    dask: str | None = None
    block_positions: int | None = None

    @property
    def no_label(self) -> int:
        """The label of rows that have none."""
        return NO_TOKEN if self.ignore_index is None else self.ignore_index

    @property
    def spaces(self) -> tuple[str, str] | None:
        """The space of either side."""
        if self.space is None:
            return None
        first, _, second = self.space.partition(",")
        return first.strip(), (second or first).strip()


def compare(inputs: Inputs, options: Options) -> Evaluation:
    """Compare dumps, with a progress bar; or read what was kept of that.

    Raises
    ------
    CommandError, DumpError, OSError
        For dumps that do not fit together or cannot be read, and options out of range.
    """
    if not inputs.candidates:
        if Path(inputs.reference).suffix != ".parquet":
            raise CommandError("missing argument CANDIDATE")
        return _kept(inputs, options)
    if options.vocab not in RULES:
        raise CommandError(f"--vocab is {options.vocab!r}; expected one of {', '.join(RULES)}")
    opened = [open_dump(name) for name in (inputs.reference, *inputs.candidates)]
    dumps = with_kinds(opened, [inputs.head, *inputs.candidate_heads])
    if inputs.sequences is not None:
        lengths = read_lengths(Path(inputs.sequences))
        dumps = [cut(dump, lengths) for dump in dumps]
    if options.ignore_index is not None and inputs.labels is None:
        raise CommandError("--ignore-index is about labels; give them by --labels")
    total = total_rows(dumps[0])
    chosen = None if total is None else _parse_rows(options.rows, total)
    if options.rows is not None:
        if chosen is None:
            raise CommandError(f"--rows: {dumps[0].name} is a stream; expected files")
        dumps = [SomeRows(dump, chosen) for dump in dumps]
    where = None if inputs.where is None else _read_mask(inputs.where, dumps[0], total, chosen)
    labels = None
    if inputs.labels is not None:
        labels = _read_labels(inputs.labels, dumps[0], total, chosen, where, options)
    part = slice(None) if chosen is None else slice(chosen.start, chosen.stop)
    if options.rows is not None and inputs.floor is not None:
        raise CommandError("--floor is of all positions, and --rows leaves some out")
    if options.block_positions is not None and options.work is None and options.dask is None:
        raise CommandError("--block-positions is about --work and --dask")
    total = total_rows(dumps[0], options.chunks)
    long = options.work is not None or options.dask is not None
    with warnings_in_a_line(), progress("comparing", total, long=long) as advance:
        try:
            found = evaluate(
                *dumps,
                head=inputs.head,
                candidate_heads=list(inputs.candidate_heads) or None,
                labels=None if labels is None else labels[part],
                where=None if where is None else where[part],
                ignore_index=options.no_label,
                space=options.spaces,
                temperature=options.temperature,
                classes=options.classes,
                vocab=options.vocab,
                chunks=options.chunks,
                clusters=inputs.clusters and read_sequence_labels(inputs.clusters),
                strata=inputs.strata and read_sequence_labels(inputs.strata),
                floor=inputs.floor and read_floor(inputs.floor),
                work=options.work,
                client=options.dask,
                block_positions=options.block_positions,
                progress=advance,
            )
        except EvaluationInterrupted as error:
            found = error.result
            warn(how_far(found))
        except ValueError as error:
            raise CommandError(str(error)) from None
    check_nan(found)
    return replace(
        found,
        about=found.about
        | {
            "labels": inputs.labels,
            "where": inputs.where,
            "ignore_index": options.no_label,
            "rows": None if chosen is None else [chosen.start, chosen.stop],
        },
    )


def how_far(found: Evaluation) -> str:
    """What was done before Ctrl-C."""
    done, of = found.about["interrupted"]["positions"], found.about["interrupted"]["of"]
    share = f"{done:,}" if of is None else f"{done:,} of {of:,}"
    return f"interrupted: what follows is of the {share} positions that were scored"


def _kept(inputs: Inputs, options: Options) -> Evaluation:
    """The table of positions of a file; clusters, strata and a floor can be given anew."""
    plain = Inputs(
        inputs.reference,
        (),
        clusters=inputs.clusters,
        strata=inputs.strata,
        floor=inputs.floor,
    )
    check_exists(Path(inputs.reference), (".parquet",))
    if inputs != plain or options != Options():
        raise CommandError(
            f"{inputs.reference} is a table of positions, which takes --clusters, --strata and "
            "--floor; the other options are for dumps"
        )
    try:
        return read_positions(inputs.reference).including(
            clusters=inputs.clusters and read_sequence_labels(inputs.clusters),
            strata=inputs.strata and read_sequence_labels(inputs.strata),
            floor=inputs.floor and read_floor(inputs.floor),
        )
    except ValueError as error:
        raise CommandError(str(error)) from None


def check_nan(found: Evaluation) -> None:
    """Warn of rows that are left out; without any row left there is nothing to say of a dump."""
    reference = found.about["reference"]["file"]
    for name in found.candidates:
        positions = found[name].positions
        nan, _ = nan_and_infinite(positions)
        if not nan.any():
            continue
        pair = f"{reference} against {name}"
        first = positions.row(int(nan.argmax()), named=True)
        where = f"position {first['position']} of sequence {first['sequence']} ({first['name']})"
        if nan.all():
            raise CommandError(f"{pair}: every position holds NaN or +inf, from {where} on")
        warn(
            f"{pair}: {nan.sum():,} of {counted(len(nan), 'position')} with NaN or +inf left out, "
            f"the first is {where}"
        )


@contextmanager
def warnings_in_a_line() -> Iterator[None]:
    """Each in one line."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", kldiv.ProbabilitiesAsLogitsWarning)
        warnings.simplefilter("always", ImprobableTextWarning)
        warnings.showwarning = lambda message, *_, **__: warn(str(message))
        yield


def _batch_shape(dump: Dump, total: int) -> tuple[int, ...]:
    """The shape of one number for every row of a dump."""
    if isinstance(dump, SomeRows):
        dump = dump.dump
    if isinstance(dump, DenseDump) and len(dump.parts) == 1:
        return tuple(dump.parts[0].array.shape[:-1])
    lengths = {sequence.positions for sequence in dump.sequences()}
    if dump.count and lengths == {total // dump.count}:
        return dump.count, total // dump.count
    return (total,)


def _read_mask(name: str, dump: Dump, total: int | None, chosen: range | None) -> Array:
    """Which rows to compare; of those chosen it must say so."""
    given = read_mask(name, None if total is None else _batch_shape(dump, total))
    keep: Array = given != 0
    of = np.ones(len(given), np.bool_)
    if chosen is not None:
        of[: chosen.start] = of[chosen.stop :] = False
    if (said := not_a_mask(name, given, of)) is not None:
        raise CommandError(said)
    return keep


def _read_labels(
    name: str,
    dump: Dump,
    total: int | None,
    chosen: range | None,
    keep: Array | None,
    options: Options,
) -> Array:
    """The labels; those of rows compared are classes, or the one to ignore."""
    labels = read_labels(name, None if total is None else _batch_shape(dump, total))
    outside = (labels < 0) | (labels >= (options.classes or dump.width or math.inf))
    outside &= labels != options.no_label
    if keep is not None:
        outside &= keep[: len(labels)]
    if chosen is not None:
        outside[: chosen.start] = outside[chosen.stop :] = False
    if dump.kind != "hidden_states" and outside.any():
        row = int(outside.argmax())
        raise CommandError(
            f"{name} has label {labels[row]} in row {row}, out of range for "
            f"{options.classes or dump.width:,} classes; rows without a label have "
            f"{options.no_label} (--ignore-index), or are left out by --where"
        )
    return labels


def _parse_rows(text: str | None, count: int) -> range:
    if text is None:
        return range(count)
    parts = re.fullmatch(r"\s*(-?\d+)?\s*:\s*(-?\d+)?\s*", text, re.ASCII)
    if parts is None:
        raise CommandError(f"--rows is {text!r}; expected A:B, A: or :B, as in a Python slice")
    # Python does not read numbers of thousands of digits; no file has a row of such a number.
    bounds = (None if part is None else int(part[:30]) for part in parts.groups())
    chosen = range(count)[slice(*bounds)]
    if not chosen:
        raise CommandError(f"--rows {text} selects none of {count:,} rows")
    return chosen
