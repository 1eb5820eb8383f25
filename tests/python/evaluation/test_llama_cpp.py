"""Base files of llama.cpp: read, written, examined; files here are packed byte by byte."""

import math
import os
import struct
import subprocess
import sys
import threading
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from kldiv.evaluation.clipped_kl import clipped_kl
from kldiv.evaluation.dumps import llama_cpp
from kldiv.evaluation.dumps.llama_cpp_doctor import examine
from kldiv.evaluation.dumps.llama_cpp_writer import write
from kldiv.evaluation.dumps.protocol import DumpError, Sequence

F32 = np.float32
CONTEXT, CHUNKS = 9, 3
FIRST, ROWS = 4, 4
MAGICS = ["_logits_", "_logits2", "_logp16_", "_logp16n"]


def logits_of(classes, rows=CHUNKS * ROWS, seed=0):
    """Logits over 30 nats, so that some are clipped."""
    return np.random.default_rng(seed).uniform(-25, 5, (rows, classes)).astype(F32)


def tokens_of(classes, seed=1):
    return np.random.default_rng(seed).integers(classes, size=(CHUNKS, CONTEXT)).astype(np.int32)


def pack_row(magic, logits, label, clip=16):
    """One row as llama.cpp writes it, in float32, and what it says, by the layouts."""
    z = [F32(x) for x in logits]
    top = max(z)
    if magic in ("_logp16_", "_logp16n"):
        log_p = np.array(z, np.float64) - math.log(sum(math.exp(float(x)) for x in z))
        halves = log_p.astype("<f2")
        loss = struct.pack("<f", -log_p[label]) if magic == "_logp16n" else b""
        return loss + halves.tobytes(), halves.astype(F32)
    if magic == "_logits_":
        low = max(min(z), F32(top - F32(clip)))
        total = sum(float(F32(math.exp(float(x - top)))) for x in z)
        scale = F32((top - low) / F32(65535))
        codes = [int(np.rint((x - low) * F32(1 / scale))) if x > low else 0 for x in z]
    else:
        low = min(x for x in z if np.isfinite(x))
        total = sum(math.exp(float(x - top)) for x in z)
        scale = F32((top - low) / F32(65534))
        steps = [float(F32((x - low) * F32(1 / scale))) for x in z]
        codes = [1 + math.floor(x + 0.5) if np.isfinite(x) else 0 for x in steps]
    smallest = F32(F32(low - top) - F32(math.log(total)))
    padding = b"\0\0" if len(z) % 2 else b""
    row = struct.pack(f"<ff{len(z)}H", scale, smallest, *codes) + padding
    if magic == "_logits_":
        return row, np.array([F32(F32(scale * F32(q)) + smallest) for q in codes])
    said = [F32(F32(scale * F32(q - 1)) + smallest) if q else F32(-np.inf) for q in codes]
    largest = max(said)
    norm = F32(largest + F32(math.log(sum(math.exp(float(x - largest)) for x in said))))
    return row, np.array([F32(x - norm) for x in said])


def pack(magic, logits, tokens, clip=16):
    """A whole file, and its log-probabilities."""
    chunks, context = tokens.shape
    first = context // 2
    header = struct.pack("<8s3i", magic.encode(), context, logits.shape[1], chunks)
    labels = tokens[:, first + 1 :].reshape(-1)
    rows = [pack_row(magic, z, label, clip) for z, label in zip(logits, labels, strict=True)]
    data = header + tokens.astype("<i4").tobytes() + b"".join(row for row, _ in rows)
    return data, np.array([said for _, said in rows])


def read(dump, step=100):
    return np.concatenate([b.copy() for s in dump.sequences() for b in s.read(step)])


@pytest.fixture
def base(tmp_path):
    """A file of `_logits_` on disk, with what it holds."""
    tokens = tokens_of(11)
    data, log_probs = pack("_logits_", logits_of(11), tokens)
    path = tmp_path / "base.kld"
    path.write_bytes(data)
    return path, data, log_probs, tokens


