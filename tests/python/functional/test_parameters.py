"""Every parameter up to its limits: orders, weights, temperatures, smoothing, caps, tiny numbers.

Expected numbers are the definitions in 60 digits; the bounds are those of docs/numerics.md.
"""

import math
import sys

import numpy as np
import pytest

import kldiv
import oracle
from conftest import DTYPES, softmax
from kldiv._kldiv import DIVERGENCES
from samples import GENERAL

mp = oracle.mp
INF = np.inf
BOUND = {"float64": 1e-13, "float32": 1e-6}
FLOOR = {"float64": 1e-24, "float32": 1e-12}
"""The smallest value, and the square of the smallest gradient, that a bound is relative to."""

DISTANCES = [10.0**-k for k in (1, 2, 4, 7, 10, 13, 15)]
ORDERS = [*DISTANCES, *(1 - d for d in DISTANCES), *(1 + d for d in DISTANCES), 2.0, 30.0]
WEIGHTS = [*DISTANCES, *(1 - d for d in DISTANCES), 0.0, 0.5, 1.0]
ROWS = ("independent", "close", "p lacks", "q lacks", "both lack", "far")


def make_rows(kind, dtype, classes, seed=0):
    """A pair of rows; all but close ones are apart, and some classes are masked."""
    rng = np.random.default_rng([seed, classes, len(kind)])
    p, q = rng.normal(0, 3, (2, classes))
    masked = np.arange(classes) % 3 == 1
    if kind == "close":
        q = p + 1e-4 * rng.normal(0, 1, classes)
    elif kind == "far":
        p, q = 25 * p, 25 * q
    if kind in ("p lacks", "both lack"):
        p[masked] = -INF
    if kind in ("q lacks", "both lack"):
        q[masked] = -INF
    return p.astype(DTYPES[dtype]), q.astype(DTYPES[dtype])


def close_to(got, expected, dtype, floor):
    """Whether a list of numbers is as close to another as the bound says, by their norms."""
    if any(mp.isnan(x) for x in expected):
        return all(math.isnan(x) for x in got)
    if not all(math.isfinite(x) for x in got):
        return [float(x) for x in got] == [float(x) for x in expected]
    differences = [mp.mpf(float(g)) - e for g, e in zip(got, expected, strict=True)]
    error, size = (mp.sqrt(mp.fsum(x * x for x in row)) for row in (differences, expected))
    return error <= BOUND[dtype] * max(size, floor)


def check(name, p, q, dtype, temperature=1.0, **parameter):
    """Value and both gradients against the definition."""
    value, gradients = kldiv.value_and_grad(
        getattr(kldiv, name), p, q, wrt=("p", "q"), temperature=temperature, **parameter
    )
    case = f"{name} {parameter} T={temperature} {p!r} {q!r}"
    expected = oracle.divergence(name, p, q, temperature=temperature, **parameter)
    if sys.float_info.max < expected < INF:
        assert value == INF, case
        assert np.isnan(gradients).all(), case
        return
    if expected > np.finfo(value.dtype).max:
        # Beyond float32 the value is infinite, and gradients are what they are.
        expected = mp.inf
    floor = math.sqrt(FLOOR[dtype]) if DIVERGENCES[name].kinked else FLOOR[dtype]
    assert close_to([value], [expected], dtype, floor), f"{case}: {value}, not {expected}"
    assert not value < 0
    temperatures = temperature if isinstance(temperature, tuple) else (temperature, temperature)
    for wrt, gradient, t in zip("pq", gradients, temperatures, strict=True):
        expected = oracle.gradient(name, p, q, wrt, temperature=temperature, **parameter)
        floor = mp.sqrt(FLOOR[dtype]) / mp.mpf(t)
        # Stored as float32, a gradient below its range is 0.
        floor = max(floor, mp.mpf(1e-36)) if dtype == "float32" else floor
        if any(abs(x) > np.finfo(gradient.dtype).max for x in expected):
            assert np.isinf(gradient).any(), case
            continue
        assert close_to(gradient, expected, dtype, floor), f"{case} d{wrt}: {gradient}, {expected}"


