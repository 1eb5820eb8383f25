"""What is read before a model runs: names, tokenizers, configurations, and the text as windows."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from kldiv._arrays import Array
from kldiv.evaluation.dumps.protocol import DumpError
from kldiv.evaluation.models import windows as cutting
from kldiv.evaluation.models.checkpoint import Checkpoint, check_config, check_context, find
from kldiv.evaluation.models.language_model import LanguageModel
from kldiv.evaluation.models.loading import check_dtype, device_of, load
from kldiv.evaluation.models.texts import Document, read_documents
from kldiv.evaluation.models.tokenizer import Tokenizer, check_same, encode_alike
from kldiv.evaluation.models.windows import Window

CONTEXT = 512

Given = str | os.PathLike[str] | LanguageModel
Text = str | os.PathLike[str] | Iterable[str]
"""A file or directory, or texts that a program holds."""


@dataclass(frozen=True)
class Models:
    """Models by name, or loaded already, that have one tokenizer."""

    given: tuple[Checkpoint | LanguageModel, ...]
    tokenizers: tuple[Tokenizer, ...]
    device: str
    dtype: str

    @classmethod
    def found(cls, given: tuple[Given, ...], context: int, device: str, dtype: str) -> Models:
        """Look models up, with what can be said of them before their weights are read.

        Raises
        ------
        DumpError
            For a model that is not there, has no language-model head, reads fewer tokens than
            `context` or has another tokenizer, and a device or dtype that is not there.
        """
        check_dtype(dtype)
        found = tuple(
            one if isinstance(one, LanguageModel) else find(os.fspath(one)) for one in given
        )
        names = [one.name for one in found[1:]]
        if twice := [name for name in names if names.count(name) > 1]:
            raise DumpError(f"two candidates have the name {twice[0]}")
        device_of(device)
        tokenizers: dict[Checkpoint | LanguageModel, Tokenizer] = {}
        for one in dict.fromkeys(found):
            if isinstance(one, LanguageModel):
                check_context(one.name, one.model.config, context)
                tokenizers[one] = one.tokenizer
            else:
                check_config(one, one.config(), context)
                tokenizers[one] = one.tokenizer()
        check_same(list(tokenizers.values()))
        return cls(found, tuple(tokenizers[one] for one in found), device, dtype)

    @property
    def tokenizer(self) -> Tokenizer:
        """That of the first, which all have."""
        return self.tokenizers[0]

    def encode(self, documents: Iterable[Document]) -> Iterator[tuple[str, Array]]:
        """Names and token ids of documents, on which all tokenizers agree."""
        different = list(dict.fromkeys(self.tokenizers))
        for document in documents:
            yield document.name, encode_alike(different, document)

    def load(self, place: int) -> LanguageModel:
        """One of them, with its weights."""
        one = self.given[place]
        if isinstance(one, LanguageModel):
            return one
        return load(one, self.tokenizers[place], device=self.device, dtype=self.dtype)


@dataclass(frozen=True)
class Reading:
    """Models that have been found to fit, and the windows that they are to read."""

    models: Models
    windows: list[Window]
    text: str
    context: int
    stride: int | None
    tokens: Array | None = None
    """Of chunks, all ids as a base file of llama.cpp has them."""

    @classmethod
    def of(
        cls,
        given: tuple[Given, ...],
        text: Text,
        *,
        context: int = CONTEXT,
        stride: int | None = None,
        chunks: int | None = None,
        device: str = "auto",
        dtype: str = "auto",
        llama_cpp: bool = False,
    ) -> Reading:
        """Check all that can be checked before weights are read, and cut the text.

        With `llama_cpp` into chunks as a base file has them.

        Raises
        ------
        DumpError, ValueError, OSError
            As `evaluate_models`.
        """
        documents = documents_of(text)
        models = Models.found(given, context, device, dtype)
        beginning = models.tokenizer.beginning
        name, encoded = name_of(text), models.encode(documents)
        if llama_cpp:
            windows, tokens = cutting.chunks_of(
                encoded, name, context=context, beginning=beginning, chunks=chunks
            )
            return cls(models, windows, name, context, None, tokens)
        windows = cutting.windows_of(
            encoded, name, context=context, stride=stride, beginning=beginning, chunks=chunks
        )
        return cls(models, windows, name, context, stride)

    @property
    def positions(self) -> int:
        """How many are scored."""
        return sum(map(len, self.windows))

    def describe(self) -> dict[str, Any]:
        """Text, tokenizer and windows, for manifests."""
        return {
            "text": self.text,
            "tokenizer": self.models.tokenizer.describe(),
            "windows": cutting.describe(self.windows, self.context, self.stride),
        }


def name_of(text: Text) -> str:
    """How messages call a text."""
    return os.fspath(text) if isinstance(text, (str, os.PathLike)) else "text"


def documents_of(text: Text) -> Iterator[Document]:
    """The documents of a text, of which the first is read at once: what is wrong shows early."""
    documents = _documents(text)
    first = list(itertools.islice(documents, 1))
    return itertools.chain(first, documents)


def _documents(text: Text) -> Iterator[Document]:
    if isinstance(text, (str, os.PathLike)):
        yield from read_documents(os.fspath(text))
        return
    for number, one in enumerate(text):
        if not isinstance(one, str):
            raise TypeError(f"text[{number}] is {type(one).__name__}; expected a string")
        yield Document(f"text[{number}]", one)
