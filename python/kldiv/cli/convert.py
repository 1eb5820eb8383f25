"""`kldiv convert`: a dump in another format."""

from __future__ import annotations

from pathlib import Path

from kldiv.cli.errors import warn
from kldiv.cli.output import progress, show_table
from kldiv.evaluation.dumps.convert import convert
from kldiv.evaluation.dumps.describe import size
from kldiv.evaluation.dumps.formats import open_dump
from kldiv.evaluation.dumps.protocol import Dump, Kind
from kldiv.evaluation.dumps.sequences import cut, read_lengths


def run(
    source: str,
    target: str,
    *,
    kind: Kind | None = None,
    sequences: str | None = None,
    format: str | None = None,  # noqa: A002 - the option's name
    overwrite: bool = False,
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
    with progress("converting", _positions(dump)) as advance:
        done = convert(dump, target, format=format, overwrite=overwrite, advance=advance)
    for what in done.lost:
        warn(f"{target} does not hold {what}")
    show_table(
        [
            ("written", str(done.path)),
            ("sequences", f"{done.sequences:,}"),
            ("positions", f"{done.positions:,}"),
            ("width", f"{dump.width:,}"),
            ("dtype", dump.dtype.name),
            ("size", size(done.bytes)),
        ]
    )


def _positions(dump: Dump) -> int:
    """For the bar: 0 of a stream, which has not said."""
    if dump.count is None:
        return 0
    return sum(sequence.positions or 0 for sequence in dump.sequences())
