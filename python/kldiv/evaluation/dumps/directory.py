"""A directory of numbered files, each a sequence; also the layouts that have such a directory.

Layouts keep the output layer and the tokens of the text beside it:

* ``reference-hidden/hidden_0000.safetensors``, ``lm-head/weight.safetensors``,
  ``tokens/context-0000.json`` (kimi-k3);
* ``capture/hidden_0000.safetensors`` or ``capture/logits_0000.safetensors``,
  ``head/weight.safetensors``, ``panel/tokens/context-0000.json`` (malaiwah.fidelity-dataset.v1).

The directory above or the inner one may be named.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from kldiv._arrays import Array
from kldiv.evaluation.dumps import keys, npy, safetensors, sharded
from kldiv.evaluation.dumps.dense import ASSUMED, DenseDump, Part, kind_by_name
from kldiv.evaluation.dumps.names import listed
from kldiv.evaluation.dumps.protocol import DumpError, Kind
from kldiv.evaluation.dumps.writing import Source
from kldiv.evaluation.whole_file import PARTIAL

SUFFIXES = (*safetensors.SUFFIXES, *npy.SUFFIXES)
HEAD_FOLDERS = ("lm-head", "lm_head", "head")
HEAD_FILES = ("weight.safetensors", "lm_head.safetensors", "lm-head.safetensors")
TOKEN_FOLDERS = ("panel/tokens", "tokens")


def probe(path: Path) -> bool:
    """Whether a path is a directory."""
    return path.is_dir()


def open(path: Path, *, kind: Kind | None = None) -> DenseDump:  # noqa: A001 - of every format
    """Open the numbered files of a directory, or of the only directory in it that has some."""
    if path.name.endswith(PARTIAL):
        raise DumpError(f"{path} is what an interrupted conversion left")
    folder = path if _files(path) else _inner(path)
    if sharded.indexes(folder):
        return sharded.open(folder, kind=kind).noting(name=str(path), head=_head(folder))
    found, others = _sequences(folder, kind)
    if found is None:
        return _named(path, folder, kind)
    notes: dict[str, Any] = {}
    tokens = _Tokens(folder)
    parts = []
    sources: dict[Kind, str] = {}
    for number, name in zip(found.numbers, found.names, strict=True):
        part, source = _part(folder / name, folder, kind, notes)
        sources.setdefault(*source)
        if part.labels is None:
            part = tokens.label(part, number)
        parts.append(part)
    if len(sources) > 1:
        said = ", ".join(sources.values())
        raise DumpError(f"{folder} holds files of different kinds, by {said}")
    ((stored, notes["kind from"]),) = sources.items()
    notes["files numbered"] = _numbers(found.numbers)
    if others:
        notes["files left out"] = listed(others)
    dump = DenseDump.of(
        str(path),
        f"directory of {Path(found.names[0]).suffix} files",
        stored,
        parts,
        tuple(folder / name for name in found.names),
        head=_head(folder) if stored == "hidden_states" else None,
        notes=notes,
    )
    return dump.noting(numbers=found.numbers)


def _files(folder: Path) -> list[str]:
    """Files that may be sequences."""
    return sorted(
        entry.name for entry in folder.iterdir() if is_sequence(entry) and entry.is_file()
    )


def is_sequence(path: Path) -> bool:
    """Whether a file may be a sequence, by its name."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def _inner(path: Path) -> Path:
    """The only directory in another that holds numbered files."""
    folders = [
        entry
        for entry in sorted(path.iterdir())
        if entry.is_dir()
        and not entry.name.startswith(".")
        and entry.name not in HEAD_FOLDERS
        and not entry.name.endswith(PARTIAL)
        and (keys.numbered_sets(_files(entry), str(entry)) or sharded.indexes(entry))
    ]
    if len(folders) == 1:
        return folders[0]
    if folders:
        names = listed([folder.name for folder in folders])
        raise DumpError(f"{path} holds several dumps: {names}; name one of them")
    empty = not any(path.iterdir())
    raise DumpError(
        f"{path} is empty"
        if empty
        else f"{path} is a directory without a {' or '.join(SUFFIXES)} file"
    )


def _sequences(folder: Path, kind: Kind | None) -> tuple[keys.Set | None, list[str]]:
    """The set of files that are the sequences, and the names of the files that are not."""
    names = _files(folder)
    sets = keys.numbered_sets(names, str(folder))
    if not sets:
        return None, names
    found = keys.the_set(sets, str(folder), "files", kind)
    return found, [name for name in names if name not in set(found.names)]


