"""What ends a run that is not the fault of a dump."""

from __future__ import annotations


class EngineError(RuntimeError):
    """A work directory that cannot be used, a cluster that cannot, or a block that failed there.

    The message is one line.
    """
