"""The formats of dumps, in the order in which a file is looked at, and the way to open any.

A format is a module with

``SUFFIXES``
    the ends of names that are its own, for messages;
``probe(path) -> bool``
    whether an existing path is one, by its name or first bytes;
``open(path, *, key=None, kind=None) -> Dump``
    without `key` where it has no arrays to choose from, without `kind` where it says what its
    numbers are;
``probe_stream(head) -> bool``, ``open_stream(stream, name, *, kind=None) -> Dump``
    only where it can be read from a pipe: whether the first bytes of one are its, and the dump.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from types import ModuleType
from typing import Any, cast, get_args

from kldiv.evaluation.dumps import (
    directory,
    llama_cpp,
    npy,
    npz,
    parquet,
    safetensors,
    server_json,
    sharded,
    streams,
    top_k,
    zarr,
)
from kldiv.evaluation.dumps.dense import DenseDump
from kldiv.evaluation.dumps.names import check_exists, conversion, split_name
from kldiv.evaluation.dumps.protocol import Dump, DumpError, Kind
from kldiv.evaluation.whole_file import PARTIAL

# The first that knows a path opens it; a directory is whatever no other takes it for.
FORMATS: tuple[ModuleType, ...] = (
    npy,
    npz,
    top_k,
    safetensors,
    sharded,
    llama_cpp,
    server_json,
    parquet,
    zarr,
    directory,
)


def open_dump(name: str | Path, kind: Kind | None = None) -> Dump:
    """Open what a model left: a file, ``FILE:KEY``, a directory, a named pipe, or ``-`` for stdin.

    Parameters
    ----------
    name
        As people type it.
    kind
        What the numbers are, where names do not say it or say something else.

    Raises
    ------
    DumpError
        For a name that is not there, or is no dump; what it says is one line.
    OSError
        For a file that cannot be read.
    """
    if kind is not None and kind not in get_args(Kind):
        raise DumpError(f"kind is {kind!r}; expected one of {', '.join(get_args(Kind))}")
    name = str(name)
    if streams.is_stream(name):
        return _open_stream(name, kind)
    path, key = split_name(name)
    check_exists(path, suffixes())
    if path.name.endswith(PARTIAL):
        raise DumpError(f"{path} is what an interrupted conversion left")
    if not (path.is_dir() or path.is_file()):
        raise DumpError(f"{path} is not a regular file")
    if path.is_file() and not path.stat().st_size:
        raise DumpError(f"{path} is empty")
    for module in FORMATS:
        if module.probe(path):
            return _open(module, path, key, kind)
    if (line := conversion(path)) is not None:
        raise DumpError(
            f"{path} is none of {', '.join(suffixes())}; this line of Python converts it: {line}"
        )
    if path.name.lower().endswith(suffixes()):
        raise DumpError(f"{path} holds no dump, as its name would have it")
    raise DumpError(
        f"{path} has the unknown extension {path.suffix!r}; expected {', '.join(suffixes())}"
    )


def suffixes() -> tuple[str, ...]:
    """The ends of names of all formats."""
    found = (suffix for module in FORMATS for suffix in getattr(module, "SUFFIXES", ()))
    return tuple(dict.fromkeys(found))


def _open(module: ModuleType, path: Path, key: str | None, kind: Kind | None) -> Dump:
    given = {"key": key, "kind": kind}
    options = {name: value for name, value in given.items() if value is not None}
    _check_options(module.open, options, str(path))
    dump = cast(Dump, module.open(path, **options))
    if key is not None and isinstance(dump, DenseDump):
        return dump.noting(name=f"{path}:{key}")
    return dump


def _open_stream(name: str, kind: Kind | None) -> Dump:
    stream = streams.Stream.open(name)
    head = stream.peek(16)
    if not head:
        raise DumpError(f"{stream.name} ends before its first byte")
    for module in (streams, *FORMATS):
        if hasattr(module, "probe_stream") and module.probe_stream(head):
            options = {} if kind is None else {"kind": kind}
            _check_options(module.open_stream, options, stream.name)
            return cast(Dump, module.open_stream(stream, stream.name, **options))
    raise DumpError(
        f"{stream.name} begins with {head[:8]!r}, which no format that can be read from a pipe "
        "begins with"
    )


def _check_options(function: Any, options: dict[str, Any], name: str) -> None:
    known = inspect.signature(function).parameters
    if "key" in options and "key" not in known:
        raise DumpError(f"{name} has no names to choose {options['key']!r} from")
    if "kind" in options and "kind" not in known:
        raise DumpError(f"{name} says itself what its numbers are; leave the kind out")
