"""Numbers in words, as messages and tables have them."""

from __future__ import annotations

import math
from collections.abc import Sequence


def shape_text(shape: Sequence[int | None]) -> str:
    """Lengths of axes, the last one a row's: ``3×50×1,000``; what is not known is left out."""
    if None not in shape:
        return "×".join(f"{length:,}" for length in shape)
    *rows, width = shape
    known = [length for length in rows if length is not None]
    if width is None:
        return counted(math.prod(known), "row") if len(known) == len(rows) else ""
    return f"rows of {width:,}"


def counted(number: int, what: str) -> str:
    """A number of things: 1 row, 1,000 rows."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"
