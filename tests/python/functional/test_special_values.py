"""Zeros, infinities, NaN, masks and empty batches: the conventions of docs/numerics.md."""

import numpy as np
import pytest

import kldiv
import oracle
from conftest import DTYPES, in_space
from samples import GENERAL

INF, NAN = np.inf, np.nan


@pytest.fixture(params=GENERAL)
def case(request):
    return getattr(kldiv, request.param), GENERAL[request.param]


@pytest.mark.parametrize("dtype", DTYPES)
def test_identical_rows_are_exactly_zero(isa, rng, case, dtype):
    function, options = case
    p = rng.normal(0, 5, (3, 5000)).astype(DTYPES[dtype])
    p[1, ::7] = -INF
    p[2] += np.asarray(100, p.dtype)
    value, gradients = kldiv.value_and_grad(function, p, p.copy(), wrt=("p", "q"), **options)
    assert np.array_equal(value, [0, 0, 0])
    assert not np.signbit(value).any()
    assert not gradients[0].any()
    assert not gradients[1].any()


def test_no_class_in_common(isa):
    p, q = np.array([[0.0, -INF]]), np.array([[-INF, 0.0]])
    assert kldiv.kl(p, q) == INF
    assert kldiv.reverse_kl(p, q) == INF
    assert kldiv.renyi(p, q, alpha=0.5) == INF
    assert kldiv.total_variation(p, q) == 1.0
    assert kldiv.jensen_shannon(p, q)[0] == pytest.approx(np.log(2), rel=1e-15, abs=0)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_p_zero_contributes_nothing(isa, dtype):
    # Class 1 has p = 0 < q; class 2 exists in neither row.
    p = np.array([[1.0, -INF, -INF, 2.0]], dtype)
    q = np.array([[2.0, 1.0, -INF, 0.5]], dtype)
    value, (gp, gq) = kldiv.value_and_grad(kldiv.kl, p, q, wrt=("p", "q"))
    kept, _ = kldiv.value_and_grad(kldiv.kl, p[:, [0, 1, 3]], q[:, [0, 1, 3]])
    assert value == pytest.approx(kept, rel=1e-6, abs=0)
    assert np.isfinite(value).all()
    assert gp[0, 1] == gp[0, 2] == gq[0, 2] == 0.0
    assert gq[0, 1] > 0
    assert abs(gp.sum()) < 1e-6
    assert abs(gq.sum()) < 1e-6


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_p_positive_where_q_is_zero(isa, dtype):
    p = np.array([[1.0, 2.0, 0.0], [1.0, 2.0, 0.0]], dtype)
    q = np.array([[1.0, -INF, 0.0], [1.0, 1.0, 0.0]], dtype)
    value, (gp, gq) = kldiv.value_and_grad(kldiv.kl, p, q, wrt=("p", "q"))
    assert value[0] == INF
    assert np.isfinite(value[1])
    expected = kldiv.log_softmax(q)
    np.testing.assert_allclose(gq, np.exp(expected) - np.exp(kldiv.log_softmax(p)), atol=1e-6)
    assert np.isnan(gp[0]).all()
    assert np.isfinite(gp[1]).all()
    assert kldiv.renyi(p, q, alpha=2.0)[0] == INF
    assert np.isfinite(kldiv.renyi(p, q, alpha=0.5)).all()
    assert np.isfinite(kldiv.jensen_shannon(p, q)).all()


@pytest.mark.parametrize("bad", [NAN, -NAN, INF])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("position", [0, 15, 4999])
def test_a_bad_number_spoils_its_row_only(isa, rng, case, bad, dtype, position):
    function, options = case
    p, q = rng.normal(0, 1, (2, 3, 5000)).astype(DTYPES[dtype])
    for side in (p, q):
        spoiled = side.copy()
        spoiled[1, position] = bad
        pair = (spoiled, q) if side is p else (p, spoiled)
        value, gradients = kldiv.value_and_grad(function, *pair, wrt=("p", "q"), **options)
        assert np.array_equal(np.isnan(value), [False, True, False])
        for gradient in gradients:
            assert np.isnan(gradient[1]).all()
            assert np.isfinite(gradient[[0, 2]]).all()


def test_a_bad_number_in_cross_entropy_and_the_like(isa, rng):
    z = rng.normal(0, 1, (3, 100)).astype(np.float32)
    for bad in (NAN, INF):
        z[1, 50] = bad
        value, gradient = kldiv.value_and_grad(kldiv.cross_entropy, z, [0, 1, 2])
        for each in (
            value,
            kldiv.entropy(z),
            kldiv.logsumexp(z),
            kldiv.gather_log_probs(z, [0, 1, 2]),
        ):
            assert np.array_equal(np.isnan(each), [False, True, False])
        assert np.isnan(gradient[1]).all()
        assert np.isfinite(gradient[[0, 2]]).all()
        assert np.isnan(kldiv.log_softmax(z)[1]).all()


