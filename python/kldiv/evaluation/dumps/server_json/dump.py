"""A file of responses as a dump of top-k rows; the table of servers that are known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from kldiv.evaluation.dumps.protocol import DumpError, Kind, Sequence, TopKBlock
from kldiv.evaluation.dumps.server_json import openai, sglang, tinker, vllm
from kldiv.evaluation.dumps.server_json.answer import Answer, Rows, rows_of
from kldiv.evaluation.dumps.server_json.files import LINES, extension, opened, responses
from kldiv.evaluation.dumps.server_json.texts import TEXT_IDS
from kldiv.evaluation.dumps.stored_arrays import BLOCK_BYTES

PROBED = 1 << 20
"""Bytes of a file in which log-probabilities are looked for."""
MOST_TOKENS = 1 << 31
"""That come before the first: more is no context."""


@dataclass(frozen=True)
class Reader:
    """How the responses of one server are known, and read."""

    name: str
    reads: Callable[[Any], bool]
    answers: Callable[[Any], list[Answer]]
    asked: str
    """What to ask the server for."""


# The first that reads a response has it: vLLM's are also OpenAI's, with more in them.
READERS = (
    Reader(tinker.NAME, tinker.reads, tinker.answers, "topk_prompt_logprobs"),
    Reader(sglang.NAME, sglang.reads, sglang.answers, "return_logprob and top_logprobs_num"),
    Reader(vllm.NAME, vllm.reads, vllm.answers, "prompt_logprobs"),
    Reader(openai.NAME, openai.reads, openai.answers, "logprobs and top_logprobs"),
)


@dataclass(frozen=True)
class _Text:
    """One text of a file, read."""

    name: str
    server: str
    answer: Answer


@dataclass
class ServerJson:
    """Top-k rows of a server's responses, one sequence for every text that they score.

    Lines are read when their turn comes, so a file may be larger than memory. Of a response that
    scores its prompt the completion is left aside: every engine goes on in its own way.
    """

    path: Path
    format: str = ""
    """"vLLM JSON", and so on."""
    kind: Kind = "top_k"
    width: int | None = None
    dtype: np.dtype[Any] = field(default_factory=lambda: np.dtype(np.float64))
    row_bytes: int = 1
    block_bytes: int = BLOCK_BYTES
    count: int | None = None
    once: ClassVar[bool] = False
    """The file can be read again, though only its end says how many texts there are."""
    scored: str = ""
    """``"prompt"`` or ``"completion"``."""
    k: int = 0
    """The most tokens of a position of the first text, without the text's own."""
    text_ids: bool = False
    """Whether tokens are known by text."""

    @property
    def name(self) -> str:
        """The file."""
        return str(self.path)

    @property
    def paths(self) -> tuple[Path, ...]:
        """The file."""
        return (self.path,)

    def __post_init__(self) -> None:
        text = next(self._texts(None), None)
        if text is None:
            raise DumpError(f"{self.path} has no response")
        self.format, self.scored = f"{text.server} JSON", text.answer.scored
        rows = rows_of(text.answer, text.name)
        self.k = max(map(len, text.answer.ids), default=0)
        self.text_ids = bool((rows.block.ids >= TEXT_IDS).any())
        # Of JSON about 60 bytes a token.
        self.row_bytes = 60 * (self.k + 1)

    def sequences(self) -> Iterator[Sequence]:
        """Every text, in the order of the file; each call reads the file anew."""
        for text in self._texts(self.format.removesuffix(" JSON")):
            if text.answer.scored != self.scored:
                raise DumpError(
                    f"{text.name} has log-probabilities of the {text.answer.scored}, "
                    f"what is before it of the {self.scored}"
                )
            rows = rows_of(text.answer, text.name)
            yield Sequence(
                name=text.name,
                positions=len(rows),
                read=_reading(rows),
                labels=rows.labels,
                first=text.answer.first,
            )

    def details(self) -> dict[str, Any]:
        """Server, what is scored, tokens a position, and how they are named."""
        return {
            "server": self.format.removesuffix(" JSON"),
            "scored": self.scored,
            "k": self.k,
            "tokens": "text" if self.text_ids else "ids",
        }

    def _texts(self, expected: str | None) -> Iterator[_Text]:
        for name, found in responses(self.path):
            for part, response in _flattened(found):
                here = f"{name}{part}"
                reader = next((x for x in READERS if x.reads(response)), None)
                if reader is None:
                    raise DumpError(f"{here} {_problem(response)}")
                if expected not in (None, reader.name):
                    raise DumpError(
                        f"{here} is a response of {reader.name}, what is before it of {expected}"
                    )
                expected = reader.name
                try:
                    answers = reader.answers(response)
                except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
                    said = "its parts are not those"
                    if isinstance(error, KeyError):
                        said = f"a part lacks {error}"
                    elif type(error) is ValueError:
                        said = str(error)
                    raise DumpError(
                        f"{here} is no response of {reader.name} that can be read: {said}"
                    ) from None
                for answer in answers:
                    if not 0 <= answer.first < MOST_TOKENS:
                        raise DumpError(f"{here} says that {answer.first:,} tokens come before")
                    yield _Text(f"{here} {answer.part}".rstrip(), reader.name, answer)


def _reading(rows: Rows) -> Callable[[int], Iterator[TopKBlock]]:
    def read(step: int) -> Iterator[TopKBlock]:
        for start in range(0, len(rows), step):
            yield rows.block[start : start + step]

    return read


def _flattened(found: Any) -> Iterator[tuple[str, Any]]:
    """The responses of a list of them, or the one response; what batch files wrap is unwrapped."""
    if isinstance(found, list) and not any(x.reads(found) for x in READERS):
        for i, one in enumerate(found):
            for part, response in _flattened(one):
                yield f"[{i}]{part}", response
        return
    if isinstance(found, dict) and isinstance(found.get("response"), dict):
        name = found.get("custom_id")
        body = found["response"].get("body", found["response"])
        yield (f" ({name})" if isinstance(name, str) else ""), body
        return
    yield "", found


def _problem(response: Any) -> str:
    if not isinstance(response, dict):
        return f"is {str(response)[:60]}; expected a server's response with log-probabilities"
    if response.get("error") or response.get("object") == "error":
        said = response.get("error") or response.get("message")
        return f"is an error of the server: {str(said)[:200]}"
    keys = ", ".join(map(str, response)) or "none"
    asked = "; ".join(f"{x.asked} of {x.name}" for x in READERS)
    return f"has no log-probabilities; its keys: {keys[:200]} (ask for {asked})"


def probe(path: Path) -> bool:
    """Whether a file looks like responses of a server, by its name and its first megabyte."""
    found = extension(path)
    if not found or not path.is_file():
        return False
    if found in LINES:
        return True
    try:
        with opened(path) as file:
            beginning = file.read(PROBED)
    except (OSError, DumpError):
        return False
    return b"logprob" in beginning or beginning.lstrip().startswith(b"[")


def open(path: Path) -> ServerJson:  # noqa: A001
    """Open a file of responses of vLLM, SGLang, OpenAI or Tinker.

    Raises
    ------
    DumpError
        For a file whose first response does not hold log-probabilities; for the others, when they
        are read.
    OSError
        For a file that cannot be read.
    """
    return ServerJson(path)
