"""Dumps written in every format and read by the libraries of these, and what dumps are."""

import os
import subprocess
import sys

import ml_dtypes
import numpy as np
import pyarrow.parquet as pq
import pytest
import zarr
from safetensors.numpy import load_file, save_file
from safetensors.torch import load_file as load_for_torch

from kldiv.evaluation.dumps.convert import convert
from kldiv.evaluation.dumps.describe import describe, lines
from kldiv.evaluation.dumps.formats import open_dump
from kldiv.evaluation.dumps.memory import of_memory
from kldiv.evaluation.dumps.protocol import DumpError

WIDTH = 5
BF16 = ml_dtypes.bfloat16
TARGETS = ("a.npy", "a.npz", "a.safetensors", "a.parquet", "a.zarr", "a/")


def read(dump):
    return [np.concatenate([b.copy() for b in s.read(3)]) for s in dump.sequences()]


@pytest.fixture
def arrays(rng):
    """Sequences of one length, an odd one, so that int64 after float16 is not aligned."""
    return [rng.normal(size=(7, WIDTH)).astype(np.float16) for _ in range(12)]


@pytest.fixture
def source(tmp_path, arrays):
    """A dump with labels of most sequences."""
    given = {f"log_probs_{i}": array for i, array in enumerate(arrays)}
    given |= {f"labels_{i}": np.arange(7) + i for i in range(11)}
    save_file(given, tmp_path / "source.safetensors")
    return open_dump(tmp_path / "source.safetensors")


def library(path):
    """The arrays of a file by its own library."""
    if path.is_dir() and path.suffix != ".zarr":
        return [load_file(file)["log_probs"] for file in sorted(path.iterdir())]
    if path.suffix == ".npy":
        return list(np.load(path))
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        rows = np.array(table["log_probs"].to_pylist())
        return [rows[np.array(table["sequence"]) == number] for number in range(12)]
    by_name = {
        ".npz": np.load,
        ".safetensors": load_file,
        ".zarr": lambda name: zarr.open_group(name, mode="r"),
    }[path.suffix](path)
    return [by_name[f"log_probs_{number}"][:] for number in range(12)]


@pytest.mark.parametrize("target", TARGETS)
def test_every_format_holds_the_same(tmp_path, source, arrays, target):
    rows = []
    done = convert(source, f"{tmp_path}/{target}", advance=rows.append)
    assert (done.sequences, done.positions, sum(rows)) == (12, 84, 84)
    assert done.lost == (("labels",) if target == "a.npy" else ())
    path = tmp_path / target
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [path.name, "source.safetensors"]
    for found, array in zip(library(path), arrays, strict=True):
        np.testing.assert_array_equal(found, array)
    dump = open_dump(path)
    assert (dump.dtype, dump.count) == (np.float16, 12)
    assert dump.kind == ("logits" if target == "a.npy" else "log_probs")
    for number, (found, sequence) in enumerate(zip(read(dump), dump.sequences(), strict=True)):
        np.testing.assert_array_equal(found, arrays[number])
        if target == "a.npy" or (number == 11 and target != "a.parquet"):
            assert sequence.labels is None
        else:
            expected = np.full(7, -100) if number == 11 else np.arange(7) + number
            np.testing.assert_array_equal(sequence.labels, expected)
    # There, it is left alone; on demand it is replaced.
    with pytest.raises(DumpError, match="is there already"):
        convert(of_memory(arrays[:3], "p"), f"{tmp_path}/{target}")
    convert(of_memory(arrays[:3], "p"), f"{tmp_path}/{target}", overwrite=True)
    assert open_dump(path).count == 3
    assert len(list(tmp_path.iterdir())) == 2


def test_torch_reads_what_is_written(tmp_path, source, arrays):
    convert(source, tmp_path / "a.safetensors")
    found = load_for_torch(tmp_path / "a.safetensors")
    np.testing.assert_array_equal(found["log_probs_11"].numpy(), arrays[11])
    assert found["labels_10"].tolist() == list(range(10, 17))


@pytest.mark.parametrize("target", ["a.npy", "a.safetensors", "a/"])
def test_bfloat16_is_kept(tmp_path, arrays, target):
    given = [array.astype(BF16) for array in arrays]
    convert(of_memory(given, "p", "hidden_states"), f"{tmp_path}/{target}")
    dump = open_dump(tmp_path / target)
    assert dump.dtype == BF16
    np.testing.assert_array_equal(np.stack(read(dump)), np.stack(given))