@pytest.mark.parametrize("magic", MAGICS)
@pytest.mark.parametrize("classes", [1, 2, 10, 11, 1003])
def test_every_layout_is_read(magic, classes, tmp_path):
    logits, tokens = logits_of(classes), tokens_of(classes)
    if magic == "_logits2" and classes > 2:
        logits[:, 1] = -np.inf
    if classes == 1 and magic in ("_logits_", "_logits2"):
        rows = struct.pack("<ffHH", 0, 0, 0 if magic == "_logits_" else 1, 0) * (CHUNKS * ROWS)
        header = struct.pack("<8s3i", magic.encode(), CONTEXT, 1, CHUNKS)
        data, expected = header + tokens.tobytes() + rows, np.zeros((CHUNKS * ROWS, 1), F32)
    else:
        data, expected = pack(magic, logits, tokens)
    path = tmp_path / "base.kld"
    path.write_bytes(data)
    assert llama_cpp.probe(path)
    dump = llama_cpp.open(path)
    assert (dump.kind, dump.width, dump.count, dump.format) == (
        "log_probs",
        classes,
        CHUNKS,
        f"llama.cpp {magic}",
    )
    for step in (1, 3, 100):
        found = read(dump, step)
        if magic == "_logits2":
            # The sum of a row is within rounding of 1, and so is its logarithm of 0.
            np.testing.assert_allclose(found, expected, rtol=3e-7, atol=2e-7)
        else:
            np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(dump.tokens, tokens)
    for chunk, sequence in enumerate(dump.sequences()):
        assert (sequence.name, sequence.positions, sequence.first) == (
            f"chunk {chunk}",
            ROWS,
            FIRST,
        )
        # The row after token j has token j + 1 for a label.
        np.testing.assert_array_equal(sequence.labels, tokens[chunk, FIRST + 1 :])


@pytest.mark.parametrize("context", [3, 4, 8])
def test_the_last_token_of_a_chunk_has_no_row(context, tmp_path):
    tokens = tokens_of(5)[:, :context]
    rows = context - 1 - context // 2
    data, expected = pack("_logits_", logits_of(5, CHUNKS * rows), tokens)
    (tmp_path / "a").write_bytes(data)
    dump = llama_cpp.open(tmp_path / "a")
    np.testing.assert_array_equal(read(dump), expected)
    assert [len(s.labels) for s in dump.sequences()] == [rows] * CHUNKS


def damaged(data, at, what):
    return data[:at] + what + data[at + len(what) :]


