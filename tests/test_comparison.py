"""`compare` and its summary."""

import math

import numpy as np
import pytest

import kldiv
import oracle
from conftest import DTYPES, WIDTHS, softmax


@pytest.mark.parametrize("dtype", DTYPES)
def test_fields_are_the_functions(isa, rng, dtype):
    p, q = rng.normal(0, 2, (2, 4, 700)).astype(DTYPES[dtype])
    labels = rng.integers(0, 700, 4)
    for temperature in (1.0, 1.7):
        c = kldiv.compare(p, q, labels, temperature=temperature)
        expected = {
            "kl": kldiv.kl(p, q, temperature=temperature),
            "reverse_kl": kldiv.reverse_kl(p, q, temperature=temperature),
            "jensen_shannon": kldiv.jensen_shannon(p, q, temperature=temperature),
            "total_variation": kldiv.total_variation(p, q, temperature=temperature),
            "entropy_p": kldiv.entropy(p, temperature=temperature),
            "entropy_q": kldiv.entropy(q, temperature=temperature),
            "nll_p": kldiv.cross_entropy(p, labels, temperature=temperature),
            "nll_q": kldiv.cross_entropy(q, labels, temperature=temperature),
        }
        for name, value in expected.items():
            np.testing.assert_allclose(getattr(c, name), value, rtol=2e-6, err_msg=name)
            assert getattr(c, name).dtype == value.dtype
        wide = (p.astype(np.float64) / temperature, q.astype(np.float64) / temperature)
        picked = [np.take_along_axis(softmax(x), labels[:, None], -1)[:, 0] for x in wide]
        np.testing.assert_allclose(c.delta_p, picked[1] - picked[0], rtol=1e-4, atol=1e-8)


def test_widths_and_peaked_rows(isa, rng):
    for width in WIDTHS[1:]:
        p, q = rng.normal(0, 3, (2, 2, width)).astype(np.float32)
        p[1, 0] += 30
        c = kldiv.compare(p, q)
        for name in ("kl", "reverse_kl", "jensen_shannon", "total_variation"):
            options = {"beta": 0.5} if name == "jensen_shannon" else {}
            expected = oracle.wide_divergence(name, p, q, **options).astype(float)
            np.testing.assert_allclose(getattr(c, name), expected, rtol=1e-6, atol=1e-30)
        np.testing.assert_allclose(
            c.entropy_p, oracle.wide_entropy(p).astype(float), rtol=1e-6, atol=1e-30
        )


def test_top_classes_are_the_first_of_several(isa):
    p = np.zeros((3, 9000), np.float16)
    q = p.copy()
    p[0, [5, 8000]] = 1
    q[0, [8000]] = 1
    p[1, 8999] = 2
    q[1, 8999] = 3
    c = kldiv.compare(p, q)
    assert c.top1_p.tolist() == [5, 8999, 0]
    assert c.top1_q.tolist() == [8000, 8999, 0]
    assert c.same_top.tolist() == [False, True, True]
    assert c.nll_p is None
    assert c.delta_p is None


def test_shapes_and_axes(rng):
    p, q = rng.normal(0, 1, (2, 3, 11, 4))
    labels = rng.integers(0, 11, (3, 4))
    c = kldiv.compare(p, q, labels, axis=1)
    assert c.kl.shape == c.top1_p.shape == c.delta_p.shape == c.where.shape == (3, 4)
    one = kldiv.compare(p[1, :, 2], q[1, :, 2], labels[1, 2])
    assert one.kl.shape == ()
    assert one.kl == c.kl[1, 2]
    assert one.summary().rows == 1


def test_rows_that_cannot_be_compared_are_counted_and_left_out(rng):
    p, q = rng.normal(0, 1, (2, 6, 20)).astype(np.float32)
    p[0, 3] = np.nan
    q[1, 4] = -np.inf
    p[2, 4] = -np.inf
    p[3, 0] = np.inf
    where = np.array([True, True, True, True, True, False])
    c = kldiv.compare(p, q, where=where)
    assert np.isnan(c.kl[[0, 3]]).all()
    assert c.kl[1] == c.reverse_kl[2] == np.inf
    assert c.kl[5] == 0
    assert c.top1_p.tolist()[0] == c.top1_p.tolist()[5] == -1
    s = c.summary()
    assert (s.rows, s.rows_nan, s.rows_infinite) == (5, 2, 2)
    assert s.kl.mean == pytest.approx(c.kl[4], rel=1e-7)
    assert "rows with NaN (left out)" in str(s)
    assert "rows with infinite values (left out)" in str(s)


def test_summary_is_the_textbook_statistic(rng):
    p, q = rng.normal(0, 1, (2, 50, 30))
    labels = rng.integers(0, 30, 50)
    c = kldiv.compare(p, q, labels)
    s = c.summary()
    n = 50
    assert s.kl.mean == pytest.approx(c.kl.mean())
    error = math.sqrt((np.square(c.kl).mean() - c.kl.mean() ** 2) / (n - 1))
    assert s.kl.standard_error == pytest.approx(error)
    assert s.kl_percentiles[90] == pytest.approx(np.percentile(c.kl, 90))
    share = c.same_top.mean()
    assert s.same_top.standard_error == pytest.approx(math.sqrt(share * (1 - share) / (n - 1)))
    assert s.perplexity_q.mean == pytest.approx(math.exp(c.nll_q.mean()))
    html = s._repr_html_()
    assert html.startswith("<table>")
    assert "mean KL(p‖q)" in html
    assert s.as_dict()["kl"]["mean"] == s.kl.mean


def test_an_empty_comparison():
    s = kldiv.compare(np.empty((0, 5)), np.empty((0, 5))).summary()
    assert s.rows == 0
    assert math.isnan(s.kl.mean)
    assert s.as_dict()["kl"]["mean"] is None
    assert "nan" in str(s)
