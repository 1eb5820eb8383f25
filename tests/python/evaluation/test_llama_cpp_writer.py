"""Base files of llama.cpp: written."""

import os
import subprocess
import sys
import threading
from dataclasses import dataclass

import numpy as np
import pytest
from llama_cpp_files import CHUNKS, CONTEXT, F32, FIRST, ROWS, logits_of, pack, read, tokens_of

from kldiv.evaluation.dumps import llama_cpp
from kldiv.evaluation.dumps.llama_cpp_writer import write
from kldiv.evaluation.dumps.protocol import DumpError, Sequence


@dataclass
class Arrays:
    """A dump of arrays."""

    arrays: list
    labels: list | None = None
    first: int = 0
    kind: str = "logits"
    name: str = "arrays"
    format: str = "arrays"
    row_bytes: int = 1
    block_bytes: int = 3

    @property
    def width(self):
        return self.arrays[0].shape[-1]

    @property
    def dtype(self):
        return self.arrays[0].dtype

    @property
    def count(self):
        return len(self.arrays)

    def sequences(self):
        for i, array in enumerate(self.arrays):
            labels = None if self.labels is None else self.labels[i]
            yield Sequence(f"sequence {i}", len(array), self._reader(array), labels, self.first)

    def details(self):
        return {}

    @staticmethod
    def _reader(array):
        return lambda step: (array[at : at + step] for at in range(0, len(array), step))


@pytest.mark.parametrize(
    ("magic", "clip"), [("_logits_", 16.0), ("_logits_", 24.0), ("_logits2", 16.0)]
)
@pytest.mark.parametrize("classes", [10, 1003])
def test_what_is_written_is_what_llama_cpp_writes(magic, clip, classes, tmp_path):
    logits, tokens = logits_of(classes), tokens_of(classes)
    logits[0, 0] = -np.inf
    logits[1, 0] = logits[1].max() - 16  # the first code above the clip
    data, _ = pack(magic, logits, tokens, clip)
    # Sequences of all rows, of which only some are stored.
    full = np.full((CHUNKS, CONTEXT, classes), np.nan, F32)
    full[:, FIRST : FIRST + ROWS] = logits.reshape(CHUNKS, ROWS, classes)
    path = tmp_path / "written.kld"
    write(path, Arrays(list(full)), tokens, magic=magic, clip=clip)
    assert path.read_bytes() == data
    # And of those rows only, in another dtype.
    part = Arrays(list(logits.reshape(CHUNKS, ROWS, classes).astype(np.float64)), first=FIRST)
    write(path, part, tokens, magic=magic, clip=clip)
    assert path.read_bytes() == data
    assert os.listdir(tmp_path) == ["written.kld"]


def test_a_base_file_is_written_of_another(base, tmp_path):
    path, _, log_probs, tokens = base
    new = tmp_path / "new.kld"
    write(new, llama_cpp.open(path), magic="_logits2")
    dump = llama_cpp.open(new)
    np.testing.assert_array_equal(dump.tokens, tokens)
    exact = log_probs - np.log(np.exp(log_probs.astype(np.float64)).sum(1, keepdims=True))
    np.testing.assert_allclose(read(dump), exact, atol=2e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: {"tokens": None}, "arrays has no token ids"),
        (lambda a: {"tokens": np.zeros((2, 9), int)}, "has 3 sequences, but there are tokens of 2"),
        (lambda a: {"tokens": np.zeros(9, int)}, r"tokens have shape \(9,\)"),
        (lambda a: {"tokens": np.full((3, 9), 11)}, "token 0 of sequence 0 has id 11, outside"),
        (lambda a: {"tokens": np.zeros((3, 11), int)}, "needs those after 5 to 9"),
        (lambda a: {"clip": 0.0}, "clip must be positive and finite, got 0.0"),
        (lambda a: {"magic": "_logp16_"}, "can be _logits2 or _logits_, not _logp16_"),
        (lambda a: setattr(a, "kind", "probs"), "arrays holds probs"),
        (lambda a: setattr(a, "first", 5), "rows after tokens 5 to 13"),
        (
            lambda a: setattr(a, "labels", [np.full(9, 7)] * 3),
            "sequence 0: row 0 has the label 7, but the next token is 0",
        ),
        (lambda a: a.arrays[2].__setitem__((5, 3), np.nan), "sequence 2: row 5 holds NaN"),
    ],
)
def test_what_is_no_base_file_leaves_nothing(change, message, tmp_path):
    dump = Arrays(list(logits_of(11, 27).reshape(3, 9, 11)))
    options = {"tokens": np.zeros((3, 9), int)} | (change(dump) or {})
    (tmp_path / "old.kld").write_bytes(b"as it was")
    with pytest.raises(DumpError, match=message):
        write(tmp_path / "old.kld", dump, **options)
    assert os.listdir(tmp_path) == ["old.kld"]
    assert (tmp_path / "old.kld").read_bytes() == b"as it was"


KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from kldiv.evaluation.dumps.llama_cpp_writer import write
from kldiv.evaluation.dumps.protocol import Sequence

class Dump:
    name = format = "killed"
    kind, width, count, row_bytes, block_bytes = "logits", 4, 2, 16, 16

    def sequences(self):
        yield Sequence("0", 9, lambda step: iter([np.zeros((9, 4), np.float32)]))
        os.kill(os.getpid(), signal.SIGKILL)

write(Path(sys.argv[1]), Dump(), np.zeros((2, 9), int))
"""


def test_a_writer_that_is_killed_leaves_no_file_that_looks_whole(tmp_path):
    path = tmp_path / "base.kld"
    killed = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert killed.returncode == -9
    (left,) = tmp_path.iterdir()
    assert left.name.endswith(".partial")
    with pytest.raises(DumpError, match=r"cut off at byte .*, in row 0 of chunk 1"):
        llama_cpp.open(left)


def test_a_pipe_is_written_to_as_it_goes(base, tmp_path):
    _, data, _, tokens = base
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    full = np.zeros((CHUNKS, CONTEXT, 11), F32)
    full[:, FIRST : FIRST + ROWS] = logits_of(11).reshape(CHUNKS, ROWS, 11)
    writer = threading.Thread(target=write, args=(pipe, Arrays(list(full)), tokens))
    writer.start()
    assert pipe.read_bytes() == data
    writer.join()
