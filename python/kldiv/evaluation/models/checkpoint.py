"""What a model's name means: a directory or a name of transformers' hub, or a GGUF file."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import socket
import sys
import urllib.parse
import urllib.request
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kldiv import _optional
from kldiv.evaluation.dumps.names import check_exists, listed
from kldiv.evaluation.dumps.protocol import DumpError
from kldiv.evaluation.models.tokenizer import Tokenizer

GGUF = ".gguf"
WEIGHTS = (".safetensors", ".bin", ".pt", GGUF)

# Of architectures that give logits of the next token; ConditionalGeneration of text and images.
_LANGUAGE_MODELS = ("CausalLM", "LMHead", "ConditionalGeneration")
# How configurations call the most tokens that a model reads.
_LIMITS = ("max_position_embeddings", "n_positions", "max_seq_len")
_OF_HUB = re.compile(r"[\w.-]+(/[\w.-]+)?")


@dataclass(frozen=True)
class Checkpoint:
    """Where a model is, as transformers is told; nothing of it is read yet."""

    name: str
    """As the user named it."""
    place: str
    """The directory, or the name on the hub."""
    gguf: str | None = None
    """The file in it, of a GGUF model."""

    @property
    def arguments(self) -> dict[str, Any]:
        """For every ``from_pretrained``. Code that comes with a model is not run."""
        given: dict[str, Any] = {"trust_remote_code": False}
        if self.of_hub and not hub_is_there():
            # What was downloaded before is found at once; the library would try for half a minute.
            given["local_files_only"] = True
        return given if self.gguf is None else given | {"gguf_file": self.gguf}

    @property
    def of_hub(self) -> bool:
        """Whether it is a name, and nothing on this disk."""
        return not Path(self.place).exists()

    @property
    def files(self) -> dict[str, int]:
        """Of a model on disk: the files of its weights, and their bytes."""
        folder = Path(self.place)
        if not folder.is_dir():
            return {}
        names = [self.gguf] if self.gguf else sorted(path.name for path in folder.iterdir())
        weights = (folder / name for name in names if name.lower().endswith(WEIGHTS))
        return {path.name: path.stat().st_size for path in weights if path.is_file()}

    def config(self) -> Any:
        """What the model says of itself."""
        with self.loading():
            return transformers().AutoConfig.from_pretrained(self.place, **self.arguments)

    def tokenizer(self) -> Tokenizer:
        """Its tokenizer."""
        with self.loading("the tokenizer of "):
            found = transformers().AutoTokenizer.from_pretrained(self.place, **self.arguments)
        return Tokenizer(self.name, found)

    @contextlib.contextmanager
    def loading(self, what: str = "") -> Iterator[None]:
        """Errors of transformers in one line that names the model; what it logs is not shown."""
        library = transformers()
        if self.gguf is not None:
            _optional.module("gguf")
            _optional.module("accelerate")
        level = library.logging.get_verbosity()
        bars = library.logging.is_progress_bar_enabled()
        library.logging.set_verbosity(logging.CRITICAL)
        # Bars of weights and downloads are for people; those of GGUF files ask nobody.
        hidden: Any = contextlib.nullcontext()
        if not sys.stderr.isatty():
            library.logging.disable_progress_bar()
            hidden = contextlib.redirect_stderr(io.StringIO())
        try:
            with hidden, warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        except (DumpError, MemoryError):
            raise
        # Whatever is wrong with the files of a model shows as some error of a library.
        except Exception as error:
            raise self._failed(what, error) from error
        finally:
            library.logging.set_verbosity(level)
            if bars:
                library.logging.enable_progress_bar()

    def _failed(self, what: str, error: Exception) -> DumpError:
        if self.of_hub and not hub_is_there():
            return DumpError(
                f"{self.name} is no directory or file here, nor among what was downloaded before, "
                "and the hub cannot be reached"
            )
        text = " ".join(str(error).split()) or type(error).__name__
        # The first sentence says what is wrong, the others repeat where to look for help.
        first = re.split(r"(?<=[a-z\d'\"`)])[.!](?:\s|$)", text, maxsplit=1)[0]
        if isinstance(error, KeyError):
            first = f"it lacks {first}"
        where = ", no directory or file here," if self.of_hub else ""
        return DumpError(f"{what}{self.name}{where} cannot be loaded: {first[:300]}")


def find(name: str) -> Checkpoint:
    """What a name means.

    A directory with ``config.json``, or with one GGUF file; a GGUF file; ``OWNER/MODEL`` of the
    hub, and ``OWNER/MODEL/FILE.gguf``.

    Raises
    ------
    DumpError
        For a path that is not there, or holds no model.
    """
    path = Path(name)
    if path.is_dir():
        return _of_directory(name, path)
    if path.is_file():
        if path.suffix.lower() != GGUF:
            raise DumpError(
                f"{name} is a file; expected a model: a directory with config.json, a {GGUF} file, "
                "or a name on the hub"
            )
        return Checkpoint(name, str(path.parent), path.name)
    owner, _, rest = name.partition("/")
    model, _, file = rest.partition("/")
    if file.lower().endswith(GGUF) and owner not in ("", ".", "..", "~"):
        return Checkpoint(name, f"{owner}/{model}", file)
    if not _OF_HUB.fullmatch(name) or owner in (".", "..", "~") or path.suffix.lower() == GGUF:
        check_exists(path, (GGUF,))
    return Checkpoint(name, name)


def _of_directory(name: str, path: Path) -> Checkpoint:
    if (path / "config.json").is_file():
        return Checkpoint(name, str(path))
    files = sorted(file.name for file in path.iterdir() if file.suffix.lower() == GGUF)
    if not files:
        raise DumpError(f"{name} holds no model: neither config.json nor a {GGUF} file")
    if len(files) > 1:
        raise DumpError(f"{name} holds several models: {listed(files)}; name one of them")
    return Checkpoint(name, str(path), files[0])


def check_config(checkpoint: Checkpoint, config: Any, context: int) -> None:
    """Raise `DumpError` for a model that gives no logits, or reads fewer tokens than `context`."""
    architectures = getattr(config, "architectures", None) or []
    what = architectures[0] if architectures else type(config).__name__
    known = [name for name in architectures if any(end in name for end in _LANGUAGE_MODELS)]
    if architectures and not known:
        raise DumpError(
            f"{checkpoint.name} is a {what}, which has no language-model head; expected a causal "
            "language model"
        )
    if getattr(config, "is_encoder_decoder", False):
        raise DumpError(
            f"{checkpoint.name} is a {what}, an encoder with a decoder; expected a causal language "
            "model"
        )
    check_context(checkpoint.name, config, context)


def check_context(name: str, config: Any, context: int) -> None:
    """Raise `DumpError` for a window longer than a model reads."""
    own = config.get_text_config()
    most = next((n for name in _LIMITS if (n := getattr(own, name, None)) is not None), None)
    if most is not None and 0 < most < context:
        raise DumpError(
            f"the context is {context:,} tokens, but {name} reads {most:,} at most "
            "(--context, context=)"
        )


def transformers() -> Any:
    """The library, and what it needs.

    Raises
    ------
    ModuleNotFoundError
        With the line that installs what is missing.
    """
    _optional.module("torch")
    return _optional.module("transformers")


def hub_is_there() -> bool:
    """Whether the host of the hub is known; through a proxy it need not be."""
    if urllib.request.getproxies():
        return True
    address = urllib.parse.urlsplit(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
    try:
        socket.getaddrinfo(address.hostname, address.port or 443)
    except OSError:
        return False
    return True
