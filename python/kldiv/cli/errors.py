"""What ends a command: its exit code, and one line for what went wrong."""

from __future__ import annotations

import contextlib
import io
import os
import sys

import typer

from kldiv.evaluation.dumps.protocol import DumpError
from kldiv.evaluation.engines.errors import EngineError

# typer brings click along, as a dependency or, in newer versions, inside itself.
_USAGE_ERROR: type[Exception] = typer.BadParameter.__mro__[1]

CHECK_FAILED = 1
WRONG_USE = 2
INTERRUPTED = 130
CLOSED_PIPE = 141  # 128 + SIGPIPE, what a shell reports for other programs


class CommandError(Exception):
    """What the user can mend; the message says how."""


def run(app: typer.Typer) -> int:
    """Run `app` on the arguments of this process, and return the exit code.

    Errors of use are one line on stderr. Anything else is a defect of this package, and keeps
    its traceback.
    """
    # A program started without standard streams has None for them.
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal without Unicode shows "?" for ‖ rather than ending the command.
            stream.reconfigure(errors="replace")
    try:
        code = app(standalone_mode=False)
        sys.stdout.flush()
    except _USAGE_ERROR as error:
        return _fail(getattr(error, "format_message", error.__str__)())
    except (CommandError, DumpError, EngineError) as error:
        return _fail(str(error))
    except BrokenPipeError:
        return _closed_pipe()
    except OSError as error:
        where = f"{error.filename}: " if error.filename is not None else ""
        return _fail(f"{where}{error.strerror or error}")
    except MemoryError:
        return _fail("out of memory")
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except SystemExit as error:
        # typer and rich end the process themselves where a pipe is closed.
        if error.code == 1:
            return _closed_pipe()
        raise
    if code == INTERRUPTED:
        print("kldiv: interrupted", file=sys.stderr)
    return code or 0


def warn(message: str) -> None:
    """Say on stderr, in one line, what may not be meant."""
    print(f"kldiv: warning: {' '.join(message.split())}", file=sys.stderr)


def _fail(message: str) -> int:
    print(f"kldiv: error: {' '.join(message.split())}", file=sys.stderr)
    return WRONG_USE


def _closed_pipe() -> int:
    """Let the interpreter flush its streams at exit without a complaint."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno())  # type: ignore[union-attr]
    return CLOSED_PIPE