ROW = 8 + 2 * 12  # bytes, of 11 classes
TOKENS_END = 20 + 4 * CONTEXT * CHUNKS


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: b"", r"no base file .* begins with b''"),
        (lambda data: b"GGUF" + data[4:], r"begins with b'GGUFits_', not _logits2, _logits_"),
        (lambda data: data[:15], r"cut off at byte 15, in its header"),
        (lambda data: data[:100], r"cut off at byte 100, in the token ids"),
        (
            lambda data: data[: TOKENS_END + 5 * ROW + 7],
            r"cut off at byte 295, in row 1 of chunk 1; .*describes 512 bytes; --chunks 1 takes",
        ),
        (lambda data: data + b"\0", r"1 bytes after its last row: 513, but its header"),
        (lambda data: damaged(data, 8, struct.pack("<i", 2)), r"damaged header: _logits_, n_ctx 2"),
        (lambda data: damaged(data, 16, struct.pack("<i", -3)), r"damaged header.*n_chunk -3"),
        (
            lambda data: damaged(data, 12, struct.pack("<i", 9)),
            r"token id (9|10) at byte \d+, token \d of chunk \d, outside of its vocabulary of 9",
        ),
        (
            lambda data: damaged(data, 12, struct.pack("<i", 13)),
            r"cut off .*It is whole if its vocabulary is 11 or 12",
        ),
        (
            lambda data: damaged(data, 20 + 4 * 13, struct.pack("<i", -1)),
            r"token id -1 at byte 72, token 4 of chunk 1",
        ),
    ],
)
def test_what_does_not_fit_is_said(base, damage, message):
    path, data, _, _ = base
    path.write_bytes(damage(data))
    with pytest.raises(DumpError, match=message) as error:
        llama_cpp.open(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("row", [(1.0, 0.0), (-1e-4, -3.0), (np.inf, -3.0)])
def test_rows_that_no_model_has_are_refused(base, row):
    path, data, _, _ = base
    path.write_bytes(damaged(data, TOKENS_END + 6 * ROW, struct.pack("<ff", *row)))
    dump = llama_cpp.open(path)
    message = (
        rf"base.kld has no log-probabilities at byte {TOKENS_END + 6 * ROW}, in row 2 of chunk 1"
    )
    with pytest.raises(DumpError, match=message):
        read(dump, 3)


def test_rows_of_nan_are_the_models(base):
    path, data, log_probs, _ = base
    path.write_bytes(damaged(data, TOKENS_END + 6 * ROW, struct.pack("<ff", np.nan, np.nan)))
    log_probs[6] = np.nan
    np.testing.assert_array_equal(read(llama_cpp.open(path)), log_probs)
    assert examine(llama_cpp.open(path)).nan_rows == 1


def test_only_the_first_chunks(base):
    path, data, log_probs, _ = base
    path.write_bytes(data[: TOKENS_END + 2 * ROWS * ROW + 1])
    dump = llama_cpp.open(path, chunks=2)
    assert (dump.count, dump.tokens.shape) == (2, (2, CONTEXT))
    np.testing.assert_array_equal(read(dump), log_probs[: 2 * ROWS])
    with pytest.raises(DumpError, match="cut off"):
        llama_cpp.open(path, chunks=3)
    path.write_bytes(data)
    with pytest.raises(DumpError, match="has 3 chunks; 4 were asked for"):
        llama_cpp.open(path, chunks=4)
    with pytest.raises(DumpError, match="at least 1, got 0"):
        llama_cpp.open(path, chunks=0)


class Dribble(BytesIO):
    """Gives a few bytes at a time, as pipes may."""

    def readinto(self, memory):
        return super().readinto(memoryview(memory)[:7])


def test_a_stream_is_read_once_and_in_order(base):
    _, data, log_probs, _ = base

    def stream(data):
        return llama_cpp.open(Path("-"), stream=Dribble(data[5:]), start=data[:5])

    dump = stream(data)
    assert dump.name == "stdin"
    np.testing.assert_array_equal(read(dump, 3), log_probs)
    first, second, third = stream(data).sequences()
    # What is left of a sequence is passed over.
    np.testing.assert_array_equal(next(first.read(1)), log_probs[:1])
    np.testing.assert_array_equal(next(third.read(9)), log_probs[2 * ROWS :])
    with pytest.raises(DumpError, match="is a stream, whose rows are read once and in order"):
        next(second.read(1))
    with pytest.raises(DumpError, match="stdin goes on after its last row, at byte 512"):
        read(stream(data + b"x"))
    with pytest.raises(DumpError, match="stdin is cut off at byte 511, in row 3 of chunk 2"):
        read(stream(data[:-1]))


FED = """
import sys
from pathlib import Path
from kldiv.evaluation.dumps import llama_cpp

def peak():
    # Of this program: ru_maxrss begins with what the process was forked from.
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])

dump = llama_cpp.open(Path(sys.argv[1]))
before = peak()
rows = sum(len(b) for s in dump.sequences() for b in s.read(dump.block_bytes // dump.row_bytes))
print(rows, before, peak())
"""


@pytest.mark.parametrize("source", ["named pipe", "stdin"])
def test_a_pipe_takes_no_memory(source, tmp_path):
    classes, context, chunks = 50_000, 64, 80
    named = tmp_path / "pipe"
    os.mkfifo(named)
    reader = subprocess.Popen(
        [sys.executable, "-c", FED, str(named) if source == "named pipe" else "-"],
        stdin=subprocess.DEVNULL if source == "named pipe" else subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    rows = chunks * (context - 1 - context // 2)
    row = struct.pack("<ff", 1e-4, -8) + bytes(2 * classes)
    with named.open("wb") if source == "named pipe" else reader.stdin as file:
        file.write(struct.pack("<8s3i", b"_logits_", context, classes, chunks))
        file.write(bytes(4 * context * chunks))
        for _ in range(rows):
            file.write(row)
    out = reader.stdout.read()
    assert reader.wait(60) == 0
    reader.stdout.close()
    read_rows, before, after = map(int, out.split())
    assert read_rows == rows
    # A quarter of a gigabyte of rows; KiB.
    assert rows * len(row) > 1 << 27
    assert after - before < 40_000
    assert after < 300_000


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


def kl_as_written(log_p, z):
    """The loop of llama.cpp, in float32 but for its sums."""
    top = z.max()
    log_sum = F32(top + F32(math.log(np.exp(z - top).sum(dtype=np.float64))))
    counts = log_p > -16
    terms = np.exp(log_p[counts]) * (log_p[counts] - z[counts] + log_sum)
    return terms.sum(dtype=np.float64), log_sum


@pytest.mark.parametrize("classes", [11, 5003])
def test_kl_is_that_of_llama_cpp(classes):
    base = logits_of(classes)
    near = base + np.random.default_rng(2).normal(0, 0.1, base.shape).astype(F32)
    _, log_p = pack("_logits_", base, tokens_of(classes))
    labels = np.arange(len(base)) % classes
    labels[3] = -100
    found = clipped_kl(log_p, near, labels)
    for row, (x, z) in enumerate(zip(log_p, near, strict=True)):
        kl, log_sum = kl_as_written(x, z)
        # The log-sum-exp may round to the float32 beside it.
        step = float(np.spacing(log_sum))
        assert found["kl_llama_cpp"][row] == pytest.approx(kl, abs=2e-7 + step)
        if row == 3:
            assert np.isnan(found["nll_p_llama_cpp"][3])
            continue
        assert found["nll_p_llama_cpp"][row] == -x[labels[row]]
        assert found["nll_q_llama_cpp"][row] == pytest.approx(
            log_sum - z[labels[row]], abs=2 * step
        )
    assert list(clipped_kl(log_p, near)) == ["kl_llama_cpp"]
    with pytest.raises(IndexError, match=rf"label {classes} in row 0"):
        clipped_kl(log_p, near, np.full(len(base), classes))


@pytest.mark.parametrize("magic", MAGICS)
def test_the_doctor(magic, tmp_path):
    classes = 2001
    logits, tokens = logits_of(classes), tokens_of(classes)
    data, log_probs = pack(magic, logits, tokens)
    (tmp_path / "base.kld").write_bytes(data)
    labels = tokens[:, FIRST + 1 :].reshape(-1)
    exact = logits - np.log(np.exp(logits.astype(np.float64)).sum(1, keepdims=True))
    nll = -exact[np.arange(len(labels)), labels]
    ppl = math.exp(nll.mean()) if magic != "_logits_" else 1.0
    found = examine(llama_cpp.open(tmp_path / "base.kld"), ppl)
    assert found.bytes == len(data)
    assert (found.rows, found.vocabulary, found.chunks) == (len(logits), classes, CHUNKS)
    p = np.exp(log_probs.astype(np.float64))
    assert found.mass == pytest.approx(p.sum(1).mean(), rel=1e-6)
    assert found.mass_off == pytest.approx(abs(p.sum(1) - 1).max(), abs=1e-6)
    if magic == "_logits_":
        # Of 30 nats 14 are clipped, and what is there is raised to the clip.
        low = log_probs == log_probs.min(1, keepdims=True)
        at_clip = low[np.arange(len(labels)), labels]
        said = -log_probs[np.arange(len(labels)), labels].astype(np.float64)
        assert 0.2 < at_clip.mean() < 0.8
        assert found.labels_at_clip == at_clip.mean()
        assert found.mass_at_clip == pytest.approx((p * low).sum(1).mean(), rel=1e-6)
        assert found.clip == pytest.approx(16, rel=1e-6)
        assert found.mean_nll == pytest.approx(said.mean(), rel=1e-12)
        assert found.fits is False
        assert "NOT AS EXPECTED" in dict(found.lines())["PPL expected"]
        floor = np.sqrt(np.mean((16 / 65535) ** 2 / 12 * (p**2).sum(1)))
        assert found.rounding_floor == pytest.approx(floor, rel=1e-4)
    else:
        assert found.fits is True
        assert found.perplexity == pytest.approx(ppl, rel=0.005)
        assert found.labels_at_clip == found.mass_at_clip == found.clip == 0
    if magic == "_logp16n":
        assert found.mean_nll == pytest.approx(nll.mean(), rel=1e-7)
    assert found.as_dict()["fits"] == found.fits
    with pytest.raises(ValueError, match="expect_ppl must be positive"):
        examine(llama_cpp.open(tmp_path / "base.kld"), -1)
