"""Text that models read: plain files, JSONL, Parquet, and directories of them, as documents."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kldiv.evaluation.dumps.keys import natural
from kldiv.evaluation.dumps.names import check_exists, listed
from kldiv.evaluation.dumps.protocol import DumpError
from kldiv.evaluation.dumps.server_json.files import LINES, WHOLE, extension, opened, responses
from kldiv.evaluation.parquet_tables import string_columns, strings

PARQUET = ".parquet"
PLAIN = (".txt", ".text", ".md", ".rst", ".raw", ".log")
"""Ends of plain text in a directory. A file that is named may have any other."""
FIELDS = ("text", "content")
"""How the field or column of the text is called, the first one first."""

_COMPRESSED = ".gz"
_KEYED = re.compile(r"(.+\.(?:jsonl|ndjson|json|parquet)(?:\.gz)?):([^/:]+)", re.DOTALL)


@dataclass(frozen=True)
class Document:
    """A text that goes on from its first word to its last: no window reaches beyond one."""

    name: str
    """How messages and tables call it: the file, or its line or row."""
    text: str


def read_documents(name: str) -> Iterator[Document]:
    """The documents of a file or a directory, in natural order of their names.

    A plain file is one document; of JSONL (or a JSON list) each string is one, or the field
    ``text`` of each object; of Parquet the column ``text`` of each row. ``content``, or the only
    field or column of strings, stands in where there is no ``text``, and ``FILE:FIELD`` names
    another. Of a directory all files are read that are one of these by their names, also in
    directories inside it.

    Raises
    ------
    DumpError
        For a name that is not there, and a file that is not text; when its turn comes.
    OSError
        For a file that cannot be read.
    """
    path, field = _split(name)
    check_exists(path, (*PLAIN, PARQUET, *sorted(LINES | WHOLE)))
    if not path.is_dir():
        yield from _of_file(path, str(path), field)
        return
    files = _files(path)
    if not files:
        ends = ", ".join((*PLAIN, *sorted(LINES | WHOLE), PARQUET))
        raise DumpError(f"{path} is a directory without a text; expected files that end in {ends}")
    for file in files:
        yield from _of_file(file, str(file.relative_to(path)), None)


def _split(name: str) -> tuple[Path, str | None]:
    """The file, and the field or column in ``FILE:FIELD``."""
    found = _KEYED.fullmatch(name)
    if found and not Path(name).exists():
        return Path(found[1]), found[2]
    return Path(name), None


def _files(folder: Path) -> list[Path]:
    ends = (*PLAIN, PARQUET, *LINES, *WHOLE)
    found = []
    for path in folder.rglob("*"):
        inside = path.relative_to(folder)
        name = path.name.lower().removesuffix(_COMPRESSED)
        if name.endswith(ends) and not any(part.startswith(".") for part in inside.parts):
            found.append(path)
    return sorted((path for path in found if path.is_file()), key=lambda path: natural(str(path)))


def _of_file(path: Path, name: str, field: str | None) -> Iterator[Document]:
    if not (path.is_file() or path.is_fifo()):
        raise DumpError(f"{path} is not a regular file")
    if path.suffix.lower() == PARQUET:
        yield from _of_parquet(path, name, field)
    elif extension(path):
        yield from _of_json(path, name, field)
    else:
        yield Document(name, _decoded(path))


def _decoded(path: Path) -> str:
    """A plain file, of any ends of lines, without a byte order mark."""
    with opened(path) as file:
        content = file.read()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DumpError(
            f"{path} is not text in UTF-8: byte {error.start:,} is 0x{content[error.start]:02x}"
        ) from None
    if "\0" in text:
        raise DumpError(f"{path} is not text: byte {content.index(0):,} is 0")
    return text.replace("\r\n", "\n")


def _of_json(path: Path, name: str, field: str | None) -> Iterator[Document]:
    for where, value in responses(path):
        here = where.replace(str(path), name, 1)
        items = value if isinstance(value, list) else [value]
        for number, item in enumerate(items):
            title = f"{here}[{number}]" if isinstance(value, list) else here
            yield Document(title, _text_of(item, field, title))


def _text_of(item: Any, field: str | None, title: str) -> str:
    if isinstance(item, str) and field is None:
        return item
    if not isinstance(item, dict):
        shown = json.dumps(item, ensure_ascii=False)[:60]
        wanted = "a string, or " if field is None else ""
        raise DumpError(
            f"{title} is {shown}; expected {wanted}an object with the field {field or FIELDS[0]}"
        )
    strings = [key for key, value in item.items() if isinstance(value, str)]
    if field is None:
        field = _field(strings)
        if field is None:
            raise DumpError(
                f"{title} has no field {' or '.join(FIELDS)}; its fields of strings: "
                f"{listed(strings) or 'none'} (FILE:FIELD names one)"
            )
    if not isinstance(item.get(field), str):
        raise DumpError(
            f"{title} has no string {field!r}; its fields of strings: {listed(strings) or 'none'}"
        )
    text: str = item[field]
    return text


def _field(strings: list[str]) -> str | None:
    known = [name for name in FIELDS if name in strings]
    if known:
        return known[0]
    return strings[0] if len(strings) == 1 else None


def _of_parquet(path: Path, name: str, column: str | None) -> Iterator[Document]:
    columns = string_columns(path)
    column = _field(columns) if column is None else column
    if column not in columns:
        what = f"column {column!r} of strings" if column else f"column {' or '.join(FIELDS)}"
        raise DumpError(
            f"{path} has no {what}; its columns of strings: {listed(columns) or 'none'} "
            "(FILE:COLUMN names one)"
        )
    for row, text in enumerate(strings(path, column)):
        yield Document(f"{name} row {row}", text or "")
