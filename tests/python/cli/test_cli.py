"""The command `kldiv`: numbers, files, errors; installed where warnings or pipes are subjects."""

import contextlib
import hashlib
import json
import os
import pickle
import re
import shlex
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from command import ENVIRONMENT, KLDIV, here, installed
from safetensors.numpy import save_file

import kldiv
from conftest import softmax
from kldiv.evaluation.dumps.npy import NpyFile
from kldiv.evaluation.dumps.protocol import DumpError
from kldiv.evaluation.dumps.stored_arrays import LOGITS

DEMO = Path(kldiv.__file__).parent / "demo"
ROWS, CLASSES = 6, 50


def succeed(*arguments, run=here, **options):
    """Stdout of a command that must say nothing on stderr, nor use escape codes."""
    done = run(*arguments, **options)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    assert "\r" not in done.stdout
    return done.stdout


def numbers(*arguments, **options):
    return json.loads(succeed("compare", *arguments, "--json", "-", **options))


def float64_kl(p, q):
    def log_softmax(z):
        z = z.astype(np.float64)
        z = z - z.max(-1, keepdims=True)
        return z - np.log(np.exp(z).sum(-1, keepdims=True))

    ln_p, ln_q = log_softmax(p), log_softmax(q)
    return (np.exp(ln_p) * (ln_p - ln_q)).sum(-1)


@pytest.fixture(scope="module")
def logits():
    generator = np.random.default_rng(0)
    p = generator.normal(size=(ROWS, CLASSES)).astype(np.float32)
    return p, p + generator.normal(size=p.shape).astype(np.float32) / 10


