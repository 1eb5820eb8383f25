"""`kldiv table`: printed logs of llama.cpp as one table."""

from __future__ import annotations

import json
from pathlib import Path

from kldiv.cli.errors import CommandError
from kldiv.cli.output import show_table
from kldiv.evaluation.statistics.plain_values import plain
from kldiv.evaluation.tables.logs import COLUMNS, SUMMARY, read_logs

FORMATS = ("plain", "markdown", "csv", "json")


def show(logs: list[str], form: str, *, every: bool) -> None:
    """Print the table, a row a log.

    Raises
    ------
    CommandError, DumpError, OSError
        For an unknown format, and logs that cannot be read or hold no whole table.
    """
    if form not in FORMATS:
        raise CommandError(f"--format is {form!r}; expected one of {', '.join(FORMATS)}")
    frame = read_logs([Path(log) for log in logs]).select(COLUMNS if every else SUMMARY)
    if form == "csv":
        print(frame.write_csv(), end="")
    elif form == "json":
        print(json.dumps([plain(row) for row in frame.to_dicts()], indent=2))
    else:
        cells = [tuple(_cell(value) for value in row) for row in frame.iter_rows()]
        if form == "plain":
            show_table(cells, tuple(frame.columns))
            return
        rule = ("---", *("---:" for _ in frame.columns[1:]))
        for row in (tuple(frame.columns), rule, *cells):
            print(f"| {' | '.join(row)} |")


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value).replace("|", "\\|")
