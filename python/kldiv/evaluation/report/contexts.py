"""The text around positions: which tokens are known there, and how they are shown."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from kldiv.evaluation.dumps import llama_cpp
from kldiv.evaluation.dumps.protocol import DumpError
from kldiv.evaluation.dumps.server_json import TEXT_IDS, text_of
from kldiv.evaluation.report.letters import visible
from kldiv.evaluation.report.tokens import Tokens
from kldiv.evaluation.report.words import Words

BEFORE, AFTER = 40, 8
"""Tokens shown before and behind the one that a position is about."""


@dataclass(frozen=True)
class Context:
    """Ids around a position: those before the true next token, it, and those behind."""

    before: tuple[int, ...]
    token: int | None
    after: tuple[int, ...]
    from_the_start: bool
    """Whether `before` begins where the text does."""


class Texts:
    """The token ids that are known: those of the table, and of llama.cpp's base file."""

    def __init__(self, positions: pl.DataFrame, about: dict[str, Any]) -> None:
        self._rows = None
        self._base = None
        if "token" in positions.columns:
            self._rows = positions.filter(pl.col("token").is_not_null())
            self._base = _base_file(about)

    def around(self, sequence: int, position: int) -> Context:
        """What is known around a position without a gap."""
        known = self._known(sequence, position)
        start = position + 1
        while start - 1 in known and position + 1 - start < BEFORE:
            start -= 1
        end = position + 2
        while position + 1 in known and end in known and end - position - 2 < AFTER:
            end += 1
        return Context(
            tuple(known[place] for place in range(start, position + 1)),
            known.get(position + 1),
            tuple(known[place] for place in range(position + 2, end)),
            start == 0,
        )

    def _known(self, sequence: int, position: int) -> dict[int, int]:
        """Ids by their places in the sequence; a row's token is the next one."""
        if self._rows is None:
            return {}
        near = pl.col("position").is_between(max(0, position - BEFORE), position + AFTER)
        rows = self._rows.filter((pl.col("sequence") == sequence) & near)
        places = (rows["position"].cast(pl.Int64) + 1).to_list()
        known: dict[int, int] = dict(zip(places, rows["token"].to_list(), strict=True))
        if self._base is not None and sequence < len(self._base.tokens):
            stored = dict(enumerate(self._base.tokens[sequence].tolist()))
            # The file may be another one by now.
            if known and all(stored.get(place) == token for place, token in known.items()):
                return stored
        return known


def _base_file(about: dict[str, Any]) -> llama_cpp.LlamaCppDump | None:
    """llama.cpp's base file that was the reference: it has the tokens of the first halves, too."""
    described = about.get("reference") or {}
    if not str(described.get("format", "")).startswith("llama.cpp "):
        return None
    path = Path(str(described["file"]))
    try:
        return llama_cpp.open(path) if llama_cpp.probe(path) else None
    except (DumpError, OSError):
        return None


class Speller:
    """Ids as text."""

    def __init__(self, tokens: Tokens | None, words: Words) -> None:
        self._tokens = tokens
        self._words = words

    def one(self, token: int) -> tuple[str, bool]:
        """How a token is shown, and whether that is its text."""
        if token >= TEXT_IDS:
            text = text_of(token)
            return (self._words["worst.served"], False) if text is None else (visible(text), True)
        if self._tokens is None or not 0 <= token < self._tokens.size:
            return self._words("worst.token", id=token), False
        return visible(self._tokens.token(token)), True

    def passage(self, context: Context) -> tuple[str, str, str] | None:
        """The text before the true token, its own and that behind; None where it is not known."""
        if context.token is None:
            return None
        ids = (*context.before, context.token, *context.after)
        until = len(context.before)
        if all(token >= TEXT_IDS for token in ids):
            texts = [text_of(token) for token in ids]
            if None in texts:
                return None
            parts = texts[:until], texts[until : until + 1], texts[until + 1 :]
            before, token, after = ("".join(map(str, part)) for part in parts)
        elif self._tokens is None or not all(0 <= one < self._tokens.size for one in ids):
            return None
        else:
            # Cut out of the whole, which alone has every space and all letters of several tokens.
            whole = self._tokens.text(ids)
            start = _common(self._tokens.text(ids[:until]), whole) if until else 0
            end = max(start + 1, _common(self._tokens.text(ids[: until + 1]), whole))
            before, token, after = whole[:start], whole[start:end], whole[end:]
        return visible(before), visible(token), visible(after)


def _common(text: str, whole: str) -> int:
    """How far a text is the beginning of another."""
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(text, whole, strict=False))
    return sum(1 for _ in same)


def check_vocabulary(tokens: Tokens, positions: pl.DataFrame) -> None:
    """Raise `ValueError` for a tokenizer that lacks a token of the text.

    Most probable classes may be beyond it: some pad the vocabulary.
    """
    if "token" not in positions.columns:
        return
    found = positions.filter((pl.col("token") >= tokens.size) & (pl.col("token") < TEXT_IDS))
    if len(found):
        row = found.row(0, named=True)
        raise ValueError(
            f"{tokens.name} has {tokens.size:,} tokens, and after position {row['position']} of "
            f"sequence {row['sequence']} comes token {row['token']:,}; "
            "expected the tokenizer of the models"
        )
