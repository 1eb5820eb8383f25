"""Estimators of sampled tokens: values, gradients, expectations, and what projects publish."""

import ml_dtypes
import numpy as np
import pytest

import kldiv
from kldiv.estimators import ESTIMATORS
from sampled_tokens import LN_P, LN_Q, NAMES, OPTIONS, REDUCTIONS, SPECIAL, exact, plain, tokens

RATIOS = np.concatenate([sign * 10.0 ** np.arange(-140, 2.8, 0.37) for sign in (1, -1)])
RATIOS = np.concatenate([RATIOS, np.linspace(-3, 3, 601)])


def function(name):
    return getattr(kldiv.estimators, name)


def both(name, p, q, **options):
    value, gradients = kldiv.value_and_grad(function(name), p, q, wrt=("p", "q"), **options)
    return value, *gradients


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(np.float64, 1e-15), (np.float32, 1e-7), (np.float16, 1e-7), (ml_dtypes.bfloat16, 1e-7)],
)
def test_accuracy(name, dtype, tolerance):
    # r is q, as stored, and its square within the dtype.
    size = np.abs(RATIOS)
    q = (RATIOS if dtype is np.float64 else RATIOS[(size > 1e-7) & (size < 80)]).astype(dtype)
    value, by_p, by_q = both(name, np.zeros_like(q), q)
    expected, slope = np.transpose([exact(name, r) for r in q.astype(np.float64)])
    assert value.dtype == by_q.dtype == (np.float64 if dtype is np.float64 else np.float32)
    np.testing.assert_allclose(value, expected, rtol=tolerance)
    np.testing.assert_allclose(by_q, slope, rtol=tolerance)
    np.testing.assert_array_equal(by_p, -by_q)


@pytest.mark.parametrize("name", NAMES)
def test_special_values(name):
    value, by_p, by_q = both(name, LN_P, LN_Q)
    expected, slope = SPECIAL[name]
    np.testing.assert_array_equal(value, expected)
    np.testing.assert_array_equal(by_q, slope)
    np.testing.assert_array_equal(by_p, -np.array(slope))
    through = both(name, LN_P, LN_Q, straight_through=True)
    np.testing.assert_array_equal(through[0], expected)
    np.testing.assert_array_equal(through[2], SPECIAL["k2"][1])
    # Nothing of a token that is left out comes through.
    kept = np.arange(8) == 0
    for options in ({"where": kept}, {"weights": 1.0 * kept}):
        summed, _, by_q = both(name, LN_P, LN_Q, reduction="sum", **options)
        assert summed == 0
        np.testing.assert_array_equal(by_q, np.where(kept, slope, 0))


def test_values_beyond_the_dtype_are_infinite_without_a_warning():
    assert function("k3")(0.0, -1000.0) == np.inf
    assert function("k2")(np.float32(0), np.float32(-1e30)) == np.inf
    assert function("k2")(0.0, np.float32(-1e30)) == pytest.approx(5e59)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_reductions(name, options, reduction):
    p, q, where, weights, upstream = tokens()
    values, slopes = plain(name, p, q, **options)
    weight = np.where(where, weights, 0.0)
    divisor = {"mean": weight.sum(), "batchmean": 4, "denominator": 7.5}.get(reduction, 1.0)
    given = dict(options, reduction=reduction)
    if reduction == "denominator":
        given |= {"reduction": "mean", "denominator": divisor}
    upstream = upstream if reduction == "none" else 0.3
    p[~where] = np.nan
    found = both(name, p, q, where=where, weights=weights, grad_output=upstream, **given)
    scaled = values * weight / divisor
    np.testing.assert_allclose(
        found[0], scaled if reduction == "none" else scaled.sum(), rtol=1e-13
    )
    np.testing.assert_allclose(found[2], upstream * weight / divisor * slopes, rtol=1e-13)
    np.testing.assert_array_equal(found[1], -found[2] + 0.0)


def vocabulary(seed):
    """Logits of p and q over a few tokens, their log-probabilities, and ∇ ln q of each token."""
    z = np.random.default_rng(seed).normal(0, 1.5, (2, 7))
    ln_p, ln_q = np.asarray(kldiv.log_softmax(z))
    return *z, ln_p, ln_q, np.eye(7) - np.exp(ln_q)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", range(3))
def test_expectations_are_those_of_the_table(name, seed):
    z_p, z_q, ln_p, ln_q, score = vocabulary(seed)
    described = ESTIMATORS[name]
    q = np.exp(ln_q)
    kl, towards = kldiv.value_and_grad(kldiv.reverse_kl, z_p, z_q)
    _, other = kldiv.value_and_grad(kldiv.kl, z_p, z_q)
    known = {"0": 0 * towards, "∇ KL(q‖p)": towards, "∇ KL(p‖q)": other}
    values, slopes = kldiv.value_and_grad(function(name), ln_p, ln_q)
    assert bool(np.isclose((q * values).sum(), kl, rtol=1e-12)) is described.unbiased_value
    found = (q * slopes) @ score
    np.testing.assert_allclose(found, known[described.expected_gradient], atol=1e-14)
    assert np.allclose(found, towards, rtol=1e-10) is described.unbiased_gradient
    assert bool(values.min() >= 0) is described.non_negative
    through, slopes = kldiv.value_and_grad(function(name), ln_p, ln_q, straight_through=True)
    np.testing.assert_array_equal(through, values)
    np.testing.assert_allclose((q * slopes) @ score, towards, atol=1e-14)


