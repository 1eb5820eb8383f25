"""Rows that have little in common, which have forms of their own in f32 lanes."""

import functools

import numpy as np
import pytest

import kldiv
import oracle

pytestmark = pytest.mark.skipif(
    not oracle.WIDE_IS_EXTENDED, reason="numpy.longdouble is no wider than float64 here"
)

PARAMETERS = {
    "jeffreys": [{}],
    "jensen_shannon": [{"beta": beta} for beta in (0.002, 0.1, 0.5, 0.97)],
    "skew_kl": [{"alpha": alpha} for alpha in (0.002, 0.1, 0.5, 0.97)],
    "skew_reverse_kl": [{"alpha": alpha} for alpha in (0.002, 0.1, 0.5, 0.97)],
    "total_variation": [{}],
    "neg_log_acceptance": [{}],
    "squared_hellinger": [{}],
    "lk_hybrid": [{"eta": eta} for eta in (0.5, 3.0, 30.0)],
    "adaptive_kl": [{"mu": mu} for mu in (0.02, 0.5, 0.9)],
    "renyi": [{"alpha": alpha} for alpha in (0.3, 2.0)],
    "alpha_divergence": [{"alpha": alpha} for alpha in (-1.0, 0.3, 1.4, 2.0)],
    "chi_squared": [{}],
}


@functools.cache
def rows(kind, classes):
    """Three rows of float32 logits each, and their truth."""
    rng = np.random.default_rng([classes, len(kind)])
    p, q = (2.5 * rng.standard_normal((3, classes)) for _ in range(2))
    if "p" in kind:
        p[:, 0] += [5, 15, 25]
    if "q" in kind:
        q[:, -1] += [5, 15, 25]
    p, q = p.astype(np.float32), q.astype(np.float32)
    return p, q, oracle.wide(p, q)


@functools.cache
def expected(name, kind, classes, **options):
    """Value and both gradients."""
    truth = rows(kind, classes)[2]
    return truth.value(name, **options), [truth.gradient(name, wrt, **options) for wrt in "pq"]


@pytest.mark.parametrize("classes", [40, 1500])
@pytest.mark.parametrize("kind", ["", "p", "q", "p and q"])
@pytest.mark.parametrize("name", PARAMETERS)
def test_values_and_gradients(name, kind, classes, isa):
    p, q, _ = rows(kind, classes)
    for options in PARAMETERS[name]:
        true_value, true_gradients = expected(name, kind, classes, **options)
        value, gradients = kldiv.value_and_grad(
            getattr(kldiv, name), p, q, wrt=("p", "q"), **options
        )
        np.testing.assert_allclose(value, true_value, rtol=1e-6)
        for wrt, gradient, true in zip("pq", gradients, true_gradients, strict=True):
            off, norm = (np.linalg.norm(one, axis=-1) for one in (gradient - true, true))
            assert np.all(off <= 1e-6 * np.maximum(norm, 1e-6)), (options, wrt, off / norm)


@pytest.mark.parametrize("noise", [None, 0.3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("mu", [0.3, 0.9, 0.999])
def test_heads_of_many_classes_many_alike(mu, dtype, noise, isa):
    rng = np.random.default_rng(3)
    p, q = np.round(4 * rng.standard_normal((2, 2, 8_000))) / 4
    if noise:
        q = p + noise * q
    p, q = (2 * rows.astype(dtype) for rows in (p, q))
    expected = oracle.wide(p, q).value("adaptive_kl", mu=mu)
    np.testing.assert_allclose(kldiv.adaptive_kl(p, q, mu=mu), expected, rtol=1e-6)


@pytest.mark.parametrize("beyond", [-1e-8, 1e-8])
def test_heads_that_end_between_two_roundings(beyond, isa):
    """The first class has half of p: f32 lanes cannot tell whether that is enough."""
    p = np.log(np.array([[2, 1, 0.75, 0.25]])).astype(np.float32)
    exact = np.exp(p.astype(np.longdouble))
    mu = float(exact[0, 0] / exact.sum()) + beyond
    for away in ([0, 0.5, -0.25, 0.125], [-20, 0, 1, 0]):
        q = p + np.float32(away)
        expected = oracle.wide(p, q).value("adaptive_kl", mu=mu)
        np.testing.assert_allclose(kldiv.adaptive_kl(p, q, mu=mu), expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["jeffreys", "lk_hybrid", "adaptive_kl"])
def test_slopes_of_kl_where_p_has_two_classes(name, isa):
    """ln(p/q) of the first agrees with KL in two digits, ln(p/q) of the second is far from it."""
    low = np.linspace(-30, -25, 37)
    p = np.float32([2.4154286, 4.5055866, -2.1434312, *low])
    q = np.float32([-2.8112535, -0.56047744, 7.152128, *low])
    _, gradient = kldiv.value_and_grad(getattr(kldiv, name), p, q, wrt="p")
    default = {} if name == "jeffreys" else PARAMETERS[name][1]
    truth = oracle.wide(p[None], q[None]).gradient(name, "p", **default)[0]
    error = np.linalg.norm(np.asarray(gradient - truth, np.float64))
    assert error < 1e-6 * np.linalg.norm(np.asarray(truth, np.float64))


@pytest.mark.parametrize("classes", [131_072, 131_073, 262_145])
def test_rows_too_wide_to_be_kept(classes, isa):
    """What a thread keeps of a row is at most 1 MiB: of both sides, of one, or of none."""
    rng = np.random.default_rng(classes)
    p, q = 3 * rng.standard_normal((2, 1, classes)).astype(np.float32)
    wide = [rows.astype(np.float64) for rows in (p, q)]
    for function, wrt in ((kldiv.kl, "q"), (kldiv.jeffreys, "q"), (kldiv.jeffreys, ("p", "q"))):
        value, gradient = kldiv.value_and_grad(function, p, q, wrt=wrt)
        true, true_gradient = kldiv.value_and_grad(function, *wide, wrt=wrt)
        np.testing.assert_allclose(value, true, rtol=1e-6)
        off = np.linalg.norm(np.subtract(gradient, true_gradient))
        assert off <= 1e-6 * np.linalg.norm(true_gradient)
        assert np.array_equal(function(p, q), value)
    found, expected = kldiv.compare(p, q), kldiv.compare(*wide)
    for name in ("kl", "reverse_kl", "jensen_shannon", "total_variation", "entropy_q"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-6)
