"""The accuracy that docs/numerics.md promises, on every instruction set of the machine.

What is swept, and how an error is measured, is `benches/accuracy.py`'s; the bounds are here.
"""

import numpy as np
import pytest

import accuracy
import kldiv
import oracle
from kldiv._kldiv import DIVERGENCES

pytestmark = pytest.mark.slow

BOUNDS = {
    # Eight roundings of an f32 result: one for storing it, the others for f32 exponentials.
    "float32": 1e-6,
    # Widened exactly and computed in the same f32 lanes, so the same.
    "float16": 1e-6,
    "bfloat16": 1e-6,
    # 450 roundings of f64: exponentials, and sums of up to 262,144 terms.
    "float64": 1e-13,
}
"""Largest relative error of a value, and ‖error‖/‖gradient‖ of a gradient."""

ROWS = {1: 16, 2: 64, 3: 64, 17: 64, 1000: 8, 4097: 4, 50257: 1, 131072: 1}
CLASSES = list(ROWS)
GROUPS = [
    (dtype, group)
    for dtype in accuracy.DTYPES
    for group in accuracy.KINDS
    if not (group == "shifted" and dtype in ("float16", "bfloat16"))
]

extended = pytest.mark.skipif(
    not oracle.WIDE_IS_EXTENDED, reason="numpy.longdouble is no wider than float64 here"
)


def check(cases, bound):
    errors = [e for case in cases for e in accuracy.measure(case) if not e.error <= bound]
    worst = sorted(errors, key=lambda e: -e.error)[:8]
    lines = "\n".join(str(error) for error in worst)
    assert not errors, f"{len(errors)} errors above {bound:g}, the largest:\n{lines}"


@extended
@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize(("dtype", "group"), GROUPS)
def test_rows_of_logits(dtype, group, classes):
    check(accuracy.cases(dtype, classes, ROWS[classes], 0, [group]), BOUNDS[dtype])


@extended
@pytest.mark.parametrize("dtype", accuracy.DTYPES)
def test_rows_of_a_language_model(dtype):
    check(accuracy.demo_cases(dtype, 2), BOUNDS[dtype])


@pytest.mark.parametrize("isa", accuracy.ISAS)
@pytest.mark.parametrize("classes", [1, 2, 17, 4097])
@pytest.mark.parametrize("dtype", accuracy.DTYPES)
@pytest.mark.parametrize(("name", "parameter"), accuracy.USUAL)
def test_identical_rows_give_exactly_zero(name, parameter, dtype, classes, isa):
    p = accuracy.make_case("independent", dtype, 4, classes, 1.0, 1).p
    case = accuracy.Case("identical", dtype, p, p.copy(), 1.0, 1)
    alone, (value, *gradients) = accuracy.compute_divergence(case, name, parameter, isa)
    for result in (alone, value, *gradients):
        assert not result.any()


@pytest.mark.parametrize("eps", [1e-4, 1e-6])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_noise_that_rounding_removes_gives_exactly_zero(dtype, eps):
    case = accuracy.make_case(f"eps={eps}", dtype, 512, 2, 1.0, 0)
    same = np.all(case.p == case.q, axis=-1)
    assert same.any()
    for name, parameter in accuracy.USUAL:
        _, (value, *gradients) = accuracy.compute_divergence(case, name, parameter, None)
        assert not value[same].any()
        assert not any(gradient[same].any() for gradient in gradients)


ONES = {"renyi": 1, "neg_log_acceptance": 1, "squared_hellinger": 1, "alpha_divergence": 4}
"""How often the number 1 is in the value, for the parameters in use."""

SPACES = [
    "log_probs",
    "probs",
    ("logits", "probs"),
    ("probs", "log_probs"),
    ("log_probs", "logits"),
]


