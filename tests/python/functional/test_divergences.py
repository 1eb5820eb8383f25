"""Values and gradients of the divergences, against the oracle and against finite differences."""

import functools

import numpy as np
import pytest

import kldiv
import oracle
from conftest import DTYPES, WIDTHS, in_space
from kldiv._kldiv import DIVERGENCES
from samples import USUAL, identity

SPACES = ("logits", "log_probs", "probs")
IDS = [*map(identity, USUAL)]

# Relative; what float32 keeps of a sum of rounded terms, and float64 with room for the condition
# of probabilities taken as given.
TOLERANCE = {"float64": 1e-12, "float32": 1e-6, "float16": 1e-6, "bfloat16": 1e-6}


def check(name, options, p, q, dtype, **common):
    function = getattr(kldiv, name)
    value, gradients = kldiv.value_and_grad(function, p, q, wrt=("p", "q"), **options, **common)
    tolerance = TOLERANCE[dtype]
    assert np.array_equal(value, function(p, q, **options, **common))
    for row in range(len(p)):
        expected = float(oracle.divergence(name, p[row], q[row], **options, **common))
        assert value[row] == pytest.approx(expected, rel=tolerance, abs=tolerance * 1e-6)
        for wrt, gradient in zip("pq", gradients, strict=True):
            wanted = oracle.gradient(name, p[row], q[row], wrt, **options, **common)
            wanted = np.array([float(x) for x in wanted])
            error = np.linalg.norm(gradient[row] - wanted)
            assert error <= tolerance * max(np.linalg.norm(wanted), 1e-6), (wrt, row)


@pytest.mark.parametrize(("name", "options"), USUAL, ids=IDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("space", [*SPACES, ("logits", "probs"), ("log_probs", "logits")], ids=str)
def test_values_and_gradients(isa, rng, name, options, dtype, space):
    p_space, q_space = space if isinstance(space, tuple) else (space, space)
    p = in_space(rng.normal(0, 2, (3, 19)), p_space).astype(DTYPES[dtype])
    q = in_space(rng.normal(0, 2, (3, 19)), q_space).astype(DTYPES[dtype])
    check(name, options, p, q, dtype, space=space)


@pytest.mark.parametrize(("name", "options"), USUAL, ids=IDS)
def test_widths(isa, rng, name, options):
    function = getattr(kldiv, name)
    for width in WIDTHS:
        p = rng.normal(0, 3, (1, width)).astype(np.float32)
        q = rng.normal(0, 3, (1, width)).astype(np.float32)
        expected = oracle.wide_divergence(name, p, q, **options).astype(np.float64)
        np.testing.assert_allclose(function(p, q, **options), expected, rtol=1e-6, atol=1e-30)
        for wrt in "pq":
            _, gradient = kldiv.value_and_grad(function, p, q, wrt=wrt, **options)
            wanted = oracle.wide_gradient(name, p, q, wrt, **options).astype(np.float64)
            assert np.linalg.norm(gradient - wanted) <= 1e-6 * np.linalg.norm(wanted)


@pytest.mark.parametrize(("name", "options"), USUAL, ids=IDS)
@pytest.mark.parametrize("temperature", [0.5, 3.0, (0.7, 2.0)], ids=str)
def test_temperatures(isa, rng, name, options, temperature):
    p, q = rng.normal(0, 2, (2, 2, 19)).astype(np.float32)
    check(name, options, p, q, "float32", temperature=temperature)


def mixture(weights, names, p, q, space):
    """Two divergences with weights that stay as they are, summed."""
    first, second = (getattr(kldiv, one)(p, q, space=space) for one in names)
    return (weights * first + (1 - weights) * second).sum()


@pytest.mark.parametrize(("name", "options"), USUAL, ids=IDS)
@pytest.mark.parametrize("space", SPACES)
def test_gradients_are_finite_differences(rng, name, options, space):
    p, q = (in_space(rng.normal(0, 1, (2, 5)), space) for _ in range(2))
    function = functools.partial(getattr(kldiv, name), space=space, reduction="sum", **options)
    if DIVERGENCES[name].detached:
        function = functools.partial(mixture, *oracle.parts(name, p, q, space=space, **options))
        function = functools.partial(function, space=space)
    _, gradients = kldiv.value_and_grad(
        getattr(kldiv, name), p, q, wrt=("p", "q"), space=space, reduction="sum", **options
    )
    for side, gradient in enumerate(gradients):
        for index in np.ndindex(p.shape):
            step = 1e-6 * max(abs((p, q)[side][index]), 1e-2)
            moved = [[p.copy(), q.copy()] for _ in range(2)]
            moved[0][side][index] += step
            moved[1][side][index] -= step
            slope = (function(*moved[0]) - function(*moved[1])) / (2 * step)
            assert gradient[index] == pytest.approx(slope, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("reduction", ["none", "sum", "mean", "batchmean"])
def test_gradient_of_the_reduced_value(rng, reduction):
    p, q = rng.normal(0, 1, (2, 4, 3, 7))
    weights = rng.uniform(0.5, 2, (4, 3))
    where = rng.uniform(size=(4, 3)) < 0.7
    common = {"weights": weights, "where": where, "reduction": reduction}
    upstream = rng.normal(size=(4, 3)) if reduction == "none" else 1.7
    value, gradient = kldiv.value_and_grad(kldiv.kl, p, q, grad_output=upstream, **common)
    d, dd = kldiv.value_and_grad(kldiv.kl, p, q)
    w = np.where(where, weights, 0.0)
    divisor = {"none": 1, "sum": 1, "mean": w.sum(), "batchmean": 4}[reduction]
    np.testing.assert_allclose(gradient, dd * (w * upstream / divisor)[..., None], rtol=1e-12)
    expected = w * d if reduction == "none" else (w * d).sum() / divisor
    np.testing.assert_allclose(value, expected, rtol=1e-12)


def test_denominator_replaces_the_divisor_of_the_mean(rng):
    p, q = rng.normal(0, 1, (2, 6, 7))
    parts = [
        kldiv.kl(p[i : i + 2], q[i : i + 2], reduction="mean", denominator=6) for i in (0, 2, 4)
    ]
    assert sum(parts) == pytest.approx(kldiv.kl(p, q, reduction="mean"), rel=1e-14, abs=0)


def test_renyi_of_order_one_is_kl(rng):
    p, q = rng.normal(0, 2, (2, 3, 9))
    assert np.array_equal(kldiv.renyi(p, q, alpha=1), kldiv.kl(p, q))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("alpha_divergence", {"alpha": 2.0}),
        ("alpha_divergence", {"alpha": -1.0}),
        ("alpha_divergence", {"alpha": 50.0}),
        ("chi_squared", {}),
    ],
)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_powers_near_the_ends_of_the_range_of_floats(isa, name, dtype, options):
    """Terms whose parts leave the range on the way, and sums that do."""
    order = abs(options.get("alpha", 2.0) - 0.5) + 0.5
    for low, gap in [(0.0, 690.0), (0.0, 712.0), (0.0, 720.0), (-400.0, 800.0), (-725.0, 1100.0)]:
        # p^α q^(1−α) is about e^(low + gap).
        p = np.array([0.0, low], dtype)
        q = np.array([0.0, low - gap / (order - 1)], dtype)
        if options.get("alpha", 1.0) < 0:
            p, q = q, p
        value, gradients = kldiv.value_and_grad(
            getattr(kldiv, name), p.astype(np.float64), q, wrt=("p", "q"), **options
        )
        exact = oracle.divergence(name, p, q, **options)
        if exact > np.finfo(np.float64).max:
            assert value == np.inf
            assert np.isnan(gradients).all()
            continue
        assert value == pytest.approx(float(exact), rel=1e-12, abs=0)
        for wrt, gradient in zip("pq", gradients, strict=True):
            exact = oracle.gradient(name, p, q, wrt, **options)
            np.testing.assert_allclose(gradient, [float(x) for x in exact], rtol=2e-12)


