"""Tables in Parquet, as Polars has them: read, and what is said of those that cannot be."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import IO, cast

import polars as pl

from kldiv.evaluation.dumps.protocol import DumpError

ROWS = 1000
"""Rows of a table that are in memory at a time."""


def _pyarrow() -> ModuleType | None:
    """What reads tables where it is installed.

    Polars ends the process on some broken files, of which a page says that it has fewer values
    than none.
    """
    try:
        return importlib.import_module("pyarrow.parquet")
    except ModuleNotFoundError:
        return None


def read_table(source: str | IO[bytes], name: str) -> pl.DataFrame:
    """A whole table, by pyarrow where it is installed.

    Raises
    ------
    DumpError
        For a file that is not whole, which is called `name`.
    OSError
        For a file that cannot be read.
    """
    with reading(name):
        parquet = _pyarrow()
        if parquet is None:
            return pl.read_parquet(source)
        with parquet.ParquetFile(source) as file:
            return cast(pl.DataFrame, pl.from_arrow(file.read(use_threads=False)))


def string_columns(path: Path) -> list[str]:
    """The columns of strings of a table, in the same way."""
    with reading(str(path)), path.open("rb") as file:
        parquet = _pyarrow()
        if parquet is None:
            schema = pl.read_parquet_schema(file)
        else:
            empty = parquet.read_schema(file).empty_table()
            schema = cast(pl.DataFrame, pl.from_arrow(empty)).schema
        return [name for name, dtype in schema.items() if dtype == pl.String]


def strings(path: Path, column: str) -> Iterator[str | None]:
    """The strings of a column, of which `ROWS` are in memory at a time."""
    with reading(str(path)):
        parquet = _pyarrow()
        if parquet is None:
            rows = pl.scan_parquet(path).select(column)
            for start in range(0, rows.select(pl.len()).collect().item(), ROWS):
                yield from rows.slice(start, ROWS).collect()[column]
            return
        with path.open("rb") as opened, parquet.ParquetFile(opened) as file:
            for part in file.iter_batches(ROWS, columns=[column], use_threads=False):
                yield from part.column(0).to_pylist()


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Make a `DumpError` that names the file of what Polars and pyarrow raise for a broken one.

    Of some that is a panic, which is no `Exception`; and of metadata that is no UTF-8, what
    decodes it.
    """
    try:
        yield
    except DumpError:
        raise
    except (Exception, pl.exceptions.PanicException) as error:
        ours = type(error).__module__.split(".")[0] in ("polars", "pyarrow", "pyo3_runtime")
        # Errors of the system have a number, those of the libraries none.
        unnumbered = isinstance(error, OSError) and error.errno is None
        if not (ours or unnumbered or isinstance(error, UnicodeDecodeError)):
            raise
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise DumpError(f"{name} is not a readable Parquet file: {reason}") from None
