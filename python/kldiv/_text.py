"""Text from files in messages."""

from __future__ import annotations

import re


def one_line(text: str) -> str:
    """Text in one line that can be printed: ends of lines are spaces, other characters escaped.

    Names in files may be anything, among it what moves the cursor of a terminal.
    """
    text = re.sub(r"\s*[\n\r\t\v\f]\s*", " ", text)
    if text.isprintable():
        return text
    return "".join(x if x.isprintable() else repr(x)[1:-1] for x in text)
