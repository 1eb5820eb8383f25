"""`kldiv compare`: two files of logits, block by block, to one table."""

from __future__ import annotations

import json
import math
import os
import re
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import kldiv
from kldiv._arrays import Array
from kldiv._probabilities import look_like_probabilities
from kldiv.cli.errors import CommandError, warn
from kldiv.cli.output import progress, show_table
from kldiv.evaluation.dumps.logit_files import (
    LogitFile,
    open_logits,
    read_labels,
    read_mask,
    split_name,
)


@dataclass(frozen=True)
class Options:
    """What `kldiv.compare` is told, and which rows it gets."""

    ignore_index: int = -100
    space: str = "logits"
    """One of the spaces, or one for each file with a comma between them."""
    temperature: float = 1.0
    rows: str | None = None
    """As in a Python slice, ``A:B``."""

    @property
    def spaces(self) -> tuple[str, str]:
        """The space of either file."""
        first, _, second = self.space.partition(",")
        return first.strip(), (second or first).strip()


@dataclass(frozen=True)
class FileComparison:
    """Two files compared, and how long it took."""

    reference: LogitFile
    candidate: LogitFile
    labels: Path | None
    where: Path | None
    options: Options
    rows: range
    blocks: list[kldiv.Comparison]
    seconds: float

    @property
    def vocabulary(self) -> int:
        """The number of classes."""
        return self.reference.shape[-1]

    @property
    def summary(self) -> kldiv.Summary:
        """The statistics over all blocks."""
        return kldiv.Summary.of(self.blocks)

    @property
    def rows_per_second(self) -> float:
        """Rows of the pair of files compared per second."""
        return len(self.rows) / self.seconds

    @property
    def gigabytes_per_second(self) -> float:
        """10⁹ bytes of both files read per second."""
        row = self.vocabulary * (self.reference.dtype.itemsize + self.candidate.dtype.itemsize)
        return self.rows_per_second * row / 1e9

    def column(self, name: str) -> Array:
        """One field of all blocks."""
        return np.concatenate([getattr(block, name) for block in self.blocks])

    def as_dict(self) -> dict[str, Any]:
        """Everything but the rows, for JSON."""
        return {
            "kldiv": kldiv.__version__,
            "reference": _described(self.reference),
            "candidate": _described(self.candidate),
            "labels": None if self.labels is None else str(self.labels),
            "where": None if self.where is None else str(self.where),
            "ignore_index": self.options.ignore_index,
            "space": list(self.options.spaces),
            "temperature": self.options.temperature,
            "rows": [self.rows.start, self.rows.stop],
            "vocabulary": self.vocabulary,
            "summary": self.summary.as_dict(),
            "throughput": {
                "seconds": self.seconds,
                "rows_per_second": self.rows_per_second,
                "gigabytes_per_second": self.gigabytes_per_second,
                "threads": kldiv.get_num_threads(),
                "isa": kldiv.isa(),
            },
        }


def compare_files(
    reference: str,
    candidate: str,
    labels: str | None = None,
    where: str | None = None,
    options: Options | None = None,
) -> FileComparison:
    """Compare two files of logits, with a progress bar.

    Raises
    ------
    CommandError, DumpError, OSError
        For files that do not fit together or cannot be read, and options out of range.
    """
    options = options or Options()
    files = open_logits(reference), open_logits(candidate)
    _check_same_shape(*files)
    *batch, classes = files[0].shape
    chosen = _parse_rows(options.rows, math.prod(batch))
    keep = None if where is None else _read_mask(where, tuple(batch), chosen)
    truth = None
    if labels is not None:
        truth = _read_labels(labels, tuple(batch), chosen, keep, classes, options.ignore_index)
    step = _rows_at_a_time(files, options.spaces)
    blocks = []
    with progress("comparing", len(chosen)) as advance:
        begin = time.perf_counter()
        pairs = zip(files[0].blocks(chosen, step), files[1].blocks(chosen, step), strict=True)
        for first, pair in zip(range(0, len(chosen), step), pairs, strict=True):
            if first == 0:
                _check_spaces(files, pair, options.spaces)
            part = slice(first, first + step)
            try:
                block = _compare(pair, truth, keep, part, options)
            except kldiv.NegativeProbabilityError as error:
                file = files["pq".index(error.argument)]
                row = chosen.start + first + error.row[0]
                raise CommandError(
                    f"{file.name} holds the negative probability {error.value:g} in row {row}"
                ) from None
            except ValueError as error:
                raise CommandError(str(error)) from None
            blocks.append(block)
            advance(len(pair[0]))
        seconds = time.perf_counter() - begin
    labels_path, where_path = (None if name is None else Path(name) for name in (labels, where))
    return FileComparison(*files, labels_path, where_path, options, chosen, blocks, seconds)


def _compare(
    pair: tuple[Array, Array],
    truth: Array | None,
    keep: Array | None,
    part: slice,
    options: Options,
) -> kldiv.Comparison:
    with warnings.catch_warnings():
        # Said of the files, once.
        warnings.simplefilter("ignore", kldiv.ProbabilitiesAsLogitsWarning)
        return kldiv.compare(
            *pair,
            None if truth is None else truth[part],
            ignore_index=options.ignore_index,
            space=options.spaces,
            temperature=options.temperature,
            where=None if keep is None else keep[part],
        )


