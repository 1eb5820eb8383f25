"""Hidden states of all windows, kept while another model is in memory."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from typing import IO, Any

from kldiv import _optional
from kldiv._arrays import Array
from kldiv.evaluation.models.language_model import LanguageModel
from kldiv.evaluation.models.windows import Window

IN_MEMORY = 1 << 30
"""Bytes of states that are kept in memory; more go to a file of the temporary directory."""


class KeptStates:
    """What a model's trunk gave for windows, of which its head makes logits again.

    The numbers are 60 times fewer than logits. They are gone after the ``with`` of this object.
    """

    def __init__(self, model: LanguageModel) -> None:
        self._model = model
        self._places: dict[int, tuple[int, int]] = {}
        self._parts: list[Any] = []
        self._file: IO[bytes] | None = None
        self._bytes = 0
        self._like: Any = None

    def __enter__(self) -> KeptStates:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def keep(
        self, windows: Iterable[Window], advance: Callable[[int], None] = lambda rows: None
    ) -> None:
        """Run the model over windows, and tell the number of rows just kept.

        Raises
        ------
        OSError
            Where the temporary directory has no space left.
        """
        for window in windows:
            states = self._model.states(window)
            self._like = states
            self._places[id(window)] = (len(self._parts), self._bytes)
            self._bytes += states.numel() * states.element_size()
            if self._file is None and self._bytes > IN_MEMORY:
                self._file = tempfile.TemporaryFile(prefix="kldiv-states-")  # noqa: SIM115
                for part in self._parts:
                    self._file.write(_bytes_of(part))
                self._parts = []
            if self._file is None:
                self._parts.append(states)
            else:
                self._file.write(_bytes_of(states))
            advance(len(window))
        if self._file is not None:
            self._file.flush()

    def logits(self, window: Window) -> Array:
        """The logits of a window that was kept."""
        return self._model.logits_of(self._states(window))

    def _states(self, window: Window) -> Any:
        torch = _optional.module("torch")
        number, start = self._places[id(window)]
        if self._file is None:
            return self._parts[number]
        size = self._like.shape[-1]
        self._file.seek(start)
        content = self._file.read(len(window) * size * self._like.element_size())
        flat = torch.frombuffer(bytearray(content), dtype=self._like.dtype)
        return flat.reshape(len(window), size)


def _bytes_of(tensor: Any) -> memoryview:
    torch = _optional.module("torch")
    found: memoryview = tensor.contiguous().view(torch.uint8).numpy().data
    return found
