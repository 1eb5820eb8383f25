"""What was run, kept as data: ``results.json`` beside this file, of cases by their names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("results.json")

Result = dict[str, Any]
"""With python, versions, passed, failed, skipped (a number for each reason), command and date."""


def read() -> dict[str, Result]:
    """All that are kept."""
    return json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}


def dumps(results: dict[str, Result]) -> str:
    """As the file has them."""
    return json.dumps(results, indent=1, sort_keys=True) + "\n"


def save(name: str, result: Result) -> None:
    """Keep one, in place of the last one of its name."""
    FILE.write_text(dumps(read() | {name: result}), encoding="utf-8")