def _rows_at_a_time(files: tuple[LogitFile, ...], spaces: tuple[str, str]) -> int:
    bytes_held = max(file.block_bytes for file in files)
    # The logarithms of probabilities are float64.
    sizes = (
        8 if space == "probs" else file.dtype.itemsize
        for file, space in zip(files, spaces, strict=True)
    )
    return max(1, bytes_held // (files[0].shape[-1] * max(sizes)))


def _read_mask(name: str, batch_shape: tuple[int, ...], chosen: range) -> Array:
    """Which of the chosen rows to compare."""
    given = read_mask(name, batch_shape)[chosen.start : chosen.stop]
    keep: Array = given != 0
    other = keep & (given != 1)
    if given.dtype.kind != "b" and other.any():
        row = int(other.argmax())
        raise CommandError(
            f"{name} holds {given[row]} in row {chosen.start + row}; "
            "a mask holds booleans, or integers 0 and 1"
        )
    return keep


def _read_labels(
    name: str,
    batch_shape: tuple[int, ...],
    chosen: range,
    keep: Array | None,
    classes: int,
    ignore_index: int,
) -> Array:
    """The labels of the chosen rows; those of rows compared are classes, or the one to ignore."""
    labels = read_labels(name, batch_shape)[chosen.start : chosen.stop]
    outside = (labels < 0) | (labels >= classes)
    outside &= labels != ignore_index
    if keep is not None:
        outside &= keep
    if outside.any():
        row = int(outside.argmax())
        raise CommandError(
            f"{name} has label {labels[row]} in row {chosen.start + row}, out of range for "
            f"{classes:,} classes; rows without a label have {ignore_index} (--ignore-index), "
            "or are left out by --where"
        )
    return labels


def _check_spaces(
    files: tuple[LogitFile, LogitFile], pair: tuple[Array, Array], spaces: tuple[str, str]
) -> None:
    """Warn of files that are taken for logits and look like probabilities."""
    for file, block, space in zip(files, pair, spaces, strict=True):
        if space == "logits" and look_like_probabilities(block):
            warn(
                f"{file.name} is taken for logits, but holds numbers from 0 to 1 that sum to 1 in "
                "a row; give --space probs if these are probabilities"
            )


def check_json(name: str, inputs: list[str]) -> None:
    """Raise `CommandError` unless the file `name` can be written without harm to `inputs`."""
    path = Path(name)
    if not path.parent.is_dir():
        raise CommandError(f"no such directory: {path.parent}")
    if path.is_dir():
        raise CommandError(f"{path} is a directory; expected a file for JSON")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise CommandError(f"{path} cannot be written: permission denied")
    for other, _ in map(split_name, inputs):
        if path.exists() and other.exists() and path.samefile(other):
            raise CommandError(f"{path} is an input; JSON would overwrite it")


def write_json(name: str, result: FileComparison) -> None:
    """Write the numbers to the file `name`, or to stdout for ``-``."""
    text = json.dumps(result.as_dict(), indent=2, allow_nan=False) + "\n"
    if name == "-":
        sys.stdout.write(text)
    else:
        Path(name).write_text(text, encoding="utf-8")


def show(result: FileComparison) -> None:
    """Print the table."""
    files = [("p", result.reference), ("q", result.candidate)]
    lines = [(letter, f"{file.name}  {_stored(file)}") for letter, file in files]
    if result.labels is not None:
        lines.append(("labels", str(result.labels)))
    if result.where is not None:
        lines.append(("where", str(result.where)))
    lines.append(("vocabulary", f"{result.vocabulary:,}"))
    if result.options.spaces != ("logits", "logits"):
        lines.append(("space", ", ".join(dict.fromkeys(result.options.spaces))))
    if result.options.temperature != 1.0:
        lines.append(("temperature", f"{result.options.temperature:g}"))
    lines += result.summary.lines()
    lines.append(("time", f"{result.seconds:.3g} s"))
    rates = f"{result.rows_per_second:,.0f} rows/s, {result.gigabytes_per_second:.3g} GB/s"
    lines.append(("throughput", rates))
    show_table(lines, ("divergences in nats", "± standard error"))


def _check_same_shape(p_file: LogitFile, q_file: LogitFile) -> None:
    if p_file.shape == q_file.shape:
        return
    shapes = f"{p_file.name} has shape {p_file.shape} but {q_file.name} has shape {q_file.shape}"
    if p_file.shape[-1] != q_file.shape[-1]:
        shapes += f": vocabularies of {p_file.shape[-1]:,} and {q_file.shape[-1]:,} classes"
    raise CommandError(shapes)


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


def _stored(file: LogitFile) -> str:
    return f"{file.dtype.name} {list(file.shape)}"


def _described(file: LogitFile) -> dict[str, Any]:
    return {"file": file.name, "dtype": file.dtype.name, "shape": list(file.shape)}