def test_other_orders_of_bytes_and_axes(tmp_path, rng):
    array = rng.normal(size=(6, WIDTH))
    np.save(tmp_path / "a.npy", np.asfortranarray(array.astype(">f4")))
    convert(open_dump(tmp_path / "a.npy"), tmp_path / "a.safetensors")
    (found,) = load_file(tmp_path / "a.safetensors").values()
    np.testing.assert_array_equal(found, array.astype(np.float32))


@pytest.mark.parametrize("target", TARGETS)
def test_zeros_are_numbers(tmp_path, target):
    """Not what Zarr leaves out, and means by a chunk that is missing."""
    convert(of_memory(np.zeros((3, 50, WIDTH)), "p"), f"{tmp_path}/{target}")
    np.testing.assert_array_equal(np.stack(read(open_dump(tmp_path / target))), 0)


@pytest.mark.parametrize("target", TARGETS)
def test_a_stream_is_written_as_it_comes(tmp_path, arrays, target):
    def stream():
        return of_memory(iter(arrays), "stream", "log_probs")

    if target == "a.npz":
        with pytest.raises(DumpError, match="is a stream, which does not say how long"):
            convert(stream(), tmp_path / target)
        return
    assert convert(stream(), f"{tmp_path}/{target}").sequences == 12
    for found, array in zip(library(tmp_path / target), arrays, strict=True):
        np.testing.assert_array_equal(found, array)


def test_where_a_chunk_begins_is_kept(tmp_path, arrays):
    dump = of_memory({"a": arrays[0], "b": arrays[1]}, "p")
    parts = tuple(type(part)(part.name, part.array, first=7) for part in dump.parts)
    for target in ("a.safetensors", "a/"):
        assert convert(dump.noting(parts=parts), f"{tmp_path}/{target}").lost == ()
        firsts = [sequence.first for sequence in open_dump(tmp_path / target).sequences()]
        assert firsts == [7, 7]
    lost = convert(dump.noting(parts=parts), tmp_path / "a.npz").lost
    assert lost == ("where in their texts sequences begin",)


class TopK:
    name, kind = "answers.json", "top_k"


def breaking(arrays):
    yield arrays[0]
    raise OSError("no more")


@pytest.mark.parametrize(
    ("given", "target", "message"),
    [
        ("ragged", "a.npy", "sequences of 7 and of 3 positions"),
        ("ragged stream", "a.npy", "sequences of 7 and of 3 positions"),
        ("bfloat16", "a.parquet", "Parquet holds no bfloat16"),
        ("bfloat16", "a.zarr", "Zarr holds no bfloat16"),
        ("top-k", "a.npy", "holds only the most probable classes"),
        ("file", "a.pt", "has the unknown extension '.pt'"),
        ("file", "a", "has no extension; expected one of"),
        ("file", "nowhere/a.npy", "no such directory"),
        ("file", "source.safetensors", "is what is read"),
        ("file", "link.safetensors", "is what is read"),
        ("file", "hard.safetensors", "is what is read"),
        ("folder", "folder/9.npy", "is what is read, or is in it"),
        ("folder", "./", "is what is read, or is in it"),
        ("file", "other/", "holds other things than a dump: not replaced"),
    ],
)
def test_what_cannot_be_written(tmp_path, source, arrays, given, target, message):
    (tmp_path / "link.safetensors").symlink_to("source.safetensors")
    os.link(tmp_path / "source.safetensors", tmp_path / "hard.safetensors")
    for name in ("folder", "other"):
        (tmp_path / name).mkdir()
    np.save(tmp_path / "folder" / "0.npy", arrays[0])
    (tmp_path / "other" / "thesis.txt").write_text("years of work")
    ragged = [arrays[0], arrays[1][:3]]
    dump = {
        "ragged": lambda: of_memory(ragged, "p"),
        "ragged stream": lambda: of_memory(iter(ragged), "p"),
        "bfloat16": lambda: of_memory(arrays[0].astype(BF16), "p"),
        "top-k": TopK,
        "file": lambda: source,
        "folder": lambda: open_dump(tmp_path / "folder"),
    }[given]()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DumpError, match=message):
        convert(dump, f"{tmp_path}/{target}", overwrite=True)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("target", [name for name in TARGETS if name != "a.npz"])
