"""The command `kldiv`, for tests: as it is installed, or in this process."""

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import kldiv
from kldiv.cli import main

KLDIV = Path(sys.executable).parent / "kldiv"
ENVIRONMENT = {**os.environ, "PYTHONUTF8": "1"}


def installed(*arguments, folder=None):
    """The installed command; half a second is what Python and the libraries take to start."""
    return subprocess.run(
        [str(KLDIV), *map(str, arguments)],
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        encoding="utf-8",
        timeout=30,
    )


def here(*arguments, folder="."):
    """The command in this process, whose number of threads it leaves as it was."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    threads = kldiv.get_num_threads()
    with (
        contextlib.chdir(folder),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(sys, "argv", ["kldiv", *map(str, arguments)])
        try:
            code = main()
        finally:
            kldiv.set_num_threads(threads)
        texts = []
        for stream in (out, err):
            stream.flush()
            texts.append(stream.buffer.getvalue().decode())
    return SimpleNamespace(returncode=code, stdout=texts[0], stderr=texts[1])
