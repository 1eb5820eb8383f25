"""The same evaluation on a real cluster of worker processes, some of which are killed."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

dask = pytest.importorskip("dask")
distributed = pytest.importorskip("distributed")

import dask.array as da  # noqa: E402 - what comes with an extra
import server_json  # noqa: E402
from safetensors.numpy import save_file  # noqa: E402

import kldiv  # noqa: E402
import kldiv.dask  # noqa: E402
from kldiv.evaluation import EngineError, EvaluationInterrupted, evaluate, open_dump  # noqa: E402
from kldiv.evaluation.engines import dask as engine  # noqa: E402
from kldiv.evaluation.engines import worker  # noqa: E402

KLDIV = Path(sys.executable).parent / "kldiv"
SEQUENCES, POSITIONS, SIZE, CLASSES = 12, 100, 128, 8_000

pytestmark = [
    # Of sockets and event loops that the library leaves to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def cluster():
    """Two processes of one thread; a block whose worker dies is not tried again by the cluster."""
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            dashboard_address=":0",
            silence_logs=50,
        ) as cluster,
    ):
        yield cluster


@pytest.fixture(scope="module")
def client(cluster):
    with distributed.Client(cluster, set_as_default=False) as client:
        yield client


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Hidden states: small files, and some hundredths of a second a block."""
    folder = tmp_path_factory.mktemp("dask")
    rng = np.random.default_rng(3)
    weight = rng.normal(0, SIZE**-0.5, (CLASSES, SIZE)).astype(np.float32)
    for side in ("p", "q"):
        (folder / side).mkdir()
    labels = []
    for number in range(SEQUENCES):
        p = rng.normal(0, 2, (POSITIONS, SIZE)).astype(np.float32)
        q = p + rng.normal(0, 0.1, p.shape).astype(np.float32)
        labels.append((p @ weight.T).argmax(-1))
        save_file({"hidden_states": p}, folder / "p" / f"hidden_{number:04}.safetensors")
        save_file({"hidden_states": q}, folder / "q" / f"hidden_{number:04}.safetensors")
    (folder / "lm-head").mkdir()
    save_file({"weight": weight}, folder / "lm-head" / "weight.safetensors")
    np.save(folder / "labels.npy", np.stack(labels))
    return folder


@pytest.fixture(scope="module")
def given(folder):
    rng = np.random.default_rng(4)
    return {
        "labels": np.load(folder / "labels.npy"),
        "where": rng.random((SEQUENCES, POSITIONS)) < 0.9,
        "floor": rng.random((SEQUENCES, POSITIONS)),
    }


@pytest.fixture(scope="module")
def expected(folder, given):
    return evaluate(str(folder / "p"), str(folder / "q"), **given)


def pair(folder):
    return str(folder / "p"), str(folder / "q")


@pytest.mark.parametrize("block", [1, 250, 100_000])
def test_the_bits_of_one_process(folder, given, expected, client, block):
    found = evaluate(*pair(folder), **given, client=client, block_positions=block)
    assert found.positions.equals(expected.positions)
    assert found.about["arithmetic"]["threads"] == 2
    assert found.about["candidates"] == expected.about["candidates"]


def test_a_worker_of_several_threads(folder, given, expected, threads):
    threads(1)
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=2, processes=False, dashboard_address=":0"
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        found = evaluate(*pair(folder), **given, client=client, block_positions=200)
    assert found.positions.equals(expected.positions)
    # It is this process, whose settings are as before.
    assert kldiv.get_num_threads() == 1