def test_an_error_leaves_the_target_as_it_was(tmp_path, arrays, target):
    convert(of_memory(arrays[:1], "p"), f"{tmp_path}/{target}")
    with pytest.raises(OSError, match="no more"):
        convert(of_memory(breaking(arrays), "p"), f"{tmp_path}/{target}", overwrite=True)
    np.testing.assert_array_equal(np.concatenate(read(open_dump(tmp_path / target))), arrays[0])
    assert len(list(tmp_path.iterdir())) == 1


CONVERT = """
import sys, time
from kldiv.evaluation.dumps.convert import convert
from kldiv.evaluation.dumps.formats import open_dump

def advance(rows):
    print(rows, flush=True)
    time.sleep(60)

convert(open_dump(sys.argv[1]), sys.argv[2], overwrite=True, advance=advance)
"""


@pytest.mark.costly
@pytest.mark.parametrize("target", ["a.npy", "a.safetensors", "a.npz", "a/"])
def test_a_killed_conversion_leaves_nothing_that_looks_whole(tmp_path, arrays, target):
    convert(of_memory(arrays[:2], "p"), f"{tmp_path}/{target}")
    for number in range(3):
        np.save(tmp_path / f"{number}.npy", np.zeros((2000, 3000), np.float32))
    command = [sys.executable, "-c", CONVERT, tmp_path, f"{tmp_path}/{target}"]
    command[3] = tmp_path / "source"
    command[3].mkdir()
    for number in range(3):
        (tmp_path / f"{number}.npy").rename(command[3] / f"{number}.npy")
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout.readline()
    process.kill()
    process.wait()
    process.stdout.close()
    # What was there is there, and the rest is what nothing reads.
    np.testing.assert_array_equal(read(open_dump(tmp_path / target)), arrays[:2])
    (left,) = {entry.name for entry in tmp_path.iterdir()} - {target.strip("/"), "source"}
    assert left.startswith(f".{target.strip('/')}.")
    with pytest.raises(DumpError, match="is what an interrupted conversion left"):
        open_dump(tmp_path / left)
    assert convert(open_dump(command[3]), f"{tmp_path}/{target}", overwrite=True).sequences == 3


def log_softmax(z):
    z = z.astype(np.float64)
    return z - np.logaddexp.reduce(z, axis=-1, keepdims=True)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, BF16])
@pytest.mark.parametrize("kind", ["logits", "log_probs", "probs"])
def test_whether_rows_are_normalised(rng, dtype, kind):
    logits = rng.normal(size=(20, 6, 3000)) * 3
    for given, normalised in ((log_softmax(logits), True), (logits, False)):
        numbers = np.exp(given) if kind == "probs" else given
        with np.errstate(over="ignore"):
            rows = describe(of_memory(numbers.astype(dtype), "p", kind))["rows"]
        assert rows["normalised"] is normalised
        assert rows["looked_at"] == 32
        if normalised and dtype == np.float64:
            assert rows["highest"] == pytest.approx(1.0 if kind == "probs" else 0.0, abs=1e-12)


def test_rows_that_are_not_finite_are_counted():
    rows = np.zeros((4, 3))
    rows[0], rows[1, 1], rows[2, 1] = -np.inf, np.nan, np.inf
    found = describe(of_memory(rows, "p"))["rows"]
    assert (found["looked_at"], found["not_finite"]) == (4, 3)
    assert found["highest"] == pytest.approx(np.log(3))
    rows[3] = np.nan
    assert describe(of_memory(rows, "p"))["rows"]["normalised"] is None


def test_what_a_dump_is(tmp_path, source):
    found = describe(source)
    assert found["format"] == "safetensors"
    assert (found["sequences"], found["positions"], found["width"]) == (12, 84, WIDTH)
    assert (found["shortest"], found["longest"]) == (7, 7)
    assert (found["labels"], found["head"]) == (77, None)
    assert found["bytes"] == (tmp_path / "source.safetensors").stat().st_size
    said = dict(lines(found))
    assert said["numbers"] == "log-probabilities in float16"
    assert said["positions"] == "84 (7 each)"
    assert said["rows"].startswith("not normalised (log-sum-exp")
    stream = describe(of_memory(iter([np.zeros((2, 3))]), "p"))
    assert (stream["sequences"], stream["positions"]) == (None, None)
    assert dict(lines(stream))["sequences"] == "not known before the end"


def test_a_library_that_is_missing_is_named_when_writing(tmp_path, source, monkeypatch):
    for name in ("pyarrow", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(DumpError, match="pip install pyarrow"):
        convert(source, tmp_path / "b.parquet")
    assert not (tmp_path / "b.parquet").exists()
