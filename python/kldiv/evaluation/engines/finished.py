"""A block that is scored, in memory and as the bytes of a Parquet file."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import polars as pl

from kldiv.evaluation.parquet_tables import read_table, reading

KEY = "kldiv.block"
_CANDIDATE = "candidate"


@dataclass
class Finished:
    """What a block has of every candidate."""

    tables: list[pl.DataFrame]
    positions: int
    """Those that a mask leaves out among them."""
    warned: list[tuple[str, str]] = field(default_factory=list)
    """Category, by module and name, and text of warnings."""

    def encode(self, **more: Any) -> bytes:
        """One table of all candidates, as a Parquet file; `more` is kept beside it."""
        numbered = [
            table.insert_column(0, pl.Series(_CANDIDATE, [number] * len(table), pl.UInt16))
            for number, table in enumerate(map(pl.DataFrame.clone, self.tables))
        ]
        about = {
            "columns": [table.columns for table in self.tables],
            "positions": self.positions,
            "warned": self.warned,
            **more,
        }
        memory = BytesIO()
        pl.concat(numbered, how="diagonal").write_parquet(
            memory, metadata={KEY: json.dumps(about, ensure_ascii=False)}
        )
        return memory.getvalue()

    @classmethod
    def decode(cls, data: bytes) -> tuple[Finished, dict[str, Any]]:
        """What was encoded, and what was kept beside it.

        Raises
        ------
        ValueError
            For bytes of something else.
        """
        try:
            with reading("it"):
                frame = read_table(BytesIO(data), "it")
                about = json.loads(pl.read_parquet_metadata(BytesIO(data))[KEY])
                tables = [
                    frame.filter(pl.col(_CANDIDATE) == number).select(columns)
                    for number, columns in enumerate(about["columns"])
                ]
            warned = [(str(category), str(text)) for category, text in about["warned"]]
            return cls(tables, int(about["positions"]), warned), about
        except (KeyError, TypeError, RecursionError) as error:
            raise ValueError(f"it lacks what a block has ({type(error).__name__})") from None


@contextmanager
def recorded() -> Iterator[list[tuple[str, str]]]:
    """Collect warnings instead of showing them; not for several threads at a time."""
    found: list[tuple[str, str]] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield found
        for one in caught:
            found.append((f"{one.category.__module__}.{one.category.__name__}", str(one.message)))
