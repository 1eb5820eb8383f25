"""The fuzzer of tests/fuzz: a fixed seed of it, and that it finds what it is there to find."""

import dataclasses
import itertools

import jax
import numpy as np
import pytest

import kldiv
import oracle
from fuzz import bounds, search, shrink
from fuzz.calls import Outcome
from fuzz.case import Case, cases, make
from fuzz.frontends import fit, run
from fuzz.subjects import SUBJECTS
from samples import GENERAL

pytestmark = pytest.mark.filterwarnings("ignore")

SEED = 20260117
SECONDS = 55.0
# The same ones on a fast machine and, but for what there is no time for, on a slow one.
CASES = 40_000


@pytest.fixture(autouse=True)
def settings(threads):
    """What the fuzzer sets is set back."""
    before = jax.config.jax_enable_x64
    yield
    jax.config.update("jax_enable_x64", before)


@pytest.mark.slow
def test_a_fixed_seed_finds_nothing():
    result = search.search(SEED, 0, 1, SECONDS, CASES, 1)
    texts = [text for pairs in result["texts"].values() for _, text in pairs]
    assert not texts, "\n\n".join(texts)
    assert result["done"] > 1000


def test_the_first_cases_of_a_seed():
    result = search.search(SEED, 0, 1, 60.0, 400, 1)
    texts = [text for pairs in result["texts"].values() for _, text in pairs]
    assert not texts, "\n\n".join(texts)


def test_a_case_is_made_again_from_its_seed_and_number():
    for index in range(0, 200, 7):
        one, other = make(5, index), make(5, index)
        assert one.subject is other.subject
        assert shrink.snippet(one, bounds.Find("", 0.0, 0.0)) == shrink.snippet(
            other, bounds.Find("", 0.0, 0.0)
        )


def subject(name):
    return next(s for s in SUBJECTS if s.name == name)


PLAIN = {"p": np.array([[0.5, -1.0, 2.0]]), "q": np.array([[1.0, 0.25, -0.5]])}


@pytest.mark.parametrize("error", [3e-13, 1e-6, np.nan, np.inf])
@pytest.mark.parametrize("what", ["value", "gradient"])
def test_a_wrong_number_is_found(what, error):
    case = Case(subject("kl"), PLAIN, {"wrt": ("q",)})
    outcome = run(case)
    assert bounds.check(case, outcome) is None
    wrong = dataclasses.replace(
        outcome, gradients={k: g.copy() for k, g in outcome.gradients.items()}
    )
    if what == "value":
        wrong.value = outcome.value * (1 + error)
    else:
        wrong.gradients["q"][0, 1] += error * np.linalg.norm(outcome.gradients["q"])
    for arbiter in (False, True):
        assert what in bounds.check(case, wrong, arbiter=arbiter).kind


def test_a_value_of_another_shape_or_dtype_is_found():
    case = Case(subject("kl"), PLAIN)
    value = run(case).value
    assert "shape" in bounds.check(case, Outcome(value[0])).kind
    assert "dtype" in bounds.check(case, Outcome(value.astype(np.float32))).kind


def test_cases_of_a_subject_have_the_numbers_that_they_have_among_all():
    found = list(itertools.islice(cases(5, names=("uld",)), 8))
    for index, case in found:
        assert case.subject.name == "uld"
        nothing = bounds.Find("", 0.0, 0.0)
        assert shrink.snippet(case, nothing) == shrink.snippet(make(5, index), nothing)


def test_a_wrong_mass_is_found():
    kept = next(s for s in SUBJECTS if s.name == "entropy" and "top_k" in s.options)
    case = Case(kept, {"p": PLAIN["p"]}, {"top_k": 2, "return_mass": True})
    outcome = run(case)
    assert bounds.check(case, outcome) is None
    outcome.mass = outcome.mass * (1 + 1e-12)
    assert bounds.check(case, outcome).kind == "mass"


def test_a_wrong_top_k_is_found():
    case = Case(subject("sample_k"), {"logits": PLAIN["p"]}, {"k": 9, "seed": 1, "power": 0.5})
    outcome = run(case)
    good = outcome.top_k
    assert bounds.check(case, outcome) is None
    for name, wrong in (
        ("ids", good.ids[::-1].copy()),
        ("log_probs", good.values * (1 + 1e-12)),
        ("weights", good.weights * (1 + 1e-11)),
    ):
        arrays = {"ids": good.ids, "log_probs": good.values, "weights": good.weights, name: wrong}
        outcome.top_k = kldiv.TopK(**arrays, offsets=good.offsets, classes=3)
        assert name.replace("_", "-")[:8] in bounds.check(case, outcome).kind
    refused = case.with_options(k=0)
    assert bounds.check(refused, run(refused)) is None
    assert bounds.check(refused, outcome).kind == "no error"


def rows_of(*numbers):
    return dict(zip("pq", (np.array([row]) for row in numbers), strict=True))


