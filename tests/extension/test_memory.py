"""Memory: a call takes next to none beyond its inputs and outputs.

A process measures the peak of its resident memory over one call at a time. A copy of a batch here
has 16 MiB or more, and so has anything kept of every class of every row: the first test finds both.
Memory of the width of one row is found where that row is very wide, 8 MiB or more: in the second
test, which also has a row of a size that occurs.
"""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

import kldiv

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not os.access("/proc/self/clear_refs", os.W_OK),
    reason="resets the peak of resident memory in /proc",
)

MIB = 1 << 20

# What a thread may have; and what the counters may be off, which are kept for each CPU and added
# up now and then.
PER_THREAD = 1 * MIB
COUNTERS = 1 * MIB

PROGRAM = """
import ctypes, json, os, re, sys

# The error of the counters grows with the CPUs, and a huge page would be 2 MiB for one byte.
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:4])
PR_SET_THP_DISABLE = 41
ctypes.CDLL(None).prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0)

import ml_dtypes, numpy as np, kldiv

# No threads given: one a CPU.
dtype, rows, classes, threads = sys.argv[1], *map(int, sys.argv[2:])
if threads:
    kldiv.set_num_threads(threads)


def resident(field):
    with open("/proc/self/status") as status:
        return 1024 * int(re.search(rf"{field}:\\s+(\\d+) kB", status.read())[1])


def peak(call):
    kldiv.empty_cache()
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before = resident("VmRSS")
    call()
    return resident("VmHWM") - before


class Calls:
    def __init__(self, rows, classes):
        row = np.random.default_rng(0).normal(0, 3, classes).astype(dtype)
        self.p, self.q, self.d_p, self.d_q = (np.empty((rows, classes), dtype) for _ in range(4))
        for index in range(rows):
            self.p[index], self.q[index] = np.roll(row, index), np.roll(row, 7 * index + 1)
        self.d_p[:], self.d_q[:] = self.p, self.q
        self.labels = np.arange(rows)

    def gradient(self, function, *args, **options):
        return lambda: kldiv.value_and_grad(function, *args, **options)

    def given(self):
        pair, both = (self.p, self.q), {"wrt": ("p", "q"), "out": (self.d_p, self.d_q)}
        labelled = (self.q, self.labels)
        yield "kl", lambda: kldiv.kl(*pair)
        yield "cross_entropy", lambda: kldiv.cross_entropy(*labelled)
        yield "compare", lambda: kldiv.compare(*pair, self.labels)
        yield "log_softmax", lambda: kldiv.log_softmax(self.q, out=self.d_q)
        yield "kl and gradient", self.gradient(kldiv.kl, *pair, out=self.d_q)
        yield "kl and gradients", self.gradient(kldiv.kl, *pair, **both)
        yield "jensen_shannon and gradients", self.gradient(kldiv.jensen_shannon, *pair, **both)
        yield "renyi and gradients", self.gradient(kldiv.renyi, *pair, alpha=0.5, **both)
        yield "cross_entropy and gradient", self.gradient(
            kldiv.cross_entropy, *labelled, label_smoothing=0.1, out=self.d_q
        )
        # Last: it changes q.
        yield "cross_entropy in place", self.gradient(kldiv.cross_entropy, *labelled, out=self.q)

    def fresh(self):
        yield "kl", self.gradient(kldiv.kl, self.p, self.q)
        yield "cross_entropy", self.gradient(kldiv.cross_entropy, self.q, self.labels)


# Threads, their stacks, and what a function imports are there before anything is measured.
small = Calls(16, 4096)
for _, call in [*small.fresh(), *small.given()]:
    call()

calls = Calls(rows, classes)
report = {
    "threads": kldiv.get_num_threads(),
    "fresh": {name: peak(call) for name, call in calls.fresh()},
    "given": {name: peak(call) for name, call in calls.given()},
}
print(json.dumps(report))
"""


def measure(dtype, rows, classes, threads):
    command = [sys.executable, "-c", PROGRAM, dtype, *map(str, (rows, classes, threads))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    return report, PER_THREAD * report["threads"] + COUNTERS


@pytest.mark.costly
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_call_takes_a_mib_a_thread(dtype, threads):
    report, bound = measure(dtype, 64, 131_072, threads)
    assert {name: used for name, used in report["given"].items() if used > bound} == {}
    # A gradient is float32 unless `out` is something else. That it is seen shows that memory is.
    gradient = 64 * 131_072 * 4
    for name, used in report["fresh"].items():
        assert gradient - COUNTERS < used < gradient + bound, name


@pytest.mark.costly
@pytest.mark.parametrize("classes", [262_144, 4_194_304])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_one_wide_row_takes_a_mib_a_thread(dtype, classes):
    report, bound = measure(dtype, 1, classes, 0)
    assert {name: used for name, used in report["given"].items() if used > bound} == {}
    # These are the first of their width: what a thread keeps for the next row is not there yet.
    for name, used in report["fresh"].items():
        assert used < classes * 4 + bound, name


@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_more_rows_than_memory_raise(reduction):
    """Strides of 0 make batches of any length; the results of this one have no addresses."""
    batch = np.broadcast_to(np.zeros(4, np.float32), (1 << 50, 4))
    options = {"reduction": reduction}
    for call in (
        lambda: kldiv.kl(batch, batch, **options),
        lambda: kldiv.cross_entropy(batch, batch, space="logits", ignore_index=None, **options),
        lambda: kldiv.entropy(batch, **options),
        lambda: kldiv.logsumexp(batch, **options),
        lambda: kldiv.compare(batch, batch),
        lambda: kldiv.log_softmax(batch),
        lambda: kldiv.value_and_grad(kldiv.kl, batch, batch, **options),
    ):
        with pytest.raises(MemoryError):
            call()
