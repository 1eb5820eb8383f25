"""Dumps as others leave them, made by their own libraries, read as sequences."""

import itertools
import json
import os
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr
from safetensors.numpy import save_file

from kldiv.evaluation.dumps.dense import check_same_numbers
from kldiv.evaluation.dumps.formats import open_dump
from kldiv.evaluation.dumps.protocol import DumpError

WIDTH = 7
# More than ten, so that natural order is not that of strings; of lengths that differ.
LENGTHS = (3, 5, 1, 4, 2, 6, 3, 1, 5, 2, 4, 3)
BF16 = ml_dtypes.bfloat16


@pytest.fixture
def rows(rng):
    """The rows of every sequence, float32."""
    return [rng.normal(size=(length, WIDTH)).astype(np.float32) for length in LENGTHS]


def read(dump, step):
    """All rows of every sequence, and a check of the lengths of blocks."""
    found = []
    for sequence in dump.sequences():
        blocks = [block.copy() for block in sequence.read(step)]
        assert [len(block) for block in blocks[:-1]] == [step] * (len(blocks) - 1)
        assert sum(map(len, blocks)) == sequence.positions
        found.append(np.concatenate(blocks))
    return found


def sglang(folder, rows):
    for number, array in enumerate(rows):
        save_file({"log_probs": array}, folder / f"{number}.safetensors")
    return folder, "log_probs", np.float32


def vllm(folder, rows):
    save_file({f"logits_{i}": a for i, a in enumerate(rows)}, folder / "scores.safetensors")
    return folder / "scores.safetensors", "logits", np.float32


def exllama(folder, rows):
    inner = folder / "logits_4.0bpw"
    inner.mkdir()
    for number, array in enumerate(rows):
        save_file({"logits": array.astype(np.float16)}, inner / f"row_{number:06}.safetensors")
    save_file({"conf": rows[0]}, inner / "conf.safetensors")
    (inner / "meta.json").write_text("{}")
    return inner, "logits", np.float16


def numbered_npy(folder, rows):
    for number, array in enumerate(rows):
        np.save(folder / f"probs-{number}.npy", array.astype(np.float64))
    (folder / "conf.json").write_text("{}")
    return folder, "probs", np.float64


def hidden_folder(folder, rows):
    inner = folder / "reference-hidden"
    inner.mkdir()
    for number, array in enumerate(rows):
        np.save(inner / f"{number:03}.npy", array)
    return inner, "hidden_states", np.float32


def sharded(folder, rows):
    names = [f"model-{shard:05}-of-00002.safetensors" for shard in (1, 2)]
    tensors = [{}, {}]
    for number, array in enumerate(rows):
        tensors[number % 2][f"logits.{number}"] = array.astype(BF16)
    for name, held in zip(names, tensors, strict=True):
        save_file(held, folder / name)
    weight_map = {key: name for name, held in zip(names, tensors, strict=True) for key in held}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder, "logits", BF16


def npz(folder, rows):
    np.savez(folder / "dump.npz", **{f"logits_{i}": a for i, a in enumerate(rows)})
    return folder / "dump.npz", "logits", np.float32


def compressed_npz(folder, rows):
    np.savez_compressed(folder / "dump.npz", *rows)
    return folder / "dump.npz", "logits", np.float32


def appended_npy(folder, rows):
    with (folder / "dump.npy").open("wb") as file:
        for array in rows:
            np.save(file, array)
    return folder / "dump.npy", "logits", np.float32


def zarr_group(folder, rows):
    group = zarr.open_group(folder / "dump.zarr", mode="w")
    for number, array in enumerate(rows):
        stored = group.create_array(
            f"log_probs_{number}", shape=array.shape, chunks=(2, 3), dtype="f2"
        )
        stored[:] = array.astype(np.float16)
    return folder / "dump.zarr", "log_probs", np.float16


def parquet_lists(folder, rows):
    numbers = np.repeat(np.arange(len(rows)), [len(array) for array in rows])
    lists = pa.array([row for array in rows for row in array], pa.list_(pa.float32()))
    table = pa.table({"sequence": numbers, "logits": lists})
    pq.write_table(table, folder / "dump.parquet", row_group_size=4)
    return folder / "dump.parquet", "logits", np.float32


