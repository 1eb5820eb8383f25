"""`kldiv convert`: a dump in another format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kldiv.cli.errors import CommandError, warn
from kldiv.cli.output import progress, show_table
from kldiv.evaluation.dumps.convert import BASE_FILE, convert
from kldiv.evaluation.dumps.describe import size
from kldiv.evaluation.dumps.formats import open_dump
from kldiv.evaluation.dumps.llama_cpp_writer import write
from kldiv.evaluation.dumps.npy import NpyFile
from kldiv.evaluation.dumps.protocol import Dump, Kind
from kldiv.evaluation.dumps.sequences import cut, read_lengths
from kldiv.evaluation.dumps.stored_arrays import LABELS


@dataclass(frozen=True)
class BaseFile:
    """What a base file of llama.cpp needs besides rows."""

    tokens: str | None = None
    """A file of token ids ``[sequences, n_ctx]``, where the dump has none."""
    magic: str = "_logits_"
    clip: float = 16.0


def run(
    source: str,
    target: str,
    *,
    kind: Kind | None = None,
    sequences: str | None = None,
    format: str | None = None,  # noqa: A002 - the option's name
    overwrite: bool = False,
    classes: int | None = None,
    base_file: BaseFile | None = None,
) -> None:
    """Write `source` as `target`, and show what was written.

    Raises
    ------
    DumpError, OSError
        For a source that cannot be read, or a target that cannot be written or hold it.
    """
    dump = open_dump(source, kind)
    if sequences is not None:
        dump = cut(dump, read_lengths(Path(sequences)))
    if (format or Path(target).suffix.lower()) in (BASE_FILE, BASE_FILE[1:]):
        _write_base_file(dump, Path(target), base_file or BaseFile(), overwrite=overwrite)
        return
    with progress("converting", _positions(dump)) as advance:
        done = convert(
            dump, target, format=format, overwrite=overwrite, classes=classes, advance=advance
        )
    for what in done.lost:
        warn(f"{target} does not hold {what}")
    # Top-k rows have no width, and are written in the dtype that servers compute in.
    shape = [("width", f"{dump.width:,}"), ("dtype", dump.dtype.name)] if dump.width else []
    show_table(
        [
            ("written", str(done.path)),
            ("sequences", f"{done.sequences:,}"),
            ("positions", f"{done.positions:,}"),
            *shape,
            ("size", size(done.bytes)),
        ]
    )


def _write_base_file(dump: Dump, target: Path, options: BaseFile, *, overwrite: bool) -> None:
    """As llama.cpp writes it: the second half of every sequence."""
    if target.exists() and not overwrite and not target.is_fifo():
        raise CommandError(f"{target} is there; --overwrite replaces it")
    if target.exists() and any(target.samefile(path) for path in getattr(dump, "paths", ())):
        raise CommandError(f"{target} is what is read")
    tokens = None
    if options.tokens is not None:
        tokens = NpyFile(Path(options.tokens), None, LABELS).all()
    header = write(target, dump, tokens, magic=options.magic, clip=options.clip)
    show_table(
        [
            ("written", str(target)),
            ("format", f"llama.cpp {header.magic}"),
            ("chunks", f"{header.chunks:,} of {header.context:,} tokens"),
            ("positions", f"{header.chunks * header.rows:,}"),
            ("vocabulary", f"{header.classes:,}"),
            ("size", f"{header.file_bytes / 1e9:.3g} GB"),
        ]
    )


def _positions(dump: Dump) -> int:
    """For the bar: 0 of a stream, which has not said."""
    if dump.count is None:
        return 0
    return sum(sequence.positions or 0 for sequence in dump.sequences())