ROUNDED = {
    "a weight that is a quotient of rounded logarithms": Case(
        subject("adaptive_kl"),
        rows_of(
            [-7.248734474182129, -0.009235413745045662], [0.0007110739693352667, 0.9908071015517278]
        ),
        {"space": ("log_probs", "probs"), "wrt": ("p",)},
    ),
    "powers that round off their differences": Case(
        subject("alpha_divergence"),
        rows_of([-np.inf, 9.411787986755371, 24.771608352661133], [50.78125, 9.4140625, 24.765625]),
        {
            "alpha": 3.0,
            "front": "torch.func",
            "wrt": ("p",),
            "dtypes": dict.fromkeys("pq", "float32"),
        },
    ),
    "a student's +∞ that the rule does not look at": Case(
        next(s for s in SUBJECTS if s.name == "kl" and "rule" in s.options),
        rows_of([0.0, -1.0, -2.0], [0.0, 1.0, np.inf]),
        {"kept": 2, "rule": "renormalize", "front": "torch.func"},
    ),
    "a subnormal gradient, before an upstream one multiplies it": Case(
        subject("kl"),
        PLAIN,
        {
            "front": "torch",
            "wrt": ("q",),
            "dtypes": dict.fromkeys("pq", "float32"),
            "weights": np.array([3e-41]),
            "reduction": "sum",
            "grad_output": np.array(1e6),
        },
    ),
    "a mixture with KL of rows in two spaces": Case(
        subject("lk_hybrid"),
        rows_of(
            [0.20000000298023224] * 5,
            [-6.027463e-06, 7.465863e-06, -5.606538e-06, 6.64872e-06, -2.382456e-07],
        ),
        {"space": ("probs", "logits"), "wrt": ("q",), "eta": 0.0},
    ),
}


def test_xla_has_no_subnormal_numbers():
    kept = next(s for s in SUBJECTS if s.name == "entropy" and "top_k" in s.options)
    case = Case(kept, {"p": np.array([[0.0, 3e-314]])}, {"top_k": 1})
    assert fit(case).rows["p"].any()
    case = fit(case.with_options(front="jax"))
    assert not case.rows["p"].any()
    assert bounds.check(case, run(case)) is None


def test_where_rounding_says_what_the_tail_is_an_infinity_is_no_find():
    # The first class holds μ by 10⁻²⁰ of it: with the third, q's own class is all of the tail.
    p, q = [1e-20, -np.inf, 0.0], [199.0, 0.0, 0.0]
    case = Case(subject("adaptive_kl"), rows_of(p, q))
    outcome = run(case)
    for value in (outcome.value, np.array([np.inf]), np.array([98.5])):
        assert bounds.check(case, dataclasses.replace(outcome, value=value)) is None
    decided = dataclasses.replace(case, rows=rows_of([1.0, -np.inf, 0.0], q))
    assert bounds.check(decided, Outcome(np.array([98.5]))) is not None


@pytest.mark.parametrize("what", ROUNDED)
def test_what_is_rounded_is_no_find_and_what_is_wrong_is_one(what):
    case = ROUNDED[what]
    outcome = run(case)
    for arbiter in (False, True):
        assert bounds.check(case, outcome, arbiter=arbiter) is None
    # Nothing is left of a difference of powers; their own size is.
    factor = 1e6 if "alpha" in case.options else 1.001
    wrong = dataclasses.replace(
        outcome,
        value=outcome.value * (1 if case.wrt else factor),
        gradients={name: factor * gradient for name, gradient in outcome.gradients.items()},
    )
    assert bounds.check(case, wrong) is not None


def test_a_find_is_made_small(monkeypatch):
    def broken(p, q, *, alpha, **options):
        value = kldiv.kl.__wrapped__ and renyi(p, q, alpha=alpha, **options)
        return value * (1.001 if alpha > 3 else 1.0)

    renyi = kldiv.renyi
    monkeypatch.setattr(kldiv, "renyi", broken)
    rows = {name: np.tile(rows, (3, 3)) for name, rows in PLAIN.items()}
    options = {"alpha": 4.1234567, "temperature": 2.5, "weights": np.ones(3), "reduction": "mean"}
    case = Case(subject("renyi"), rows, options)
    find = shrink.find_in(case)
    assert find.kind == "value"
    small, now = shrink.shrunk(case, find)
    assert now.kind == "value"
    assert small.shape[0] == 1
    assert small.shape[1] <= 2
    assert set(small.options) == {"alpha"}
    text = shrink.snippet(small, now)
    assert "kldiv.renyi(p, q, alpha=4.0)" in text
    assert len(text.splitlines()) == 4


def test_its_oracle_is_the_oracle():
    from fuzz.exact import oracle_for

    fast = oracle_for(100.0)
    p, q = (0.3, -2.0, 1e-9, 5.0), (0.1, -40.0, 3.0, 5.0)
    for name, parameter in GENERAL.items():
        for options in ({}, {"temperature": (2.0, 0.5)}, {"space": ("log_probs", "logits")}):
            one = fast.divergence(name, p, q, **options, **parameter)
            other = oracle.divergence(name, p, q, **options, **parameter)
            # Texts of 40 digits, in which no double takes part.
            assert oracle.mp.almosteq(oracle.mp.mpf(str(one)), other, 1e-50)
