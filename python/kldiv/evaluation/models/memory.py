"""Memory of a device that runs out, in one line."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from kldiv import _optional
from kldiv.evaluation.dumps.protocol import DumpError


@contextlib.contextmanager
def out_of_memory(name: str, device: Any) -> Iterator[None]:
    """Say what takes less."""
    torch = _optional.module("torch")
    try:
        yield
    except torch.OutOfMemoryError:
        raise DumpError(
            f"{name} does not fit in the memory of {device} with what is there: --sequential "
            "(sequential=) keeps one model at a time, --dtype bfloat16 (dtype=) takes half of "
            "float32, a shorter --context (context=) less"
        ) from None
