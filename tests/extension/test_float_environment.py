"""The floating-point environment of a thread: no result depends on it, and no call changes it."""

import contextlib
import ctypes
import ctypes.util
import platform
import sys

import numpy as np
import pytest

import kldiv
from every_call import everything

# Where `fenv_t` of the C library keeps the register, and its bits.
REGISTERS = {
    "x86_64": (
        28,
        {"flush_to_zero": 0x8000, "denormals_are_zero": 0x40, "up": 0x4000, "down": 0x2000},
    ),
    "aarch64": (0, {"flush_to_zero": 1 << 24, "up": 1 << 22, "down": 2 << 22}),
}
pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in REGISTERS,
    reason="the layout of fenv_t is not known here",
)
OFFSET, BITS = REGISTERS.get(platform.machine(), (0, {}))
# The flags of exceptions, which Python's own arithmetic raises too.
FLAGS = 0x3F if platform.machine() == "x86_64" else 0


class Environment:
    """The environment of this thread."""

    def __init__(self):
        self.library = ctypes.CDLL(ctypes.util.find_library("m"))

    def memory(self):
        memory = (ctypes.c_uint8 * 64)()
        self.library.fegetenv(memory)
        return memory

    def bits(self):
        return int.from_bytes(self.memory()[OFFSET : OFFSET + 4], "little")

    @contextlib.contextmanager
    def setting(self, bits):
        before, changed = self.memory(), self.memory()
        word = int.from_bytes(before[OFFSET : OFFSET + 4], "little") | bits
        changed[OFFSET : OFFSET + 4] = word.to_bytes(4, "little")
        self.library.fesetenv(changed)
        try:
            yield
        finally:
            self.library.fesetenv(before)


@pytest.fixture(scope="module")
def batches():
    """Rows for threads, and a row whose blocks are shared out; with subnormal numbers."""
    rng = np.random.default_rng(4)
    batches = []
    for shape in ((24, 4000), (1, 140_000)):
        p, q = rng.normal(0, 25, (2, *shape)).astype(np.float32)
        tiny = np.full(shape, 1e-42, np.float32)
        tiny[:, 0] = 1
        batches.append((p, q, tiny, rng.integers(0, shape[-1], shape[:-1])))
    return batches


def results(p, q, tiny, labels):
    found = everything(p, q, labels)
    pair = kldiv.value_and_grad(kldiv.kl, tiny, np.roll(tiny, 1), wrt=("p", "q"), space="probs")
    found += [part.tobytes() for part in (pair[0], *pair[1])]
    for reduction in ("none", "mean"):
        options = {"space": "probs", "reduction": reduction, "weights": 1e-310}
        found.append(kldiv.cross_entropy(tiny, labels, **options).tobytes())
        found.append(kldiv.entropy(tiny.astype(np.float16), space="probs").tobytes())
    # Either class is drawn, and the weight of one is its probability, e^(−95).
    drawn = kldiv.sample_k(np.array([[95, 0]], np.float32), 9, power=0.0, seed=0)
    found.append(drawn.weights.tobytes())
    return found


@pytest.fixture(scope="module")
def expected(batches):
    return [results(*batch) for batch in batches]


@pytest.mark.costly
@pytest.mark.parametrize("setting", BITS)
def test_results_have_the_same_bits(batches, expected, threads, setting):
    environment = Environment()
    bits = BITS[setting]
    for count in (1, 2, 3 + list(BITS).index(setting)):
        # The last has threads that begin in this environment.
        threads(count)
        with environment.setting(bits):
            inside = environment.bits()
            got = [results(*batch) for batch in batches]
            after = environment.bits()
        assert got == expected, count
        assert after & ~FLAGS == inside & ~FLAGS
        assert inside & bits == bits


def test_after_torch_flushes_subnormal_numbers(batches, threads):
    torch = pytest.importorskip("torch")
    _, _, tiny, labels = batches[0]
    threads(2)
    expected = kldiv.cross_entropy(tiny, labels, space="probs")
    if not torch.set_flush_denormal(True):
        pytest.skip("torch cannot flush subnormal numbers here")
    try:
        for count in (1, 2):
            threads(count)
            got = kldiv.cross_entropy(tiny, labels, space="probs")
            np.testing.assert_array_equal(got, expected)
        # It does still.
        assert (torch.tensor([1e-42]) * 1.0).item() == 0.0
    finally:
        torch.set_flush_denormal(False)


def test_numbers_beyond_float32_are_infinite_without_a_warning():
    # Warnings are errors in these tests.
    z = np.zeros((2, 4), np.float32)
    z[:, 0] = np.finfo(np.float32).min
    labels = np.zeros(2, np.int64)
    assert kldiv.cross_entropy(z, labels, weights=[1.0, 2.0]).tolist()[1] == np.inf
    total = kldiv.cross_entropy(z, labels, reduction="sum")
    assert type(total) is np.float32
    assert total == np.inf
    assert kldiv.cross_entropy(z.astype(float), labels, reduction="sum") < np.inf
