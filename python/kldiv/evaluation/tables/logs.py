"""Printed logs of ``llama-perplexity --kl-divergence``, read back: `kldiv table *.log`."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import polars as pl

from kldiv.evaluation.dumps.protocol import DumpError


class _Line(NamedTuple):
    """A line of the table."""

    label: str
    """As llama.cpp prints it, one space for several."""
    columns: tuple[str, ...]
    """Where its number goes, and the number after ± where it has one."""
    always: bool = True
    """Whether every version prints it."""


def _with_error(label: str, column: str) -> _Line:
    return _Line(label, (column, f"{column}_error"))


def _percentiles(what: str, prefix: str, suffix: str, sometimes: frozenset[str]) -> list[_Line]:
    columns = {
        "Maximum": "max",
        "99.9%": "p99_9",
        "99.0%": "p99",
        "95.0%": "p95",
        "90.0%": "p90",
        "75.0%": "p75",
        "Median": "median",
        "25.0%": "p25",
        "10.0%": "p10",
        "5.0%": "p5",
        "1.0%": "p1",
        "0.1%": "p0_1",
        "Minimum": "min",
    }
    quartiles = {"75.0%", "25.0%"} if what == "KLD" else set()
    return [
        _Line(f"{label} {what}", (f"{prefix}_{column}{suffix}",), label not in sometimes)
        for label, column in columns.items()
        if label not in quartiles
    ]


LINES = [
    _with_error("Mean PPL(Q)", "ppl_q"),
    _with_error("Mean PPL(base)", "ppl_base"),
    _Line("Cor(ln(PPL(Q)), ln(PPL(base)))", ("ln_ppl_correlation_percent",)),
    _with_error("Mean ln(PPL(Q)/PPL(base))", "ln_ppl_ratio"),
    _with_error("Mean PPL(Q)/PPL(base)", "ppl_ratio"),
    _with_error("Mean PPL(Q)-PPL(base)", "ppl_difference"),
    _with_error("Mean KLD", "kl_mean"),
    *_percentiles("KLD", "kl", "", frozenset({"95.0%", "90.0%", "0.1%"})),
    _Line("Mean Δp", ("delta_p_mean_percent", "delta_p_mean_error_percent")),
    *_percentiles("Δp", "delta_p", "_percent", frozenset()),
    _Line("RMS Δp", ("delta_p_rms_percent", "delta_p_rms_error_percent")),
    _Line("Same top p", ("same_top_percent", "same_top_error_percent")),
]
COLUMNS = ("log", *(column for line in LINES for column in line.columns))
SUMMARY = (
    "log",
    "ppl_q",
    "ppl_ratio",
    "kl_mean",
    "kl_mean_error",
    "kl_median",
    "kl_p99",
    "kl_max",
    "delta_p_rms_percent",
    "same_top_percent",
)
"""Columns that say most, for a narrow table."""


def read_logs(paths: Iterable[Path]) -> pl.DataFrame:
    """Read the final tables of logs, one row a log.

    Before and behind a line of the table there may be anything: time stamps, colours, other
    programs' output. Numbers are as printed, those with ``%`` in percent.

    Logs until October 2025 have a line ``99.0% KLD`` twice, the same number both times, and no
    ``95.0%`` and ``0.1%``, which are null then. Where the second number is another one, it is that
    of 95 %.

    Parameters
    ----------
    paths
        The logs.

    Returns
    -------
    polars.DataFrame
        `COLUMNS`: the name of the log, and float64.

    Raises
    ------
    DumpError
        For a log without the table or with a part of it, a line without its number, and a log of
        two runs.
    OSError
        For a log that cannot be read.
    """
    rows = [{"log": str(path)} | _Table(path).read() for path in paths]
    schema = {"log": pl.String} | dict.fromkeys(COLUMNS[1:], pl.Float64)
    return pl.DataFrame(rows, schema=schema)


# What a label begins with may not be the end of a longer number or word.
_START = r"(?<![\w.%(/])"
# Δ of a log that was decoded as something else may be any few characters.
_DELTA = r"(?:Δ|[^\w\s:]{1,3}|Î\S?)p"
_NUMBER = r"[-+]?(?:nan(?:\(ind\))?|inf|\d+(?:\.\d*)?(?:e[-+]?\d+)?)"
_COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_CHUNK = re.compile(r"^\s*(\d{1,9})\s+\d+\.\d+ (?:±|\+/-)")


def _pattern(line: _Line) -> re.Pattern[str]:
    label = re.escape(line.label).replace(r"\ ", r"\s+").replace("Δp", _DELTA)
    numbers = rf"(?P<number>{_NUMBER})"
    if len(line.columns) == 2:
        numbers += rf"\s*%?\s*(?:Â?±|\+/-|[^\w\s.%-]{{1,3}})\s*(?P<error>{_NUMBER})"
    return re.compile(rf"{_START}{label}\s*:(?:\s*(?P<found>{numbers})(?![\w.]))?", re.IGNORECASE)


_PATTERNS = [(line, _pattern(line)) for line in LINES]
_LABELS = re.compile("|".join({re.escape(line.label.split()[0]) for line in LINES}), re.IGNORECASE)


@dataclass
class _Table:
    """The table of one log."""

    path: Path

    def read(self) -> dict[str, float | None]:
        """Its numbers by column."""
        numbers: dict[str, float | None] = {}
        seen: dict[str, int] = {}
        last = chunks = 0
        for at, text in self._lines():
            if chunk := _CHUNK.match(text):
                chunks, last = int(chunk[1]), at if not seen else last
                continue
            for line, values in self._found(at, text):
                last = at
                label = line.label
                if label == "99.0% KLD" and label in seen and "95.0% KLD" not in seen:
                    # The line that was meant to be of 95 %: a copy says nothing of it.
                    if values != [numbers["kl_p99"]]:
                        numbers["kl_p95"] = values[0]
                    seen["95.0% KLD"] = at
                    continue
                known = [numbers.get(column) for column in line.columns]
                if label in seen and not all(map(_same, known, values)):
                    raise DumpError(
                        f"{self.path}:{at}: a second {label!r}, after that of line {seen[label]}; "
                        "a log is to be of one run"
                    )
                numbers.update(zip(line.columns, values, strict=True))
                seen.setdefault(label, at)
        missing = [line.label for line in LINES if line.always and line.label not in seen]
        if missing:
            raise DumpError(self._what_is_missing(missing, bool(seen), last, chunks))
        return {column: numbers.get(column) for column in COLUMNS[1:]}

    def _found(self, at: int, text: str) -> Iterator[tuple[_Line, list[float]]]:
        """The lines of the table in a line of the log."""
        if not _LABELS.search(text):
            return
        for line, pattern in _PATTERNS:
            if not (match := pattern.search(text)):
                continue
            if match["found"] is None:
                raise DumpError(f"{self.path}:{at}: {line.label!r} has no number it should have")
            yield (
                line,
                [_as_float(match[name]) for name in ("number", "error")[: len(line.columns)]],
            )

    def _what_is_missing(self, missing: list[str], begun: bool, last: int, chunks: int) -> str:
        if begun:
            more = f" and {len(missing) - 1} more lines" if len(missing) > 1 else ""
            return f"{self.path}:{last}: the table is not whole: no {missing[0]!r}{more}"
        if chunks:
            return (
                f"{self.path}:{last}: the log ends after chunk {chunks}, without the table (which "
                "llama.cpp does not print for fewer than 100 positions)"
            )
        return f"{self.path}: no table of llama-perplexity --kl-divergence"

    def _lines(self) -> Iterator[tuple[int, str]]:
        data = self.path.read_bytes()
        # PowerShell redirects to UTF-16.
        utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = data.decode("utf-16" if utf16 else "utf-8", errors="replace")
        for at, line in enumerate(re.split(r"\r\n|\n|\r", text), 1):
            yield at, _COLOURS.sub("", line)


def _same(a: float | None, b: float) -> bool:
    return a == b or (a != a and b != b)


def _as_float(text: str) -> float:
    return float("nan") if "nan" in text.lower() else float(text)