@pytest.fixture(scope="module")
def folder(tmp_path_factory, logits):
    """Good files and bad ones."""
    folder = tmp_path_factory.mktemp("logits")
    p, q = logits
    labels = np.arange(ROWS)
    arrays = {
        "p": p,
        "q": q,
        "fewer_rows": q[:5],
        "wider": np.zeros((ROWS, CLASSES + 2), np.float32),
        "no_numbers": np.full((ROWS, CLASSES), np.nan, np.float32),
        "fortran": np.asfortranarray(p),
        "fortran_3d": np.asfortranarray(p.reshape(2, 3, CLASSES)),
        "q_3d": q.reshape(2, 3, CLASSES),
        "big_endian": p.astype(">f4"),
        "p_bfloat16": p.astype(ml_dtypes.bfloat16),
        "p_row": p[0],
        "q_row": q[0],
        "integers": np.ones((ROWS, CLASSES), np.int32),
        "scalar": np.float32(3),
        "no_rows": p[:0],
        "labels": labels,
        "labels_3d": labels.reshape(2, 3).astype(np.uint8),
        "labels_fewer": labels[:5],
        "labels_outside": np.where(labels == 3, CLASSES, labels),
        "labels_ignored": np.where(labels == 2, -100, labels),
        "labels_floating": labels.astype(np.float32),
        "labels_other": np.where(labels == 2, -1, labels).astype(">i2"),
        "keep": np.array([True, True, True, False, True, True]),
        "keep_wrong": np.array([7, 1, 1, 1, 0, 1], np.uint8),
        "p_probs": softmax(p),
        "q_probs": softmax(q),
        "structured": np.zeros(ROWS, [("é", np.float32)]),
        "text": np.full((ROWS, CLASSES), "a"),
    }
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    with (folder / "version_3.npy").open("wb") as file:
        np.lib.format.write_array(file, p, version=(3, 0))
    negative = b"{'descr': '<f4', 'fortran_order': False, 'shape': (-6, -50)}\n"
    (folder / "negative.npy").write_bytes(
        b"\x93NUMPY\x01\x00" + len(negative).to_bytes(2, "little") + negative + p.tobytes()
    )
    (folder / "parsed.npy").write_bytes(b"\x93NUMPY\x01\x00\x04\x00((((" + p.tobytes())
    header = b'{"logits":{"dtype":"F32","shape":[1e400],"data_offsets":[0,4]}}'
    (folder / "huge.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    # As MLX writes it: the header not padded, so that tensors begin anywhere.
    entries = {"logits": ["F32", [ROWS, CLASSES], [0, p.nbytes]]}
    entries["labels"] = ["I64", [ROWS], [p.nbytes, p.nbytes + labels.nbytes]]
    keys = ("dtype", "shape", "data_offsets")
    header = json.dumps({k: dict(zip(keys, v, strict=True)) for k, v in entries.items()}).encode()
    header += b" " * ((3 - len(header)) % 8)
    (folder / "odd.safetensors").write_bytes(
        len(header).to_bytes(8, "little") + header + p.tobytes() + labels.tobytes()
    )
    np.save(folder / "objects.npy", np.array([{}, 1], object), allow_pickle=True)
    whole = (folder / "p.npy").read_bytes()
    (folder / "truncated.npy").write_bytes(whole[:-10])
    (folder / "cut_header.npy").write_bytes(whole[:40])
    (folder / "empty.npy").touch()
    (folder / "pickle.npy").write_bytes(pickle.dumps(p))
    for extension in ("pt", "npz", "parquet", "txt"):
        (folder / f"p.{extension}").write_bytes(b"PK")
    save_file(
        {"logits": p.astype(ml_dtypes.bfloat16), "other": p, "labels": labels},
        folder / "p.safetensors",
    )
    save_file({"only": q, "ids": labels}, folder / "q.safetensors")
    save_file({"a": p, "b": q}, folder / "two.safetensors")
    whole = (folder / "p.safetensors").read_bytes()
    (folder / "truncated.safetensors").write_bytes(whole[:-10])
    (folder / "junk.safetensors").write_bytes(b"\x10" + bytes(7) + b'{"a": 3}        ')
    return folder


def test_compare_agrees_with_python_and_float64():
    names = ("reference.npy", "int4.npy", "labels.npy")
    p, q, labels = (np.load(DEMO / name) for name in names)
    command = ["reference.npy", "int4.npy", "--labels", "labels.npy"]
    result = numbers(*command, folder=DEMO, run=installed)
    expected = kldiv.compare(p, q, labels).summary()
    assert result["summary"] == expected.as_dict()
    kl = float64_kl(p, q)
    np.testing.assert_allclose(result["summary"]["kl"]["mean"], kl.mean(), rtol=1e-6)
    error = kl.std(ddof=1) / np.sqrt(kl.size)
    np.testing.assert_allclose(result["summary"]["kl"]["standard_error"], error, rtol=1e-6)
    assert result["reference"] == {
        "file": "reference.npy",
        "format": "NumPy array",
        "kind": "logits",
        "kind_assumed": True,
        "dtype": "float16",
        "shape": list(p.shape),
        "digest": {
            "sha256": hashlib.sha256((DEMO / "reference.npy").read_bytes()).hexdigest(),
            "bytes": (DEMO / "reference.npy").stat().st_size,
            "read_bytes": (DEMO / "reference.npy").stat().st_size,
        },
    }
    assert result["rows"] == [0, len(p)]
    assert result["kld_vocab_size"] == 49152
    assert result["throughput"]["rows_per_second"] > 0

    table = succeed("compare", *command, folder=DEMO)
    columns = dict(line.split("  ", 1) for line in table.splitlines() if "  " in line)
    names = ("KL(p‖q), median", "KL(p‖q), maximum", "KL(p‖q), minimum", "KL(p‖q), 99 %")
    for name in names:
        assert columns[name].strip() == dict(expected.lines())[name]
    assert columns["mean KL(p‖q)"].strip() == f"{expected.kl.mean:.6g}"
    assert columns["error were rows independent"].strip() == f"{expected.kl.standard_error:.2g}"
    assert "positions/s" in columns["throughput"]


@pytest.mark.parametrize(
    ("reference", "candidate", "options"),
    [
        ("fortran.npy", "q.npy", ["--labels", "labels.npy"]),
        ("fortran_3d.npy", "q_3d.npy", ["--labels", "labels_3d.npy"]),
        ("big_endian.npy", "q.safetensors", ["--labels", "q.safetensors"]),
        ("version_3.npy", "q.npy", ["--labels", "labels.npy"]),
        ("odd.safetensors", "q.npy", ["--labels", "odd.safetensors"]),
        ("p.safetensors:other", "two.safetensors:b", ["--labels", "p.safetensors:labels"]),
    ],
)
def test_every_layout_gives_the_same_numbers(folder, logits, reference, candidate, options):
    result = numbers(reference, candidate, *options, folder=folder)
    assert result["summary"] == kldiv.compare(*logits, np.arange(ROWS)).summary().as_dict()


@pytest.mark.parametrize("name", ["p.safetensors", "p_bfloat16.npy"])
def test_bfloat16(folder, logits, name):
    p, q = logits
    result = numbers(name, "q.npy", folder=folder)
    assert result["reference"]["dtype"] == "bfloat16"
    mean = float64_kl(p.astype(ml_dtypes.bfloat16), q).mean()
    np.testing.assert_allclose(result["summary"]["kl"]["mean"], mean, rtol=1e-6)


def test_one_row(folder, logits):
    result = numbers("p_row.npy", "q_row.npy", folder=folder)
    p, q = (array[:1] for array in logits)
    assert result["summary"] == kldiv.compare(p, q).summary().as_dict()
    # `kl` adds up in its own order, which rounds differently on some instruction sets.
    assert result["summary"]["kl"]["mean"] == pytest.approx(float(kldiv.kl(p, q)[0]), rel=1e-6)


@pytest.mark.parametrize("rows", ["2:5", ":-1", "-2:", "4:100", ":"])
def test_rows_temperature_and_threads(folder, logits, rows):
    options = ["--rows", rows, "--temperature", "2.5", "--threads", "1"]
    result = numbers("p.npy", "q.npy", "--labels", "labels.npy", *options, folder=folder)
    chosen = slice(*(int(part) if part else None for part in rows.split(":")))
    p, q, labels = (array[chosen] for array in (*logits, np.arange(ROWS)))
    expected = kldiv.compare(p, q, labels, temperature=2.5).summary()
    assert result["summary"] == expected.as_dict()
    assert result["throughput"]["threads"] == 1


def test_rows_with_nan_and_infinite_values_are_counted(tmp_path, logits):
    p, q = (array.copy() for array in logits)
    p[0, 0], q[1, 3] = np.nan, -np.inf
    np.save(tmp_path / "p.npy", p)
    np.save(tmp_path / "q.npy", q)
    done = installed("compare", "p.npy", "q.npy", "--json", "numbers.json", folder=tmp_path)
    assert done.returncode == 0
    said = (
        "1 of 6 positions with NaN or +inf left out, the first is position 0 of sequence 0 (p.npy)"
    )
    assert done.stderr == f"kldiv: warning: p.npy against q.npy: {said}\n"
    assert "rows with NaN" in done.stdout
    assert "rows with infinite" in done.stdout
    assert "over 4 rows, infinite in 1" in done.stdout
    summary = json.loads((tmp_path / "numbers.json").read_text())["summary"]
    assert (summary["rows"], summary["rows_nan"], summary["rows_infinite"]) == (ROWS, 1, 1)
    assert summary["kl"]["mean"] == kldiv.compare(p[2:], q[2:]).summary().kl.mean
    assert float(summary["kl_maximum"]) == np.inf


def test_rows_without_a_label_and_rows_left_out(folder, logits):
    p, q = logits
    options = ["--labels", "labels_ignored.npy", "--where", "keep.npy", "--rows", "1:"]
    result = numbers("p.npy", "q.npy", *options, folder=folder)
    keep, labels = np.load(folder / "keep.npy")[1:], np.load(folder / "labels_ignored.npy")[1:]
    expected = kldiv.compare(p[1:], q[1:], labels, where=keep).summary()
    assert result["summary"] == expected.as_dict()
    assert (result["summary"]["rows"], result["summary"]["rows_labelled"]) == (4, 3)
    # Only what is compared has to be right: row 0 holds 7 in the mask, row 3 a label too large.
    for given in (["--where", "keep_wrong.npy"], ["--labels", "labels_outside.npy"]):
        numbers("p.npy", "q.npy", *given, "--rows", "4:", folder=folder)
    numbers("p.npy", "q.npy", "--labels", "labels_outside.npy", "--where", "keep.npy",
            folder=folder)  # fmt: skip
    other = ["--labels", "labels_other.npy", "--ignore-index", "-1"]
    assert numbers("p.npy", "q.npy", *other, folder=folder)["summary"]["rows_labelled"] == 5


def test_spaces(folder, logits):
    p, q = logits
    expected = kldiv.compare(p, q).summary().kl.mean
    for names, space in (
        (("p_probs.npy", "q_probs.npy"), "probs"),
        (("p_probs.npy", "q.npy"), "probs,logits"),
    ):
        result = numbers(*names, "--space", space, folder=folder)
        assert result["summary"]["kl"]["mean"] == pytest.approx(expected, rel=1e-5)
    done = installed("compare", "p_probs.npy", "q.npy", folder=folder)
    assert done.returncode == 0
    assert done.stderr.startswith("kldiv: warning: p_probs.npy is taken for logits")
    assert "(--space, space=)" in done.stderr
    assert done.stderr.count("\n") == 1


def test_files_cut_off_while_they_are_read(tmp_path, logits):
    for order in "CF":
        np.save(tmp_path / "p.npy", np.asarray(logits[0], order=order))
        file = NpyFile(tmp_path / "p.npy", None, LOGITS)
        blocks = file.blocks(range(ROWS), 2)
        np.testing.assert_array_equal(next(blocks), logits[0][:2])
        os.truncate(tmp_path / "p.npy", 600)
        with pytest.raises(DumpError, match=r"p\.npy was truncated"):
            list(blocks)


@pytest.mark.parametrize("shape", [(30, 7), (2, 5, 3, 7)])
def test_blocks_of_every_order(tmp_path, rng, shape):
    array = rng.normal(size=shape)
    for order in "CF":
        np.save(tmp_path / "a.npy", np.asarray(array, order=order))
        file = NpyFile(tmp_path / "a.npy", None, LOGITS)
        for rows, step in ((range(30), 30), (range(30), 7), (range(3, 11), 3)):
            found = np.concatenate([block.copy() for block in file.blocks(rows, step)])
            assert np.array_equal(found, array.reshape(30, 7)[rows.start : rows.stop])


def test_json_file(folder, tmp_path):
    path = tmp_path / "numbers.json"
    table = succeed("compare", "p.npy", "q.npy", "--json", path, folder=folder)
    assert "mean KL" in table
    written = json.loads(path.read_text())
    assert written["candidate"]["file"] == "q.npy"
    # The same as from Python, but for what was typed.
    with contextlib.chdir(folder):
        from_python = json.loads(kldiv.evaluate("p.npy", "q.npy").to_json())
    assert set(written) - set(from_python) == {"labels", "where", "ignore_index", "rows"}
    for name in ("kl", "uncertainty", "candidates", "pairs", "summary"):
        assert written[name] == from_python[name]


ERRORS = {
    "nowhere.npy q.npy": "no such file: nowhere.npy",
    "bigendian.npy q.npy": "did you mean big_endian.npy?",
    ". q.npy": ". holds 5 sets of files",
    "/dev/null q.npy": "not a regular file",
    "p.npy fewer_rows.npy": "positions differ in sequence 0: p.npy 6, fewer_rows.npy 5",
    "p.npy wider.npy": "p.npy has 50 classes and wider.npy 52",
    "truncated.npy q.npy": "truncated",
    "cut_header.npy q.npy": "not a readable .npy file",
    "pickle.npy q.npy": "not a readable .npy file",
    "empty.npy q.npy": "is empty",
    "objects.npy q.npy": "Python objects",
    "structured.npy q.npy": "dtype void",
    "text.npy q.npy": "dtype str",
    "negative.npy q.npy": "not a readable .npy file",
    "parsed.npy q.npy": "not a readable .npy file",
    "huge.safetensors q.npy": "safetensors header",
    "integers.npy q.npy --space probs": "int32; expected floating numbers as logits, or, of token "
    "ids, --labels (labels=); this line of Python converts it: import numpy; "
    "numpy.save('integers-float64.npy', "
    "numpy.load('integers.npy').astype(",
    "scalar.npy q.npy": "shape ()",
    "no_rows.npy q.npy": "shape (0, 50)",
    "p.pt q.npy": "numpy.save('p.npy', torch.load('p.pt'",
    "p.npz q.npy": "p.npz is no readable .npz file",
    "p.parquet q.npy": "p.parquet is no readable Parquet file",
    "p.txt q.npy": "unknown extension '.txt'",
    "two.safetensors q.npy": "a (F32), b (F32)",
    "two.safetensors:c q.npy": "no tensor 'c'",
    "truncated.safetensors q.npy": "truncated",
    "junk.safetensors q.npy": "safetensors header",
    "p.npy": "CANDIDATE",
    "p.npy q.npy --label labels.npy": "--labels",
    "p.npy q.npy --labels labels_fewer.npy": "(5,)",
    "p.npy q.npy --labels labels_outside.npy": "label 50 in row 3",
    "p.npy q.npy --labels labels_ignored.npy --ignore-index -1": "label -100 in row 2",
    "p.npy q.npy --where labels.npy": "labels.npy holds 2 in row 2",
    "p.npy q.npy --where labels_fewer.npy": "(5,)",
    "p.npy q.npy --where labels_floating.npy": "float32",
    "p.npy q.npy --space prob": "logits, log_probs, probs, got 'prob'",
    "p.npy q.npy --space probs": "p.npy holds the negative probability",
    "p.npy q.npy --labels labels_floating.npy": "float32",
    "p.npy q.npy --rows 3": "expected A:B",
    "p.npy q.npy --rows 4:4": "selects none of 6 rows",
    f"p.npy q.npy --rows {'9' * 5000}:": "selects none of 6 rows",
    "p.npy q.npy --temperature 0": "temperature",
    "p.npy q.npy --temperature nan": "temperature",
    "p.npy q.npy --threads 0": "--threads",
    "p.npy q.npy --threads -1": "--threads",
    "p.npy q.npy --json nowhere/numbers.json": "no such directory: nowhere",
    "p.npy q.npy --json q.npy": "is an input",
    "p.npy q.npy --json - --format csv": "leave out --format csv",
    "p.npy q.npy --positions /proc/kept.parquet": "error: /proc/kept.parquet: No such file",
    "p.npy q.npy --ignore-index 3": "--ignore-index is about labels",
    "p.npy no_numbers.npy": "every position holds NaN or +inf, from position 0 of sequence 0",
}


@pytest.mark.parametrize("arguments", ERRORS)
def test_errors_are_one_line(folder, arguments):
    done = here("compare", *shlex.split(arguments), folder=folder)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("kldiv: error: ")
    assert done.stderr.count("\n") == 1
    assert ERRORS[arguments] in done.stderr


def test_an_error_ends_the_process_with_status_2(folder):
    done = installed("compare", "nowhere.npy", "q.npy", folder=folder)
    said = "kldiv: error: no such file: nowhere.npy\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", said)


