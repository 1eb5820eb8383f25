"""Tables in Parquet, as Polars has them: read, and what is said of those that cannot be."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, cast

import polars as pl

from kldiv.evaluation.dumps.protocol import DumpError


def read_table(source: str | IO[bytes], name: str) -> pl.DataFrame:
    """A whole table, by pyarrow where it is installed.

    Polars ends the process on some broken files, of which a page says that it has fewer values
    than none.

    Raises
    ------
    DumpError
        For a file that is not whole, which is called `name`.
    OSError
        For a file that cannot be read.
    """
    with reading(name):
        try:
            parquet = importlib.import_module("pyarrow.parquet")
        except ModuleNotFoundError:
            return pl.read_parquet(source)
        with parquet.ParquetFile(source) as file:
            return cast(pl.DataFrame, pl.from_arrow(file.read(use_threads=False)))


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
