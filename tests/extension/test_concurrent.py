"""What calls share, used from many Python threads at once.

That is kept memory, thread pools, and what a first call finds out. Where there is a GIL, its
switches come as often as they can; where there is none, nothing of this may depend on it.
"""

import contextlib
import queue
import subprocess
import sys
import sysconfig
import textwrap
import threading

import numpy as np
import pytest

import kldiv

WORKERS = 8
HAS_GIL = not sysconfig.get_config_var("Py_GIL_DISABLED")


@pytest.fixture(autouse=True)
def many_switches():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def at_once(run):
    """Run a function of a number in as many threads, which begin together; what they gave."""
    barrier, results, errors = threading.Barrier(WORKERS), [None] * WORKERS, []

    def work(number):
        barrier.wait()
        try:
            results[number] = run(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(WORKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors
    return results


def test_only_pythons_with_a_gil_have_plain_calls():
    assert (kldiv.kl.plain is not None) == HAS_GIL


def test_memory_of_results_is_never_that_of_another_one(rng):
    """Gradients are freed in other threads than they were made in, and the cache emptied."""
    rows = rng.normal(0, 2, (WORKERS, 2, 64, 8192)).astype(np.float32)
    expected = [kldiv.value_and_grad(kldiv.kl, *pair)[1].tobytes() for pair in rows]
    passed_on = queue.SimpleQueue()

    def run(number):
        for step in range(12):
            _, gradient = kldiv.value_and_grad(kldiv.kl, *rows[number])
            if (number + step) % 5 == 0:
                kldiv.empty_cache()
            assert gradient.tobytes() == expected[number]
            passed_on.put(gradient)
            del gradient
            with contextlib.suppress(queue.Empty):
                passed_on.get_nowait()
        return True

    assert all(at_once(run))


def test_numbers_of_threads_change_during_calls(rng, threads):
    threads(2)
    p, q = rng.normal(0, 2, (2, 24, 9000)).astype(np.float32)
    expected = kldiv.value_and_grad(kldiv.jensen_shannon, p, q)
    expected = [part.tobytes() for part in expected]

    def run(number):
        for step in range(6):
            threads(1 + (number + step) % 4)
            found = kldiv.value_and_grad(kldiv.jensen_shannon, p, q)
            assert [part.tobytes() for part in found] == expected
        return True

    assert all(at_once(run))


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_small_calls(rng, dtype):
    p, q = rng.normal(0, 2, (2, 3, 50)).astype(dtype)
    labels = rng.integers(0, 50, 3)

    def calls():
        yield kldiv.kl(p, q)
        yield from kldiv.value_and_grad(kldiv.renyi, p, q, alpha=0.5, reduction="sum")
        yield kldiv.cross_entropy(q, labels)
        yield kldiv.logsumexp(q)

    alone = [found.tobytes() for found in calls()]

    def run(_):
        for _ in range(100):
            assert [found.tobytes() for found in calls()] == alone
        return True

    assert all(at_once(run))


def test_first_calls_of_a_process_at_once():
    """Detection, NumPy's tables, pools and the number of bfloat16 are found by whoever is first."""
    program = textwrap.dedent(
        f"""
        import sys, threading
        sys.setswitchinterval(1e-6)
        barrier, found = threading.Barrier({WORKERS}), []

        def work():
            barrier.wait()
            import ml_dtypes, numpy as np, kldiv
            p = (np.arange(64 * 9000) % 97).reshape(64, 9000).astype(ml_dtypes.bfloat16)
            value, gradient = kldiv.value_and_grad(kldiv.kl, p, p[::-1])
            small = kldiv.kl(p[:2, :40], p[2:4, :40])
            found.append((value.tobytes(), gradient.tobytes(), small.tobytes()))

        threads = [threading.Thread(target=work) for _ in range({WORKERS})]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        assert len(found) == {WORKERS} and len(set(found)) == 1
        """
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
