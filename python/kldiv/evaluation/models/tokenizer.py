"""The tokenizer of a model, and whether all models have the same one."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from kldiv._arrays import Array
from kldiv.evaluation.dumps.protocol import DumpError
from kldiv.evaluation.models.texts import Document

# What llama.cpp's converter calls rows of the embedding that stand for no token.
_FILLER = re.compile(r"\[PAD(\d+)\]")


@dataclass(frozen=True, eq=False)
class Tokenizer:
    """A tokenizer of transformers."""

    name: str
    """The model's, as the user named it."""
    tokenizer: Any

    @cached_property
    def vocabulary(self) -> dict[str, int]:
        """The ids of all tokens; those that llama.cpp fills a vocabulary up with are none."""
        return {
            token: number
            for token, number in self.tokenizer.get_vocab().items()
            if not ((filler := _FILLER.fullmatch(token)) and int(filler[1]) == number)
        }

    @property
    def classes(self) -> int:
        """How many classes are tokens: those of a model from here on are padding."""
        return max(self.vocabulary.values(), default=-1) + 1

    @cached_property
    def beginning(self) -> tuple[int, ...]:
        """The ids that it puts before a text, as BOS."""
        plain = self._ids("a", special=False)
        whole = self._ids("a", special=True)
        for start in range(len(whole) - len(plain) + 1):
            if whole[start : start + len(plain)] == plain:
                return tuple(whole[:start])
        raise DumpError(f"the tokenizer of {self.name} changes a text that it adds tokens to")

    @property
    def digest(self) -> str:
        """SHA-256 of all tokens with their ids, and of those it begins a text with."""
        content = [sorted(self.vocabulary.items()), list(self.beginning)]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def encode(self, text: str) -> Array:
        """The ids of a text, int64, without any that are put before or behind it."""
        return np.array(self._ids(text, special=False), np.int64)

    def spell(self, ids: Any) -> str:
        """How a message shows some tokens."""
        return repr(self.tokenizer.decode([int(one) for one in ids]))

    def describe(self) -> dict[str, Any]:
        """For manifests."""
        return {
            "class": type(self.tokenizer).__name__,
            "sha256": self.digest,
            "tokens": len(self.vocabulary),
            "begins_with": [self.tokenizer.convert_ids_to_tokens(one) for one in self.beginning],
        }

    def _ids(self, text: str, *, special: bool) -> list[int]:
        # A text may be longer than the model reads at once; windows are not.
        found = self.tokenizer(text, add_special_tokens=special, verbose=False)
        ids: list[int] = found["input_ids"]
        return ids


def check_same(tokenizers: list[Tokenizer]) -> None:
    """Raise `DumpError` unless all have the same tokens, ids and beginning of a text."""
    first = tokenizers[0]
    for other in tokenizers[1:]:
        differ = f"the tokenizers of {first.name} and {other.name} differ"
        if first.vocabulary != other.vocabulary:
            raise DumpError(f"{differ}: {_difference(first, other)}")
        if first.beginning != other.beginning:
            begins = (
                " ".join(one.tokenizer.convert_ids_to_tokens(list(one.beginning))) or "nothing"
                for one in (first, other)
            )
            raise DumpError(f"{differ}: a text begins with {' or '.join(begins)}")


def _difference(first: Tokenizer, other: Tokenizer) -> str:
    """In what two vocabularies differ: of ids, the lowest."""
    sides = [{number: token for token, number in one.vocabulary.items()} for one in (first, other)]
    ids = sorted(sides[0].keys() | sides[1].keys())
    number = next(one for one in ids if sides[0].get(one) != sides[1].get(one))
    said = (repr(side[number]) if number in side else "no token" for side in sides)
    sizes = " and ".join(f"{len(side):,}" for side in sides)
    return f"id {number:,} is {' or '.join(said)}; they have {sizes} tokens"


def encode_alike(tokenizers: list[Tokenizer], document: Document) -> Array:
    """The ids of a document, which all tokenizers must agree on."""
    first, *others = tokenizers
    ids = first.encode(document.text)
    for other in others:
        theirs = other.encode(document.text)
        if np.array_equal(ids, theirs):
            continue
        both = min(len(ids), len(theirs))
        wrong = ids[:both] != theirs[:both]
        place = int(wrong.argmax()) if wrong.any() else both
        ahead = slice(place, place + 4)
        raise DumpError(
            f"the tokenizers of {first.name} and {other.name} differ: token {place:,} of "
            f"{document.name} begins {first.spell(ids[ahead])}, cut as {_cut(first, ids[ahead])} "
            f"or as {_cut(other, theirs[ahead])}"
        )
    return ids


def _cut(tokenizer: Tokenizer, ids: Array) -> str:
    return repr("|".join(tokenizer.spell([one])[1:-1] for one in ids)) if len(ids) else "nothing"
