"""Tables and progress: for people on a terminal, plain text for a pipe or a file."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
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
def progress(description: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Give a function to call with the number of rows just done.

    The bar is on stderr, and only where that is a terminal.
    """
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("rows"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )
    with bar:
        task = bar.add_task(description, total=total)
        yield lambda rows: bar.advance(task, rows)


def _aligned(lines: Lines) -> Iterator[str]:
    widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        padded = (
            cell + " " * (width - cell_len(cell)) for cell, width in zip(line, widths, strict=True)
        )
        yield "  ".join(padded).rstrip()