def test_arrays_of_dask_on_the_cluster(client, rng):
    p = rng.normal(0, 2, (40, 300))
    lazy = [da.from_array(one, (7, 120)) for one in (p, p + 0.1 * p**2)]
    value, gradient = kldiv.dask.value_and_grad(kldiv.dask.kl, *lazy, reduction="mean")
    found = client.gather(client.compute([value, gradient, kldiv.dask.kl(*lazy)]))
    expected = kldiv.value_and_grad(kldiv.kl, *map(np.asarray, lazy), reduction="mean")
    assert found[0] == pytest.approx(expected[0], rel=1e-14)
    assert found[1] == pytest.approx(expected[1], rel=1e-12, abs=1e-17)
    assert np.array_equal(found[2], kldiv.kl(*map(np.asarray, lazy)))


def test_relative_names_and_work(folder, expected, given, client, tmp_path, monkeypatch):
    """Workers have another working directory; what they finish is kept here, for any engine."""
    monkeypatch.chdir(folder)
    work = tmp_path / "work"
    found = evaluate("p", "q", **given, client=client, work=work, block_positions=1)
    (work / "block-000003.parquet").unlink()
    alone = evaluate("p", "q", **given, work=work, block_positions=1)
    (work / "block-000005.parquet").unlink()
    again = evaluate("p", "q", **given, client=client, work=work, block_positions=1)
    for one in (found, alone, again):
        assert one.positions.drop("candidate").equals(expected.positions.drop("candidate"))


def test_a_killed_worker_costs_its_block_only(folder, given, expected, client, monkeypatch):
    monkeypatch.setattr(engine, "AHEAD", SEQUENCES)
    processes = client.run(os.getpid)
    scored = []

    def kill(positions):
        scored.append(positions)
        if len(scored) == 1:
            # All blocks are handed out: it computes one, and has more waiting.
            address = max(processes, key=lambda address: len(client.processing()[address]))
            assert client.processing()[address]
            os.kill(processes[address], signal.SIGKILL)

    found = evaluate(*pair(folder), **given, client=client, block_positions=1, progress=kill)
    assert found.positions.equals(expected.positions)
    assert sum(scored) == SEQUENCES * POSITIONS
    assert set(client.run(os.getpid).values()) != set(processes.values())


class _Deadly:
    def __reduce__(self):
        return os._exit, (1,)


@pytest.mark.costly
def test_a_block_that_ends_its_workers_ends_the_run(folder, client, monkeypatch):
    packed = worker.packed

    def deadly(job, block, run):
        import pickle

        return pickle.dumps(_Deadly()) if block.number == 1 else packed(job, block, run)

    monkeypatch.setattr(worker, "packed", deadly)
    monkeypatch.setattr(engine, "MOST_DEATHS", 1)
    # Or one that waited behind it on both workers: Dask knows of no difference.
    message = r"block (\d) \(sequence \1, hidden_000\1\S+\) ended 2 work"
    with pytest.raises(EngineError, match=message):
        evaluate(*pair(folder), client=client, block_positions=1)


def test_a_block_that_fails_on_its_data_is_named(folder, client, tmp_path):
    labels = np.zeros((SEQUENCES, POSITIONS), int)
    labels[7, 3] = CLASSES
    with pytest.raises(EngineError) as caught:
        evaluate(*pair(folder), labels=labels, client=client, block_positions=1)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("block 7 (sequence 7, hidden_0007.safetensors): ")
    assert f"{CLASSES}" in str(caught.value)
    # A file that only this machine sees, as if it were.
    rows = np.zeros((2, 3, 50), np.float32)
    np.save(tmp_path / "local.npy", rows)
    dump = open_dump(tmp_path / "local.npy")
    (tmp_path / "local.npy").unlink()
    with pytest.raises(EngineError, match=r"block 0 .*local\.npy: No such file.* storage that all"):
        evaluate(dump, rows, client=client)