LAYOUTS = [sglang, vllm, exllama, numbered_npy, hidden_folder, sharded, npz, compressed_npz]
LAYOUTS += [appended_npy, zarr_group, parquet_lists]


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_every_layout_is_its_sequences(tmp_path, rows, layout):
    path, kind, dtype = layout(tmp_path, rows)
    dump = open_dump(path)
    assert (dump.kind, dump.width, dump.count) == (kind, WIDTH, len(rows))
    assert dump.dtype == dtype
    assert dump.row_bytes == WIDTH * np.dtype(dtype).itemsize
    for step in (1, 2, 100):
        for found, array in zip(read(dump, step), rows, strict=True):
            np.testing.assert_array_equal(found, array.astype(dtype))
    # Sequences by themselves, the last first.
    for sequence, array in reversed(list(zip(dump.sequences(), rows, strict=True))):
        np.testing.assert_array_equal(next(sequence.read(1)), array[:1].astype(dtype))


def one_npy(folder, array):
    np.save(folder / "a.npy", array)
    return folder / "a.npy"


def fortran_npy(folder, array):
    np.save(folder / "a.npy", np.asfortranarray(array))
    return folder / "a.npy"


def one_zarr(folder, array):
    zarr.save_array(folder / "a.zarr", array)
    return folder / "a.zarr"


def one_tensor(folder, array):
    save_file({"whatever": array, "ids": np.arange(3)}, folder / "a.safetensors")
    return folder / "a.safetensors"


@pytest.mark.parametrize("layout", [one_npy, fortran_npy, one_zarr, one_tensor])
@pytest.mark.parametrize("shape", [(WIDTH,), (4, WIDTH), (3, 4, WIDTH), (2, 3, 4, WIDTH)])
def test_axes_before_the_last_two_are_sequences(tmp_path, rng, layout, shape):
    array = rng.normal(size=shape)
    dump = open_dump(layout(tmp_path, array))
    found = read(dump, 3)
    assert len(found) == dump.count == int(np.prod(shape[:-2]))
    np.testing.assert_array_equal(np.concatenate(found), array.reshape(-1, WIDTH))


def test_parquet_with_a_column_for_each_class(tmp_path, rows):
    array = np.concatenate(rows)
    columns = {f"token {i}": array[:, i] for i in range(WIDTH)}
    pq.write_table(pa.table({"labels": np.arange(len(array)), **columns}), tmp_path / "a.parquet")
    (sequence,) = open_dump(tmp_path / "a.parquet").sequences()
    np.testing.assert_array_equal(np.concatenate(list(sequence.read(4))), array)
    np.testing.assert_array_equal(sequence.labels, np.arange(len(array)))


def kimi(folder, kind):
    return folder / "reference-hidden", folder / "lm-head", folder / "tokens"


def malaiwah(folder, kind):
    return folder / "capture", folder / "head", folder / "panel" / "tokens"


@pytest.mark.parametrize("layout", [kimi, malaiwah])
@pytest.mark.parametrize("kind", ["hidden", "logits"])
def test_layouts_with_a_head_and_tokens(tmp_path, rows, layout, kind):
    inner, head, tokens = layout(tmp_path, kind)
    for folder in (inner, head, tokens):
        folder.mkdir(parents=True)
    key = {"hidden": "hidden_states", "logits": "logits"}[kind]
    save_file({"weight": np.ones((11, WIDTH), BF16)}, head / "weight.safetensors")
    save_file({"weight": np.ones(WIDTH, BF16)}, head / "final_norm.safetensors")
    (tmp_path / "manifest.json").write_text("{}")
    (inner / "manifest.json").write_text("{}")
    numbers = range(510, 510 + len(rows))  # a shard's, not from 0
    for number, array in zip(numbers, rows, strict=True):
        save_file({key: array.astype(BF16)}, inner / f"{kind}_{number:04}.safetensors")
        ids = [number + i for i in range(len(array) + 1)]
        (tokens / f"context-{number:04}.json").write_text(json.dumps(ids))
    for path in (tmp_path, inner):
        dump = open_dump(path)
        assert dump.kind == key
        assert dump.head == (head / "weight.safetensors" if kind == "hidden" else None)
        for number, sequence, array in zip(numbers, dump.sequences(), rows, strict=True):
            assert sequence.name == f"{kind}_{number:04}.safetensors"
            np.testing.assert_array_equal(sequence.labels, number + 1 + np.arange(len(array)))
            found = np.concatenate([block.copy() for block in sequence.read(2)])
            np.testing.assert_array_equal(found, array.astype(BF16))
    # As many tokens as rows: the last row has no next one.
    (tokens / "context-0510.json").write_text(json.dumps({"token_ids": [5, 6, 7]}))
    assert next(open_dump(inner).sequences()).labels.tolist() == [6, 7, -100]
    (tokens / "context-0510.json").write_text("[5, 6]")
    with pytest.raises(DumpError, match=r"context-0510\.json holds 2 tokens, but .* 3 rows"):
        open_dump(inner)
    (tokens / "context-0510.json").unlink()
    with pytest.raises(DumpError, match=r"tokens has no .* of the number of \w+_0510"):
        open_dump(inner)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed, save_file])
