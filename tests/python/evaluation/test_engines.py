"""Long runs: blocks, a directory that keeps them, kill and resume, Ctrl-C."""

import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import server_json
from safetensors.numpy import save_file

import kldiv
from kldiv.evaluation import EvaluationInterrupted, evaluate, open_dump
from kldiv.evaluation.dumps.convert import convert
from kldiv.evaluation.dumps.llama_cpp_writer import write as write_base_file
from kldiv.evaluation.dumps.part import SomeRows, between
from kldiv.evaluation.dumps.sequences import Lengths, cut
from kldiv.evaluation.engines.errors import EngineError
from kldiv.evaluation.engines.work import WorkDirectory

SEQUENCES, POSITIONS, CLASSES = 24, 12, 4000
TIMES = {
    "kept_positions",  # of what a run found, and did not do
    "date",
    "seconds",
    "positions_per_second",
    "gigabytes_per_second",
    "throughput",
    "arithmetic",
}
# Started by a parent in the background, a process ignores SIGINT.
COMMAND = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from kldiv.cli import main; sys.exit(main())"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("engines")
    rng = np.random.default_rng(3)
    p = rng.normal(0, 2, (SEQUENCES, POSITIONS, CLASSES)).astype(np.float32)
    q = p + rng.normal(0, 0.2, p.shape).astype(np.float32)
    np.save(folder / "p.npy", p)
    np.save(folder / "q.npy", q)
    np.save(folder / "flat.npy", q.reshape(-1, CLASSES))
    np.save(folder / "labels.npy", rng.integers(0, CLASSES, (SEQUENCES, POSITIONS)))
    tokens = rng.integers(0, CLASSES, (SEQUENCES, POSITIONS))
    write_base_file(folder / "q.kld", open_dump(folder / "q.npy"), tokens)
    np.savez_compressed(folder / "q.npz", **{f"logits_{n}": one for n, one in enumerate(q[:4])})
    for form in ("parquet", "zarr"):
        convert(open_dump(folder / "q.npy"), folder / f"q.{form}")
    (folder / "q").mkdir()
    for number, sequence in enumerate(q):
        labels = rng.integers(0, CLASSES, POSITIONS)
        save_file({"logits": sequence, "labels": labels}, folder / "q" / f"{number}.safetensors")
    return folder


