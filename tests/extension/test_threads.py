"""Threads: the same bits for any number of them, fork, the GIL, Ctrl-C."""

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest

import kldiv
from every_call import everything


@pytest.mark.parametrize("shape", [(40, 5000), (3, 70_000), (1, 300_000), (200, 33)], ids=str)
def test_the_same_bits_for_any_number_of_threads(rng, threads, shape):
    p, q = rng.normal(0, 2, (2, *shape)).astype(np.float32)
    labels = rng.integers(0, shape[-1], shape[:-1])
    threads(1)
    expected = everything(p, q, labels)
    for count in (2, 3, 8):
        threads(count)
        assert everything(p, q, labels) == expected


def test_setting_and_asking(threads):
    threads(3)
    assert kldiv.get_num_threads() == 3
    command = [sys.executable, "-c", "import kldiv; print(kldiv.get_num_threads(), kldiv.isa())"]
    environment = {**os.environ, "KLDIV_NUM_THREADS": "5", "KLDIV_ISA": "portable"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["5", "portable"]


def _kl(seed):
    rng = np.random.default_rng(seed)
    p, q = rng.normal(0, 2, (2, 64, 4096)).astype(np.float32)
    return kldiv.kl(p, q).tobytes()


def test_fork_after_use(threads):
    threads(2)
    expected = [_kl(seed) for seed in range(6)]
    with multiprocessing.get_context("fork").Pool(2) as pool:
        # A child that waits for its parent's threads would wait for ever.
        assert pool.map_async(_kl, range(6)).get(timeout=60) == expected
    assert _kl(0) == expected[0]


def test_fork_of_a_fork(threads):
    threads(2)
    _kl(0)
    program = textwrap.dedent(
        """
        import os, numpy as np, kldiv
        p = np.random.default_rng(0).normal(size=(64, 4096)).astype("f4")
        kldiv.set_num_threads(2)
        kldiv.kl(p, p + 1)
        if (child := os.fork()) == 0:
            kldiv.kl(p, p + 1)
            if (grandchild := os.fork()) == 0:
                os._exit(int(kldiv.kl(p, p).any()))
            os._exit(os.waitpid(grandchild, 0)[1] != 0)
        raise SystemExit(os.waitpid(child, 0)[1] != 0)
        """
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True, timeout=60)


@pytest.mark.skipif(sys.platform != "linux", reason="makes PID namespaces")
def test_fork_into_a_new_pid_namespace():
    """The child has the number of its parent, 1, and none of its threads."""
    program = textwrap.dedent(
        """
        import ctypes, os, signal, time, numpy as np, kldiv

        NOT_PERMITTED = 77
        CLONE_NEWPID = 0x20000000
        libc = ctypes.CDLL(None)
        p = np.random.default_rng(0).normal(size=(64, 4096)).astype("f4")
        kldiv.set_num_threads(2)

        def call():
            return kldiv.kl(p, p[::-1]).tobytes()

        def in_new_namespace(run):
            if libc.unshare(CLONE_NEWPID):
                return NOT_PERMITTED
            if (child := os.fork()) == 0:
                os._exit(run())
            end = time.monotonic() + 30
            while not (waited := os.waitpid(child, os.WNOHANG))[0]:
                if time.monotonic() > end:
                    os.kill(child, signal.SIGKILL)
                    return 2
                time.sleep(0.01)
            return os.waitstatus_to_exitcode(waited[1])

        def parent():
            expected = call()
            assert os.getpid() == 1

            def child():
                assert os.getpid() == 1
                return call() != expected

            return in_new_namespace(child)

        raise SystemExit(in_new_namespace(parent))
        """
    )
    command = [sys.executable, "-W", "ignore", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90)
    if done.returncode == 77:
        pytest.skip("this process may not make PID namespaces")
    assert done.returncode == 0, done.stderr


def test_other_python_threads_run_meanwhile(rng, threads):
    threads(1)
    p, q = rng.normal(0, 2, (2, 256, 50_000)).astype(np.float32)
    ticks, done = [], threading.Event()

    def tick():
        while not done.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0.001)

    ticker = threading.Thread(target=tick)
    ticker.start()
    # The same rows again and again: long enough on any machine, however busy it is.
    shape = (20, *p.shape)
    start = time.perf_counter()
    kldiv.kl(np.broadcast_to(p, shape), np.broadcast_to(q, shape))
    end = time.perf_counter()
    done.set()
    ticker.join()
    during = [t for t in ticks if start < t < end]
    assert len(during) > 3, (len(during), end - start)


def test_calls_from_many_python_threads(rng, threads):
    """Calls at once, from inputs in common to outputs of their own, are as each alone."""
    threads(2)
    p, q = rng.normal(0, 2, (2, 16, 9000)).astype(np.float32)
    labels = rng.integers(0, 9000, 16)

    def calls(out):
        yield kldiv.kl(p, q)
        yield kldiv.value_and_grad(kldiv.kl, p, q, out=out)[0]
        yield out
        yield kldiv.value_and_grad(kldiv.cross_entropy, q, labels, out=out)[0]
        yield out
        yield kldiv.log_softmax(q, out=out)
        yield kldiv.compare(p, q, labels).jensen_shannon

    def run(results):
        out = np.empty_like(q)
        for _ in range(4):
            results.append([result.tobytes() for result in calls(out)])

    alone = []
    run(alone)
    together = [[] for _ in range(6)]
    workers = [threading.Thread(target=run, args=(results,)) for results in together]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert together == [alone] * 6


@pytest.mark.skipif(sys.platform == "win32", reason="sends a POSIX signal")
def test_ctrl_c_ends_a_long_call():
    program = textwrap.dedent(
        """
        import signal, numpy as np, kldiv
        # A parent in the background hands down an ignored SIGINT.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        kldiv.set_num_threads(2)
        p = np.broadcast_to(np.random.default_rng(0).normal(size=50_000), (200_000, 50_000))
        small = p[:2]
        expected = kldiv.kl(small, small[::-1] + 1)
        print("ready", flush=True)
        try:
            kldiv.kl(p, p)
        except KeyboardInterrupt:
            print("interrupted", flush=True)
        # Nothing is left half-owned: the next call works.
        assert np.array_equal(kldiv.kl(small, small[::-1] + 1), expected)
        """
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.5)
        assert process.poll() is None, "the call ended before it could be interrupted"
        sent = time.perf_counter()
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "interrupted\n"
        assert time.perf_counter() - sent < 1.5
        assert process.wait(timeout=30) == 0
