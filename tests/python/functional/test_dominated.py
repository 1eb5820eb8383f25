"""Rows that few classes dominate, and rows with an offset: f32 lanes keep their digits there.

But for rows whose other classes are alike, which roundings move to one side: f64 lanes have these.
"""

import functools

import numpy as np
import pytest

import kldiv
import oracle
from samples import USUAL, identity

pytestmark = pytest.mark.skipif(
    not oracle.WIDE_IS_EXTENDED, reason="numpy.longdouble is no wider than float64 here"
)

CLASSES = 5_000
"""A block and a part of one."""

STUDENTS = {
    "close": (1.0, 0.3),
    "not so close": (1.0, 1.5),
    "flatter": (0.5, 1.0),
    "another": (0.0, 2.2),
}
"""Of the teacher's logits so many times, and noise."""

OFFSETS = [*(pytest.param(offset, marks=pytest.mark.costly) for offset in (0, 20)), -200]
"""Added to the student's logits."""


@functools.cache
def rows(student, offset, temperature):
    """Rows of which one class, two, or some have nearly all, and their truth."""
    rng = np.random.default_rng([list(STUDENTS).index(student), offset % 7])
    p, noise = rng.standard_normal((2, 6, CLASSES))
    share, scale = STUDENTS[student]
    p *= 2.2
    # More of one class, of two alike, and of classes that fall; each once far above the others.
    for row, tops in enumerate([[9], [21], [8, 8.2], [19, 18.8], [12, 11, 9, 8, 8], [20, 13, 10]]):
        p[row, 4_089 : 4_089 + 2 * len(tops) : 2] = tops  # on both sides of where a block ends
    q = share * p + scale * noise
    if student == "another":
        q[:, 17] += [0, 8, 14, 14, 20, 20]
    p[[1, 4], 200:230] = q[[1, 4], 200:230] = -np.inf
    p, q = p.astype(np.float32), (q + offset).astype(np.float32)
    return p, q, oracle.wide(p, q, temperature=temperature)


@functools.cache
def expected(name, student, offset, temperature, **options):
    """Value and both gradients."""
    truth = rows(student, offset, temperature)[2]
    return truth.value(name, **options), [truth.gradient(name, wrt, **options) for wrt in "pq"]


@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("student", STUDENTS)
@pytest.mark.parametrize("sample", USUAL, ids=identity)
def test_values_and_gradients(sample, student, offset, isa):
    name, options = sample
    # 1/T is no number of f32.
    for temperature in (1.0, 1.3):
        p, q, _ = rows(student, offset, temperature)
        true_value, true_gradients = expected(name, student, offset, temperature, **options)
        function = functools.partial(kldiv.value_and_grad, getattr(kldiv, name), p, q)
        every = options | {"temperature": temperature}
        value, gradients = function(wrt=("p", "q"), **every)
        stored = true_value < 1e30  # other gradients are beyond float32
        np.testing.assert_allclose(value[stored], true_value[stored], rtol=1e-6, atol=1e-18)
        for wrt, gradient, true in zip("pq", gradients, true_gradients, strict=True):
            alone = function(wrt=wrt, **every)
            assert np.array_equal(alone[0], value)
            for one in (gradient, alone[1]):
                off, norm = (np.linalg.norm(each[stored], axis=-1) for each in (one - true, true))
                assert np.all(off <= 1e-6 * np.maximum(norm, 1e-6)), (temperature, wrt, off / norm)


SMOOTHED = ["smoothed", "noisy", "top k"]
"""Kinds of rows most of whose classes are alike and have little of them."""


@functools.cache
def smoothed_rows(kind, temperature):
    """Such rows and others, and the truth of the two orders."""
    rng = np.random.default_rng(SMOOTHED.index(kind))
    p, q = np.zeros((2, 8, CLASSES))
    if kind == "smoothed":  # from a share of 0.4 of those that are alike to one of 1e-7
        p[:, 4_091] = np.linspace(9, 24, len(p))
    else:  # numbers that f32 loses beside 1
        p[:, 160 : 161 if kind == "noisy" else 176] = np.linspace(16.4, 16.9, len(p))[:, None]
        p += 0.05 * rng.standard_normal(p.shape) if kind == "noisy" else 0
    q[:, rng.choice(CLASSES, 3)] = rng.uniform(0, 14, (len(q), 3))
    q[4:] += 0.5 * rng.standard_normal((4, CLASSES))
    q[2:6] += 33.3
    p, q = ((temperature * rows).astype(np.float32) for rows in (p, q))
    truths = [oracle.wide(*rows, temperature=temperature) for rows in ((p, q), (q, p))]
    return (p, q, truths[0]), (q, p, truths[1])


