"""Letters that have no shape of their own, or turn others around: seen instead of obeyed."""

from __future__ import annotations

import unicodedata

_JOINERS = frozenset("\u200c\u200d")
_SIGNS = {"\n": "⏎", "\r": "␍", "\t": "⇥"}


def visible(text: str) -> str:
    """A text in which what has no shape of its own, or turns others around, is seen."""
    return "".join(_SIGNS.get(letter) or _seen(letter) for letter in text)


def _seen(letter: str) -> str:
    kind = unicodedata.category(letter)
    if kind in ("Cc", "Cs", "Zl", "Zp") or (kind == "Cf" and letter not in _JOINERS):
        return letter.encode("unicode_escape").decode()
    return letter
