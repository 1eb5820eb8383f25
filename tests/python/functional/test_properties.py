"""Laws that hold for any rows, by hypothesis."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import kldiv
from kldiv._kldiv import DIVERGENCES
from samples import GENERAL

SYMMETRIC = {
    name: {} if one.symmetric else {one.parameter.name: one.symmetric_at}
    for name, one in DIVERGENCES.items()
    if one.symmetric or one.symmetric_at is not None
}
logits = st.floats(-30, 30, width=32) | st.just(-np.inf)


@st.composite
def pairs(draw):
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    shape = (draw(st.integers(1, 3)), draw(st.integers(1, 70)))
    p, q = (draw(hnp.arrays(dtype, shape, elements=logits)) for _ in range(2))
    # A row without any class is no distribution.
    p[:, 0], q[:, 0] = 0, 0
    return p, q


def close(a, b, dtype):
    tolerance = 3e-6 if dtype == np.float32 else 1e-11
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * 1e-2)


@pytest.mark.parametrize("name", GENERAL)
@given(pairs())
def test_non_negative_and_zero_on_identical_rows(name, pair):
    p, q = pair
    function, options = getattr(kldiv, name), GENERAL[name]
    assert (function(p, q, **options) >= 0).all()
    assert not function(p, p.copy(), **options).any()


@pytest.mark.parametrize("name", GENERAL)
@given(pairs(), st.floats(-1e3, 1e3, width=16))
def test_shift_invariance(name, pair, shift):
    p, q = pair
    function, options = getattr(kldiv, name), GENERAL[name]
    shifted = q + q.dtype.type(shift)
    # The shift may round; the values are compared on what the rounded numbers stand for.
    close(
        function(p, shifted, **options),
        function(p, (shifted.astype(np.float64) - shift), **options).astype(p.dtype),
        p.dtype,
    )


@pytest.mark.parametrize("name", GENERAL)
@given(pairs(), st.randoms())
def test_permutation_of_classes(name, pair, random):
    p, q = pair
    function, options = getattr(kldiv, name), GENERAL[name]
    order = list(range(p.shape[1]))
    random.shuffle(order)
    close(function(p[:, order], q[:, order], **options), function(p, q, **options), p.dtype)


@pytest.mark.parametrize("name", SYMMETRIC)
@given(pairs())
def test_symmetry(name, pair):
    p, q = pair
    function, options = getattr(kldiv, name), SYMMETRIC[name]
    close(function(p, q, **options), function(q, p, **options), p.dtype)


@given(pairs())
def test_reverse_kl_is_kl_with_the_roles_exchanged(pair):
    p, q = pair
    value, (gp, gq) = kldiv.value_and_grad(kldiv.kl, p, q, wrt=("p", "q"))
    again, (hp, hq) = kldiv.value_and_grad(kldiv.reverse_kl, q, p, wrt=("p", "q"))
    close(value, again, p.dtype)
    close(gp, hq, p.dtype)
    close(gq, hp, p.dtype)


# A half on both sides, told apart by e^-56 alone.
HALVES = np.float32([[0, 14, 14]]), np.float32([[0, -np.inf, 0]])


@pytest.mark.parametrize("name", GENERAL)
@given(pairs(), st.floats(0.25, 8))
@example(HALVES, 0.25)
def test_chain_of_temperature(name, pair, temperature):
    p, q = pair
    function, options = getattr(kldiv, name), GENERAL[name]
    scaled = [x.astype(np.float64) / temperature for x in pair]
    value, gradient = kldiv.value_and_grad(function, p, q, temperature=temperature, **options)
    again, unscaled = kldiv.value_and_grad(function, *scaled, **options)
    with np.errstate(over="ignore"):
        # Beyond the range of the dtype, infinite.
        again, unscaled = again.astype(p.dtype), (unscaled / temperature).astype(p.dtype)
    close(value, again, p.dtype)
    if DIVERGENCES[name].kinked:
        # Of classes as good as alike either sign is right.
        ln_p, ln_q = (kldiv.log_softmax(x) for x in scaled)
        gap = np.abs(np.subtract(ln_p, ln_q, where=ln_p != ln_q, out=np.zeros_like(ln_p)))
        apart = (np.isneginf(ln_p) & np.isneginf(ln_q)) | (gap > 1e-6)
        apart = apart.all(-1) | (p == q).all(-1)
        gradient, unscaled, again = gradient[apart], unscaled[apart], again[apart]
    finite = np.isfinite(again)
    close(gradient[finite], unscaled[finite], p.dtype)


@pytest.mark.parametrize("name", GENERAL)
@given(pairs(), st.data())
def test_masks_and_weights(name, pair, data):
    p, q = pair
    function, options = getattr(kldiv, name), GENERAL[name]
    value = function(p, q, **options)
    # An infinite row is left out, as most of jeffreys are.
    where = data.draw(hnp.arrays(bool, len(p))) & np.isfinite(value)
    weights = data.draw(hnp.arrays(np.float64, len(p), elements=st.floats(0, 4)))
    total = function(p, q, where=where, weights=weights, reduction="sum", **options)
    expected = (weights[where] * value[where].astype(np.float64)).sum()
    close(total, expected.astype(p.dtype), p.dtype)


@pytest.mark.parametrize("name", GENERAL)
@given(pairs())
def test_gradients_of_logits_sum_to_zero(name, pair):
    p, q = pair
    function, options = getattr(kldiv, name), GENERAL[name]
    value, gradients = kldiv.value_and_grad(function, p, q, wrt=("p", "q"), **options)
    for gradient in gradients:
        rows = np.isfinite(value)
        size = np.abs(gradient[rows]).sum(-1, dtype=np.float64)
        tolerance = 1e-6 if p.dtype == np.float32 else 1e-12
        assert (
            np.abs(gradient[rows].sum(-1, dtype=np.float64))
            <= tolerance * size + 8 * np.finfo(p.dtype).eps
        ).all()


@given(pairs())
def test_jeffreys_is_the_sum_of_both_kl_and_at_least_eight_jensen_shannon(pair):
    value = kldiv.jeffreys(*pair)
    close(value, kldiv.kl(*pair) + kldiv.reverse_kl(*pair), value.dtype)
    assert (value >= 8 * kldiv.jensen_shannon(*pair) * (1 - 1e-5) - 1e-10).all()


@given(pairs())
def test_the_acceptance_rate_is_what_total_variation_leaves(pair):
    """And at least half of e^(−KL), either way: Bretagnolle and Huber's inequality."""
    value, distance = kldiv.neg_log_acceptance(*pair), kldiv.total_variation(*pair)
    much = distance < 0.9
    close(value[much], -np.log1p(-distance[much]), np.float32)
    least = np.minimum(kldiv.kl(*pair), kldiv.reverse_kl(*pair))
    assert (value <= least + np.log(2) + 1e-5).all()


