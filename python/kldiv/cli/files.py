"""Files that commands write."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from kldiv.cli.errors import CommandError
from kldiv.evaluation.dumps.names import split_name
from kldiv.evaluation.whole_file import whole_file


def check_output(name: str, inputs: list[str]) -> None:
    """Raise `CommandError` unless the file `name` can be written without harm to `inputs`."""
    path = Path(name)
    if not path.parent.is_dir():
        raise CommandError(f"no such directory: {path.parent}")
    if path.is_dir():
        raise CommandError(f"{path} is a directory; expected a file to write")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise CommandError(f"{path} cannot be written: permission denied")
    for other, _ in map(split_name, inputs):
        if path.exists() and other.exists() and path.samefile(other):
            raise CommandError(f"{path} is an input, which would be overwritten")


def write_json(name: str, numbers: dict[str, Any]) -> None:
    """Write the numbers to stdout for ``-``, or to a file, which is there once it is whole."""
    text = json.dumps(numbers, indent=2, allow_nan=False) + "\n"
    if name == "-":
        sys.stdout.write(text)
    else:
        with whole_file(Path(name)) as partial:
            partial.write_text(text, encoding="utf-8")
