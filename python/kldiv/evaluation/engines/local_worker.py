"""What workers on this machine do first, which end with the process that asked for them."""

from __future__ import annotations

import signal
from typing import Any


def dask_setup(worker: Any) -> None:
    """Leave Ctrl-C, which a terminal sends to all processes, to the one that asked."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
