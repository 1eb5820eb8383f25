"""Pages that commands write: their options, checked before anything is computed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from kldiv import _optional
from kldiv.cli.errors import CommandError
from kldiv.evaluation.evaluation import Evaluation
from kldiv.evaluation.report.words import LANGUAGES


@dataclass(frozen=True)
class Page:
    """A page on an evaluation, as typed."""

    html: str | None
    lang: str | None = None
    tokenizer: str | None = None

    def check(self) -> None:
        """Raise `CommandError` for options of no page, and for what is missing to write one."""
        check_language(self.lang)
        if self.html is None:
            for option, given in (("--lang", self.lang), ("--tokenizer", self.tokenizer)):
                if given is not None:
                    raise CommandError(f"{option} is about a page; name its file by --html")
            return
        check_page(self.html)
        if self.tokenizer is not None:
            with libraries_named():
                _optional.module("kldiv.evaluation.report.tokens").tokens_of(self.tokenizer)

    def write(self, result: Evaluation, statistics: dict[str, Any]) -> None:
        """Write it, if it was asked for."""
        if self.html is None:
            return
        try:
            result.to_html(
                self.html, lang=self.lang or "en", tokenizer=self.tokenizer, **statistics
            )
        except ValueError as error:
            raise CommandError(str(error)) from None


def check_page(html: str) -> None:
    """Raise `CommandError` unless pages can be made, and `html` is the name of a file."""
    if html == "-":
        raise CommandError("--html names a file; a page is not printed")
    with libraries_named():
        _optional.module("kldiv.evaluation.report.page")


def check_language(lang: str | None) -> None:
    """Raise `CommandError` for a language that there are no words of."""
    if lang is not None and lang not in LANGUAGES:
        raise CommandError(f"--lang is {lang!r}; expected one of {', '.join(LANGUAGES)}")


@contextmanager
def libraries_named() -> Iterator[None]:
    """What is missing is the user's to install: one line that says how."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise CommandError(str(error)) from None