@pytest.mark.costly
@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize("dtype", BOUND)
def test_orders_and_weights_next_to_their_limits(isa, dtype, kind):
    p, q = make_rows(kind, dtype, 9)
    for alpha in ORDERS:
        check("renyi", p, q, dtype, alpha=alpha)
        for order in (alpha, 1 - alpha):
            # 60 digits do not hold the gradient beside slopes of 1e57.
            if kind != "far" or 0 <= order <= 1:
                check("alpha_divergence", p, q, dtype, alpha=order)
    for beta in WEIGHTS:
        check("jensen_shannon", p, q, dtype, beta=beta)
        check("skew_kl", p, q, dtype, alpha=beta)
        check("skew_reverse_kl", p, q, dtype, alpha=beta)


@pytest.mark.parametrize("dtype", BOUND)
def test_limits_are_the_limiting_functions(isa, dtype):
    p, q = make_rows("independent", dtype, 40)
    relative = 10 * BOUND[dtype]
    kl, reverse = kldiv.kl(p, q), kldiv.reverse_kl(p, q)
    for alpha in (1 - 1e-15, 1 + 1e-15):
        assert kldiv.renyi(p, q, alpha=alpha) == pytest.approx(kl, rel=relative, abs=0)
    assert kldiv.renyi(p, q, alpha=1e-15) / 1e-15 == pytest.approx(reverse, rel=relative, abs=0)
    assert kldiv.jensen_shannon(p, q, beta=1e-15) / 1e-15 == pytest.approx(kl, rel=relative, abs=0)
    # The largest log-ratio, which also orders beyond all powers of p/q come to.
    d = (oracle.wide_log_softmax(p) - oracle.wide_log_softmax(q)).max()
    for alpha in (1e15, 1e100, 1e300):
        assert kldiv.renyi(p, q, alpha=alpha) == pytest.approx(float(d), rel=relative, abs=0)
    assert kldiv.renyi(p, p.copy(), alpha=1e300) == 0.0


def test_orders_next_to_0_of_rows_with_a_finite_mask(isa):
    p, q = np.array([28.7, 7.3, 14.3]), np.array([-3.4e38, 0.85, -1.9])
    check("renyi", p, q, "float64", alpha=2e-15)
    check("renyi", q, p, "float64", alpha=1 - 2e-15)


def test_entropy_of_a_row_that_begins_below_its_largest(isa):
    """In vectors of any width, and blocks that begin with others."""
    for width in (18, 40, 70, 5000):
        z = np.zeros(width, np.float32)
        z[5], z[-2:] = 1, 1.5546875
        for temperature in (0.03, 0.5):
            exact = float(oracle.entropy(z, temperature=temperature)) if width < 100 else None
            wide = float(kldiv.entropy(z.astype(float), temperature=temperature))
            value = kldiv.entropy(z, temperature=temperature)
            assert value == pytest.approx(wide if exact is None else exact, rel=1e-6, abs=0)


def test_rows_of_two_classes_with_a_rare_one(isa):
    """What pads the only vector of a row has no part in what its largest classes tell."""
    for p, q in [
        ((-5.479047, -1.0299201), (-8.6299, -0.4481406)),
        ((-6.183204, 7.8600564), (-4.37844, 3.1665819)),
        ((1.5335102, 32.5211), (-3.7437038, -0.5812102)),
        ((-2.2891133, -0.7212217), (-3.2193646, 3.3953938)),
        ((-3.1671813, 7.940009, -0.7562307), (1.9479336, 3.6982305, -0.09903672)),
        ((-3.9131672, -2.7746677, 11.265465), (-0.9414085, -1.2643752, 0.6048257)),
        ((0.0, -1e4), (1.0, -3.0)),
        ((0.0, -300.0), (1.0, -4.0)),
    ]:
        for temperature in (1.0, 2.5):
            pair = np.array([p, q], np.float32)
            for name in ("kl", "reverse_kl", "total_variation"):
                check(name, *pair, "float32", temperature)
                check(name, *pair[::-1], "float32", temperature)


