"""Windows: what a model reads at a time, and which of the next tokens are scored there."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from kldiv._arrays import Array
from kldiv.evaluation.dumps.protocol import DumpError


@dataclass(frozen=True, eq=False)
class Window:
    """Some tokens of a document; each row of a model is what it says after one of them."""

    name: str
    """The document, and which of its tokens are read: ``FILE[512:1024]``."""
    document: str
    tokens: Array
    """int64: those that are read, and the one that follows the last of them."""
    first: int
    """How many tokens are read before the first row's own; the rows of these are not scored."""

    @property
    def inputs(self) -> Array:
        """What the model reads."""
        return self.tokens[:-1]

    @property
    def labels(self) -> Array:
        """The next token of every row that is scored."""
        return self.tokens[self.first + 1 :]

    def beginning(self, tokens: int) -> Window:
        """Only so many of its tokens, the first ones, all of whose rows are scored."""
        return replace(self, tokens=self.tokens[: tokens + 1], first=0)

    def __len__(self) -> int:
        """How many rows are scored."""
        return len(self.tokens) - 1 - self.first


def windows_of(
    documents: Iterable[tuple[str, Array]],
    text: str,
    *,
    context: int,
    stride: int | None = None,
    beginning: tuple[int, ...] = (),
    chunks: int | None = None,
) -> list[Window]:
    """Cut documents into windows of `context` tokens, so that every next token is scored once.

    A window begins `stride` tokens after the one before it and scores what that did not: with
    the stride of a window's own length, all its rows; with less, the last ones, which have the
    more context. The last window of a document ends with it, and begins that much earlier. A
    document shorter than a window is a window by itself. Where the tokenizer begins a text with
    tokens, every window begins with them, and they are of its length.

    Parameters
    ----------
    documents
        Names and token ids.
    text
        How messages call all of them.
    context, stride
        Tokens of a window, and from one to the next; as many as it has of the text without it.
    beginning
        What the tokenizer puts before a text.
    chunks
        Only so many windows, the first ones.

    Raises
    ------
    DumpError
        For documents of which none fills a window, and numbers out of range.
    """
    step = _check(context, stride, beginning)
    found: list[Window] = []
    longest = 0
    for name, tokens in documents:
        longest = max(longest, len(tokens) + len(beginning))
        for window in _of_document(name, tokens, context, step, beginning):
            if chunks is not None and len(found) == chunks:
                break
            found.append(window)
        if chunks is not None and len(found) == chunks:
            break
    _check_filled(longest, context, text)
    return found


def chunks_of(
    documents: Iterable[tuple[str, Array]],
    text: str,
    *,
    context: int,
    beginning: tuple[int, ...] = (),
    chunks: int | None = None,
) -> tuple[list[Window], Array]:
    """Cut documents as llama.cpp does: whole chunks, of which the second half is scored.

    Of a document what begins it is part of the first chunk; in the others it is read in the place
    of their first tokens. What is left at the end of a document is not read.

    Returns
    -------
    windows
        As of `windows_of`.
    tokens
        int64 ``[chunks, context]``: those of the text, as a base file has them.
    """
    _check(context, None, beginning)
    if context < 3:
        raise DumpError(f"the context is {context} tokens; of a base file 3 are the fewest")
    found: list[Window] = []
    kept: list[Array] = []
    longest = 0
    for name, tokens in documents:
        stream = np.concatenate([np.array(beginning, np.int64), tokens])
        longest = max(longest, len(stream))
        for start in range(0, len(stream) - context + 1, context):
            if chunks is not None and len(found) == chunks:
                break
            own = stream[start : start + context]
            read = own.copy()
            read[: len(beginning)] = beginning
            title = f"{name}[{start}:{start + context}]"
            found.append(Window(title, name, read, context // 2))
            kept.append(own)
    _check_filled(longest, context, text)
    return found, np.stack(kept)


def describe(windows: list[Window], context: int, stride: int | None) -> dict[str, Any]:
    """What was read, for manifests; the digest is of all token ids in their order."""
    digest = hashlib.sha256()
    for window in windows:
        digest.update(window.tokens.astype("<i8").tobytes())
    return {
        "documents": len({window.document for window in windows}),
        "windows": len(windows),
        "positions": sum(map(len, windows)),
        "context": context,
        "stride": stride,
        "tokens_sha256": digest.hexdigest(),
    }


def _of_document(
    name: str, tokens: Array, context: int, stride: int, beginning: tuple[int, ...]
) -> Iterator[Window]:
    before = len(beginning)
    most = context - before
    end = len(tokens) - 1  # the last token is only ever a next one
    # Without a beginning nothing is said of the first token.
    scored = -1 if before else 0
    start = 0
    while scored < end:
        begin = min(start, max(0, end - most))
        stop = min(begin + most, end)
        first_label = max(scored + 1, begin if before else begin + 1)
        ids = np.concatenate([np.array(beginning, np.int64), tokens[begin : stop + 1]])
        yield Window(f"{name}[{begin}:{stop}]", name, ids, before + first_label - 1 - begin)
        scored = stop
        start += stride


def _check(context: int, stride: int | None, beginning: tuple[int, ...]) -> int:
    """The stride, where all is in range."""
    most = context - len(beginning)
    least = len(beginning) + 1
    if context < max(2, least):
        raise DumpError(f"the context is {context}; expected at least {max(2, least)} tokens")
    if stride is None:
        return most
    if not 1 <= stride <= most:
        own = f", of which {len(beginning)} begin it" if beginning else ""
        raise DumpError(
            f"the stride is {stride}; expected 1 to {most}, as a window has {context} tokens{own}"
        )
    return stride


def _check_filled(longest: int, context: int, text: str) -> None:
    if longest >= context:
        return
    if not longest:
        raise DumpError(f"{text} has no token")
    other = f", or a context of {longest:,}" if longest > 2 else ""
    raise DumpError(
        f"{text} is shorter than a window: it has {longest:,} tokens, and the context is "
        f"{context:,}; give more text{other}"
    )