def test_labels_beside_rows(tmp_path, rows, save):
    labels = {f"labels_{i}": np.arange(len(array)) for i, array in enumerate(rows)}
    labels["labels_2"] = np.arange(9)
    del labels["labels_3"]
    arrays = {f"logits_{i}": array for i, array in enumerate(rows)} | labels
    path = tmp_path / ("a.safetensors" if save is save_file else "a.npz")
    save(arrays, path) if save is save_file else save(path, **arrays)
    dump = open_dump(path)
    for number, sequence in enumerate(dump.sequences()):
        if number in (2, 3):
            assert sequence.labels is None
        else:
            np.testing.assert_array_equal(sequence.labels, labels[f"labels_{number}"])
    assert "labels_2 has shape [9], not one for each row" in dump.details()["labels"]


def test_names_say_the_kind_and_can_be_overruled(tmp_path, rows):
    names = {
        "logits": "logits",
        "logits_int8": "logits",
        "LOG_PROBS": "log_probs",
        "logprobs_0": "log_probs",
        "probs": "probs",
        "hidden_states": "hidden_states",
        "hidden_17": "hidden_states",
        "scores": "logits",
        "reprobs": "logits",
    }
    for name, kind in names.items():
        np.save(tmp_path / f"{name}.npy", rows[0])
        save_file({name: rows[0]}, tmp_path / "key.safetensors")
        for path in (f"{name}.npy", "key.safetensors"):
            assert open_dump(tmp_path / path).kind == kind
        assert open_dump(tmp_path / "key.safetensors", "probs").kind == "probs"
    assert "assumed" in open_dump(tmp_path / "reprobs.npy").details()["kind from"]
    with pytest.raises(DumpError, match="kind is 'logit'; expected one of logits"):
        open_dump(tmp_path / "probs.npy", "logit")


def test_keys_can_be_chosen(tmp_path, rows):
    tensors = {f"logits_{i}": array for i, array in enumerate(rows)}
    tensors |= {f"hidden_states_{i}": array for i, array in enumerate(rows[:2])}
    save_file(tensors, tmp_path / "a.safetensors")
    np.savez(tmp_path / "a.npz", **tensors)
    for name in ("a.safetensors", "a.npz"):
        path = str(tmp_path / name)
        with pytest.raises(DumpError, match=r"several can be meant: hidden_states_#, logits_#"):
            open_dump(path)
        assert open_dump(f"{path}:logits_3").name == f"{path}:logits_3"
        assert read(open_dump(f"{path}:logits_3"), 9)[0].shape == rows[3].shape
        assert open_dump(f"{path}:logits").count == len(rows)
        assert open_dump(path, "hidden_states").count == 2
        with pytest.raises(DumpError, match=r"no (tensor|array) 'log'"):
            open_dump(f"{path}:log")
    for number in range(2):
        save_file({"logits": rows[0], "hidden_states": rows[1]}, tmp_path / f"{number}.safetensors")
    (tmp_path / "a.safetensors").unlink()
    (tmp_path / "a.npz").unlink()
    np.testing.assert_array_equal(read(open_dump(tmp_path, "hidden_states"), 9)[0], rows[1])


def test_only_what_differs_in_a_number_is_a_set(tmp_path, rows):
    """Files of draft heads are a second set, wherever their name has them."""
    second = ["mtp_hidden_{:04}", "hidden_{:04}_mtp", "hidden_{:04}_mtp1", "hidden_{}_2"]
    for place, name in enumerate(second):
        folder = tmp_path / str(place)
        folder.mkdir()
        for number in range(3):
            np.save(folder / f"hidden_{number:04}.npy", rows[0])
        np.save(folder / f"{name.format(5)}.npy", rows[0])
        with pytest.raises(DumpError) as error:
            open_dump(folder)
        assert "2 sets of files: hidden_#.npy (3), " in str(error.value) or (
            ", hidden_#.npy (3)" in str(error.value)
        )
        assert "(1)" in str(error.value)
    layers = tmp_path / "layers"
    layers.mkdir()
    for layer, number in itertools.product((60, 61), range(3)):
        np.save(layers / f"layer{layer}_{number}.npy", rows[0])
    with pytest.raises(DumpError, match=r"layer60_#\.npy \(3\), layer61_#\.npy \(3\)"):
        open_dump(layers)


