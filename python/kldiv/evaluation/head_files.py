"""Files of output layers: which tensor of a checkpoint, or of a directory, is the head."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from kldiv.evaluation.dumps import npy, safetensors, sharded
from kldiv.evaluation.dumps.names import check_exists, conversion, listed, split_name
from kldiv.evaluation.dumps.protocol import DumpError
from kldiv.evaluation.dumps.safetensors import Entry
from kldiv.evaluation.dumps.stored_arrays import FLOATING, Content, StoredArray

HEAD = Content("head", "floating numbers", FLOATING)
SUFFIXES = (*safetensors.SUFFIXES, *npy.SUFFIXES)

KEYS = ("weight", "lm_head.weight", "model.embed_tokens.weight")
"""How heads are called, the first one first. A model that ties its head to the embeddings stores
these only."""
ENDS = (".lm_head.weight", ".embed_tokens.weight")
"""How the names end that models inside others have."""


def stored_head(name: str) -> StoredArray:
    """The head ``[classes, size]`` in a file, ``FILE:TENSOR``, or a directory of shards.

    Of several tensors it is the one of a name in `KEYS`, of such an end, or the only one of two
    axes.

    Raises
    ------
    DumpError
        For a file that is none of `SUFFIXES`, or holds no tensor that must be the head.
    """
    path, key = split_name(name)
    check_exists(path, SUFFIXES)
    array = _stored(path, key)
    if len(array.shape) != 2 or 0 in array.shape:
        raise DumpError(f"{array.name} has shape {array.shape}; expected a head [classes, size]")
    return array


def _stored(path: Path, key: str | None) -> StoredArray:
    if npy.probe(path):
        return npy.NpyFile(path, key, HEAD)
    entries = _entries(path)
    return entries[_chosen(path, entries, key)].array(HEAD)


def _entries(path: Path) -> Mapping[str, Entry]:
    """The tensors of a file, of an index, or of all files of a directory."""
    if sharded.probe(path):
        indexes = sharded.indexes(path) if path.is_dir() else [path]
        if len(indexes) > 1:
            names = listed([index.name for index in indexes])
            raise DumpError(f"{path} holds several indexes: {names}; name one of them")
        return sharded.read_index(indexes[0])[0]
    if path.is_dir():
        files = sorted(path.glob(f"*{safetensors.SUFFIXES[0]}"))
        if not files:
            raise DumpError(f"{path} is a directory without a {safetensors.SUFFIXES[0]} file")
        entries: dict[str, Entry] = {}
        for file in files:
            found = safetensors.read_header(file)[0]
            if twice := entries.keys() & found.keys():
                raise DumpError(
                    f"{entries[min(twice)].path} and {file} both hold {min(twice)!r}; name one"
                )
            entries |= found
        return entries
    if not safetensors.probe(path):
        if (line := conversion(path)) is not None:
            raise DumpError(
                f"{path} is no {' or '.join(SUFFIXES)}; this line of Python converts it: {line}"
            )
        raise DumpError(
            f"{path} has the unknown extension {path.suffix!r}; expected a head as "
            f"{' or '.join(SUFFIXES)}"
        )
    return safetensors.read_header(path)[0]


def _chosen(path: Path, entries: Mapping[str, Entry], key: str | None) -> str:
    shapes = listed([f"{name} ({one.dtype} {list(one.shape)})" for name, one in entries.items()])
    if key is not None:
        if key in entries:
            return key
        raise DumpError(f"{path} has no tensor {key!r}; its tensors: {shapes or 'none'}")
    for known in KEYS:
        if known in entries:
            return known
    for end in ENDS:
        ending = [name for name in entries if name.endswith(end)]
        if len(ending) == 1:
            return ending[0]
    matrices = [name for name, one in entries.items() if one.floating and len(one.shape) == 2]
    if len(matrices) == 1:
        return matrices[0]
    raise DumpError(
        f"{path} has no tensor {', '.join(KEYS)}, and {len(matrices) or 'none'} of two axes; "
        f"choose the head as FILE:TENSOR; its tensors: {shapes or 'none'}"
    )
