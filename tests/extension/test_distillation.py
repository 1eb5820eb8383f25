"""The kernels that only `kldiv.torch` calls: the mix of two losses, and KL element by element."""

import numpy as np
import pytest

import kldiv
from conftest import DTYPES, WIDTHS
from kldiv import _kldiv, _requests
from kldiv._arrays import Operand


def operands(dtype, rows, classes, rng):
    p, q = (rng.normal(0, 3, (rows, classes)).astype(DTYPES[dtype]) for _ in range(2))
    return p, q


def distill(p, q, labels, shares, *, kind="kl", grads=("teacher", "student"), out=None):
    request = _requests.distillation(
        kind, 0.0, p, q, labels, 2.0, *shares, -100, 0.0, None, None, "none", None
    )
    return _requests.differentiate(request, grads, out, None)


@pytest.mark.parametrize("kind", ["kl", "reverse_kl", "total_variation"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_is_the_sum_of_its_losses(isa, dtype, kind, rng):
    function = getattr(kldiv, kind)
    for classes in WIDTHS:
        p, q = operands(dtype, 3, classes, rng)
        labels = np.array([0, -100, classes - 1])
        kept = labels != -100
        value, (of_p, of_q) = distill(p, q, labels, (0.3, 0.7), kind=kind)
        divergence, (d_p, d_q) = kldiv.value_and_grad(
            function, p, q, wrt=("p", "q"), temperature=2.0, where=kept
        )
        loss, d_z = kldiv.value_and_grad(kldiv.cross_entropy, q, labels)
        tight = 1e-12 if dtype == "float64" else 1e-6
        np.testing.assert_allclose(value, 0.3 * divergence + 0.7 * loss, rtol=tight, atol=1e-12)
        for found, expected in [(of_p, 0.3 * d_p), (of_q, 0.3 * d_q + 0.7 * d_z)]:
            scale = max(np.abs(expected).max(), 1e-6)
            np.testing.assert_allclose(found, expected, rtol=tight, atol=tight * scale)


@pytest.mark.parametrize("dtype", DTYPES)
def test_over_the_logits_of_the_student(isa, dtype, rng):
    p, q = operands(dtype, 4, 9001, rng)
    labels = np.array([5, 9000, -100, 0])
    elsewhere = np.empty_like(q)
    expected, _ = distill(p, q, labels, (0.5, 0.5), grads="student", out=elsewhere)
    value, gradient = distill(p, q, labels, (0.5, 0.5), grads="student", out=q)
    assert gradient is q
    np.testing.assert_array_equal(value, expected)
    np.testing.assert_array_equal(q, elsewhere)


def test_the_same_bits_for_any_number_of_threads(threads, rng):
    p, q = operands("float32", 5, 150_000, rng)
    labels = rng.integers(150_000, size=5)
    found = []
    for count in (1, 2, 3):
        threads(count)
        value, gradients = distill(p, q, labels, (0.5, 0.5))
        found.append([value, *gradients])
    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(one, two)


def test_nan_stays_in_its_row(isa, rng):
    p, q = operands("float32", 3, 100, rng)
    q[1, 7] = np.nan
    value, (of_p, of_q) = distill(p, q, np.zeros(3, np.int64), (0.5, 0.5))
    assert np.isnan(value).tolist() == [False, True, False]
    assert np.isnan(of_q).all(-1).tolist() == [False, True, False]
    assert np.isnan(of_p).any(-1).tolist() == [False, True, False]


def pointwise(p, ln_q, log_p):
    """What torch defines."""
    with np.errstate(all="ignore"):
        given, ln_q = p.astype(np.float64), ln_q.astype(np.float64)
        p, ln_p = (np.exp(given), given) if log_p else (given, np.log(given))
        own = np.where(p == 0, 0.0, p * ln_p)
        terms = p * (ln_p - ln_q) if log_p else own - p * ln_q
        slope = ln_p - ln_q + (1.0 if log_p else p / p)
        return terms, p * slope if log_p else slope, -p


SPECIAL = [(0.0, -1.0), (0.0, -np.inf), (0.3, -np.inf), (-0.2, -1.0), (np.nan, -1.0), (0.3, np.nan)]
SPECIAL += [(0.3, np.inf), (np.inf, -1.0), (-np.inf, -1.0), (-np.inf, -np.inf), (-800.0, -3.0)]


@pytest.mark.parametrize("log_p", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_kl_of_elements(isa, dtype, log_p, rng):
    for classes in WIDTHS:
        for special in [None, *SPECIAL] if classes in (1, 17) else [None]:
            p = rng.uniform(1e-3, 1, (2, classes))
            ln_q = rng.normal(-3, 1, (2, classes))
            p, ln_q = (np.log(p) if log_p else p), ln_q
            p, ln_q = p.astype(DTYPES[dtype]), ln_q.astype(DTYPES[dtype])
            if special is not None:
                p[1, -1], ln_q[1, -1] = special
            of_p, of_q = np.empty((2, classes)), np.empty((2, classes))
            total = _kldiv.pointwise_kl(
                Operand(p, dtype),
                Operand(ln_q, dtype),
                log_p,
                0.5,
                Operand(of_p, "float64"),
                Operand(of_q, "float64"),
                isa,
            )
            terms, d_p, d_q = pointwise(p, ln_q, log_p)
            np.testing.assert_allclose(total, terms.sum(), rtol=1e-12)
            np.testing.assert_allclose(of_p, 0.5 * d_p, rtol=1e-12, atol=1e-15)
            np.testing.assert_allclose(of_q, 0.5 * d_q, rtol=1e-12, atol=1e-15)