@pytest.fixture(scope="module")
def bad(tmp_path_factory):
    """Everything that is no dump."""
    folder = tmp_path_factory.mktemp("bad")
    rows = np.zeros((3, 4), np.float32)

    def directory(name, **files):
        (folder / name).mkdir()
        for stem, array in files.items():
            if isinstance(array, np.ndarray):
                np.save(folder / name / f"{stem}.npy", array)
            else:
                (folder / name / stem).write_bytes(array)

    directory("nothing")
    directory("text", **{"readme.md": b"text", "conf.json": b"{}"})
    directory("widths", row_0=rows, row_1=rows[:, :3])
    directory("dtypes", row_0=rows, row_1=rows.astype(np.float64))
    directory("twice", **{"1": rows, "001": rows})
    directory("zero", **{"0": rows, "1.npy": b""})
    directory("no_rows", **{"0": rows, "1": rows[:0]})
    directory("cut", **{"0": rows, "1": rows})
    os.truncate(folder / "cut" / "1.npy", 160)
    directory("junk", **{"0": rows, "1.npy": b"junk"})
    directory("integers", **{"0": rows.astype(int)})
    directory("names", a=rows, b=rows)
    directory("both", **{"0": rows, "1.safetensors": b"{}"})
    directory("kinds", probs_0=rows)
    directory("dump.npy.0a1b.partial", **{"0": rows})
    (folder / "several").mkdir()
    for name in ("logits_a", "logits_b"):
        directory(f"several/{name}", **{"0": rows})
    save_file({"logits_0": rows, "logits_1": rows}, folder / "two.safetensors")
    directory("keys", **{"0.safetensors": (folder / "two.safetensors").read_bytes()})
    save_file({"logits_1": rows, "logits_01": rows}, folder / "twice.safetensors")
    save_file({"a_0": rows, "b_0": rows}, folder / "sets.safetensors")
    save_file({"logits_0": rows, "logits_1": rows[:, :2]}, folder / "widths.safetensors")
    (folder / "hole.safetensors.index.json").write_text('{"weight_map": {"a": "b.safetensors"}}')
    (folder / "key.safetensors.index.json").write_text('{"weight_map": {"a": "two.safetensors"}}')
    (folder / "bad.safetensors.index.json").write_text("[1]")
    np.save(folder / "whole.npy", rows)
    (folder / "more.npy").write_bytes((folder / "whole.npy").read_bytes() + b"xyz")
    np.savez(folder / "whole.npz", logits=rows)
    np.savez_compressed(folder / "packed.npz", logits=np.arange(999.0).reshape(9, 111))
    np.savez_compressed(folder / "fortran.npz", logits=np.asfortranarray(rows))
    whole = (folder / "whole.npz").read_bytes()
    (folder / "cut.npz").write_bytes(whole[:-30])
    packed = bytearray((folder / "packed.npz").read_bytes())
    packed[400] ^= 255
    (folder / "corrupt.npz").write_bytes(packed)
    pq.write_table(pa.table({"logits": [[1.0, 2.0], [1.0]]}), folder / "ragged.parquet")
    pq.write_table(pa.table({"logits": [[1.0, 2.0], [1.0, None]]}), folder / "null.parquet")
    pq.write_table(pa.table({"text": ["a"], "x": [1.0]}), folder / "text.parquet")
    lists = [[1.0, 2.0]] * 3
    pq.write_table(pa.table({"sequence": [0, 1, 0], "logits": lists}), folder / "mixed.parquet")
    (folder / "cut.parquet").write_bytes((folder / "mixed.parquet").read_bytes()[:-9])
    hole = zarr.create_array(folder / "hole.zarr", shape=(4, 4), chunks=(2, 4), dtype="f8")
    hole[:] = np.ones((4, 4))
    (folder / "hole.zarr" / "c" / "1" / "0").unlink()
    (folder / "none.zarr").mkdir()
    (folder / "dump.pt").write_bytes(b"PK")
    (folder / "dump.txt").write_bytes(b"1 2")
    (folder / "empty.npz").touch()
    (folder / "broken").symlink_to("nowhere.npy")
    return folder