def test_orders_above_1_of_rows_with_a_finite_mask(isa):
    """The power of a class that neither row has anything on leaves the range of floats."""
    p, q = np.array([-1e5, 352.09129, 351.04816]), np.array([-1e5, 3314.5716, 3313.5285])
    for alpha in (1 + 1e-10, 2.0, 10.0):
        check("renyi", p, q, "float64", alpha=alpha)


def test_slopes_of_the_smallest_probabilities_at_small_orders(isa):
    p, q = np.array([3.4e-322, 0.034]), np.array([1.1e-11, 4.3e-8])
    for alpha in (8e-14, 4.6e-14):
        _, gradient = kldiv.value_and_grad(kldiv.renyi, p, q, wrt="p", alpha=alpha, space="probs")
        exact = oracle.gradient("renyi", p, q, "p", alpha=alpha, space="probs")
        assert gradient == pytest.approx([float(x) for x in exact], rel=1e-11, abs=0)


@pytest.mark.parametrize("alpha", [0.0, -1.0, 1e-301, 1e301, 1e308, INF, np.nan])
def test_orders_out_of_range_are_refused(alpha):
    with pytest.raises(ValueError, match="alpha must be from 1e-300 to 1e300"):
        kldiv.renyi([0.0, 1.0], [1.0, 0.0], alpha=alpha)


TEMPERATURES = (1e-30, 1e-3, 0.7, 5.0, 1e3, 1e30)


@pytest.mark.costly
@pytest.mark.parametrize("classes", [1, 3, 8, 17])
@pytest.mark.parametrize("kind", ["independent", "p lacks", "q lacks", "both lack"])
@pytest.mark.parametrize("dtype", BOUND)
def test_every_pair_of_temperatures_with_every_mask(isa, dtype, kind, classes):
    """The lanes past the end of a row, and the classes that it lacks, see no temperature."""
    p, q = make_rows(kind, dtype, classes)
    pairs = [(a, b) for a in TEMPERATURES for b in TEMPERATURES]
    for at, temperature in enumerate(pairs):
        # All divergences see all pairs, over the four widths.
        for name, parameter in list(GENERAL.items())[at % 2 :: 2]:
            function = getattr(kldiv, name)
            value, _ = kldiv.value_and_grad(
                function, p, q, wrt=("p", "q"), temperature=temperature, **parameter
            )
            expected = oracle.divergence(name, p, q, temperature=temperature, **parameter)
            floor = math.sqrt(FLOOR[dtype])
            assert close_to([value], [expected], dtype, floor), (name, temperature, value, expected)


@pytest.mark.parametrize("distance", DISTANCES)
def test_two_temperatures_that_bring_rows_close(isa, distance):
    p, _ = make_rows("independent", "float64", 33)
    for temperature in (0.4, 1.0, 60.0):
        pair = (temperature, temperature * (1 + distance))
        for name, parameter in GENERAL.items():
            if DIVERGENCES[name].kinked:
                continue
            check(name, p, p.copy(), "float64", pair, **parameter)


