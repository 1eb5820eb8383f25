"""Tables and progress: for people on a terminal, plain text for a pipe or a file."""

from __future__ import annotations

import math
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

Lines = Sequence[tuple[str, ...]]


def show_table(lines: Lines, header: tuple[str, ...] | None = None) -> None:
    """Print lines of equally many cells, the columns aligned."""
    if not sys.stdout.isatty():
        print("\n".join(_aligned([*([header] if header else []), *lines])))
        return
    sys.stdout.flush()
    table = Table(box=SIMPLE_HEAD, show_header=header is not None, pad_edge=False, show_edge=False)
    table.collapse_padding = True
    for title in header or [""] * len(lines[0]):
        table.add_column(title)
    for line in lines:
        table.add_row(*line)
    Console(markup=False, highlight=False, emoji=False).print(table)


def show_text(text: str) -> None:
    """Print a paragraph."""
    width = min(shutil.get_terminal_size().columns, 88)
    print(textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False))


@contextmanager
def progress(description: str, total: int | None, *, long: bool = False) -> Iterator[Rate]:
    """Give a function to call with the number of rows just done.

    On a terminal there is a bar on stderr, with rate and time left. Elsewhere a run that may be
    long says them in a line a minute.
    """
    terminal = sys.stderr.isatty()
    rate = Rate(total, say_every=60.0 if long and not terminal else math.inf)
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("rows, {task.fields[speed]}", markup=False),
        console=Console(stderr=True),
        transient=True,
        disable=not terminal,
    )
    # Where nothing is shown, rich before 15 ends with an empty line all the same.
    with bar if terminal else nullcontext():
        task = bar.add_task(description, total=total, speed="…")
        rate.show = lambda: bar.update(task, completed=rate.rows, speed=rate.speed())
        yield rate


class Rate:
    """How many rows are done, how many a second, and how long the rest will take.

    Rows that an earlier run had done are done, and not of the rate.
    """

    def __init__(self, total: int | None, say_every: float = math.inf) -> None:
        self.rows = 0
        self.show: Callable[[], None] = lambda: None
        self._total = total
        self._own = 0
        self._begin = self._said = time.monotonic()
        self._say_every = say_every

    def __call__(self, rows: int) -> None:
        """So many rows are done."""
        self._own += rows
        self.found(rows)

    def found(self, rows: int) -> None:
        """So many rows had been done before."""
        self.rows += rows
        self.show()
        if time.monotonic() - self._said >= self._say_every:
            self._said = time.monotonic()
            of = "" if self._total is None else f" of {self._total:,}"
            print(f"kldiv: {self.rows:,}{of} rows, {self.speed()}", file=sys.stderr, flush=True)

    def speed(self) -> str:
        """Rate and time left, in words."""
        seconds = time.monotonic() - self._begin
        if not self._own or not seconds:
            return "…"
        rate = self._own / seconds
        if self._total is None:
            return f"{rate:,.0f} rows/s"
        return f"{rate:,.0f} rows/s, {_duration((self._total - self.rows) / rate)} left"


def _duration(seconds: float) -> str:
    """Time in words, of the two largest units."""
    left = max(0, round(seconds))
    for name, unit, smaller_name, smaller in (("d", 86400, "h", 3600), ("h", 3600, "min", 60)):
        if left >= unit:
            return f"{left // unit} {name} {left % unit // smaller} {smaller_name}"
    return f"{left // 60} min {left % 60} s" if left >= 60 else f"{left} s"


def _aligned(lines: Lines) -> Iterator[str]:
    widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        padded = (
            cell + " " * (width - cell_len(cell)) for cell, width in zip(line, widths, strict=True)
        )
        yield "  ".join(padded).rstrip()
