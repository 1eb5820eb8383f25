"""Rows that have much in common, which f32 lanes take by polynomials in the log-ratio."""

import functools

import numpy as np
import pytest

import kldiv
import oracle
from samples import MORE, identity

pytestmark = pytest.mark.skipif(
    not oracle.WIDE_IS_EXTENDED, reason="numpy.longdouble is no wider than float64 here"
)

SAMPLES = [
    *MORE,
    ("jensen_shannon", {"beta": 1e-8}),
    ("skew_kl", {"alpha": 1e-8}),
    ("alpha_divergence", {"alpha": -30.0}),
    ("renyi", {"alpha": 300.0}),
]

CLASSES = 9_000
"""Two blocks and a part of one."""

KINDS = ["next to equal", "close", "not so close", "outlier", "masked", "peaked"]


@functools.cache
def rows(kind):
    """Two rows of float32 logits each, and their truth."""
    rng = np.random.default_rng(KINDS.index(kind))
    p, noise = (3 * rng.standard_normal((2, CLASSES)), rng.standard_normal((2, CLASSES)))
    q = p + {"next to equal": 1e-5, "not so close": 0.35}.get(kind, 0.05) * noise
    match kind:
        case "outlier":  # in one block
            q[:, 5_000] += [2, -3]
        case "masked":
            p[:, 4_000:4_100] = q[:, 4_000:4_100] = -np.inf
            q[1] += 3  # then their log-ratios are out of reach
        case "peaked":
            p[:, 17] += [8, 14]
            q[:, 17] += [8, 14]
    p, q = p.astype(np.float32), q.astype(np.float32)
    return p, q, oracle.wide(p, q)


@functools.cache
def expected(name, kind, **options):
    """Value and both gradients."""
    truth = rows(kind)[2]
    return truth.value(name, **options), [truth.gradient(name, wrt, **options) for wrt in "pq"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sample", SAMPLES, ids=identity)
def test_values_and_gradients(sample, kind, isa):
    (name, options), (p, q, _) = sample, rows(kind)
    true_value, true_gradients = expected(name, kind, **options)
    function = getattr(kldiv, name)
    value, gradients = kldiv.value_and_grad(function, p, q, wrt=("p", "q"), **options)
    np.testing.assert_allclose(value, true_value, rtol=1e-6, atol=1e-30)
    for wrt, gradient, true in zip("pq", gradients, true_gradients, strict=True):
        off, norm = (np.linalg.norm(one, axis=-1) for one in (gradient - true, true))
        assert np.all(off <= 1e-6 * norm + 1e-30), (wrt, off / norm)
        alone = kldiv.value_and_grad(function, p, q, wrt=wrt, **options)
        assert np.array_equal(alone[0], value)
        assert np.array_equal(alone[1], gradient)
    assert np.array_equal(function(p, q, **options), value)


@pytest.mark.parametrize("alpha", [20.0, 25.0])
def test_large_orders_of_rows_beyond_the_polynomials(alpha, isa):
    """A power of q/p multiplies what the difference of the two log-sum-exp is rounded by."""
    rng = np.random.default_rng(7)
    p = 2.75 * rng.standard_normal((32, 600))
    q = p + 0.6 * rng.standard_normal(p.shape)
    p, q = (1.3 * p).astype(np.float32), (1.3 * q).astype(np.float32)
    truth = oracle.wide(p, q, temperature=1.3)
    options = {"alpha": alpha, "temperature": 1.3}
    value, gradients = kldiv.value_and_grad(kldiv.alpha_divergence, p, q, wrt=("p", "q"), **options)
    np.testing.assert_allclose(value, truth.value("alpha_divergence", alpha=alpha), rtol=1e-6)
    for wrt, gradient in zip("pq", gradients, strict=True):
        true = truth.gradient("alpha_divergence", wrt, alpha=alpha)
        off, norm = (np.linalg.norm(one, axis=-1) for one in (gradient - true, true))
        assert np.all(off <= 1e-6 * norm), off / norm


@pytest.mark.parametrize("fill", [-60.0, -200.0])
@pytest.mark.parametrize("classes", [40, 128, 9_000])
def test_the_gradient_of_a_student_that_lacks_the_tail(classes, fill, isa):
    """The log-ratios of its other classes are one small number, which f32 lanes are to keep."""
    rng = np.random.default_rng(classes)
    teacher = 3 * rng.standard_normal((64, classes))
    student = np.log(np.exp(teacher) / np.exp(teacher).sum(axis=-1, keepdims=True))
    student[student < np.sort(student, axis=-1)[:, [-20]]] = fill
    p, q = teacher.astype(np.float32), student.astype(np.float32)
    truth = oracle.wide(p, q)
    for wrt in ("q", ("p", "q")):
        value, gradient = kldiv.value_and_grad(kldiv.kl, p, q, wrt=wrt)
        np.testing.assert_allclose(value, truth.value("kl"), rtol=1e-6)
        gradient, true = gradient if wrt == "q" else gradient[1], truth.gradient("kl", "q")
        off, norm = (np.linalg.norm(one, axis=-1) for one in (gradient - true, true))
        assert np.all(off <= 1e-6 * norm), off / norm