def test_without_its_libraries():
    code = "import sys; sys.modules['rich'] = None; import kldiv.cli; sys.exit(kldiv.cli.main())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    expected = "the command line needs: pip install 'kldiv[cli]'\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", expected)


@pytest.mark.costly
def test_version_and_info():
    assert succeed("--version", run=installed) == f"kldiv {kldiv.__version__}\n"
    info = succeed("info", run=installed)
    assert kldiv.isa() in info
    assert "GB/s" in info
    assert "compare" in installed().stdout


@pytest.mark.costly
def test_demo_ends_with_a_command_that_works():
    demo = succeed("demo", run=installed)
    for name in ("int8", "int4"):
        comparison = kldiv.compare(np.load(DEMO / "reference.npy"), np.load(DEMO / f"{name}.npy"))
        assert f"{comparison.summary().kl.mean:.6g} ±" in demo
        assert f"{int(comparison.same_top.sum())} of {len(comparison.kl)} rows" in demo
    program, *arguments = shlex.split(demo.splitlines()[-1])
    assert program == "kldiv"
    assert "perplexity of q" in succeed(*arguments, run=installed)


def test_a_closed_pipe_is_silent():
    done = subprocess.run(
        f"{shlex.quote(str(KLDIV))} demo | head -n 1",
        shell=True,
        env=ENVIRONMENT,
        capture_output=True,
        timeout=30,
    )
    assert done.stderr == b""
    assert done.stdout.count(b"\n") == 1


