"""The command `kldiv` on large files, and on a terminal."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from command import ENVIRONMENT, KLDIV

import kldiv


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Two files of 300 MB with hardly a block on the disk, but for a few rows."""
    folder = tmp_path_factory.mktemp("large")
    shape = (2300, 65536)
    for name, offset in (("p", 1.0), ("q", 2.0)):
        array = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.float16, shape)
        # Around the ends of blocks, and the last row, which is a block's remainder.
        array[[0, 511, 512, 1023, 1024, 2299], 5] = offset + np.arange(6)
        del array
    return folder


@pytest.mark.costly
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kilobytes on Linux only")
def test_blocks_join_and_leave_memory(large):
    code = (
        "import resource, subprocess, sys; code = subprocess.run(sys.argv[1:]).returncode;"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr);"
        "sys.exit(code)"
    )
    command = [sys.executable, "-c", code, str(KLDIV), "compare", "p.npy", "q.npy", "--json", "-"]
    done = subprocess.run(command, cwd=large, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    p, q = (np.load(large / f"{name}.npy", mmap_mode="r") for name in "pq")
    result = json.loads(done.stdout)
    assert result["summary"] == kldiv.compare(p, q).summary().as_dict()
    # The interpreter and NumPy take 60 MB of it, and each file holds 300.
    assert int(done.stderr) < 260_000


def on_terminal(*arguments, folder, interrupt_at=None):
    """Exit code and output of a command on a terminal."""
    leader, follower = pty.openpty()
    environment = {**ENVIRONMENT, "TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen(
        [str(KLDIV), *map(str, arguments)],
        cwd=folder,
        env=environment,
        stdin=follower,
        stdout=follower,
        stderr=follower,
        start_new_session=True,
        # A parent in the background hands down an ignored SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    os.close(follower)
    output, end = b"", time.monotonic() + 30
    while time.monotonic() < end and select.select([leader], [], [], 30)[0]:
        try:
            part = os.read(leader, 65536)
        except OSError:  # how Linux reports the end of a terminal
            break
        if not part:
            break
        output += part
        if interrupt_at is not None and interrupt_at in output:
            process.send_signal(signal.SIGINT)
            interrupt_at = None
    os.close(leader)
    return process.wait(10), output.decode()


def test_a_terminal_shows_progress(large):
    code, output = on_terminal("compare", "p.npy", "q.npy", "--rows", ":1100", folder=large)
    assert code == 0
    assert "comparing" in output
    assert "0/1100" in output
    assert "mean KL(p‖q)" in output


def test_interrupt(large):
    code, output = on_terminal("compare", "p.npy", "q.npy", folder=large, interrupt_at=b"comparing")
    assert code == 130
    assert output.rstrip().endswith("kldiv: interrupted")
    assert "Traceback" not in output