@pytest.fixture(scope="module")
def options(folder):
    """What runs are given besides: labels, a mask, a floor."""
    rng = np.random.default_rng(4)
    return {
        "labels": np.load(folder / "labels.npy"),
        "where": rng.random((SEQUENCES, POSITIONS)) < 0.8,
        "floor": rng.random((SEQUENCES, POSITIONS)),
        "strata": ["even", "odd"] * (SEQUENCES // 2),
    }


@pytest.fixture(scope="module")
def expected(folder, options):
    return evaluate(str(folder / "p.npy"), str(folder / "q.npy"), **options)


def pair(folder):
    return str(folder / "p.npy"), str(folder / "q.npy")


def without_times(numbers):
    if isinstance(numbers, dict):
        return {key: without_times(one) for key, one in numbers.items() if key not in TIMES}
    return [without_times(one) for one in numbers] if isinstance(numbers, list) else numbers


@pytest.mark.parametrize("block", [1, 13, 50, 100_000])
def test_the_same_bits_for_any_blocks_and_threads(
    folder, options, expected, tmp_path, block, threads
):
    threads(1 + block % 2)
    for _ in range(2):  # the second time all of it is read back
        found = evaluate(*pair(folder), **options, work=tmp_path / "work", block_positions=block)
        assert found.positions.equals(expected.positions)
        assert without_times(found.as_dict()) == without_times(expected.as_dict())
    files = list((tmp_path / "work").glob("block-*.parquet"))
    assert len(files) == -(-SEQUENCES // -(-block // POSITIONS))


def test_only_what_is_missing_is_scored(folder, options, expected, tmp_path):
    evaluate(*pair(folder), **options, work=tmp_path / "work", block_positions=30)
    (tmp_path / "work" / "block-000002.parquet").unlink()
    # Without a number of positions it is that of the directory.
    scored, kept = [], []

    class Progress:
        def __call__(self, positions):
            scored.append(positions)

        def found(self, positions):
            kept.append(positions)

    found = evaluate(*pair(folder), **options, work=tmp_path / "work", progress=Progress())
    assert (sum(scored), sum(kept)) == (36, SEQUENCES * POSITIONS - 36)
    assert found.positions.equals(expected.positions)


def test_a_warning_of_a_finished_block_is_given_again(tmp_path):
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(50), (4, 5)).astype(np.float32)
    for _ in range(2):
        with pytest.warns(kldiv.ProbabilitiesAsLogitsWarning) as said:
            evaluate(p, p, work=tmp_path / "work", block_positions=5)
        assert len(said) == 2  # of either side, and not of every block


CHANGES = {
    "temperature": ({"temperature": 2.0}, "temperature 1.0 there, 2.0 here"),
    "chunks": ({"chunks": 3}, "chunks null there, 3 here"),
    "block": ({"block_positions": 7}, "positions of a block 30 there, 7 here"),
    "labels": ({"labels": np.zeros((SEQUENCES, POSITIONS), int)}, "other labels"),
    "where": ({"where": None}, "begun with where"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_work_of_other_options_is_refused(folder, options, tmp_path, change):
    given = dict(options, work=tmp_path / "work", block_positions=30)
    evaluate(*pair(folder), **given)
    other, message = CHANGES[change]
    with pytest.raises(EngineError, match=message) as refused:
        evaluate(*pair(folder), **(given | other))
    assert "\n" not in str(refused.value)


def test_work_of_other_inputs_is_refused(folder, tmp_path):
    rng = np.random.default_rng(1)
    p, q = tmp_path / "p.npy", tmp_path / "q.npy"
    rows = rng.normal(size=(2, 5, 30_000)).astype(np.float32)
    np.save(p, rows)
    np.save(q, rows + 1)
    work = tmp_path / "work"
    evaluate(str(p), str(q), work=work)
    before = q.stat()
    # One byte in a sample, the size and the time as they were.
    with q.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\0")
    os.utime(q, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(EngineError, match=r"q\.npy has changed since"):
        evaluate(str(p), str(q), work=work)
    # The same bytes at another time.
    np.save(q, rows + 1)
    with pytest.raises(EngineError, match=r"q\.npy has changed since"):
        evaluate(str(p), str(q), work=work)
    with pytest.raises(EngineError, match=r"candidate 1 .*q\.npy there, .*p\.npy here"):
        evaluate(str(p), str(p), work=work)
    # What lies in memory is known by all of its numbers.
    evaluate(rows, rows + 1, work=tmp_path / "memory")
    changed = rows + 1
    changed[1, 3, 12_345] += 1e-3
    with pytest.raises(EngineError, match="candidate has changed since"):
        evaluate(rows, changed, work=tmp_path / "memory")


def test_directories_that_are_no_work(folder, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    (tmp_path / "file").touch()
    for name, message in (
        ("other", r"holds thesis\.tex, which is no work of kldiv"),
        ("file", "is a file"),
        ("missing/work", "no such directory"),
    ):
        with pytest.raises(EngineError, match=message):
            evaluate(*pair(folder), work=tmp_path / name)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "other"]
    evaluate(*pair(folder), work=tmp_path / "work", block_positions=30)
    (tmp_path / "work" / "block-000001.parquet").write_bytes(b"PAR1")
    with pytest.raises(EngineError, match=r"block-000001\.parquet is not block 1 .*remove it"):
        evaluate(*pair(folder), work=tmp_path / "work", block_positions=30)


def test_nothing_is_left_of_a_run_that_finished_nothing(folder, tmp_path):
    labels = np.full((SEQUENCES, POSITIONS), CLASSES)
    (tmp_path / "there").mkdir()
    for name in ("work", "there"):
        with pytest.raises(ValueError, match="label"):
            evaluate(*pair(folder), labels=labels, work=tmp_path / name)
    assert [path.name for path in tmp_path.rglob("*")] == ["there"]


def test_streams_are_refused_and_options_without_a_use(folder, tmp_path):
    rows = np.load(folder / "p.npy")
    with pytest.raises(EngineError, match="stream, which is read once and cannot be taken up"):
        evaluate(iter(rows), rows, work=tmp_path / "work")
    with pytest.raises(ValueError, match="work and client"):
        evaluate(rows, rows, block_positions=3)
    assert not (tmp_path / "work").exists()


def test_ctrl_c_has_what_is_done(folder, options, expected):
    done = []

    def interrupt(positions):
        done.append(positions)
        if len(done) == 3:
            signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(EvaluationInterrupted) as caught:
            evaluate(*pair(folder), **options, progress=interrupt)
    finally:
        signal.signal(signal.SIGINT, before)
    result = caught.value.result
    assert result.positions.equals(expected.positions.head(len(result.positions)))
    # The position that Ctrl-C came in may be among them or not.
    assert result.positions["sequence"].n_unique() in (2, 3)
    assert result.about["interrupted"]["of"] == SEQUENCES * POSITIONS


def test_ctrl_c_after_a_block_was_kept_has_that_block(folder, tmp_path, monkeypatch):
    keep = WorkDirectory.keep

    def interrupted(self, block, *more):
        keep(self, block, *more)
        if block.number == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(WorkDirectory, "keep", interrupted)
    work = tmp_path / "work"
    with pytest.raises(EvaluationInterrupted) as caught:
        evaluate(*pair(folder), work=work, block_positions=POSITIONS)
    kept = [pl.read_parquet(file) for file in work.glob("block-*.parquet")]
    assert len(kept) == 3
    assert len(caught.value.result.positions) == sum(map(len, kept))


def start(folder, *more, work):
    arguments = ("compare", "p.npy", "q.npy", "--work", str(work), "--block-positions", "12")
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, *arguments, *more],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )


def until_blocks(process, work, count):
    """Wait until so many blocks are finished."""
    end = time.monotonic() + 30
    while len(list(work.glob("block-*.parquet"))) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.0005)


def stopped(process, work, count, how):
    """The exit code, stdout and stderr of a run that got a signal after so many blocks."""
    until_blocks(process, work, count)
    process.send_signal(how)
    out, err = process.communicate(timeout=30)
    return process.returncode, out, err


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Blocks that take a few hundredths of a second each."""
    folder = tmp_path_factory.mktemp("large")
    rng = np.random.default_rng(3)
    p = rng.normal(0, 2, (40, 12, 40_000)).astype(np.float16)
    np.save(folder / "p.npy", p)
    np.save(folder / "q.npy", p + rng.normal(0, 0.2, p.shape).astype(np.float16))
    return folder


@pytest.mark.costly
def test_kill_and_resume(large, tmp_path):
    """After kill -9 the same command ends with the bits of an uninterrupted run."""
    ends = []
    for name in ("killed", "whole"):
        work = tmp_path / name
        if name == "killed":
            code, _, _ = stopped(start(large, work=work), work, 3, signal.SIGKILL)
            assert code == -signal.SIGKILL
            before = {file.name for file in work.glob("block-*.parquet")}
            assert 3 <= len(before) < 40
            times = {name: (work / name).stat().st_mtime_ns for name in before}
        written = [tmp_path / f"{name}.parquet", tmp_path / f"{name}.json"]
        process = start(large, "--positions", str(written[0]), "--json", str(written[1]), work=work)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (0, "")
        ends.append(
            (
                pl.read_parquet(written[0]),
                without_times(json.loads(written[1].read_text())),
                re.sub(r"found in the work .*\n|(?<= ) +", "", out.partition("\ntime ")[0]),
            )
        )
        if name == "killed":
            assert times == {name: (work / name).stat().st_mtime_ns for name in before}
        assert ("found in the work directory" in out) is (name == "killed")
    assert ends[0][0].equals(ends[1][0])
    assert ends[0][1:] == ends[1][1:]


@pytest.mark.costly
def test_ctrl_c_ends_with_the_table_of_what_is_done(large, tmp_path):
    work = tmp_path / "work"
    process = start(large, "--json", str(tmp_path / "part.json"), work=work)
    code, out, err = stopped(process, work, 4, signal.SIGINT)
    assert code == 130
    done = json.loads((tmp_path / "part.json").read_text())["interrupted"]
    assert done["of"] == 480
    assert 48 <= done["positions"] < 480
    said = f"{done['positions']} of 480 positions"
    assert err == (
        f"kldiv: warning: interrupted: what follows is of the {said} that were scored\n"
        "kldiv: interrupted\n"
    )
    assert said in out
    assert "mean KL(p‖q)" in out


def test_two_runs_in_one_directory(large, tmp_path):
    work = tmp_path / "work"
    first = start(large, work=work)
    until_blocks(first, work, 1)
    with pytest.raises(EngineError, match="is in use by another run; wait for it") as caught:
        evaluate(*pair(large), work=work)
    assert "\n" not in str(caught.value)
    _, err = first.communicate(timeout=30)
    assert (first.returncode, err) == (0, "")


def test_errors_are_a_line(large, tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    full = Path("/dev/full")
    for work, message in ((closed / "work", "Permission denied"), (full, "is a file")):
        if work.parent == closed and os.access(closed, os.W_OK):
            continue  # to root nothing is forbidden
        process = start(large, work=work)
        out, err = process.communicate(timeout=30)
        assert (process.returncode, out, err.count("\n")) == (2, "", 1)
        assert message in err


def test_dask_that_is_not_installed(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(EngineError, match=r"this needs distributed: pip install 'kldiv\[dask\]'"):
        evaluate(*pair(folder), client="local:1")


def parts_of(dump):
    """Name, labels and rows of every sequence."""
    found = []
    for sequence in dump.sequences():
        rows = b"".join(np.array(block).tobytes() for block in sequence.read(5))
        labels = None if sequence.labels is None else sequence.labels.tolist()
        found.append((sequence.name, sequence.first, labels, rows))
    return found


def dumps_of(folder):
    flat = open_dump(folder / "flat.npy")
    whole = open_dump(folder / "q.npy")
    lengths = Lengths("lengths", (7, 30, SEQUENCES * POSITIONS - 37), ("a", "b", "c"))
    yield "directory", open_dump(folder / "q")
    yield "array", whole
    for form in ("kld", "npz", "parquet", "zarr"):
        yield form, open_dump(folder / f"q.{form}")
    yield "cut array", cut(flat, lengths)
    yield "cut directory", cut(open_dump(folder / "q"), lengths)
    yield "some rows", SomeRows(whole, range(5, 200))
    yield "some rows of a cut array", SomeRows(cut(flat, lengths), range(5, 200))


@pytest.mark.costly
def test_some_sequences_are_those_of_the_whole(folder):
    for name, dump in dumps_of(folder):
        count = dump.count
        whole = parts_of(dump)
        for start_at, stop in ((0, count), (1, count), (1, 2), (count - 1, count)):
            # As it is in another process.
            part = pickle.loads(pickle.dumps(between(dump, start_at, stop)))
            assert part.count == stop - start_at, name
            assert parts_of(part) == whole[start_at:stop], name


def test_responses_of_servers_can_be_kept(tmp_path):
    rng = np.random.default_rng(0)
    names = []
    for side in range(2):
        answers = []
        for number in range(6):
            tokens = np.random.default_rng(number).integers(0, 50, 9)
            logits = rng.normal(0, 2, (8, 50))
            answers.append(server_json.vllm(logits, tokens, 5))
        names.append(str(server_json.write(tmp_path / f"{side}.jsonl", answers)))
    expected = evaluate(*names)
    for _ in range(2):
        found = evaluate(*names, work=tmp_path / "work", block_positions=10)
        assert found.positions.equals(expected.positions)