def _named(path: Path, folder: Path, kind: Kind | None) -> DenseDump:
    """A directory with a file that has no number: it is the dump, where no other can be."""
    names = _files(folder)
    likely = [name for name in names if keys.kind_of(name) is not None]
    (only, *others) = likely or names
    if others:
        raise DumpError(
            f"{folder} holds {listed(names)}, without numbers; expected one file, or one for every "
            "sequence, as logits_0000.npy"
        )
    module = npy if Path(only).suffix.lower() in npy.SUFFIXES else safetensors
    dump: DenseDump = module.open(folder / only, kind=kind)
    head = _head(folder) if dump.kind == "hidden_states" else None
    # Not the directory: it may hold other dumps, of which this one was taken.
    return dump.noting(head=head, notes=dump.notes | {"taken of": str(path)})


def _part(
    path: Path, folder: Path, kind: Kind | None, notes: dict[str, Any]
) -> tuple[Part, tuple[Kind, str]]:
    """The sequence of a file, and what its numbers are."""
    if not path.stat().st_size:
        raise DumpError(f"{path} is empty")
    if path.suffix.lower() in npy.SUFFIXES:
        array, *more = npy.stored(path)
        if more:
            raise DumpError(f"{path} holds {len(more) + 1} arrays; expected one for each file")
        return Part(path.name, array), _said(kind_by_name(kind, path.stem), path, folder)
    dump = safetensors.open(path, kind=kind)
    if len(dump.parts) > 1:
        names = listed([part.name for part in dump.parts])
        raise DumpError(f"{path} holds the tensors {names}; expected one for each file")
    part, said_by = dump.parts[0], str(dump.notes.pop("kind from"))
    notes |= dump.notes
    source = _said((dump.kind, said_by), path, folder)
    return Part(path.name, part.array, part.labels, part.first), source


def _said(source: tuple[Kind, str], path: Path, folder: Path) -> tuple[Kind, str]:
    """What key or file say of the numbers, else the directory; without the number of a file."""
    if source[1] == ASSUMED and (said := keys.kind_of_folder(folder.name)):
        return said, f"the name {folder.name!r}"
    return source[0], source[1].replace(path.stem, path.stem.rstrip("0123456789_"))


def _head(folder: Path) -> Path | None:
    """The output layer in a directory, or beside it."""
    for base in (folder, folder.absolute().parent):
        for inner in HEAD_FOLDERS:
            for file in HEAD_FILES:
                if (path := base / inner / file).is_file():
                    return path
    return None


class _Tokens:
    """The token ids of the texts, in a directory beside that of the sequences."""

    def __init__(self, folder: Path) -> None:
        bases = (folder, folder.absolute().parent)
        candidates = [base / tokens for base in bases for tokens in TOKEN_FOLDERS]
        self._files: dict[int, Path] = {}
        self._folder: Path | None = None
        for candidate in candidates:
            names = [path.name for path in candidate.glob("context-*.json")]
            if sets := keys.numbered_sets(names, str(candidate)):
                found = keys.the_set(sets, str(candidate), "files")
                paths = (candidate / name for name in found.names)
                self._files = dict(zip(found.numbers, paths, strict=True))
                self._folder = candidate
                return

    def label(self, part: Part, number: int) -> Part:
        """The part with the next token of every row as its label, where the tokens are there."""
        if self._folder is None:
            return part
        path = self._files.get(number)
        if path is None:
            raise DumpError(f"{self._folder} has no context-*.json of the number of {part.name}")
        tokens = _token_ids(path)
        rows = int(np.prod(part.array.shape[:-1]))
        if len(tokens) == rows:
            labels = np.append(tokens[1:], -100)
        elif len(tokens) == rows + 1:
            labels = tokens[1:]
        else:
            raise DumpError(
                f"{path} holds {len(tokens):,} tokens, but {part.name} {rows:,} rows; expected "
                "one token more, or as many"
            )
        return Part(part.name, part.array, labels, part.first)


def _token_ids(path: Path) -> Array:
    """A JSON array of token ids, or an object with one."""
    try:
        value = json.loads(path.read_bytes())
        if isinstance(value, dict):
            names = ("token_ids", "input_ids", "tokens")
            value = next(value[name] for name in names if name in value)
        ids = np.asarray(value)
        if ids.ndim != 1 or ids.dtype.kind not in "iu" or not len(ids) or ids.min() < 0:
            raise ValueError("no token ids")
    except (ValueError, TypeError, StopIteration, RecursionError):
        raise DumpError(f"{path} is not a JSON array of token ids") from None
    return ids.astype(np.int64)


def _numbers(numbers: tuple[int, ...]) -> str:
    first, last = numbers[0], numbers[-1]
    missing = last - first + 1 - len(numbers)
    return f"{first} to {last}" + (f", {missing:,} missing" if missing else "")


def write(source: Source, path: Path) -> None:
    """Write each sequence of a dump as a file."""
    path.mkdir()
    stem = "hidden" if source.dump.kind == "hidden_states" else source.key
    for number, sequence in enumerate(source.each()):
        known = sequence.positions is not None
        shapes = [(sequence.positions or 0, sequence.labels is not None)] if known else None
        safetensors.write_tensors(
            source, [sequence], path / f"{stem}_{number:06}.safetensors", shapes, several=False
        )
