"""The text of tokens, by whatever tokenizer there is."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from kldiv.evaluation.dumps.names import check_exists
from kldiv.evaluation.dumps.protocol import DumpError
from kldiv.evaluation.report.gguf_tokens import (
    read_tokens,
    spelled_by_bytes,
    spelled_by_pieces,
)

REPLACEMENT = "\ufffd"


class Tokens(Protocol):
    """What a page asks of a tokenizer."""

    @property
    def name(self) -> str:
        """How messages call it."""

    @property
    def size(self) -> int:
        """Ids from here on are none of its tokens'."""

    def text(self, ids: Sequence[int]) -> str:
        """The text of consecutive tokens, special ones included."""

    def token(self, number: int) -> str:
        r"""The text of one; the bytes, as ``\xe4\xbd``, where these alone are no text."""


def tokens_of(given: Any) -> Tokens | None:
    """A tokenizer: of its file or directory, of the library tokenizers, or of transformers.

    A file is a ``tokenizer.json`` or a GGUF; a directory holds one, or what transformers loads.

    Raises
    ------
    DumpError
        For a file that is no tokenizer.
    TypeError
        For an object that is none.
    FileNotFoundError
        For a path that is not there.
    ModuleNotFoundError
        Without the library that reads it, with the line that installs it.
    """
    if given is None:
        return None
    if isinstance(given, (str, os.PathLike)):
        return _opened(Path(given))
    if hasattr(given, "id_to_token") and hasattr(given, "get_vocab_size"):
        return FastTokens("tokenizer", given)
    if hasattr(given, "convert_ids_to_tokens") and hasattr(given, "decode"):
        return TransformersTokens(str(getattr(given, "name_or_path", "") or "tokenizer"), given)
    raise TypeError(
        "tokenizer is a path, or a tokenizer of the libraries tokenizers or transformers, got "
        f"{type(given).__name__}"
    )


def _opened(path: Path) -> Tokens:
    check_exists(path, (".json", ".gguf"))
    if path.is_dir():
        if (path / "tokenizer.json").is_file():
            return _opened(path / "tokenizer.json")
        files = sorted(path.glob("*.gguf"))
        if files:
            return GgufTokens(str(files[0]), read_tokens(files[0]))
        return _by_transformers(path)
    with path.open("rb") as file:
        if file.read(4) == b"GGUF":
            return GgufTokens(str(path), read_tokens(path))
    try:
        from tokenizers import Tokenizer
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "a tokenizer.json needs tokenizers: pip install 'kldiv[report]'", name="tokenizers"
        ) from None
    try:
        return FastTokens(str(path), Tokenizer.from_file(str(path)))
    except BaseException as error:
        # The library has no class of its own, and of some files it panics, which is no Exception.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = " ".join(str(error).split())[:200]
        raise DumpError(f"{path} is no tokenizer.json and no GGUF file: {reason}") from None


def _by_transformers(path: Path) -> Tokens:
    try:
        from transformers import AutoTokenizer
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            f"{path} has no tokenizer.json; other tokenizers need transformers: "
            "pip install transformers",
            name="transformers",
        ) from None
    try:
        return TransformersTokens(
            str(path), AutoTokenizer.from_pretrained(path, local_files_only=True)
        )
    except Exception as error:  # OSError, ValueError and others, by the kind of tokenizer
        reason = " ".join(str(error).split())[:200]
        raise DumpError(f"{path} holds no tokenizer: {reason}") from None


@dataclass(frozen=True)
class FastTokens:
    """A tokenizer of the library tokenizers."""

    name: str
    tokenizer: Any

    @cached_property
    def size(self) -> int:
        """With added tokens, whose ids may have gaps before them."""
        return 1 + max(self.tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)

    def text(self, ids: Sequence[int]) -> str:
        """Decoded together, so that characters of several tokens are whole."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=False))

    def token(self, number: int) -> str:
        """Decoded alone."""
        return _alone(self.text([number]), self.tokenizer.id_to_token(number))


@dataclass(frozen=True)
class TransformersTokens:
    """A tokenizer of transformers."""

    name: str
    tokenizer: Any

    @cached_property
    def size(self) -> int:
        """With added tokens."""
        return len(self.tokenizer)

    def text(self, ids: Sequence[int]) -> str:
        """Decoded together, as they are."""
        options = {"skip_special_tokens": False, "clean_up_tokenization_spaces": False}
        return str(self.tokenizer.decode(list(ids), **options))

    def token(self, number: int) -> str:
        """Decoded alone."""
        return _alone(self.text([number]), self.tokenizer.convert_ids_to_tokens(number))


@dataclass(frozen=True)
class GgufTokens:
    """The tokens of a GGUF file."""

    name: str
    spelled: list[bytes]

    @property
    def size(self) -> int:
        """All of them."""
        return len(self.spelled)

    def text(self, ids: Sequence[int]) -> str:
        """Their bytes one after the other."""
        return b"".join(self.spelled[one] for one in ids).decode("utf-8", "replace")

    def token(self, number: int) -> str:
        """Its bytes, as text where they are."""
        return _text_or_bytes(self.spelled[number])


def _alone(text: str, spelled: str | None) -> str:
    """A token as text; by its own spelling where that gives none or only a part of a character."""
    if text and REPLACEMENT not in text:
        # SentencePiece leaves out the space that a text begins with.
        if spelled and spelled.startswith("▁") and not text.startswith(" "):
            return f" {text}"
        return text
    if spelled is None:
        return text
    by = spelled_by_pieces if re.fullmatch(r"<0x[0-9A-Fa-f]{2}>|▁.*", spelled) else spelled_by_bytes
    return _text_or_bytes(by(spelled))


def _text_or_bytes(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("utf-8", "backslashreplace")