@pytest.mark.parametrize(
    ("name", "other"), [("adaptive_kl", "reverse_kl"), ("lk_hybrid", "total_variation")]
)
@given(pairs())
def test_mixtures_with_kl_lie_between(name, other, pair):
    pair = [x.astype(np.float64) for x in pair]
    value, kl, other = (getattr(kldiv, one)(*pair) for one in (name, "kl", other))
    assert (value <= np.maximum(kl, other) * (1 + 1e-12)).all()
    assert (value >= np.minimum(kl, other) * (1 - 1e-12)).all()


@given(pairs())
def test_mixtures_at_the_ends_of_their_parameters(pair):
    """μ = 0 leaves no head; a large η leaves total variation of rows that share something."""
    p, q = pair
    np.testing.assert_array_equal(kldiv.adaptive_kl(p, q, mu=0.0), kldiv.reverse_kl(p, q))
    finite = np.isfinite(kldiv.kl(p, q)) & (kldiv.total_variation(p, q) < 0.99)
    variation = kldiv.total_variation(p, q)[finite]
    close(kldiv.lk_hybrid(p, q, eta=1e6)[finite], variation, p.dtype)


@given(pairs())
def test_kl_is_cross_entropy_less_entropy(pair):
    p, q = (x.astype(np.float64) for x in pair)
    value = kldiv.kl(p, q)
    with np.errstate(all="ignore"):
        difference = kldiv.cross_entropy(q, np.exp(kldiv.log_softmax(p))) - kldiv.entropy(p)
    finite = np.isfinite(value)
    assert np.array_equal(finite, np.isfinite(difference))
    np.testing.assert_allclose(value[finite], difference[finite], rtol=1e-9, atol=1e-12)


