"""Dumps from pipes, and dumps larger than memory."""

import contextlib
import io
import json
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from kldiv.evaluation.dumps.formats import open_dump
from kldiv.evaluation.dumps.protocol import DumpError
from kldiv.evaluation.dumps.sequences import Lengths, cut
from kldiv.evaluation.dumps.stored_arrays import MAPPED_BLOCK_BYTES

WIDTH = 5


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.fixture
def pipe(tmp_path):
    """A named pipe, into which bytes are written as they are asked for."""
    threads = []

    def feed(data, name="dump.fifo"):
        path = tmp_path / name
        os.mkfifo(path)

        def write():
            with contextlib.suppress(BrokenPipeError):
                path.write_bytes(data)

        threads.append(threading.Thread(target=write))
        threads[-1].start()
        return path

    yield feed
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


@pytest.mark.parametrize("shape", [(6, WIDTH), (3, 4, WIDTH), (WIDTH,)])
def test_an_array_from_a_pipe(pipe, rng, shape):
    array = rng.normal(size=shape).astype(np.float16)
    dump = open_dump(pipe(npy(array)))
    assert (dump.width, dump.dtype, dump.count) == (WIDTH, np.float16, None)
    found = []
    for number, sequence in enumerate(dump.sequences()):
        # One that is not read to its end, or not at all, is left out.
        if number != 1:
            rows = [block.copy() for block in sequence.read(4)]
            found.append(np.concatenate(rows))
    expected = list(array.reshape(-1, *(shape[-2:] if len(shape) > 1 else (1, WIDTH))))
    assert number == len(expected) - 1
    del expected[1:2]
    np.testing.assert_array_equal(np.concatenate(found), np.concatenate(expected))
    with pytest.raises(DumpError, match="is a stream, which has been read"):
        dump.sequences()


def test_arrays_one_after_the_other(pipe, rng):
    arrays = [rng.normal(size=(rows, WIDTH)) for rows in (3, 1, 4)]
    dump = open_dump(pipe(b"".join(map(npy, arrays))))
    for sequence, array in zip(dump.sequences(), arrays, strict=True):
        assert sequence.positions == len(array)
        np.testing.assert_array_equal(np.concatenate([b.copy() for b in sequence.read(2)]), array)


array = np.arange(6.0 * WIDTH).reshape(6, WIDTH)
ERRORS = {
    "cut in a row": (npy(array)[: -WIDTH * 8 - 1], "ends after 4 of 6 rows"),
    "cut in a row of the second sequence": (
        npy(array.reshape(2, 3, WIDTH))[: -WIDTH * 8],
        "ends after 5 of 6 rows",
    ),
    "cut in the header": (npy(array)[:50], "is not a readable .npy file"),
    "nothing": (b"", "ends before its first byte"),
    "text": (b"1 2 3\n4 5 6\n7 8 9", "begins with b'1 2 3\\n4 '"),
    "columns": (npy(np.asfortranarray(array)), "is in Fortran order"),
    "integers": (npy(array.astype(int)), "has dtype int64; expected floating numbers"),
    "no rows": (npy(array[:0]), "has shape (0, 5), without a logit"),
    "bytes after the end": (npy(array) + b"more", "at offset 368 is not a readable .npy file"),
    "another width": (npy(array) + npy(array[:, :4]), "after 1 sequences, with rows of 4 float64"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors_of_pipes(pipe, case):
    data, message = ERRORS[case]
    path = pipe(data)
    with pytest.raises(DumpError) as error:
        list(map(list, (sequence.read(2) for sequence in open_dump(path).sequences())))
    assert message in str(error.value)
    assert str(path) in str(error.value)


def test_a_stream_is_cut_by_lengths(pipe):
    def lengths(*values):
        return Lengths("lengths.txt", values, tuple(map(str, values)))

    found = [
        np.concatenate([block.copy() for block in sequence.read(4)])
        for sequence in cut(open_dump(pipe(npy(array), "a")), lengths(1, 5)).sequences()
    ]
    assert [len(rows) for rows in found] == [1, 5]
    np.testing.assert_array_equal(np.concatenate(found), array)
    for values, message in (((4, 3), "ends after 6 rows"), ((4, 1), "has more")):
        dump = cut(open_dump(pipe(npy(array), str(values))), lengths(*values))
        with pytest.raises(DumpError, match=f"{sum(values)} positions in all, but .* {message}"):
            list(map(list, (sequence.read(2) for sequence in dump.sequences())))


READ = """
import json, re, sys
from pathlib import Path
from kldiv.evaluation.dumps.formats import open_dump
dump = open_dump(sys.argv[1])
step, most = dump.block_bytes // dump.row_bytes, int(sys.argv[2])
rows = 0
for sequence in dump.sequences():
    for _, block in zip(range(most), sequence.read(step)):
        rows += len(block)
# The peak that getrusage gives is that of the process this one was forked from, where it is more.
peak = 1024 * int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
print(json.dumps([rows, dump.count, peak]))
"""


def measured(name, most, **options):
    command = [sys.executable, "-c", READ, str(name), str(most)]
    done = subprocess.run(command, capture_output=True, timeout=120, check=False, **options)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_a_pipe_of_a_gigabyte_takes_the_memory_of_a_block(tmp_path):
    rows, classes = 8_000, 62_500  # float16: 10⁹ bytes
    header = {"descr": "<f2", "fortran_order": False, "shape": (rows, classes)}
    with (tmp_path / "header").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
    os.mkfifo(tmp_path / "pipe")
    command = f"(cat header; head -c {rows * classes * 2} /dev/zero) > pipe"
    writer = subprocess.Popen(["sh", "-c", command], cwd=tmp_path)
    found, _, peak = measured(tmp_path / "pipe", rows)
    assert writer.wait(10) == 0
    assert found == rows
    assert peak < 200e6  # the interpreter and NumPy take 60 MB of it


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_stdin(tmp_path):
    (tmp_path / "a.npy").write_bytes(npy(array))
    with (tmp_path / "a.npy").open("rb") as file:
        assert measured("-", 9, stdin=file)[0] == len(array)
    assert measured("-", 9, input=npy(array))[0] == len(array)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_fifty_gigabytes_of_files_take_the_memory_of_a_block(tmp_path):
    rows, classes = 16_384, 151_936  # float16: 5 GB each, with hardly a block on the disk
    header = {"descr": "<f2", "fortran_order": False, "shape": (rows, classes)}
    for number in range(10):
        with (tmp_path / f"{number}.npy").open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            file.truncate(file.tell() + rows * classes * 2)
    found, count, peak = measured(tmp_path, 5)
    assert count == 10
    assert found == 10 * 5 * (MAPPED_BLOCK_BYTES // (classes * 2))
    assert peak < 200e6
