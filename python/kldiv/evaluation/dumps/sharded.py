"""``*.safetensors.index.json``: tensors spread over several files, and which is where."""

from __future__ import annotations

import json
from pathlib import Path

from kldiv.evaluation.dumps import safetensors
from kldiv.evaluation.dumps.dense import DenseDump
from kldiv.evaluation.dumps.protocol import DumpError, Kind

SUFFIX = ".safetensors.index.json"
SUFFIXES = (SUFFIX,)


def probe(path: Path) -> bool:
    """Whether a path is an index, or a directory with one."""
    return path.name.endswith(SUFFIX) if path.is_file() else bool(indexes(path))


def indexes(path: Path) -> list[Path]:
    """The indexes in a directory."""
    return sorted(path.glob(f"*{SUFFIX}")) if path.is_dir() else []


def open(  # noqa: A001 - of every format
    path: Path, *, key: str | None = None, kind: Kind | None = None
) -> DenseDump:
    """Open the sequences among the tensors that an index lists."""
    index = path
    if path.is_dir():
        index, *others = indexes(path)
        if others:
            names = ", ".join(file.name for file in [index, *others])
            raise DumpError(f"{path} holds several indexes: {names}; name one of them")
    entries, metadata = read_index(index)
    dump = safetensors.dump_of(entries, metadata, index, "sharded safetensors", key, kind)
    return dump.noting(name=str(path))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        # Names that are too long, or hold what none does.
        return False


def read_index(index: Path) -> tuple[dict[str, safetensors.Entry], dict[str, str]]:
    """The tensors of an index, where they are.

    Raises
    ------
    DumpError
        For an index that is none, and files that are not there or lack a tensor.
    """
    try:
        weight_map = json.loads(index.read_bytes())["weight_map"]
        files = {name: file for name, file in weight_map.items() if isinstance(file, str)}
        if len(files) < len(weight_map):
            raise TypeError("a file whose name is no text")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise DumpError(f"{index} is no index of safetensors: it has no weight_map") from None
    headers = {}
    metadata: dict[str, str] = {}
    for file in dict.fromkeys(files.values()):
        shard = index.parent / file
        # Of an index from elsewhere, that is no way to files that it did not come with.
        if Path(file).is_absolute() or ".." in Path(file).parts or not _is_file(shard):
            raise DumpError(f"{index} names {file[:200]}, which is not beside it")
        headers[file], said = safetensors.read_header(shard)
        metadata |= said
    entries = {}
    for name, file in files.items():
        if name not in headers[file]:
            raise DumpError(f"{index} says that {file} holds {name!r}, which it does not")
        entries[name] = headers[file][name]
    return entries, metadata