@pytest.mark.parametrize("dtype", BOUND)
def test_small_and_large_temperatures_of_one_row(isa, dtype):
    z, _ = make_rows("p lacks", dtype, 11)
    for temperature in TEMPERATURES:
        options = {"temperature": temperature}
        value, gradient = kldiv.value_and_grad(kldiv.entropy, z, **options)
        assert close_to([value], [oracle.entropy(z, **options)], dtype, FLOOR[dtype])
        floor = max(mp.sqrt(FLOOR[dtype]) / mp.mpf(temperature), mp.mpf(1e-36))
        expected = oracle.entropy_gradient(z, **options)
        # In float64 without a floor but that of its range: nearly uniform rows keep their digits.
        floor = floor if dtype == "float32" else mp.mpf(1e-290)
        assert close_to(gradient, expected, dtype, floor)
        soft = softmax(np.arange(11.0)).astype(z.dtype)
        soft[np.isinf(z)] = 0
        for target in (2, soft):
            for smoothing in (0.0, 1e-15, 1.0):
                # A mass on a class that the row lacks is infinite, and any other is not.
                loss = kldiv.cross_entropy(z, target, label_smoothing=smoothing, **options)
                exact = oracle.cross_entropy(z, target, label_smoothing=smoothing, **options)
                stored = float(np.asarray(float(exact), loss.dtype))
                assert loss == pytest.approx(stored, rel=10 * BOUND[dtype], abs=0)
        comparison = kldiv.compare(z, z + np.asarray(0.5, z.dtype), **options)
        assert np.isfinite(comparison.kl)
        assert comparison.entropy_p == pytest.approx(value, rel=10 * BOUND[dtype], abs=1e-30)


@pytest.mark.parametrize("name", GENERAL)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_temperatures_whose_inverse_no_float_holds(isa, name, dtype):
    """Of rows that a rounded 1/T would move by more than they differ, for a value or a gradient."""
    for kind in ("close", "far", "independent"):
        p, q = make_rows(kind, dtype, 9)
        q = q + np.asarray(60, q.dtype)
        for temperature in (0.003, 0.7, 1.1, 3.0, 30.0, 900.0):
            check(name, p, q, "float32", temperature, **GENERAL[name])
            # One class has all, and the rest of both rows is small.
            check(name, p[:1], q[:1], "float32", temperature, **GENERAL[name])
            few = [p[:3].copy(), q[:3].copy()]
            few[0][0] = few[1][1] = 20 * max(1.0, temperature)
            few[1][1] -= few[1][1] / 2
            check(name, *few, "float32", temperature, **GENERAL[name])


@pytest.mark.parametrize("shift", [0.0, 1.0, -1504.0])
def test_total_variation_of_a_flat_row(isa, shift):
    """Whose largest classes differ by more than the rows do, at a 1/T that no float holds."""
    p, q = np.zeros((2, 16), np.float32)
    p[0], p[2:] = 30, 0.02 * np.sin(np.arange(14))
    q += np.float32(shift)
    for temperature in (30.0, 36.83, 36.83780573050685):
        exact = float(oracle.divergence("total_variation", p, q, temperature=temperature))
        for value in (
            kldiv.compare(p, q, temperature=temperature).total_variation,
            kldiv.total_variation(p, q, temperature=temperature),
        ):
            assert value == pytest.approx(exact, rel=5e-7, abs=0)


@pytest.mark.parametrize("mass", [5e-324, 1e-300, 1e-200, 1.0])
def test_any_mass_on_a_masked_class_is_infinite(isa, mass):
    z = np.array([0.0, -INF, 1.0])
    assert kldiv.cross_entropy(z, np.array([0.5, mass, 0.5])) == INF
    # Also where its product with the class weight falls below the smallest number.
    weights = np.array([1.0, 1e-9, 1.0])
    assert kldiv.cross_entropy(z, np.array([0.5, mass, 0.5]), class_weights=weights) == INF
    weights[1] = 0
    assert np.isfinite(kldiv.cross_entropy(z, np.array([0.5, mass, 0.5]), class_weights=weights))
    assert np.isfinite(kldiv.cross_entropy(z, np.array([0.5, 0.0, 0.5])))
    # Smoothed away it has no part in the loss, and no gradient.
    target = np.array([0.5, 0.0, 0.5])
    _, gradient = kldiv.value_and_grad(
        kldiv.cross_entropy, z[[0, 2, 2]], target, wrt="targets", label_smoothing=1.0
    )
    assert not gradient.any()


