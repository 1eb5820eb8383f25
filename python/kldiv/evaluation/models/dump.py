"""A model that runs as a dump: its rows are made when they are read, a window at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from collections.abc import Sequence as SequenceOf
from functools import partial
from typing import Any

from kldiv import _optional
from kldiv._arrays import Array
from kldiv.evaluation.dumps.protocol import Kind, Sequence
from kldiv.evaluation.dumps.stored_arrays import BLOCK_BYTES
from kldiv.evaluation.models.language_model import LanguageModel
from kldiv.evaluation.models.windows import Window


class ModelDump:
    """The rows of a model on windows, each a sequence whose labels are the next tokens."""

    once = False
    """The model can read a window again."""
    block_bytes = BLOCK_BYTES

    def __init__(
        self,
        model: LanguageModel,
        windows: SequenceOf[Window],
        *,
        kind: Kind = "logits",
        rows_of: Callable[[Window], Array] | None = None,
        tokens: Array | None = None,
        advance: Callable[[int], None] = lambda rows: None,
    ) -> None:
        """`rows_of` makes the rows of a window, where they are not the model's logits.

        `tokens` are all ids as a base file of llama.cpp has them; `advance` is told the number
        of rows just made.
        """
        self._model = model
        self.name = model.name
        self.format = type(model.model).__name__
        self.kind: Kind = kind
        self.tokens = tokens
        self._rows_of = rows_of or model.logits
        self._windows = windows
        self._advance = advance
        self.width, self.dtype = model.width, model.dtype
        if kind == "hidden_states":
            weight = model.head_weight()
            self.width, self.dtype = weight.shape[1], weight.dtype

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return int(self.width * self.dtype.itemsize)

    @property
    def count(self) -> int:
        """How many windows."""
        return len(self._windows)

    def sequences(self) -> Iterator[Sequence]:
        """The windows, in order."""
        for window in self._windows:
            yield Sequence(
                window.name,
                len(window),
                partial(self._read, window),
                window.labels,
                window.first,
            )

    def digest(self) -> str:
        """Of the weights and of the tokens that are read."""
        found = hashlib.sha256(self._model.digest().encode())
        for window in self._windows:
            found.update(window.tokens.astype("<i8").tobytes())
        return found.hexdigest()

    def conditions(self) -> dict[str, Any]:
        """What else decides the last bits of its rows: where it runs, and on what."""
        torch = _optional.module("torch")
        described = self._model.describe()
        return {
            "device": described["device_name"],
            "attention": described["attention"],
            "torch": torch.__version__,
            "torch threads": torch.get_num_threads(),
        }

    def details(self) -> dict[str, Any]:
        """Nothing that the protocol has no place for."""
        return {}

    def _read(self, window: Window, step: int) -> Iterator[Array]:
        rows = self._rows_of(window)
        for start in range(0, len(rows), step):
            block = rows[start : start + step]
            yield block
            self._advance(len(block))
