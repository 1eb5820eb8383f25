"""The tokens of a GGUF file: read from its header, without its weights."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, BinaryIO

from kldiv.evaluation.dumps.protocol import DumpError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MOST_ENTRIES = 1 << 24
"""Entries of a list, and bytes of a text: more is a damaged header."""
LITERAL = frozenset({3, 4})
"""Token types, control and user-defined, whose text is written as it is."""

_NUMBERS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
_STRING, _ARRAY = 8, 9
_WANTED = ("tokenizer.ggml.model", "tokenizer.ggml.tokens", "tokenizer.ggml.token_type")


def read_tokens(path: Path) -> list[bytes]:
    """The bytes of every token, in the order of their ids.

    Raises
    ------
    DumpError
        For a file that is no GGUF, is damaged, or has no tokens of a kind that is known here.
    """
    with path.open("rb") as file:
        try:
            found = _header(file)
        except (struct.error, UnicodeDecodeError, KeyError, RecursionError, _DamagedError):
            raise DumpError(f"{path} has a damaged GGUF header") from None
    if found is None:
        raise DumpError(f"{path} is no GGUF file of version 2 or 3")
    kind, tokens, types = (found.get(name) for name in _WANTED)
    if not tokens:
        raise DumpError(f"{path} holds no tokens; expected a GGUF file of a language model")
    if kind not in ("gpt2", "llama", "t5"):
        raise DumpError(
            f"{path} has a tokenizer of kind {kind!r}, which is not read here; "
            "give its tokenizer.json"
        )
    sound = isinstance(tokens, list) and all(isinstance(token, str) for token in tokens)
    if not sound or not isinstance(types, list | None):
        raise DumpError(f"{path} has tokens, or types of them, that are no lists of such")
    types = types or [1] * len(tokens)
    if len(types) != len(tokens):
        raise DumpError(f"{path} has {len(tokens):,} tokens, and types of {len(types):,}")
    spell = spelled_by_bytes if kind == "gpt2" else spelled_by_pieces
    return [
        token.encode("utf-8", "surrogateescape") if kind in LITERAL else spell(token)
        for token, kind in zip(tokens, types, strict=True)
    ]


def spelled_by_bytes(token: str) -> bytes:
    """The bytes of a token of GPT-2's alphabet, which has a letter for every byte."""
    if all(letter in _BYTES for letter in token):
        return bytes(_BYTES[letter] for letter in token)
    return token.encode("utf-8", "surrogatepass")


def spelled_by_pieces(token: str) -> bytes:
    """The bytes of a token of SentencePiece: ▁ is a space, <0xE4> a byte."""
    if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
        try:
            return bytes([int(token[3:5], 16)])
        except ValueError:
            pass
    return token.replace("▁", " ").encode("utf-8", "surrogatepass")


class _DamagedError(Exception):
    pass


def _header(file: BinaryIO) -> dict[str, Any] | None:
    if file.read(4) != MAGIC or _number(file, "I") not in VERSIONS:
        return None
    _number(file, "Q")
    count = _number(file, "Q")
    found = {}
    for _ in range(min(count, MOST_ENTRIES)):
        name = _text(file)
        value = _value(file, _number(file, "I"))
        if name in _WANTED:
            found[name] = value
    return found


def _value(file: BinaryIO, kind: int) -> Any:
    if kind == _STRING:
        return _text(file)
    if kind != _ARRAY:
        return _number(file, _NUMBERS[kind])
    of, count = _number(file, "I"), _number(file, "Q")
    if count > MOST_ENTRIES:
        raise _DamagedError
    if of in _NUMBERS:
        size = struct.calcsize(_NUMBERS[of])
        data = file.read(size * count)
        return list(struct.unpack(f"<{count}{_NUMBERS[of]}", data))
    return [_value(file, of) for _ in range(count)]


def _text(file: BinaryIO) -> str:
    length = _number(file, "Q")
    if length > MOST_ENTRIES:
        raise _DamagedError
    data = file.read(length)
    if len(data) < length:
        raise _DamagedError
    return data.decode("utf-8", "surrogateescape")


def _number(file: BinaryIO, code: str) -> Any:
    return struct.unpack(f"<{code}", file.read(struct.calcsize(code)))[0]


def _alphabet() -> dict[str, int]:
    """GPT-2's letter for every byte: itself where it can be printed, else one from 256 on."""
    printed = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = (byte for byte in range(256) if byte not in printed)
    letters = {chr(byte): byte for byte in printed}
    return letters | {chr(256 + place): byte for place, byte in enumerate(others)}


_BYTES = _alphabet()