@extended
@pytest.mark.parametrize("classes", [1, 3, 17, 1000, 4097])
@pytest.mark.parametrize("space", SPACES, ids=str)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_spaces_taken_as_given(dtype, space, classes):
    """Such rows do not quite sum to one, and f has a part of first order, λΣp + μΣq − (λ + μ).

    However small the value is, there remain the roundings of f64 lanes, for every dtype:

    * of the differences p − q that this part sums, eps·Σ|p − q|;
    * of the 1 that a sum of powers is compared with, divided like the sum;
    * where the two spaces differ, and rows meet as logarithms, of these: each ln p by eps·|ln p|,
      all of them Σp|ln p| times that. A gradient q − p of logits loses as much, and more where
      the slope of every class is of first order, as 2(p/q − 1) of χ² is, and that of jeffreys
      with respect to probabilities.
    """
    spaces = space if isinstance(space, tuple) else (space, space)
    eps = np.finfo(np.float64).eps
    for kind in ("independent", "eps=1", "eps=0.0001"):
        case = accuracy.make_case(kind, dtype, 8, classes, 1.0, 2)
        p, q = (
            in_space(rows, one, dtype) for rows, one in zip((case.p, case.q), spaces, strict=True)
        )
        truth = oracle.wide(p, q, space=space)
        moved = np.abs(truth.gap).sum(-1)
        logarithms = 0
        if spaces[0] != spaces[1]:
            logarithms = 1 + oracle.wide_entropy(case.p) + oracle.wide_entropy(case.q)
        for name, parameter in accuracy.USUAL:
            function = getattr(kldiv, name)
            value, gradients = kldiv.value_and_grad(
                function, p, q, space=space, wrt=("p", "q"), **parameter
            )
            expected = truth.value(name, **parameter)
            one = ONES.get(name, 0)
            rounding = 8 * eps * (moved + one + logarithms)
            off, allowed = np.abs(value - expected), BOUNDS[dtype] * np.abs(expected) + rounding
            assert np.all(off <= allowed), (kind, name, off / allowed)
            for wrt, gradient, own in zip("pq", gradients, spaces, strict=True):
                expected = truth.gradient(name, wrt, **parameter)
                off, norm = (np.sqrt(np.square(g).sum(-1)) for g in (gradient - expected, expected))
                # Of close rows 2 (p/q − 1) or 2 (ln p − ln q) in every class, without kl's 1.
                first_order = name == "chi_squared" or (name, own) == ("jeffreys", "probs")
                each = np.sqrt(classes) if first_order else 1
                allowed = BOUNDS[dtype] * norm + 8 * eps * logarithms * each
                if name == "adaptive_kl":
                    # Its weight is a quotient of what the rows differ by.
                    with np.errstate(divide="ignore", invalid="ignore"):
                        allowed += 8 * eps * (1 + np.where(moved > 0, logarithms / moved, np.inf))
                assert np.all(off <= allowed), (kind, name, wrt, off / allowed)


def in_space(z, space, dtype):
    if space == "logits":
        return z
    ln_p = oracle.wide_log_softmax(z)
    return (ln_p if space == "log_probs" else np.exp(ln_p)).astype(dtype)


@extended
@pytest.mark.parametrize("kind", [kind for group in accuracy.KINDS.values() for kind, _ in group])
@pytest.mark.parametrize("classes", [1, 2, 3, 17, 150])
def test_the_wide_oracle_against_60_digits(classes, kind):
    """It has 64 bits, 5e-20; what cancels in it may not come near the 1e-13 it is used for."""
    temperature = 2.5 if classes == 17 else 1.0
    case = accuracy.make_case(kind, "float64", 2, classes, temperature, 3)
    truth = oracle.wide(case.p, case.q, temperature=temperature)
    for name, parameter in accuracy.USUAL:
        for row, value in enumerate(truth.value(name, **parameter)):
            p, q = case.p[row], case.q[row]
            exact = oracle.divergence(name, p, q, temperature=temperature, **parameter)
            floor = 1e-12 if DIVERGENCES[name].kinked else 1e-24
            assert distance([value], [exact]) <= 1e-15 * max(abs(exact), floor)
            for wrt in "pq":
                got = truth.gradient(name, wrt, **parameter)[row]
                exact = oracle.gradient(name, p, q, wrt, temperature=temperature, **parameter)
                assert distance(got, exact) <= 1e-15 * max(distance(exact, [0] * classes), 1e-12)


@extended
@pytest.mark.parametrize("kind", ["independent", "peaked"])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_the_wide_oracle_of_one_row_against_60_digits(kind, temperature):
    case = accuracy.make_case(kind, "float64", 3, 50, temperature, 4)
    z, labels, t = case.p, accuracy.labels_of(case), {"temperature": temperature}
    pairs = [
        (oracle.wide_log_softmax(z, **t), [oracle.log_softmax(row, **t) for row in z]),
        (oracle.wide_logsumexp(z, **t), [[oracle.logsumexp(row, **t)] for row in z]),
        (oracle.wide_entropy(z, **t), [[oracle.entropy(row, **t)] for row in z]),
        (oracle.wide_entropy_gradient(z, **t), [oracle.entropy_gradient(row, **t) for row in z]),
        (
            oracle.wide_cross_entropy(z, labels, **t),
            [[oracle.cross_entropy(row, label, **t)] for row, label in zip(z, labels, strict=True)],
        ),
        (
            oracle.wide_cross_entropy_gradient(z, labels, **t),
            [
                oracle.cross_entropy_gradient(row, label, **t)
                for row, label in zip(z, labels, strict=True)
            ],
        ),
    ]
    for got, exact in pairs:
        for row, exact_row in zip(got, exact, strict=True):
            norm = distance(exact_row, [0] * len(exact_row))
            assert distance(np.atleast_1d(row), exact_row) <= 1e-15 * norm


def distance(got, expected):
    """‖got − expected‖ of longdoubles and mpf, without rounding either to float64."""
    differences = (exactly(g) - exactly(e) for g, e in zip(got, expected, strict=True))
    return float(oracle.mp.sqrt(oracle.mp.fsum(d * d for d in differences)))


def exactly(number):
    if not isinstance(number, np.longdouble):
        return oracle.mp.mpf(number)
    high = float(number)
    return oracle.mp.mpf(high) + oracle.mp.mpf(float(number - np.longdouble(high)))
