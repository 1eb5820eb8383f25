"""Responses of servers in files: one or a list in .json, one a line in .jsonl, .gz of both."""

from __future__ import annotations

import contextlib
import gc
import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

from kldiv.evaluation.dumps.protocol import DumpError

orjson: Any
try:
    import orjson
except ModuleNotFoundError:
    orjson = None

LINES = frozenset({".jsonl", ".ndjson"})
WHOLE = frozenset({".json"})


def extension(path: Path) -> str:
    """What kind of JSON a file's name says it is, without .gz; empty where it says nothing."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    return suffixes[-1] if suffixes and suffixes[-1] in LINES | WHOLE else ""


def opened(path: Path) -> IO[bytes]:
    """The file's bytes, decompressed."""
    if path.suffix.lower() == ".gz":
        return cast(IO[bytes], _Gzip(path.open("rb")))
    return path.open("rb")


class _Gzip(gzip.GzipFile):
    """Decompressed bytes of a file, which is closed with them."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(fileobj=file)
        self._compressed = file

    def close(self) -> None:
        super().close()
        self._compressed.close()


def responses(path: Path) -> Iterator[tuple[str, Any]]:
    """Every response with its name, ``FILE:LINE`` or ``FILE[NUMBER]``.

    Lines are read one by one; a .json is held in memory as a whole.

    Raises
    ------
    DumpError
        For a file that is cut off, is not JSON, or holds nothing.
    """
    empty = True
    for name, text in _texts(path):
        try:
            found = parsed(text)
        except (ValueError, RecursionError) as error:
            raise DumpError(f"{name} is not JSON: {_reason(error, text)}") from None
        empty = False
        yield name, found
    if empty:
        raise DumpError(f"{path} is empty")


def parsed(text: bytes) -> Any:
    """What a text of JSON says, by orjson where it is installed.

    A million positions of 64 tokens are 5 GB, which the standard library takes about three times
    as long for. It takes what orjson does not, as −Infinity and half of a surrogate pair, and it
    says what is wrong with what is no JSON.
    """
    # Millions of dictionaries at once, and no cycle among them: looking for one is a sixth of it.
    collecting = gc.isenabled()
    gc.disable()
    try:
        if orjson is not None:
            with contextlib.suppress(orjson.JSONDecodeError):
                return orjson.loads(text)
        return json.loads(text)
    finally:
        if collecting:
            gc.enable()


def _texts(path: Path) -> Iterator[tuple[str, bytes]]:
    try:
        with opened(path) as file:
            if extension(path) in LINES:
                for number, line in enumerate(file, 1):
                    if not line.isspace():
                        yield f"{path}:{number}", line
            elif (text := file.read()) and not text.isspace():
                yield str(path), text
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DumpError(f"{path} is cut off or is no gzip file: {error}") from None


def _reason(error: Exception, text: bytes) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "its bytes are no UTF-8"
    if not isinstance(error, json.JSONDecodeError):
        return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
    if error.msg == "Extra data" and b"\n" in text.strip():
        return f"more follows at line {error.lineno}; a response a line is a .jsonl"
    # At its very end, a text is most likely cut off.
    end = error.pos >= len(error.doc.rstrip()) or error.msg.startswith("Unterminated")
    cut = ", where it ends: it may be cut off" if end else ""
    return f"{error.msg} at character {error.pos}{cut}"
