"""Vocabularies that are padded: `classes`."""

import numpy as np
import pytest

import kldiv
from samples import GENERAL

CLASSES, P_WIDTH, Q_WIDTH = 70, 77, 83


@pytest.fixture
def padded(rng):
    """Rows padded to two widths with what would change everything, were it looked at."""
    p, q = rng.normal(0, 2, (2, 3, 4, CLASSES)).astype(np.float32)
    wide = [np.full((3, 4, width), np.nan, np.float32) for width in (P_WIDTH, Q_WIDTH)]
    for whole, rows in zip(wide, (p, q), strict=True):
        whole[..., :CLASSES] = rows
        whole[0, 0, CLASSES:] = 1e30
    return p, q, *wide


@pytest.mark.parametrize("name", GENERAL)
def test_padding_is_not_scored(padded, name):
    p, q, wide_p, wide_q = padded
    function, options = getattr(kldiv, name), GENERAL[name]
    value, gradients = kldiv.value_and_grad(function, p, q, wrt=("p", "q"), **options)
    found, wide = kldiv.value_and_grad(
        function, wide_p, wide_q, wrt=("p", "q"), classes=CLASSES, **options
    )
    assert np.array_equal(value, found)
    assert np.array_equal(value, function(wide_p, wide_q, classes=CLASSES, **options))
    for gradient, whole, rows in zip(gradients, wide, (wide_p, wide_q), strict=True):
        assert whole.shape == rows.shape
        assert np.array_equal(gradient, whole[..., :CLASSES])
        assert not whole[..., CLASSES:].any()


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("place", ["q", "p", "apart", "strided", "half"])
def test_gradients_where_the_caller_wants_them(padded, axis, place):
    p, q, wide_p, wide_q = padded
    expected = kldiv.value_and_grad(kldiv.kl, p, q)[1]
    wide_p, wide_q = (np.moveaxis(x.copy(), -1, axis) for x in (wide_p, wide_q))
    if place == "p":
        wide_p = np.array(wide_p.take(range(CLASSES), axis))
        wide_p = np.concatenate([wide_p, wide_q.take(range(CLASSES, Q_WIDTH), axis)], axis)
    out = {
        "q": wide_q,
        "p": wide_p,
        "apart": np.ones_like(wide_q),
        "strided": np.ones((*wide_q.shape, 2), np.float32)[..., 0],
        "half": np.ones(wide_q.shape, np.float16),
    }[place]
    if place == "half":
        with pytest.raises(TypeError, match="out has dtype float16"):
            kldiv.value_and_grad(kldiv.kl, wide_p, wide_q, axis=axis, classes=CLASSES, out=out)
        return
    _, gradient = kldiv.value_and_grad(
        kldiv.kl, wide_p, wide_q, axis=axis, classes=CLASSES, out=out
    )
    assert gradient is out
    gradient = np.moveaxis(gradient, axis, -1)
    assert np.array_equal(gradient[..., :CLASSES], expected)
    assert not gradient[..., CLASSES:].any()


def test_compare_of_padded_rows(padded):
    p, q, wide_p, wide_q = padded
    labels = np.full((3, 4), CLASSES - 1)
    plain = kldiv.compare(p, q, labels)
    found = kldiv.compare(wide_p, wide_q, labels, classes=CLASSES)
    for name in ("kl", "entropy_q", "top1_q", "confidence_p", "nll_q"):
        assert np.array_equal(getattr(plain, name), getattr(found, name))
    with pytest.raises(IndexError, match="70"):
        kldiv.compare(wide_p, wide_q, labels + 1, classes=CLASSES)


@pytest.mark.parametrize(
    ("classes", "error", "message"),
    [
        (0, ValueError, "classes is 0, but p has 77 classes"),
        (78, ValueError, "classes is 78, but p has 77 classes"),
        (7.5, TypeError, "classes must be an integer, got 7.5"),
        (None, ValueError, r"p has shape \(3, 4, 77\) but q has shape \(3, 4, 83\)"),
    ],
)
def test_classes_that_are_none(padded, classes, error, message):
    _, _, wide_p, wide_q = padded
    before = wide_q.copy()
    for call in (kldiv.kl, kldiv.compare):
        with pytest.raises(error, match=message):
            call(wide_p, wide_q, classes=classes)
    with pytest.raises(error, match=message):
        kldiv.value_and_grad(kldiv.kl, wide_p, wide_q, classes=classes, out=wide_q)
    assert np.array_equal(before, wide_q, equal_nan=True)