def test_what_lies_in_memory_and_responses_are_sent(client, tmp_path):
    rng = np.random.default_rng(0)
    p = rng.normal(0, 2, (4, 6, 300)).astype(np.float32)
    q = p + rng.normal(0, 0.1, p.shape).astype(np.float32)
    expected = evaluate(p, list(q)).positions
    assert evaluate(p, list(q), client=client, block_positions=7).positions.equals(expected)
    names = []
    for side in range(2):
        tokens = [np.random.default_rng(number).integers(0, 50, 9) for number in range(5)]
        answers = [server_json.vllm(rng.normal(0, 2, (8, 50)), one, 5) for one in tokens]
        names.append(str(server_json.write(tmp_path / f"{side}.jsonl", answers)))
    expected = evaluate(*names).positions
    assert evaluate(*names, client=client, block_positions=9).positions.equals(expected)


def test_warnings_of_workers_are_given_here(client):
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(50), (4, 5)).astype(np.float32)
    with pytest.warns(kldiv.ProbabilitiesAsLogitsWarning) as said:
        evaluate(p, p, client=client, block_positions=5)
    assert len(said) == 2


def test_a_cluster_will_do(folder, given, expected, cluster):
    found = evaluate(*pair(folder), **given, client=cluster)
    assert found.positions.equals(expected.positions)


def test_ctrl_c_has_the_blocks_that_are_done(folder, given, expected, client):
    def interrupt(positions):
        raise KeyboardInterrupt

    with pytest.raises(EvaluationInterrupted) as caught:
        evaluate(*pair(folder), **given, client=client, block_positions=1, progress=interrupt)
    done = caught.value.result.positions
    assert done["sequence"].n_unique() == 1
    whole = expected.positions
    assert done.equals(whole.filter(whole["sequence"] == done["sequence"][0]))


def test_clusters_that_cannot_be_used(folder, client, monkeypatch):
    rows = np.load(folder / "labels.npy").astype(np.float32)
    monkeypatch.setattr(engine, "CONNECT", 0.5)
    with pytest.raises(EngineError, match=r"no scheduler of Dask answers at tcp://127\.0\.0\.1:9"):
        evaluate(rows, rows, client="tcp://127.0.0.1:9")
    for address in ("nowhere", "tcp://nowhere", "local:x", "local:0"):
        with pytest.raises(EngineError, match=address):
            evaluate(rows, rows, client=address)
    with pytest.raises(EngineError, match=r"stream.* cannot be sent to workers"):
        evaluate(iter([rows]), rows, client=client)
    with pytest.raises(EngineError, match="head is an array in memory"):
        evaluate(rows, rows, head=np.ones((3, POSITIONS), np.float32), client=client)
    version = kldiv.__version__
    monkeypatch.setattr(kldiv, "__version__", "9.9.9")
    with pytest.raises(EngineError, match=rf"has kldiv {version}, this process 9\.9\.9"):
        evaluate(rows, rows, client=client)


def test_instruction_sets_that_differ_are_refused(client):
    [isa] = set(client.run(kldiv.isa).values())
    others = [other for other in kldiv.build_info()["isas"] if other != isa]
    if not others:
        pytest.skip("this machine has one instruction set")
    asked = engine.OnDask(client, isa=others[0])
    with pytest.raises(EngineError, match="KLDIV_ISA"):
        asked._check_isa(isa, "one")


@pytest.mark.costly
def test_the_command(folder, expected, cluster, tmp_path):
    """On the cluster by its address, and on processes of its own."""
    for place, address in enumerate((cluster.scheduler_address, "local:1")):
        out = tmp_path / f"{place}.json"
        work = ("--work", str(tmp_path / "work"), "--block-positions", "600")
        done = subprocess.run(
            [KLDIV, "compare", "p", "q", "--dask", address, "--json", str(out), *work],
            cwd=folder,
            capture_output=True,
            encoding="utf-8",
            timeout=60,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert json.loads(out.read_text())["num_positions"] == SEQUENCES * POSITIONS
    done = subprocess.run(
        [KLDIV, "compare", "p", "q", "--dask", "local:1", "--threads", "2"],
        cwd=folder,
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 2
    assert done.stderr.startswith("kldiv: error: --threads")
