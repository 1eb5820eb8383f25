"""The estimators on JAX arrays, against NumPy's."""

import numpy as np
import pytest

import kldiv
from jax_precision import enable_x64
from sampled_tokens import COMBINED, LN_P, LN_Q, NAMES, SPECIAL, tokens

jax = pytest.importorskip("jax")

import kldiv.jax as kj  # noqa: E402


def function(name):
    return getattr(kj.estimators, name)


@pytest.mark.costly
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("options", "reduction"), COMBINED)
def test_values_and_gradients_are_those_of_numpy(name, options, reduction):
    p, q, where, weights, _ = tokens()
    p, q, options = np.float32(np.where(where, p, np.nan)), np.float32(q), dict(options)
    options |= {"where": where, "weights": weights, "reduction": reduction}
    if reduction == "denominator":
        options |= {"reduction": "mean", "denominator": 7.5}
    expected, gradients = kldiv.value_and_grad(
        getattr(kldiv.estimators, name), p, q, wrt=("p", "q"), **options
    )

    def loss(p, q):
        return function(name)(p, q, **options)

    # The tokens of k1 have signs: of terms of about 1, their rounding in float32 is left.
    np.testing.assert_allclose(loss(p, q), expected, rtol=1e-6, atol=2e-7)
    compiled = jax.jit(jax.value_and_grad(lambda p, q: loss(p, q).sum(), argnums=(0, 1)))
    value, found = compiled(p, q)
    np.testing.assert_allclose(value, expected.sum(), rtol=1e-6, atol=2e-7)
    np.testing.assert_allclose(found[0], gradients[0], rtol=1e-6)
    np.testing.assert_allclose(found[1], gradients[1], rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("straight_through", [False, True])
def test_special_values_and_transforms(name, straight_through):
    def values(p, q):
        return function(name)(p, q, straight_through=straight_through)

    p, q = jax.numpy.asarray(LN_P), jax.numpy.asarray(LN_Q)
    slope = np.array(SPECIAL["k2" if straight_through else name][1])
    both = jax.jit(jax.vmap(jax.value_and_grad(values, argnums=(0, 1))))
    value, (by_p, by_q) = both(p, q)
    np.testing.assert_array_equal(value, SPECIAL[name][0])
    np.testing.assert_array_equal(by_q, slope)
    np.testing.assert_array_equal(by_p, -slope)
    second = jax.jit(jax.grad(jax.grad(values, argnums=1), argnums=1))(-1.0, -1.5)
    of_k3 = np.exp(0.5) if name == "k3" else float(name == "k2")
    assert float(second) == pytest.approx(1.0 if straight_through else of_k3)


@pytest.mark.costly
@pytest.mark.parametrize("name", NAMES)
def test_beyond_a_clamp_there_is_no_gradient_even_if_the_derivative_is_infinite(name):
    p, q = np.float32([-1.0, -1.0, 0]), np.float32([-np.inf, -100, 0])
    value, slope = jax.value_and_grad(
        lambda q: abs(function(name)(p, q, clamp=10.0)).sum(), argnums=0
    )(q)
    assert value == 20
    np.testing.assert_array_equal(slope[:2], 0)


@pytest.mark.parametrize("name", NAMES)
def test_clamps_are_of_the_dtype_of_the_values(name):
    """Under ``jax_enable_x64`` a Python number is a float64 array."""
    p, q = np.float32([-1.0, -2.0]), np.float32([-1.5, -1.0])
    options = {"straight_through": True, "clamp_log_ratio": 0.75, "clamp": 0.25}
    with enable_x64(True):
        value, pull_back = jax.vjp(lambda q: function(name)(p, q, **options), q)
        (slope,) = pull_back(np.ones_like(value))
    assert value.dtype == slope.dtype == np.float32
    np.testing.assert_array_equal(slope, [-0.5, 1.0])


@pytest.mark.costly
def test_accuracy_in_float32():
    r = np.concatenate([sign * 10.0 ** np.arange(-15, 1.3, 0.11) for sign in (1, -1)])
    r = r.astype(np.float32)
    wide = r.astype(np.float64)
    found = jax.jit(kj.estimators.k3)(np.zeros_like(r), r)
    np.testing.assert_allclose(found, kldiv.estimators.k3(0 * wide, wide), rtol=5e-7)
    slope = jax.vmap(jax.grad(kj.estimators.k3, argnums=1))(np.zeros_like(r), r)
    np.testing.assert_allclose(slope, -np.expm1(-wide), rtol=5e-7)


def test_a_bound_does_not_widen_float32():
    p, q, where, _, _ = (np.float32(x) for x in tokens())
    options = {"straight_through": True, "clamp": 3.0, "clamp_log_ratio": 5.0, "where": where != 0}
    with enable_x64(True):
        value, gradient = jax.value_and_grad(lambda q: kj.estimators.k1(p, q, **options).sum())(q)
    assert value.dtype == gradient.dtype == np.float32


def test_traced_options_and_errors():
    p, q, where, weights, _ = tokens()

    @jax.jit
    def traced(where, weights, number):
        return kj.estimators.k3(
            p, q, where=where, weights=weights, clamp=number, reduction="mean", denominator=number
        )

    expected = kldiv.estimators.k3(
        p, q, where=where, weights=weights, clamp=0.6, reduction="mean", denominator=0.6
    )
    np.testing.assert_allclose(traced(where, weights, 0.6), expected, rtol=1e-5)
    for options, message in [
        ({"clamp": -1}, "clamp must be positive and finite"),
        ({"weights": -weights}, "element 0 is -"),
        ({"where": np.full(p.shape, 2)}, "holds 2 at index"),
        ({"reduction": "avg"}, "got 'avg'"),
    ]:
        with pytest.raises(ValueError, match=message):
            kj.estimators.k3(p, q, **options)
    for name in ("weights", "clamp", "denominator"):
        with pytest.raises(ValueError, match=f"{name} has no gradient"):
            jax.grad(lambda x, name=name: kj.estimators.k1(p, q, reduction="mean", **{name: x}))(
                1.0
            )
