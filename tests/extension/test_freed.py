"""Memory of large results, kept when they are freed: who gets it, and how much of it there is."""

import gc
import multiprocessing
import os
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest

import kldiv

CLASSES = 1 << 16
ROWS = 32
"""Of float32 8 MiB, which has huge pages that the system may take."""

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture(autouse=True)
def nothing_kept():
    gc.collect()
    kldiv.empty_cache()
    yield
    kldiv.empty_cache()


def gradient(rows=ROWS, seed=0, **options):
    p, q = np.random.default_rng(seed).normal(0, 2, (2, rows, CLASSES)).astype(np.float32)
    return kldiv.value_and_grad(kldiv.kl, p, q, **options)[1]


def address(array):
    return array.__array_interface__["data"][0]


@pytest.mark.costly
@pytest.mark.parametrize(
    ("rows", "is_reused"),
    [(ROWS, True), (ROWS // 2, True), (ROWS // 2 - 1, False), (ROWS + 1, False)],
)
def test_the_next_result_of_about_its_size_gets_the_memory(rows, is_reused):
    expected = gradient(rows)
    kldiv.empty_cache()
    first = gradient()
    memory = address(first)
    del first
    second = gradient(rows)
    third = gradient()
    assert address(second if is_reused else third) == memory
    assert second.flags.owndata
    assert memory % 64 == 0
    np.testing.assert_array_equal(second, expected)


def test_memory_in_use_is_nobody_elses():
    first = gradient()
    row = first[3, ::2]
    before = row.copy()
    del first
    others = [gradient(seed=seed) for seed in (1, 2)]
    assert not any(np.shares_memory(row, other) for other in others)
    np.testing.assert_array_equal(row, before)


def test_one_is_kept_at_a_time():
    p, q = gradient(wrt=("p", "q"))
    first, last = address(p), address(q)
    del p
    del q
    third, fourth = gradient(), gradient()
    assert address(third) == last
    assert first != last != address(fourth)


def test_a_result_can_be_resized():
    array = gradient()
    before = array.copy()
    array.resize((2 * ROWS, CLASSES), refcheck=False)
    np.testing.assert_array_equal(array[:ROWS], before)
    assert not array[ROWS:].any()


def test_results_of_many_threads():
    """Arrays are freed by the thread that has them last."""
    expected = [gradient(4 + seed, seed) for seed in range(4)]
    wrong = []

    def work(seed):
        for _ in range(20):
            found = gradient(4 + seed, seed)
            if not np.array_equal(found, expected[seed]):
                wrong.append(seed)

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert wrong == []


@pytest.mark.costly
def test_a_child_of_fork_has_a_copy(threads):
    threads(2)
    expected = [gradient(seed=seed).tobytes() for seed in range(4)]
    with multiprocessing.get_context("fork").Pool(2) as pool:
        found = [pool.apply_async(_bytes, (seed,)) for seed in range(4)]
        assert [one.get(timeout=60) for one in found] == expected
    assert _bytes(0) == expected[0]


def _bytes(seed):
    return gradient(seed=seed).tobytes()


PROGRAM = """
import resource, numpy as np, kldiv

p, q = np.random.default_rng(0).normal(size=(2, 64, 131_072)).astype(np.float32)
kldiv.set_num_threads(1)


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / (1 << 20)


def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def call():
    return kldiv.value_and_grad(kldiv.kl, p, q)


kldiv.kl(p, q)
before = resident()
call()
kept, found = resident() - before, faults()
call()
again = faults() - found
kldiv.empty_cache()
print(kept, again, resident() - before)
"""


def run(program, **environment):
    command = [sys.executable, "-c", textwrap.dedent(program)]
    return subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=120
    )


@pytest.mark.costly
@linux
@pytest.mark.parametrize("keeps", ["0", "1"])
def test_what_a_process_holds(keeps):
    """Of a gradient of 32 MiB: as much as it, until it is asked to let it go, or nothing."""
    done = run(PROGRAM, KLDIV_KEEP_FREED=keeps)
    assert done.returncode == 0, done.stderr
    kept, again, left = map(float, done.stdout.split())
    assert left < 2
    if keeps == "1":
        assert 31 < kept < 34
        assert again < 16
    else:
        assert kept < 2
        # In huge pages, and in small ones where they do not fit.
        assert again >= 16


def test_the_setting_is_checked():
    done = run("import kldiv", KLDIV_KEEP_FREED="yes")
    assert 'ValueError: KLDIV_KEEP_FREED="yes": expected 0 or 1' in done.stderr