def test_rows_without_a_class(isa, case):
    function, options = case
    p = np.array([[-INF, -INF], [0.0, 1.0]], np.float32)
    q = np.array([[0.0, 1.0], [0.0, 1.0]], np.float32)
    assert np.array_equal(np.isnan(function(p, q, **options)), [True, False])
    assert np.array_equal(np.isnan(function(q, p, **options)), [True, False])
    assert np.array_equal(np.isnan(kldiv.entropy(p)), [True, False])
    assert np.array_equal(np.isnan(kldiv.cross_entropy(p, [0, 0])), [True, False])
    assert kldiv.logsumexp(p)[0] == -INF


def test_masked_rows_may_hold_anything(isa, case):
    function, options = case
    p = np.array([[0.0, 1.0], [NAN, INF], [2.0, 0.0]], np.float32)
    q = np.array([[1.0, 1.0], [1.0, NAN], [0.0, 0.0]], np.float32)
    where = np.array([True, False, True])
    value, gradients = kldiv.value_and_grad(
        function, p, q, wrt=("p", "q"), where=where, reduction="mean", **options
    )
    kept = function(p[where], q[where], reduction="mean", **options)
    assert value == kept
    for gradient in gradients:
        assert np.array_equal(gradient[1], [0, 0])
        assert not np.signbit(gradient[1]).any()
    assert np.array_equal(function(p, q, where=where, **options)[1], 0)
    assert function(p, q, where=False, reduction="mean", **options) == 0.0


def test_weight_zero_leaves_a_row_out(case):
    function, options = case
    p = np.array([[0.0, 1.0], [NAN, INF]])
    q = np.array([[1.0, 1.0], [1.0, NAN]])
    value = function(p, q, weights=[2.0, 0.0], reduction="mean", **options)
    assert value == pytest.approx(function(p[0], q[0], **options), rel=1e-15, abs=0)


@pytest.mark.parametrize("shape", [(0, 5), (3, 0, 5)])
def test_empty_batches(case, shape):
    function, options = case
    p = np.empty(shape, np.float32)
    value, gradient = kldiv.value_and_grad(function, p, p, **options)
    assert value.shape == shape[:-1]
    assert gradient.shape == shape
    assert function(p, p, reduction="sum", **options) == 0
    assert function(p, p, reduction="mean", **options) == 0
    assert kldiv.cross_entropy(p, np.empty(shape[:-1], int), reduction="mean") == 0


@pytest.mark.parametrize("value", [-3.4e38, -1e30, 3e37])
def test_finite_logits_of_any_size(isa, value):
    # Masks by the lowest finite number are classes of probability 0 that differ by a finite amount.
    p = np.array([[0.0, 1.0, value]], np.float32)
    q = np.array([[0.5, 0.0, value]], np.float32)
    kept = kldiv.kl(p[:, :2], q[:, :2]) if value < 0 else 0.0
    assert kldiv.kl(p, q) == pytest.approx(kept, rel=1e-6, abs=0)
    _, gradient = kldiv.value_and_grad(kldiv.kl, p, q)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("shift", [1e4, -1e4])
def test_a_constant_added_to_a_row_changes_nothing(isa, rng, case, shift):
    function, options = case
    p = rng.normal(0, 2, (4, 1000)).astype(np.float32)
    q = p + rng.normal(0, 0.01, (4, 1000)).astype(np.float32)
    # Move q first, so that both rows hold numbers that the shift does not round again.
    moved = (q + np.float32(shift)).astype(np.float32)
    back = (moved - np.float32(shift)).astype(np.float32)
    assert np.array_equal(back + np.float32(shift), moved)
    np.testing.assert_allclose(
        function(p, moved, **options), function(p, back, **options), rtol=1e-6
    )


def test_rows_far_apart_that_one_class_dominates(isa, case, request):
    """They differ by 10⁻¹³ in all, which is what f32 lanes round the log-ratio of that class by."""
    function, options = case
    p = np.float32([15.896778, 0.02184827, -0.28755698, -0.07002605, 1.1947335])
    q = np.float32([114.60557, 99.665436, 99.922935, 99.54958, 99.88549])
    name = request.node.callspec.params["case"]
    truth = float(oracle.divergence(name, p, q, temperature=0.5, **options))
    assert function(p, q, temperature=0.5, **options) == pytest.approx(truth, rel=1e-6, abs=0)
    if name == "total_variation":
        found = kldiv.compare(p, q, temperature=0.5).total_variation
        assert found == pytest.approx(truth, rel=1e-6, abs=0)


