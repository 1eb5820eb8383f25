"""What decides the bits of a run, in few bytes: inputs by their digests, and the options.

A file is known by its size, its time of modification and samples of its bytes: the first 4 KiB,
the last, and 14 between. That costs milliseconds a file, however large, and finds files that were
written anew, replaced or restored from elsewhere. What it cannot find is a change in place of
bytes between the samples by who puts the old time back. What lies in memory (arrays, labels,
masks) is digested whole.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import kldiv
from kldiv._arrays import Array
from kldiv.evaluation.dumps.dense import DenseDump
from kldiv.evaluation.dumps.part import innermost
from kldiv.evaluation.dumps.protocol import Dump
from kldiv.evaluation.engines.job import Job
from kldiv.evaluation.head import Head
from kldiv.evaluation.head_files import stored_head

BLOCK = "positions of a block"
SAMPLE = 4096
SAMPLES = 16


def identity(job: Job, isa: str = "") -> dict[str, Any]:
    """By label, what a run with the same bits has to have in common; plain JSON.

    `isa` is the instruction set of those who score it, that of this process without it.
    """
    dumps = {
        "reference" if not place else f"candidate {place}": {
            "name": dump.name,
            "digest": _dump(dump),
        }
        for place, dump in enumerate(job.dumps)
    }
    marks = {
        name: None if values is None else _array(values)
        for name, values in (
            ("labels", job.marks.labels),
            ("where", job.marks.where),
            ("floor", job.marks.floor),
        )
    }
    heads = {
        "head": _head(job.heads.reference),
        "candidate heads": [_head(head) for head in job.heads.candidates],
    }
    conditions = [one() for one in (getattr(d, "conditions", None) for d in job.dumps) if one]
    rule = job.scoring.class_rule
    return {
        "kldiv": kldiv.__version__,
        "instruction set": isa or kldiv.isa(),
        "models run on": conditions or None,
        **dumps,
        **heads,
        **marks,
        "space": list(job.scoring.spaces),
        "temperature": job.scoring.temperature,
        "classes": rule.classes,
        "vocab": rule.rule,
        "chunks": job.scoring.chunks,
        BLOCK: job.positions_of_a_block(),
    }


def difference(before: dict[str, Any], now: dict[str, Any]) -> str | None:
    """The first thing in which a run is another one than before, in words."""
    for label in dict.fromkeys((*now, *before)):
        old, new = before.get(label), now.get(label)
        if old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            if old.get("name") != new["name"]:
                return f"{label} {old.get('name')} there, {new['name']} here"
            return f"{new['name']} has changed since"
        if label in ("head", "candidate heads", "labels", "where", "floor"):
            if not old or not new:
                return f"it was begun {'with' if old else 'without'} {label}"
            return f"other {label}"
        return f"{label} {json.dumps(old)} there, {json.dumps(new)} here"
    return None


def _dump(dump: Dump) -> str:
    """Format, sequences and labels of a dump, and its files or arrays."""
    found = hashlib.sha256()
    said = (dump.format, dump.kind, dump.width, dump.dtype.name, dump.count)
    found.update(json.dumps(said).encode())
    if (digest := getattr(dump, "digest", None)) is not None:
        # A model, whose rows are made when they are read.
        found.update(digest().encode())
    for path in getattr(dump, "paths", ()):
        found.update(_path(path))
    if (head := getattr(dump, "head", None)) is not None:
        found.update(_path(head))
    inner = innermost(dump)
    for part in inner.parts if isinstance(inner, DenseDump) else ():
        if isinstance(array := getattr(part.array, "array", None), np.ndarray):
            found.update(_array(array).encode())
    if dump.count is not None:
        # A file of responses is not parsed for this: its bytes are sampled above.
        for sequence in dump.sequences():
            found.update(json.dumps((sequence.name, sequence.positions, sequence.first)).encode())
            if sequence.labels is not None:
                found.update(np.ascontiguousarray(sequence.labels).tobytes())
    return found.hexdigest()


def _array(array: Array) -> str:
    found = hashlib.sha256(json.dumps((array.dtype.name, array.shape)).encode())
    # Rows of a strided view are made contiguous one at a time.
    for row in array.reshape(-1, array.shape[-1]) if array.ndim > 1 else (array,):
        found.update(np.ascontiguousarray(row).view(np.uint8).data)
    return found.hexdigest()


def _head(given: Any) -> str | None:
    if given is None:
        return None
    if isinstance(given, (str, os.PathLike)):
        stored = stored_head(os.fspath(given))
        found = hashlib.sha256(f"{stored.name} {stored.offset}".encode())
        found.update(_path(stored.path))
        return found.hexdigest()
    return _array(Head.load(given).weight)


def _path(path: Path) -> bytes:
    """A file, or all files of a directory, as of Zarr."""
    found = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if not file.is_file():
            continue
        state = file.stat()
        tag = getattr(state, "tag", "")  # what a store of objects says of a version
        found.update(f"{file.name} {state.st_size} {state.st_mtime_ns} {tag}".encode())
        for piece in _samples(file, state.st_size):
            found.update(piece)
    return found.digest()


def _samples(path: Path, size: int) -> Iterator[bytes]:
    last = max(0, size - SAMPLE)
    with path.open("rb") as file:
        for start in sorted({last * place // (SAMPLES - 1) for place in range(SAMPLES)}):
            file.seek(start)
            yield file.read(SAMPLE)