@pytest.mark.parametrize("dtype", BOUND)
@pytest.mark.parametrize("softcap", [1e-30, 0.5, 30.0, 1e3, 1e30])
def test_caps_from_saturation_to_none(isa, dtype, softcap):
    rng = np.random.default_rng(0)
    for scale in (1e-3, 1.0, 40.0, 1e3):
        z = (scale * rng.normal(0, 1, 12)).astype(dtype)
        label = int(z.argmax())
        value, gradient = kldiv.value_and_grad(kldiv.cross_entropy, z, label, softcap=softcap)
        expected = oracle.cross_entropy(z, label, softcap=softcap)
        # A capped logit is rounded relative to the cap.
        size = max(1.0, min(softcap, scale))
        assert value >= 0
        assert abs(float(expected - mp.mpf(float(value)))) <= BOUND[dtype] * max(
            expected, 1e-2 * size
        )
        exact = oracle.cross_entropy_gradient(z, label, softcap=softcap)
        # 60 digits do not tell the probability of a dominant class from 1 below this.
        floor = mp.mpf(1e-36 if dtype == "float32" else 1e-50)
        bound = {"float32": 1e-6, "float64": 1e-13 * size}[dtype]
        error = mp.sqrt(
            mp.fsum((mp.mpf(float(g)) - e) ** 2 for g, e in zip(gradient, exact, strict=True))
        )
        assert error <= bound * max(mp.sqrt(mp.fsum(e * e for e in exact)), floor)


def test_probabilities_whose_ratio_no_float_holds(isa):
    for p in (0.9, 1.0, 3.0, 400.0, 1e30):
        for q in (1.2e-38, 2e-38, 5.9e-39, 3e-39, 1e-45, 1e-30):
            rows = np.array([p, 0.1], np.float32), np.array([q, 0.9], np.float32)
            exact = oracle.divergence("kl", *rows, space="probs")
            assert kldiv.kl(*rows, space="probs") == pytest.approx(float(exact), rel=1e-6, abs=0)


TINY = {
    "float64": [5e-324, 1.5e-323, 1e-320, 1e-310, 1e-300],
    "float32": [1.4e-45, 4.2e-45, 1e-42, 1e-39, 1e-37],
    "float16": [6e-8, 3e-7, 1e-5],
    "bfloat16": [9.2e-41, 1e-39, 1e-37],
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", GENERAL)
def test_probabilities_below_the_normal_range(isa, name, dtype):
    """On either side, value and gradient, cut off at the ends of the range of the result."""
    wide = dtype == "float64"
    for x in TINY[dtype]:
        for first, second in [((x, 0.5, 0.5), (0.25, 0.5, 0.25)), ((x, 1.0), (3 * x, 1.0))]:
            for p, q in ((first, second), (second, first)):
                p, q = np.array(p, DTYPES[dtype]), np.array(q, DTYPES[dtype])
                for parameter in [
                    GENERAL[name],
                    *([{"alpha": 0.3}] if name == "renyi" else []),
                ]:
                    value, gradients = kldiv.value_and_grad(
                        getattr(kldiv, name), p, q, wrt=("p", "q"), space="probs", **parameter
                    )
                    exact = oracle.divergence(name, p, q, space="probs", **parameter)
                    with np.errstate(over="ignore"):
                        exact = value.dtype.type(float(exact))
                    assert value == pytest.approx(exact, rel=1e-12 if wide else 1e-6, abs=1e-12)
                    for wrt, gradient in zip("pq", gradients, strict=True):
                        exact = oracle.gradient(name, p, q, wrt, space="probs", **parameter)
                        with np.errstate(over="ignore"):
                            stored = np.array([float(e) for e in exact]).astype(gradient.dtype)
                        np.testing.assert_allclose(
                            gradient,
                            stored,
                            rtol=1e-12 if wide else 1e-6,
                            # What weights are rounded by.
                            atol=1e-15 if DIVERGENCES[name].detached else 0,
                            err_msg=repr((p, q)),
                        )
