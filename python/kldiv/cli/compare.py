"""`kldiv compare`: two files of logits, block by block, to one table."""

from __future__ import annotations

import json
import math
import os
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import kldiv
from kldiv._arrays import Array
from kldiv.cli.errors import CommandError
from kldiv.cli.output import progress, show_table
from kldiv.logit_files import LogitFile, open_logits, read_labels, split_name

BLOCK_BYTES = 64 << 20  # of each file held at a time


@dataclass(frozen=True)
class FileComparison:
    """Two files compared, and how long it took."""

    reference: LogitFile
    candidate: LogitFile
    labels: Path | None
    temperature: float
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
            "temperature": self.temperature,
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
    *,
    temperature: float = 1.0,
    rows: str | None = None,
) -> FileComparison:
    """Compare two files of logits, with a progress bar.

    Raises
    ------
    CommandError, LogitFileError, OSError
        For files that do not fit together or cannot be read, and options out of range.
    """
    p_file, q_file = open_logits(reference), open_logits(candidate)
    _check_same_shape(p_file, q_file)
    *batch, classes = p_file.shape
    truth = None if labels is None else read_labels(labels, tuple(batch), classes)
    chosen = _parse_rows(rows, math.prod(batch))
    step = max(1, BLOCK_BYTES // (classes * max(p_file.dtype.itemsize, q_file.dtype.itemsize)))
    blocks = []
    with progress("comparing", len(chosen)) as advance:
        begin = time.perf_counter()
        for start in chosen[::step]:
            stop = min(start + step, chosen.stop)
            try:
                block = kldiv.compare(
                    p_file.rows(start, stop),
                    q_file.rows(start, stop),
                    None if truth is None else truth[start:stop],
                    temperature=temperature,
                )
            except ValueError as error:
                raise CommandError(str(error)) from None
            blocks.append(block)
            advance(stop - start)
        seconds = time.perf_counter() - begin
    named = None if labels is None else Path(labels)
    return FileComparison(p_file, q_file, named, temperature, chosen, blocks, seconds)


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
    lines.append(("vocabulary", f"{result.vocabulary:,}"))
    if result.temperature != 1.0:
        lines.append(("temperature", f"{result.temperature:g}"))
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
    bounds = (None if part is None else int(part) for part in parts.groups())
    chosen = range(count)[slice(*bounds)]
    if not chosen:
        raise CommandError(f"--rows {text} selects none of {count:,} rows")
    return chosen


def _stored(file: LogitFile) -> str:
    return f"{file.dtype.name} {list(file.shape)}"


def _described(file: LogitFile) -> dict[str, Any]:
    return {"file": file.name, "dtype": file.dtype.name, "shape": list(file.shape)}