def test_a_resumed_run_says_so(folder, tmp_path):
    command = ("compare", "p.npy", "q.npy", "--work", tmp_path / "work")
    assert "work directory" not in succeed(*command, folder=folder)
    again = succeed(*command, folder=folder)
    assert re.search("found in the work directory +6 positions", again)
    assert re.search("throughput +all positions were found in the work directory", again)


def test_info_knows_what_kldiv_wrote(folder, tmp_path):
    kept, result = tmp_path / "kept.parquet", tmp_path / "result.json"
    succeed("compare", "p.npy", "q.npy", "--positions", kept, "--json", result, folder=folder)
    for file, what in ((kept, "table of positions of kldiv"), (result, "result of kldiv")):
        said = succeed("info", file, folder=folder)
        assert f"format             {what} {kldiv.__version__}" in said
        assert "candidates         q.npy" in said
        assert json.loads(succeed("info", file, "--json", folder=folder))["positions of each"] == 6
    done = here("compare", kept, kept, folder=folder)
    assert done.returncode == 2
    assert (
        f"is a table of positions that kldiv kept, and no dump: kldiv compare {kept}" in done.stderr
    )
    said = succeed("info", "p_probs.npy", folder=folder)
    assert "sum to 1, none below 0: probabilities? --space (space=) says so" in said
    assert "probabilities?" not in succeed("info", "p.npy", folder=folder)


