"""`kldiv info`: what runs here, and how fast memory is."""

from __future__ import annotations

import kldiv
from kldiv import _kldiv
from kldiv.cli.output import show_table

MEASURED_BYTES = 256 << 20  # more than the last-level cache of most machines


def show() -> None:
    """Print the table."""
    build = kldiv.build_info()
    speed = _kldiv.read_bandwidth(MEASURED_BYTES) / 1e9
    optimised = "" if build["optimized"] else " (a debug build: slow)"
    show_table(
        [
            ("version", build["version"]),
            ("target", build["target"] + optimised),
            ("instruction set", f"{kldiv.isa()} (available: {', '.join(build['isas'])})"),
            ("threads", f"{kldiv.get_num_threads()}"),
            ("memory bandwidth", f"{speed:.1f} GB/s (reading {MEASURED_BYTES >> 20} MiB)"),
        ]
    )
