"""`kldiv history`: the results in a folder as one page."""

from __future__ import annotations

import math
import re
import time
from pathlib import Path
from typing import Any

from kldiv import _optional
from kldiv.cli.errors import CommandError, warn
from kldiv.cli.files import check_output
from kldiv.cli.output import show_table
from kldiv.cli.pages import check_language, check_page
from kldiv.evaluation.dumps.protocol import DumpError
from kldiv.evaluation.results import read_results
from kldiv.evaluation.whole_file import whole_file

PAGE = "history.html"


def show(folder: str, html: str | None, baseline: str | None, lang: str | None) -> None:
    """Write the page, and print its first columns.

    Raises
    ------
    CommandError, OSError
        For a folder without results, a baseline that is none, and a page that cannot be written.
    """
    check_language(lang)
    root = Path(folder)
    if not root.is_dir():
        said = "is not there" if not root.exists() else "is a file"
        raise CommandError(f"{folder} {said}; expected a directory of results")
    target = str(root / PAGE) if html is None else html
    check_page(target)
    files = sorted(root.rglob("*.json"), key=lambda path: _natural(path.as_posix()))
    check_output(target, [str(file) for file in files])
    made = _optional.module("kldiv.evaluation.report.history")
    entries, left_out = [], []
    for file in files:
        name = file.relative_to(root).as_posix()
        try:
            results = read_results(file)
        except (DumpError, OSError) as error:
            reason = str(error).replace(f"{file} ", "", 1)
            left_out.append((name, reason))
            warn(f"{file} is left out: {reason}")
            continue
        entries += [made.Entry(result, name, _date(result.about, file)) for result in results]
    if not entries:
        raise CommandError(f"{folder} holds no result that kldiv compare --json wrote")
    entries.sort(key=lambda entry: entry.date)
    try:
        base = made.baseline_of(entries, baseline)
    except ValueError as error:
        raise CommandError(f"--baseline: {error}") from None
    text = made.history_page(folder, entries, base, left_out, lang=lang or "en")
    with whole_file(Path(target)) as partial:
        partial.write_text(text, encoding="utf-8")
    show_table(
        [_line(entry, base, made) for entry in entries], ("date", "model", "mean KL", "drift")
    )
    print(f"\n{target}")


def _line(entry: Any, base: Any, made: Any) -> tuple[str, ...]:
    mean = entry.result.summary["kl"].get("mean")
    known = isinstance(mean, (int, float)) and math.isfinite(mean)
    at_least = "≥ " if entry.result.bounded else ""
    text = f"{at_least}{mean:.6g}" if known else "–"
    found = made.drift(entry, base)
    change = "baseline" if entry is base else "–" if found is None else f"{found[0]:+.3g}"
    return entry.date, entry.result.candidate, text, change


def _date(about: dict[str, Any], file: Path) -> str:
    """When it was computed, by the result; else when the file was written."""
    date = about.get("date")
    if isinstance(date, str):
        return date
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(file.stat().st_mtime))


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
