"""Numbers in words, as messages and tables have them."""

from __future__ import annotations


def counted(number: int, what: str) -> str:
    """A number of things: 1 row, 1,000 rows."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"
