"""Files and directories that have their name once they are whole."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# What ends the name of an unfinished file or directory. None of them is read as a dump.
PARTIAL = ".partial"


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a name beside `path` to write to, which becomes `path` when the block ends well.

    Otherwise nothing is left of it. An `OSError` names `path`.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")
    try:
        yield partial
        partial.replace(path)
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(partial)):
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from None
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def whole_directory(path: Path) -> Iterator[Path]:
    """Give a new directory beside `path`, which becomes `path` when the block ends well.

    Otherwise nothing is left of it. What has the name is replaced. An `OSError` names `path`.
    """
    partial = unused_name(path)
    try:
        partial.mkdir()
        yield partial
        flush(partial)
        put(partial, path)
    except OSError as error:
        inside = error.filename is None or str(error.filename).startswith(str(partial))
        if error.errno is None or not inside:
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from None
    finally:
        remove(partial)


def unused_name(path: Path) -> Path:
    """A name beside `path` that says that what has it is unfinished."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}{PARTIAL}")


def flush(path: Path) -> int:
    """Have all bytes of a file or a tree on the disk, and count them."""
    size = 0
    for file in [path] if path.is_file() else path.rglob("*"):
        if file.is_file():
            with file.open("rb+") as opened:
                os.fsync(opened.fileno())
            size += file.stat().st_size
    return size


def put(partial: Path, path: Path) -> None:
    """Give what was written its name; what had it is gone only then."""
    if not (path.is_dir() or partial.is_dir()):
        os.replace(partial, path)
        return
    old = None
    if path.exists():
        old = unused_name(path)
        os.rename(path, old)
    try:
        os.rename(partial, path)
    except BaseException:
        if old is not None:
            os.rename(old, path)
        raise
    if old is not None:
        remove(old)


def remove(path: Path) -> None:
    """Have a file or a tree gone, as far as it can be."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    with contextlib.suppress(OSError):
        path.unlink()