ERRORS = {
    "nothing": "nothing is empty",
    "text": "is a directory without a .safetensors or .npy file",
    "widths": "row_1.npy has rows of 3 numbers, but",
    "dtypes": "row_1.npy has dtype float64, but",
    "twice": "holds number 1 twice: 001.npy and 1.npy",
    "zero": "zero/1.npy is empty",
    "no_rows": "no_rows/1.npy has shape (0, 4), without a logit",
    "cut": "cut/1.npy is truncated: 160 bytes, but its header describes 176",
    "junk": "junk/1.npy is not a readable .npy file",
    "integers": "integers/0.npy has dtype int64; expected floating numbers",
    "names": "holds a.npy, b.npy, without numbers",
    "both": "2 sets of files: #.npy (1), #.safetensors (1)",
    "dump.npy.0a1b.partial": "is what an interrupted conversion left",
    "several": "holds several dumps: logits_a, logits_b; name one of them",
    "keys": "0.safetensors holds the tensors logits_0, logits_1; expected one for each file",
    "twice.safetensors": "holds number 1 twice: logits_01 and logits_1",
    "sets.safetensors": "its tensors: a_0 (F32), b_0 (F32)",
    "widths.safetensors": "widths.safetensors:logits_1 has rows of 2 numbers, but",
    "two.safetensors:logits_2": "no tensor 'logits_2'; its tensors: logits_0 (F32), logits_1 (F32)",
    "hole.safetensors.index.json": "names b.safetensors, which is not beside it",
    "key.safetensors.index.json": "says that two.safetensors holds 'a', which it does not",
    "bad.safetensors.index.json": "has no weight_map",
    "more.npy": "holds 3 bytes after its array, at offset 176",
    "cut.npz": "is no readable .npz file",
    "fortran.npz": "is compressed and in Fortran order",
    "empty.npz": "is empty",
    "corrupt.npz": "corrupt.npz is corrupt, in array 'logits'",
    "ragged.parquet": "holds 1 numbers in row 1; expected 2, as in row 0",
    "null.parquet": "holds a null in row 1",
    "text.parquet": "its columns: text (string), x (double)",
    "mixed.parquet": "comes back to sequence 0 in row 2",
    "cut.parquet": "cut.parquet is no readable Parquet file",
    "hole.zarr": "lacks 1 of its 2 chunks",
    "none.zarr": "is no readable Zarr array or group",
    "dump.pt": "this line of Python converts it: import numpy, torch;",
    "dump.txt": "unknown extension '.txt'",
    "whoel.npy": "did you mean",
    "widhts": "did you mean",
    "broken": "is a link to nowhere.npy, which is not there",
    "/dev/null": "is not a regular file",
    "whole.npy/x": "no such file",
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_name_the_file_and_the_reason(bad, name):
    path = bad / name if not name.startswith("/") else name
    with pytest.raises(DumpError) as error:
        read(open_dump(path), 2)
    assert ERRORS[name] in str(error.value)
    assert "\n" not in str(error.value)
    assert Path(name.partition(":")[0]).name.split(".")[0][:3] in str(error.value)


def test_files_that_are_missing_from_either_side(tmp_path, rows):
    for name, numbers in (("p", (0, 1, 3)), ("q", (0, 2, 3)), ("from_1", (1, 2, 4))):
        (tmp_path / name).mkdir()
        for number in numbers:
            np.save(tmp_path / name / f"{number}.npy", rows[0])
    p, q, from_1 = (open_dump(tmp_path / name) for name in ("p", "q", "from_1"))
    assert p.details()["files numbered"] == "0 to 3, 1 missing"
    check_same_numbers([p, from_1])
    with pytest.raises(DumpError, match=r"p has a file of number 1 where .*q has one of number 2"):
        check_same_numbers([p, q])


def test_a_directory_with_one_file_is_that_file(tmp_path, rows):
    save_file({f"logits_{i}": array for i, array in enumerate(rows)}, tmp_path / "all.safetensors")
    np.save(tmp_path / "labels.npy", np.arange(3))
    with pytest.raises(DumpError, match=r"all\.safetensors, labels\.npy, without numbers"):
        open_dump(tmp_path)
    (tmp_path / "labels.npy").unlink()
    assert open_dump(tmp_path).count == len(rows)


def test_stored_arrays_of_an_archive_are_read_where_they_lie(tmp_path, rng):
    """Not in order only: also those whose rows are spread over all of the file."""
    array = rng.normal(size=(50, WIDTH))
    np.savez(tmp_path / "a.npz", noise=np.zeros(1000), logits=np.asfortranarray(array))
    np.testing.assert_array_equal(read(open_dump(f"{tmp_path / 'a.npz'}:logits"), 8)[0], array)


@pytest.mark.parametrize(
    ("layout", "module", "line"),
    [
        (zarr_group, "zarr", "pip install zarr"),
        (parquet_lists, "pyarrow.parquet", "pip install pyarrow"),
    ],
)
def test_without_a_library(tmp_path, rows, monkeypatch, layout, module, line):
    path, *_ = layout(tmp_path, rows)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(DumpError, match=line):
        open_dump(path)
