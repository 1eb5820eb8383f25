"""Files that are not on a disk: names such as ``s3://BUCKET/DIR``, through fsspec.

A `RemotePath` does what readers of dumps do with a `pathlib.Path`, so that a format that reads its
file by `open` and `seek` reads it from there as well. Rows are fetched by pieces of `PIECE` bytes,
as they are scored; nothing is kept on a disk.
"""

from __future__ import annotations

import datetime as dt
import errno
import fnmatch
import importlib
import io
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from types import SimpleNamespace
from typing import IO, Any, TypeVar, cast

from kldiv.evaluation.dumps.protocol import DumpError

PIECE = 16 << 20
"""Bytes of a request; a block of rows is a quarter of it."""
_WEB = frozenset({"http", "https"})

T = TypeVar("T")


@dataclass(frozen=True, order=True)
class RemotePath:
    """A file or directory of a file system of fsspec."""

    url: str
    """As typed, or with a name behind."""
    system: Any
    """The file system; it can be sent to other processes."""
    path: str
    """In the file system."""

    @classmethod
    def of(cls, url: str) -> RemotePath:
        """The place that a name says.

        Raises
        ------
        DumpError
            For a protocol that is not known, or whose library is not installed.
        """
        try:
            core = importlib.import_module("fsspec.core")
        except ModuleNotFoundError:
            raise DumpError(f"{url} is read by fsspec: pip install fsspec") from None
        try:
            system, path = core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise DumpError(f"{url}: {' '.join(str(error).split())}") from None
        return cls(url.rstrip("/"), system, path)

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str) -> RemotePath:
        return RemotePath(f"{self.url}/{name}", self.system, f"{self.path.rstrip('/')}/{name}")

    @property
    def _pure(self) -> PurePosixPath:
        return PurePosixPath(self.path)

    @property
    def name(self) -> str:
        """The last part."""
        return self._pure.name

    @property
    def stem(self) -> str:
        """The name without its extension."""
        return self._pure.stem

    @property
    def suffix(self) -> str:
        """The extension."""
        return self._pure.suffix

    @property
    def suffixes(self) -> list[str]:
        """All extensions."""
        return self._pure.suffixes

    @property
    def parent(self) -> RemotePath:
        """The directory that it is in."""
        return RemotePath(
            self.url.rpartition("/")[0], self.system, self.path.rstrip("/").rpartition("/")[0]
        )

    @property
    def parents(self) -> tuple[RemotePath, ...]:
        """None that anything on a disk is in."""
        return ()

    def with_name(self, name: str) -> RemotePath:
        """Another file of the same directory."""
        return self.parent / name

    def with_suffix(self, suffix: str) -> RemotePath:
        """The same name with another extension."""
        return self.parent / (self.stem + suffix)

    def absolute(self) -> RemotePath:
        """Itself."""
        return self

    resolve = absolute

    def is_absolute(self) -> bool:
        """Whether it is the same from everywhere."""
        return True

    def is_symlink(self) -> bool:
        """Whether it is a link, of which there are none."""
        return False

    def exists(self) -> bool:
        """Whether there is something."""
        return self._asked(lambda: bool(self.system.exists(self.path)))

    def is_dir(self) -> bool:
        """Whether it is a directory. On the web what has no extension is one, if it is there."""
        if self._on_the_web():
            return not self.suffix and self.exists()
        return self._asked(lambda: bool(self.system.isdir(self.path)))

    def is_file(self) -> bool:
        """Whether it is a file."""
        if self._on_the_web():
            return bool(self.suffix) and self.exists()
        return self._asked(lambda: bool(self.system.isfile(self.path)))

    def stat(self) -> Any:
        """Size, and what changes when it is written anew."""
        about = self._asked(lambda: self.system.info(self.path))
        changed = about.get("mtime") or about.get("LastModified") or about.get("created") or 0
        if isinstance(changed, dt.datetime):
            changed = changed.timestamp()
        kind = stat.S_IFDIR if about.get("type") == "directory" else stat.S_IFREG
        return SimpleNamespace(
            st_size=about.get("size") or 0,
            st_mtime_ns=int(float(changed) * 1e9) if isinstance(changed, (int, float)) else 0,
            st_mode=kind | 0o444,
            st_ino=hash(self.path),
            st_dev=hash(self.url.partition("://")[0]),
            tag=str(about.get("ETag") or about.get("etag") or ""),
        )

    def open(self, mode: str = "rb", buffering: int = -1) -> IO[bytes]:
        """Open for reading."""
        if mode != "rb":
            raise OSError(errno.EROFS, "read only", self.url)
        opened = self._asked(
            lambda: self.system.open(self.path, "rb", block_size=PIECE, cache_type="readahead")
        )
        raw = _Raw(opened, self)
        return cast(IO[bytes], raw if buffering == 0 else io.BufferedReader(raw))

    def read_bytes(self) -> bytes:
        """All of it."""
        return self._asked(lambda: cast(bytes, self.system.cat_file(self.path)))

    def read_text(self, encoding: str = "utf-8") -> str:
        """All of it, as text."""
        return self.read_bytes().decode(encoding)

    def iterdir(self) -> Iterator[RemotePath]:
        """What is in a directory."""
        found = self._asked(lambda: self.system.ls(self.path, detail=False))
        names = {str(name).rstrip("/").rpartition("/")[2] for name in found}
        return (self / name for name in sorted(names) if name)

    def glob(self, pattern: str) -> Iterator[RemotePath]:
        """What is in a directory, of names like this."""
        try:
            found = list(self.iterdir())
        except OSError:
            found = []
        return (one for one in found if fnmatch.fnmatchcase(one.name, pattern))

    def rglob(self, pattern: str) -> Iterator[RemotePath]:
        """What is in a directory and in those in it."""
        for one in self.iterdir():
            if one.is_dir():
                yield from one.rglob(pattern)
            elif fnmatch.fnmatchcase(one.name, pattern):
                yield one

    def _on_the_web(self) -> bool:
        protocol = self.system.protocol
        return bool(_WEB & {protocol, *(protocol if isinstance(protocol, tuple) else ())})

    def _asked(self, ask: Callable[[], T]) -> T:
        """What a file system says; libraries raise what they like."""
        try:
            return ask()
        except (OSError, MemoryError) as error:
            if isinstance(error, FileNotFoundError):
                raise FileNotFoundError(errno.ENOENT, "no such file", self.url) from None
            if error.__class__ is MemoryError or error.errno is not None:  # type: ignore[union-attr]
                raise
            raise OSError(errno.EIO, _line(error), self.url) from None
        except Exception as error:
            raise OSError(errno.EIO, _line(error), self.url) from None


class _Raw(io.RawIOBase):
    """A file of fsspec's, whose errors are `OSError`."""

    def __init__(self, file: Any, path: RemotePath) -> None:
        self._file = file
        self._path = path

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._path._asked(lambda: int(self._file.seek(offset, whence)))

    def tell(self) -> int:
        return int(self._file.tell())

    def readinto(self, memory: Any) -> int:
        return self._path._asked(lambda: int(self._file.readinto(memory)))

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def _line(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:200]
