"""Base files of llama.cpp: read and examined."""

import math
import os
import struct
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from llama_cpp_files import (
    CHUNKS,
    CONTEXT,
    F32,
    FIRST,
    MAGICS,
    ROWS,
    logits_of,
    pack,
    read,
    tokens_of,
)

from kldiv.evaluation.clipped_kl import clipped_kl
from kldiv.evaluation.dumps import llama_cpp
from kldiv.evaluation.dumps.llama_cpp_doctor import examine
from kldiv.evaluation.dumps.protocol import DumpError


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
            r"cut off at byte 295, in row 1 of chunk 1; .*describes 512 bytes; --chunks 1 .*takes",
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


@pytest.mark.costly
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
