"""One dump written as another: nothing of it is changed, and no unfinished file has its name."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kldiv.evaluation.dumps import (
    directory,
    npy,
    npz,
    parquet,
    safetensors,
    top_k_writer,
    zarr,
)
from kldiv.evaluation.dumps.protocol import Dump, DumpError
from kldiv.evaluation.dumps.writing import Source, Writer
from kldiv.evaluation.whole_file import flush, put, remove, unused_name

DIRECTORY = "directory"

# By the end of the name of what is written, or by the name of the format.
WRITERS: dict[str, Writer] = {
    ".npy": npy.write,
    ".npz": npz.write,
    ".safetensors": safetensors.write,
    ".parquet": parquet.write,
    ".zarr": zarr.write,
    DIRECTORY: directory.write,
}
# Of llama.cpp, by `llama_cpp_writer.write`: half the rows, rounded, with all token ids.
BASE_FILE = ".kld"


@dataclass(frozen=True)
class Converted:
    """What was written."""

    path: Path
    sequences: int
    positions: int
    bytes: int
    lost: tuple[str, ...]
    """What of the dump is not in it."""


def convert(
    dump: Dump,
    out: str | Path,
    *,
    format: str | None = None,  # noqa: A002 - as in the protocol
    overwrite: bool = False,
    classes: int | None = None,
    advance: Callable[[int], None] = lambda rows: None,
) -> Converted:
    """Write a dump in another format, in the dtype it has.

    It is written under a name of its own beside `out`, which it takes when it is whole: a process
    that is killed leaves only a file or directory that ends in ``.partial``, which nothing reads.

    Parameters
    ----------
    dump
        What is written. A stream is read to its end.
    out
        Where to. The end of its name says the format: ``.npy`` (one array: sequences of one
        length), ``.npz``, ``.safetensors``, ``.parquet``, ``.zarr``, or ``/`` for a directory of
        numbered ``.safetensors``. Top-k rows are written as ``.safetensors`` or ``.parquet``, as
        `kldiv.TopK.save` does, with the text's own tokens as labels.
    format
        One of these ends, or ``directory``, where the name does not say it.
    overwrite
        Whether to replace a file, or a directory of a dump, that is there.
    classes
        Of top-k rows of a server, which do not say it, the number of classes of whole rows.
    advance
        Told the number of rows just written.

    Raises
    ------
    DumpError
        For a dump that the format cannot hold, and a target that is there, or is what is read.
        The target is left as it was.
    OSError
        For a target that cannot be written.

    Examples
    --------
    >>> import numpy as np, tempfile
    >>> from pathlib import Path
    >>> from kldiv.evaluation.dumps.convert import convert
    >>> from kldiv.evaluation.dumps.formats import open_dump
    >>> folder = Path(tempfile.mkdtemp())
    >>> np.save(folder / "logits.npy", np.zeros((2, 3, 5), np.float16))
    >>> done = convert(open_dump(folder / "logits.npy"), folder / "logits.safetensors")
    >>> done.sequences, done.positions
    (2, 6)
    >>> open_dump(folder / "logits.safetensors").dtype
    dtype('float16')
    """
    text = str(out)
    path = Path(text)
    if dump.kind == "top_k":
        writer = top_k_writer.writer(dump, text, format, classes)
    else:
        if classes is not None:
            raise DumpError(f"classes goes with top-k rows; {dump.name} says how many it has")
        writer = _writer(text, format)
    _check_target(dump, path, overwrite)
    partial = unused_name(path)
    source = Source(dump, advance)
    try:
        writer(source, partial)
        if not source.sequences:
            raise DumpError(f"{dump.name} holds no sequence")
        size = flush(partial)
        put(partial, path)
    except BaseException:
        remove(partial)
        raise
    if getattr(dump, "tokens", None) is not None:
        source.lose("the token ids before those of its labels")
    if (head := getattr(dump, "head", None)) is not None:
        source.lose(f"the output layer, which stays in {head}")
    return Converted(path, source.sequences, source.positions, size, tuple(source.lost))


def _writer(out: str, format: str | None) -> Writer:  # noqa: A002 - as in the protocol
    name = format
    if name is None:
        name = DIRECTORY if out.endswith(("/", os.sep)) else Path(out).suffix.lower()
        if not name and Path(out).is_dir():
            name = DIRECTORY
    elif name not in WRITERS and f".{name}" in WRITERS:
        name = f".{name}"
    if name in WRITERS:
        return WRITERS[name]
    if name == BASE_FILE:
        raise DumpError(f"{out} is a base file of llama.cpp, which is written with token ids")
    known = ", ".join(WRITERS)
    if format is not None:
        raise DumpError(f"the format is {format!r}; expected one of {known}")
    raise DumpError(
        f"{out} has {f'the unknown extension {name!r}' if name else 'no extension'}; expected one "
        f"of {known.replace(DIRECTORY, BASE_FILE)}, or / at its end for a directory"
    )


def _check_target(dump: Dump, path: Path, overwrite: bool) -> None:
    folder = path.absolute().parent
    if not folder.is_dir():
        raise DumpError(f"no such directory: {folder}")
    target = path.resolve()
    for used in (Path(dump.name), *getattr(dump, "paths", ()), getattr(dump, "head", None)):
        if used is None or not used.exists():
            continue
        used = used.resolve()
        if target == used or used in target.parents or target in used.parents:
            raise DumpError(f"{path} is what is read, or is in it; expected another place")
        if path.exists() and path.samefile(used):
            raise DumpError(f"{path} is what is read; expected another place")
    if not path.exists():
        return
    if not overwrite:
        raise DumpError(f"{path} is there already; --overwrite (overwrite=True) replaces it")
    if path.is_dir() and not (zarr.probe(path) or _holds_a_dump(path)):
        raise DumpError(f"{path} is a directory that holds other things than a dump: not replaced")
    if not (path.is_dir() or path.is_file()):
        raise DumpError(f"{path} is not a regular file")


def _holds_a_dump(path: Path) -> bool:
    """Whether there is nothing in a directory but the files of sequences."""
    return all(entry.is_file() and directory.is_sequence(entry) for entry in path.iterdir())
