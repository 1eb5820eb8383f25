"""What ends a run that is not the fault of a dump."""

from __future__ import annotations

from kldiv._text import one_line


class EngineError(RuntimeError):
    """A work directory that cannot be used, a cluster that cannot, or a block that failed there.

    The message is one line.
    """

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))
