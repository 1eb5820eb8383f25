"""Tokens that a server names by their text: ids made of the text, the same in every file."""

from __future__ import annotations

import hashlib
import re
from typing import Any

TEXT_IDS = 1 << 62
"""Ids from here on are of texts, below it they are the model's own."""
AMBIGUOUS = -(1 << 62)
"""What stands for a text that several tokens may have."""

_REPLACEMENT = "\ufffd".encode()
_TOKEN_ID = re.compile(r"token_id:(\d+)")
_LEGACY_BYTES = re.compile(r"bytes:((?:\\x[0-9a-fA-F]{2})+)")
_IDS: dict[bytes, int] = {}
_TEXTS: dict[int, bytes] = {}


def id_of_token(token: Any, spelled: Any = None, number: Any = None) -> int:
    r"""The id of a token, by the first of these that there is.

    `number`, the model's own id; ``"token_id:123"``, which vLLM writes for it; `spelled`, the bytes
    of the token; its text, in which ``"bytes:\xe2\x96"`` stands for bytes. Of bytes and text it is
    62 bits of their BLAKE2b digest: no table has to be shared, and two of 200,000 tokens have the
    same one with a probability of 10⁻⁸.

    A server writes U+FFFD in place of bytes that are no text by themselves, so that several tokens
    look alike: those are `AMBIGUOUS`.

    Raises
    ------
    ValueError
        For what is none of these.
    """
    if type(number) is int:
        return number
    if not isinstance(token, str):
        raise ValueError(f"a token is {token!r}; expected its text")
    if named := _TOKEN_ID.fullmatch(token):
        return int(named[1])
    if isinstance(spelled, list):
        try:
            return id_of_bytes(bytes(spelled))
        except (TypeError, ValueError):
            raise ValueError(f"the bytes of token {token!r} are no list of bytes") from None
    if named := _LEGACY_BYTES.fullmatch(token):
        return id_of_bytes(bytes.fromhex(named[1].replace("\\x", "")))
    return id_of_bytes(token.encode("utf-8", "surrogatepass"))


def id_of_bytes(text: bytes) -> int:
    """The id of a text, at least `TEXT_IDS`; `AMBIGUOUS` of one with U+FFFD."""
    found = _IDS.get(text)
    if found is None:
        if _REPLACEMENT in text:
            found = AMBIGUOUS
        else:
            digest = hashlib.blake2b(text, digest_size=8).digest()
            found = TEXT_IDS | int.from_bytes(digest, "little") & (TEXT_IDS - 1)
            _TEXTS[found] = text
        _IDS[text] = found
    return found


def text_of(token: int) -> str | None:
    """The text that an id was made of, as far as this process has read it."""
    text = _TEXTS.get(token)
    return None if text is None else text.decode("utf-8", "backslashreplace")


def describe(token: int) -> str:
    """How a message calls a token: its id, or its text."""
    text = text_of(token)
    return str(token) if text is None else repr(text)
