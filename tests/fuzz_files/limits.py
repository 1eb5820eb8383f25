"""What may become of a file that is read: time, memory, and the errors that are documented."""

from __future__ import annotations

import contextlib
import resource
import signal
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

SECONDS = 1.0
"""Of processor time for a file, of all threads."""
MEMORY = 100_000_000
"""Bytes beyond the file's own."""


@dataclass(frozen=True)
class Find:
    """What should not have happened."""

    kind: str
    """In a few words, the same for the same fault."""
    text: str
    """All of it."""


class TooSlowError(BaseException):
    """The time of a file is over. No reader catches it."""


def find(read: Callable[[Path], object], path: Path, names: list[str], size: int) -> Find | None:
    """What is wrong with how a file is read, if anything is.

    Parameters
    ----------
    read
        The reader.
    path
        What it is given.
    names
        Of the files that there are, one of which an error is to name.
    size
        Bytes of these.
    """
    began = time.process_time()
    try:
        with _limits(size), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read(path)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        if (wrong := _wrong(error, names)) is not None:
            return _of(error, wrong)
    if (seconds := time.process_time() - began) > SECONDS:
        return Find(f"{read.__name__}: slow", f"{seconds:.1f} seconds")
    return None


def _wrong(error: BaseException, names: list[str]) -> str | None:
    """What an error has that no documented one has."""
    ours = type(error).__module__.split(".")[0] == "kldiv" and not isinstance(error, AssertionError)
    if not (ours or type(error) is ValueError):
        return type(error).__name__
    said = str(error)
    if not any(name in said for name in names):
        return f"{type(error).__name__} that names no file"
    if not said.isprintable():
        return f"{type(error).__name__} of several lines, or with what is no text"
    return None


def _of(error: BaseException, wrong: str) -> Find:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "/kldiv/" in frame.filename] or list(frames)
    where = f"{Path(ours[-1].filename).name}:{ours[-1].name}"
    text = "".join(traceback.format_exception(error, limit=-8))
    return Find(f"{wrong} in {where}", text[-4000:])


@contextlib.contextmanager
def _limits(size: int) -> Iterator[None]:
    """A process that has so much more memory than it holds, and so much time."""

    def too_slow(number: int, frame: FrameType | None) -> None:
        raise TooSlowError

    before = resource.getrlimit(resource.RLIMIT_DATA)
    handler = signal.signal(signal.SIGPROF, too_slow)
    resource.setrlimit(resource.RLIMIT_DATA, (_held() + size + MEMORY, before[1]))
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_DATA, before)
        signal.signal(signal.SIGPROF, handler)


def _held() -> int:
    """Bytes of private writable memory, as the limit counts them."""
    text = Path("/proc/self/status").read_text()
    return 1024 * int(text.partition("VmData:")[2].split()[0])