def test_gradients_at_probability_zero():
    p, q = np.array([0.0, 0.5, 0.5, 0.0]), np.array([0.5, 0.0, 0.5, 0.0])
    _, (gp, gq) = kldiv.value_and_grad(kldiv.kl, p, q, wrt=("p", "q"), space="probs")
    assert np.array_equal(gp, [-INF, INF, 1.0, 0.0])
    assert np.array_equal(gq, [0.0, -INF, -1.0, 0.0])
    _, (gp, gq) = kldiv.value_and_grad(kldiv.total_variation, p, q, wrt=("p", "q"), space="probs")
    assert np.array_equal(gp, [-0.5, 0.5, 0.0, 0.0])
    assert np.array_equal(gq, [0.5, -0.5, 0.0, 0.0])
    _, (gp, gq) = kldiv.value_and_grad(kldiv.jensen_shannon, p, q, wrt=("p", "q"), space="probs")
    assert gp[0] == gq[1] == -INF
    assert np.isfinite(gp[1:]).all()
    _, gradient = kldiv.value_and_grad(kldiv.entropy, p, space="probs")
    assert gradient[0] == INF


def test_log_probs_of_minus_infinity():
    with np.errstate(divide="ignore"):
        p, q = np.log([0.0, 0.5, 0.5]), np.log([0.5, 0.0, 0.5])
    value, (gp, gq) = kldiv.value_and_grad(kldiv.kl, p, q, wrt=("p", "q"), space="log_probs")
    assert value == INF
    assert np.array_equal(gp, [0.0, INF, 0.5])
    assert np.array_equal(gq, [0.0, -0.5, -0.5])


def test_probabilities_are_taken_as_given():
    scipy_special = pytest.importorskip("scipy.special")
    p, q = (
        np.array([[0.2, 0.9, 0.0], [0.0, 3.0, 1e-310]]),
        np.array([[0.5, 0.1, 0.0], [1.0, 1e-300, 2.0]]),
    )
    expected = scipy_special.rel_entr(p, q).sum(-1)
    np.testing.assert_allclose(kldiv.kl(p, q, space="probs"), expected, rtol=1e-14)
    assert np.isnan(kldiv.kl([-0.1, 1.1], [0.5, 0.5], space="probs"))


def test_uniform_and_one_class_rows(isa, case):
    function, options = case
    assert function(np.zeros((2, 1)), np.full((2, 1), 7.0), **options).tolist() == [0.0, 0.0]
    uniform = in_space(np.zeros((1, 4096)), "logits").astype(np.float32)
    assert kldiv.entropy(uniform)[0] == pytest.approx(np.log(4096), rel=1e-7, abs=0)


@pytest.mark.parametrize("low", [3e4, 6e4, 7.1e4, 8e4, 9e4, 1e5, 1e9, 3e38])
@pytest.mark.parametrize("width", [2, 70, 5000])
def test_a_low_finite_logit_is_no_mask(isa, low, width):
    """However low: against a masked class, with next to no probability, the value is infinite."""
    for temperature in (1.0, 0.7):
        p, q = np.zeros((2, 1, width), np.float32)
        p[0, -3:-1], q[0, -3:-1] = -INF, -INF
        p[0, 0] = q[0, 0] = 0.5
        p[0, 1] = -low * temperature
        q[0, 1] = -INF
        options = {"temperature": temperature}
        assert kldiv.kl(p, q, **options) == INF
        assert kldiv.kl(q, p, **options) == 0
        assert kldiv.reverse_kl(q, p, **options) == INF
        assert kldiv.reverse_kl(p, q, **options) == 0
        assert np.isnan(kldiv.value_and_grad(kldiv.kl, p, q, wrt="p", **options)[1]).all()
        comparison = kldiv.compare(p, q, **options)
        assert comparison.kl == INF
        assert comparison.reverse_kl == 0


@pytest.mark.parametrize("low", [1e4, 1e5, 1e6, 1221399228.0, 1931865072.0, 3612992132.0, 1e12])
def test_finite_masks(isa, rng, low):
    """Classes that nothing is on, among the first and the others, leave the digits of the rest."""
    for width in (17, 200, 5000):
        p = (10 * rng.normal(size=(1, width))).astype(np.float32)
        q = (3 * rng.normal(size=(1, width))).astype(np.float32)
        masked = rng.random(width) < 0.4
        masked[:2] = True
        p[0, masked] = -low
        p[0, ~masked] += 10
        expected = kldiv.kl(p.astype(float), q.astype(float))
        assert kldiv.kl(p, q) == pytest.approx(expected, rel=1e-6, abs=0)
        q[0, masked] = -low
        expected = kldiv.kl(p.astype(float), q.astype(float))
        assert kldiv.kl(p, q) == pytest.approx(expected, rel=1e-6, abs=0)
