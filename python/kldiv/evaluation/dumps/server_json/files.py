"""Responses of servers in files: one or a list in .json, one a line in .jsonl, .gz of both."""

from __future__ import annotations

import contextlib
import gc
import gzip
import json
import zlib
from collections.abc import Callable, Iterator
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
        return cast(IO[bytes], _Gzip(path))
    return path.open("rb")


MOST_COMPRESSED = 200
"""Times that what is decompressed may be as large as what is read, beyond a first `_UNCHECKED`."""
_UNCHECKED = 1 << 23
_PIECE = 1 << 20


class _Gzip(gzip.GzipFile):
    """Decompressed bytes of a file, which is closed with them; `DumpError` for a broken one."""

    def __init__(self, path: Path) -> None:
        self._compressed = path.open("rb")
        super().__init__(fileobj=self._compressed)
        self._path = path

    def read(self, size: int | None = -1) -> bytes:
        """So many bytes, or all, some at a time: of few bytes there may be more than fit memory."""
        if size is not None and size >= 0:
            return self._some(size)
        return b"".join(iter(lambda: self._some(_PIECE), b""))

    def readline(self, size: int | None = -1) -> bytes:
        """The next line, whole."""
        pieces = [self._some(_PIECE, super().readline)]
        while pieces[-1] and not pieces[-1].endswith(b"\n"):
            pieces.append(self._some(_PIECE, super().readline))
        return b"".join(pieces)

    def _some(self, size: int, read: Callable[[int], bytes] | None = None) -> bytes:
        with self._checked():
            return super().read(size) if read is None else read(size)

    @contextlib.contextmanager
    def _checked(self) -> Iterator[None]:
        try:
            yield
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            reason = f"{self._path} is cut off or is no gzip file: {error}"
            raise DumpError(reason) from None
        if self.tell() > max(_UNCHECKED, MOST_COMPRESSED * self._compressed.tell()):
            raise DumpError(
                f"{self._path} decompresses to more than {MOST_COMPRESSED} times its bytes, which "
                "no text does"
            )

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
    with opened(path) as file:
        if extension(path) in LINES:
            for number, line in enumerate(file, 1):
                if not line.isspace():
                    yield f"{path}:{number}", line
        elif (text := file.read()) and not text.isspace():
            yield str(path), text


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