SHARES = st.sampled_from([1e-300, 1e-15, 1e-3, 0.1, 0.5, 0.9, 1 - 2.0**-30])


@given(pairs(), SHARES)
def test_skew_kl_lies_below_kl_and_its_bound(pair, alpha):
    """By convexity in the second argument, and since m ≥ αp."""
    p, q = (x.astype(np.float64) for x in pair)
    value = kldiv.skew_kl(p, q, alpha=alpha)
    above = 1 + 1e-11
    assert (value <= -np.log(alpha) * above).all()
    assert (value <= (1 - alpha) * kldiv.kl(p, q) * above).all()
    assert (value >= kldiv.skew_kl(p, q, alpha=(1 + alpha) / 2) / above).all()
    # Pinsker's inequality: p and m differ by (1 − α)(p − q).
    distance = (1 - alpha) * kldiv.total_variation(p, q)
    assert (value * above >= 2 * distance**2).all()


@given(pairs(), st.sampled_from([2.0**-30, 0.25, 0.5, 0.75, 1 - 2.0**-30]))
def test_jensen_shannon_is_the_mean_of_both_skew_divergences(pair, beta):
    p, q = (x.astype(np.float64) for x in pair)
    forward, reverse = kldiv.skew_kl(p, q, alpha=beta), kldiv.skew_reverse_kl(p, q, alpha=1 - beta)
    mean = beta * forward + (1 - beta) * reverse
    np.testing.assert_allclose(mean, kldiv.jensen_shannon(p, q, beta=beta), rtol=1e-11, atol=1e-300)


@given(pairs())
def test_bounds_between_divergences(pair):
    """The table of docs/divergences.md."""
    pair = [x.astype(np.float64) for x in pair]
    hellinger, variation, kl, chi, js = (
        getattr(kldiv, name)(*pair)
        for name in ("squared_hellinger", "total_variation", "kl", "chi_squared", "jensen_shannon")
    )
    renyi = kldiv.renyi(*pair, alpha=0.5)
    for less, more in [
        (2 * variation**2, kl),
        (hellinger, variation),
        (variation, np.sqrt(2 * hellinger)),
        (2 * hellinger, renyi),
        (renyi, kl),
        (kl, np.log1p(chi)),
        (variation, np.sqrt(chi) / 2),
        (js, np.log(2) * variation),
    ]:
        assert (less <= more * (1 + 1e-12) + 1e-15).all()


@given(pairs(), st.integers(-4096, 4096).map(lambda n: n / 1024))
def test_orders_of_the_alpha_divergence(pair, alpha):
    p, q = (x.astype(np.float64) for x in pair)
    value, (gp, gq) = kldiv.value_and_grad(
        kldiv.alpha_divergence, p, q, wrt=("p", "q"), alpha=alpha
    )
    again, (hq, hp) = kldiv.value_and_grad(
        kldiv.alpha_divergence, q, p, wrt=("p", "q"), alpha=1 - alpha
    )
    finite = np.isfinite(value)
    for one, other in [(value, again), (gp, hp), (gq, hq)]:
        np.testing.assert_allclose(one[finite], other[finite], rtol=1e-9, atol=1e-9)
    half = kldiv.alpha_divergence(p, q, alpha=0.5) / 4
    close(half, kldiv.squared_hellinger(p, q), np.float64)
    np.testing.assert_allclose(
        2 * kldiv.alpha_divergence(p, q, alpha=2), kldiv.chi_squared(p, q), rtol=1e-11, atol=1e-24
    )