@pytest.mark.parametrize(
    "kind",
    [*SMOOTHED[:1], *(pytest.param(kind, marks=pytest.mark.costly) for kind in SMOOTHED[1:])],
)
@pytest.mark.parametrize("sample", USUAL, ids=identity)
def test_beside_few_classes_many_that_are_alike(sample, kind, isa):
    name, options = sample
    for temperature in (1.0, 1.3):
        for p, q, truth in smoothed_rows(kind, temperature):
            value, gradients = kldiv.value_and_grad(
                getattr(kldiv, name), p, q, wrt=("p", "q"), temperature=temperature, **options
            )
            true_value = truth.value(name, **options)
            stored = true_value < 1e30
            np.testing.assert_allclose(value[stored], true_value[stored], rtol=1e-6, atol=1e-18)
            for wrt, gradient in zip("pq", gradients, strict=True):
                true = truth.gradient(name, wrt, **options)
                off, norm = (
                    np.linalg.norm(each[stored], axis=-1) for each in (gradient - true, true)
                )
                assert np.all(off <= 1e-6 * np.maximum(norm, 1e-6)), (temperature, wrt, off / norm)


@pytest.mark.parametrize("kind", SMOOTHED)
def test_entropies_and_comparisons_of_such_rows(kind, isa):
    fields = ("kl", "reverse_kl", "jensen_shannon", "total_variation", "entropy_p", "entropy_q")
    for p, q, _ in smoothed_rows(kind, 1.0):
        wide = [rows.astype(np.float64) for rows in (p, q)]
        found, expected = kldiv.compare(p, q), kldiv.compare(*wide)
        for field in fields:
            np.testing.assert_allclose(
                getattr(found, field),
                getattr(expected, field),
                rtol=1e-6,
                atol=1e-18,
                err_msg=field,
            )
        found, expected = (kldiv.value_and_grad(kldiv.entropy, rows)[1] for rows in (p, wide[0]))
        off, norm = (np.linalg.norm(each, axis=-1) for each in (found - expected, expected))
        assert np.all(off <= 1e-6 * np.maximum(norm, 1e-6)), off / norm


@pytest.mark.parametrize("temperature", [0.1, 0.01, 0.001])
def test_kl_of_few_digits_after_division_by_the_temperature(temperature, isa):
    """Log-ratios are rounded by a part of the offset, and gradients by that over T."""
    rng = np.random.default_rng(3)
    p, q = rng.standard_normal((2, 4, 300))
    p[:, 43] += [36, 36, 9, 14]
    q += [[200], [-60], [200], [30]]
    p, q = ((temperature * rows).astype(np.float32) for rows in (p, q))
    truth = oracle.wide(p, q, temperature=temperature)
    for name, wrt in (("kl", "p"), ("reverse_kl", "q"), ("kl", "q")):
        rows = (p, q) if name == "kl" else (q, p)
        function = getattr(kldiv, name)
        _, gradient = kldiv.value_and_grad(function, *rows, wrt=wrt, temperature=temperature)
        true = truth.gradient("kl", "p" if (name, wrt) != ("kl", "q") else "q")
        off, norm = (np.linalg.norm(each, axis=-1) for each in (gradient - true, true))
        assert np.all(off <= 1e-6 * np.maximum(norm, 1e-6)), (name, wrt, off / norm)


def test_a_class_beside_which_nothing_is_left(isa):
    """The others have less than float64 has numbers for."""
    p = np.full((1, 2_000), -1e4, np.float32)
    p[0, 5] = 0
    q = 2 * np.random.default_rng(1).standard_normal((1, 2_000)).astype(np.float32)
    truth = oracle.wide(p, q)
    for name, options in (("jensen_shannon", {"beta": 0.5}), ("squared_hellinger", {})):
        function = getattr(kldiv, name)
        _, gradients = kldiv.value_and_grad(function, p, q, wrt=("p", "q"), **options)
        for gradient, wrt in zip(gradients, "pq", strict=True):
            true = truth.gradient(name, wrt, **options)
            off, norm = (np.linalg.norm(each) for each in (gradient - true, true))
            assert off <= 1e-6 * max(norm, 1e-6)