def test_penalties_of_rewards_and_importance_ratios():
    """The policy gradient Σ q k ∇ ln q of k1 is right, not that of k3; ρ·k3 has k2's gradient."""
    z_p, z_q, ln_p, ln_q, score = vocabulary(5)
    q = np.exp(ln_q)
    towards = kldiv.value_and_grad(kldiv.reverse_kl, z_p, z_q)[1]
    k1, k3 = (function(name)(ln_p, ln_q) for name in ("k1", "k3"))
    np.testing.assert_allclose((q * k1) @ score, towards, atol=1e-14)
    assert not np.allclose((q * k3) @ score, towards, rtol=0.1)
    slope = kldiv.value_and_grad(function("k3"), ln_p, ln_q)[1]
    np.testing.assert_allclose(k3 + slope, ln_q - ln_p, atol=1e-14)


def test_clamps_of_openrlhf_and_verl():
    """``compute_approx_kl`` of OpenRLHF and ``kl_penalty_forward`` of verl, as published."""
    q = np.linspace(-40, 40, 161)
    p = np.zeros_like(q)
    openrlhf = {"k1": q, "k2": q**2 / 2, "k3": np.exp(-q) - 1 + q}
    for name, values in openrlhf.items():
        np.testing.assert_allclose(
            function(name)(p, q, clamp=10.0), values.clip(-10, 10), rtol=1e-12, atol=1e-12
        )
    negative = np.clip(p - q, -20, 20)
    verl = np.clip(np.exp(negative) - negative - 1, -10, 10)
    found = function("k3")(p, q, clamp_log_ratio=20.0, clamp=10.0)
    np.testing.assert_allclose(found, verl, rtol=1e-12, atol=1e-12)
    # Its other estimators, and TRL's, have no clamps.
    np.testing.assert_allclose(function("k3")(p, q), openrlhf["k3"], rtol=1e-12, atol=1e-12)


def test_arrays_of_any_kind():
    assert function("k3")([-1, -2], [-1, -3]).tolist() == [0, np.expm1(1) - 1]
    alone, gradient = kldiv.value_and_grad(function("k3"), -2.0, -1.0, reduction="mean")
    assert (alone, gradient) == (pytest.approx(np.exp(-1)), pytest.approx(1 - np.exp(-1)))
    p, q, *_ = tokens()
    _, by_p, by_q = both("k3", p, q)
    for out in (np.empty((6, 4)).T, np.empty((4, 6), np.float64)[::-1], np.empty((8, 6))[::2]):
        given = kldiv.value_and_grad(function("k3"), p, q, out=out)[1]
        assert given is out
        np.testing.assert_array_equal(out, by_q)
    kldiv.value_and_grad(function("k3"), p, q, wrt=("q", "p"), out=(p, q))
    np.testing.assert_array_equal((p, q), (by_q, by_p))
    scalar = np.empty(())
    kldiv.value_and_grad(function("k3"), -2.0, -1.0, out=scalar)
    assert scalar == gradient


X = np.zeros((2, 3))
WRONG = [
    ((X, np.zeros((2, 1))), {}, ValueError, r"p has shape \(2, 3\) but q has shape \(2, 1\)"),
    ((X.astype(int), X), {}, TypeError, "p has dtype int64"),
    ((X, X), {"clamp": 0}, ValueError, "clamp must be positive and finite, or None, got 0"),
    ((X, X), {"clamp_log_ratio": np.nan}, ValueError, "clamp_log_ratio must be positive"),
    ((X, X), {"clamp": "10"}, TypeError, "clamp must be a number, got '10'"),
    ((X, X), {"straight_through": 1}, TypeError, "straight_through must be True or False, got 1"),
    ((X, X), {"weights": [1, -1, 2]}, ValueError, "element 1 is -1"),
    ((X, X), {"where": np.ones(2, bool)}, ValueError, r"batch shape \(2, 3\) of p$"),
    ((X, X), {"where": np.full((2, 3), 2)}, ValueError, "holds 2 at index"),
    ((X, X), {"reduction": "avg"}, ValueError, "got 'avg'"),
    ((X, X), {"denominator": 2.0}, ValueError, "reduction='mean'"),
    ((0.0, 0.0), {"reduction": "batchmean"}, ValueError, "has none"),
]


@pytest.mark.parametrize(("arguments", "options", "exception", "message"), WRONG)
def test_errors(arguments, options, exception, message):
    with pytest.raises(exception, match=message):
        function("k3")(*arguments, **options)
    out = np.full(np.shape(arguments[1]), 7.0)
    with pytest.raises(exception, match=message):
        kldiv.value_and_grad(function("k3"), *arguments, out=out, **options)
    assert (out == 7).all()
