"""What all tests share: dtypes, instruction sets, and rows of logits."""

import functools
import sys
from types import SimpleNamespace

import ml_dtypes
import numpy as np
import pytest
from hypothesis import settings

import kldiv
from kldiv import _kldiv

DTYPES = {
    "float64": np.float64,
    "float32": np.float32,
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
}

settings.register_profile("quick", max_examples=10, deadline=None)
settings.register_profile("whole", max_examples=60, deadline=None)


def pytest_configure(config):
    """Take the profile `whole` where none is asked for; tests import this file once more."""
    if not config.getoption("--hypothesis-profile", None):
        settings.load_profile("whole")


# Around lane, run and block edges: 16 lanes of f32, runs of 16 vectors, blocks of 4096 classes.
WIDTHS = (1, 2, 3, 15, 16, 17, 129, 4095, 4096, 4097)


# Modules of the package that call the extension, by name: of some a function has the name.
CALLERS = (
    "_requests.cross_entropy",
    "_requests.distillation",
    "_requests.divergence",
    "_requests.kept_sets",
    "_requests.softmax",
    "_requests.sparse",
    "_requests.uld",
    "comparison",
    "functional.pairwise",
    "functional.softmax",
    "functional.top_k",
)


PLAIN = [one for one in vars(kldiv).values() if getattr(one, "plain", None) is not None]
"""The functions with calls that no such module makes."""


ISAS = [
    pytest.param(isa, marks=() if isa == kldiv.isa() else pytest.mark.other_isa)
    for isa in kldiv.build_info()["isas"]
]


@pytest.fixture(params=ISAS)
def isa(request):
    """Every instruction set of this machine, for all calls of the test."""
    on_isa = {
        name: functools.partial(getattr(_kldiv, name), isa=request.param)
        for name in (
            "compare",
            "cross_entropy",
            "distillation",
            "divergence",
            "entropy",
            "gather_kept_log_probs",
            "gather_log_probs",
            "kept_entropy",
            "log_softmax",
            "logsumexp",
            "pairwise",
            "sample_k",
            "sparse_loss",
            "top_k",
            "uld",
        )
    }
    # Not the fixture `monkeypatch`: tests with that are run in one thread by pytest-run-parallel.
    with pytest.MonkeyPatch.context() as patch:
        for function in PLAIN:
            patch.setattr(function, "plain", None)  # which takes the fastest one
        for module in CALLERS:
            patch.setattr(sys.modules[f"kldiv.{module}"], "_kldiv", SimpleNamespace(**on_isa))
        yield request.param


@pytest.fixture
def rng():
    return np.random.default_rng(20260117)


@pytest.fixture
def threads():
    """Set the number of threads; the old one comes back after the test."""
    before = kldiv.get_num_threads()
    yield kldiv.set_num_threads
    kldiv.set_num_threads(before)


def softmax(z):
    z = np.asarray(z, np.float64)
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def in_space(z, space):
    """Logits as the numbers of a space, in float64."""
    p = softmax(z)
    return {"logits": z, "log_probs": np.log(p), "probs": p}[space]
