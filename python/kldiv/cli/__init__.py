"""The command line, `kldiv`; its libraries come with ``pip install 'kldiv[cli]'``."""

from __future__ import annotations

import sys

_LIBRARIES = {"typer", "rich", "ml_dtypes", "polars"}


def main() -> int:
    """Run the command line of this process, and return its exit code."""
    try:
        from kldiv.cli.app import app
        from kldiv.cli.errors import run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _LIBRARIES:
            raise
        print("the command line needs: pip install 'kldiv[cli]'", file=sys.stderr)
        return 2
    return run(app)
