"""Rows that few classes dominate, and rows with an offset: f32 lanes keep their digits there."""

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

OFFSETS = [0, 20, -200]
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
        p[row, 4_090 : 4_090 + 2 * len(tops) : 2] = tops
    q = share * p + scale * noise
    if student == "another":
        q[:, 17] += [0, 8, 14, 14, 20, 20]
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
