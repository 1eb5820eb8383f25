"""Tables in Parquet as Polars reads them: what it says of those that it cannot."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import polars as pl

from kldiv.evaluation.dumps.protocol import DumpError


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Make a `DumpError` that names the file of what Polars raises for a broken one.

    Of some that is a panic, which is no `Exception`; and of metadata that is no UTF-8, what
    decodes it.
    """
    try:
        yield
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, UnicodeDecodeError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise DumpError(f"{name} is not a readable Parquet file: {reason}") from None
    except OSError as error:
        if error.errno is not None:
            raise
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise DumpError(f"{name} is not a readable Parquet file: {reason}") from None