def test_renyi_where_the_sum_leaves_the_range_of_floats(isa):
    # d = ±2000 nats: S is e^2000 or e^-1000, and its logarithm a plain number.
    p = np.array([[0.0, -2000.0], [0.0, -2000.0]])
    q = np.array([[-2000.0, 0.0], [-2000.0, 0.0]])
    np.testing.assert_allclose(kldiv.renyi(p, q, alpha=2.0), 2000.0, rtol=1e-13)
    np.testing.assert_allclose(kldiv.renyi(p, q, alpha=0.5), 2000.0 - 2 * np.log(2), rtol=1e-13)
    _, gradient = kldiv.value_and_grad(kldiv.renyi, p, q, alpha=2.0)
    np.testing.assert_allclose(gradient, [[-1.0, 1.0]] * 2, rtol=1e-12)


def test_mixed_dtypes_are_read_as_they_are(isa, rng):
    p = rng.normal(0, 2, (4, 100)).astype(DTYPES["bfloat16"])
    q = rng.normal(0, 2, (4, 100)).astype(np.float32)
    widened = kldiv.value_and_grad(kldiv.kl, p.astype(np.float32), q)
    mixed = kldiv.value_and_grad(kldiv.kl, p, q)
    assert np.array_equal(mixed[0], widened[0])
    assert np.array_equal(mixed[1], widened[1])


def test_a_small_part_of_the_gap_in_the_tail_keeps_its_digits(isa):
    """The slope of the rare class is 10⁻¹⁰·q/p, of whose factor 1 − g would have six digits."""
    p, q = np.array([1e-300, 1.0]), np.array([1e-10, 0.1])
    _, gradient = kldiv.value_and_grad(kldiv.adaptive_kl, p, q, wrt="p", space="probs")
    exact = oracle.gradient("adaptive_kl", p, q, "p", space="probs", mu=0.5)
    np.testing.assert_allclose(gradient, [float(x) for x in exact], rtol=1e-13)