def test_a_directory_of_several_dumps_says_which_file_is_taken(tmp_path, logits):
    for name, rows in zip(("a", "b"), logits, strict=True):
        (tmp_path / name / "hidden").mkdir(parents=True)
        np.save(tmp_path / name / "logits.npy", rows)
        np.save(tmp_path / name / "other.npy", rows)
    table = succeed("compare", "a", "b", folder=tmp_path)
    assert "p         a/logits.npy  NumPy array" in table
    assert "q         b/logits.npy  NumPy array" in table
    assert "file        a/logits.npy" in succeed("info", "a", folder=tmp_path)


@pytest.mark.costly
def test_files_are_written_though_the_pipe_is_closed(folder, tmp_path):
    files = [str(tmp_path / name) for name in ("r.json", "r.parquet", "r.html")]
    options = " ".join(
        f"{option} {shlex.quote(file)}"
        for option, file in zip(("--json", "--positions", "--html"), files, strict=True)
    )
    # A reader that takes nothing at all, and has gone before the table is printed.
    command = f"{shlex.quote(str(KLDIV))} compare p.npy q.npy {options} | exec true"
    done = subprocess.run(
        command, shell=True, cwd=folder, env=ENVIRONMENT, capture_output=True, timeout=60
    )
    assert done.stderr == b""
    for file in files:
        assert Path(file).exists(), file
    assert json.loads(Path(files[0]).read_text())["num_positions"] == ROWS
