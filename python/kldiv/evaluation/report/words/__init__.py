"""What pages and charts say, in every language: one table a language, `en.toml` and `zh.toml`."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files
from typing import Any

LANGUAGES = ("en", "zh")
_OF_WINDOWS = (
    *("count.text.one", "count.text.many", "count.cluster.one", "count.cluster.many"),
    *("texts", "texts.name", "texts.some", "method.positions"),
    *("detail.no_error", "detail.no_error_bound"),
)


class Words(dict[str, str]):
    """The words of a language by name; called with values, one of them with these put in."""

    def __call__(self, name: str, /, **values: Any) -> str:
        """One of them, with values in its braces."""
        return self[name].format(**values)

    def of_windows(self) -> Words:
        """The same, for sequences that are windows of a text and no texts by themselves."""
        return Words(self | {name: self[f"windows.{name}"] for name in _OF_WINDOWS})

    def count(self, number: int, what: str) -> str:
        """So many of something: 1 position, 1,000 positions."""
        form = "one" if number == 1 else "many"
        return self(f"count.{what}.{form}", number=f"{number:,}")


@cache
def words_of(lang: str) -> Words:
    """The words of a language.

    Raises
    ------
    ValueError
        For a language that there are none of.
    """
    if lang not in LANGUAGES:
        raise ValueError(f"lang is {lang!r}; expected one of {', '.join(LANGUAGES)}")
    return Words(tomllib.loads((files(__package__) / f"{lang}.toml").read_text(encoding="utf-8")))
