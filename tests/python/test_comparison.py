"""`compare` and its summary."""

import functools
import json
import math

import numpy as np
import pytest

import kldiv
import oracle
from conftest import DTYPES, WIDTHS, softmax
from samples import MORE


def _confidence(z, temperature):
    largest = softmax(z.astype(np.float64) / temperature).max(-1)
    return largest.astype(np.float64 if z.dtype == np.float64 else np.float32)


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
            "confidence_p": _confidence(p, temperature),
            "confidence_q": _confidence(q, temperature),
            "nll_p": kldiv.cross_entropy(p, labels, temperature=temperature),
            "nll_q": kldiv.cross_entropy(q, labels, temperature=temperature),
        }
        for name, value in expected.items():
            np.testing.assert_allclose(getattr(c, name), value, rtol=2e-6, err_msg=name)
            assert getattr(c, name).dtype == value.dtype
        wide = (p.astype(np.float64) / temperature, q.astype(np.float64) / temperature)
        picked = [np.take_along_axis(softmax(x), labels[:, None], -1)[:, 0] for x in wide]
        np.testing.assert_allclose(c.delta_p, picked[1] - picked[0], rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("noise", [0.1, 1.0, 9.0])
def test_more_divergences_have_the_bits_of_their_functions(isa, rng, noise):
    p = rng.normal(0, 3, (3, 5000)).astype(np.float32)
    q = (p + noise * rng.normal(size=p.shape)).astype(np.float32)
    p[1, :40] = q[1, :40] = -np.inf
    q[2, 7] = np.nan
    extra = [functools.partial(getattr(kldiv, name), **options) for name, options in MORE]
    found = kldiv.compare(p, q, extra=extra, where=[True, True, True]).extra
    assert len(found) == len(MORE)
    for (name, options), one, values in zip(MORE, extra, found.values(), strict=True):
        with np.errstate(all="ignore"):
            assert np.array_equal(values, one(p, q), equal_nan=True), (name, options)


def test_more_divergences_in_tables(rng):
    p, q = rng.normal(0, 2, (2, 2, 3, 50))
    mask = [[True, False, True], [True, True, True]]
    extra = [kldiv.chi_squared, functools.partial(kldiv.renyi, alpha=2)]
    found = kldiv.compare(p, q, extra=extra, where=mask)
    assert list(found.extra) == ["chi_squared", "renyi(alpha=2)"]
    assert found.extra["chi_squared"][0, 1] == 0
    frame = found.to_frame()
    values = kldiv.chi_squared(p, q)
    np.testing.assert_array_equal(frame["chi_squared"], values[np.array(mask)])
    np.testing.assert_array_equal(found[1].extra["chi_squared"], values[1])
    summary = found.summary()
    assert float(summary.extra["chi_squared"]) == pytest.approx(values[np.array(mask)].mean())
    assert "mean renyi(alpha=2)" in str(summary)
    assert summary.as_dict()["extra"]["chi_squared"]["rows"] == 5


@pytest.mark.parametrize(
    ("extra", "error", "words"),
    [
        ([np.sum], TypeError, "takes a divergence of kldiv"),
        (["chi_squared"], TypeError, "pass kldiv.chi_squared"),
        ("chi_squared", TypeError, "a list of divergences"),
        (kldiv.chi_squared, TypeError, "a list of divergences"),
        ([functools.partial(kldiv.renyi, 1)], TypeError, "keywords only"),
        ([functools.partial(kldiv.renyi, beta=1)], TypeError, "'beta' for renyi"),
        ([functools.partial(kldiv.renyi, alpha=-1)], ValueError, "alpha"),
        ([kldiv.jeffreys, kldiv.jeffreys], ValueError, "jeffreys twice"),
    ],
)
def test_more_that_is_no_divergence_is_refused(extra, error, words):
    with pytest.raises(error, match=words):
        kldiv.compare(np.zeros((2, 3)), np.zeros((2, 3)), extra=extra)


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
    # Each mean is over its own finite rows.
    assert s.kl.mean == pytest.approx(c.kl[[2, 4]].mean(), rel=1e-7, abs=0)
    assert s.reverse_kl.mean == pytest.approx(c.reverse_kl[[1, 4]].mean(), rel=1e-7, abs=0)
    assert s.jensen_shannon.mean == pytest.approx(
        c.jensen_shannon[[1, 2, 4]].mean(), rel=1e-7, abs=0
    )
    assert (s.kl.rows, s.reverse_kl.rows, s.jensen_shannon.rows, s.same_top.rows) == (2, 2, 3, 3)
    assert s.kl_maximum == s.kl_percentiles[99] == np.inf
    assert s.kl_minimum == min(c.kl[[2, 4]])
    assert s.kl_percentiles[50] == sorted(c.kl[[1, 2, 4]])[1]
    lines = dict(s.lines())
    assert lines["rows with NaN (left out)"] == "2"
    assert lines["rows with infinite values"] == "2"
    assert lines["mean KL(p‖q)"].endswith(" over 2 rows, infinite in 1")
    assert "over" not in lines["mean Jensen–Shannon"]
    assert lines["KL(p‖q), maximum"] == "inf"
    found = json.loads(json.dumps(s.as_dict(), allow_nan=False))
    assert float(found["kl_maximum"]) == np.inf
    assert found["kl"]["rows"] == 2


def test_classes_masked_on_one_side_leave_the_other_direction(rng):
    p = rng.normal(0, 3, (8, 40))
    q = p + rng.normal(0, 0.1, p.shape)
    p[:, 37:] = -np.inf
    c = kldiv.compare(p, q, rng.integers(0, 37, 8))
    s = c.summary()
    assert s.kl.mean == pytest.approx(c.kl.mean())
    assert (s.kl.rows, s.reverse_kl.rows, s.rows_infinite) == (8, 0, 8)
    assert dict(s.lines())["mean KL(q‖p)"] == "infinite in all 8 rows"
    assert s.as_dict()["reverse_kl"] == {"mean": None, "standard_error": None, "rows": 0}
    assert s.perplexity_q.mean == pytest.approx(math.exp(c.nll_q.mean()))


def test_rows_without_a_label(rng):
    p, q = rng.normal(0, 1, (2, 6, 20)).astype(np.float32)
    labels = np.array([3, -100, 5, 19, -100, 77])
    where = np.array([True, True, True, True, False, False])
    c = kldiv.compare(p, q, labels, where=where)
    full = kldiv.compare(p, q, [3, 0, 5, 19, 0, 0])
    assert np.array_equal(c.kl[:4], full.kl[:4])
    assert c.top1_p.tolist()[:4] == full.top1_p.tolist()[:4]
    for name in ("nll_p", "nll_q", "delta_p"):
        expected = np.where(where, getattr(full, name), 0)
        expected[1] = np.nan
        np.testing.assert_array_equal(getattr(c, name), expected)
    s = c.summary()
    assert (s.rows, s.rows_nan, s.rows_labelled, s.kl.rows, s.nll_q.rows) == (4, 0, 3, 4, 3)
    assert s.nll_q.mean == pytest.approx(full.nll_q[[0, 2, 3]].mean())
    assert dict(s.lines())["rows with a label"] == "3"
    assert "over" not in dict(s.lines())["perplexity of q"]
    same = kldiv.compare(p, q, np.where(labels == -100, 255, labels).astype(np.uint8),
                         ignore_index=255, where=where)  # fmt: skip
    np.testing.assert_array_equal(same.nll_q, c.nll_q)
    with pytest.raises(IndexError, match=r"label -100 in row 1 .* mask the row with where"):
        kldiv.compare(p, q, labels, ignore_index=None, where=where)
    with pytest.raises(IndexError, match="label 77 in row 5"):
        kldiv.compare(p, q, labels)


@pytest.mark.parametrize("dtype", DTYPES)
def test_spaces(rng, dtype):
    z = rng.normal(0, 2, (2, 4, 30))
    z[0, 0, 3] = z[1, 0, 3] = -np.inf
    probs = softmax(z).astype(DTYPES[dtype])
    wide = probs.astype(np.float64)
    with np.errstate(divide="ignore"):
        ln = np.log(wide)
    expected = kldiv.compare(*ln)
    found = kldiv.compare(*probs, space="probs")
    assert found.kl.dtype == (np.float64 if dtype == "float64" else np.float32)
    for name in ("kl", "reverse_kl", "jensen_shannon", "entropy_q"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-6)
    # Rows are divided by their sum, and the temperature is of logits.
    found = kldiv.compare(3 * wide[0], 1.5 * ln[1], space=("probs", "logits"), temperature=1.5)
    np.testing.assert_allclose(found.kl, expected.kl, rtol=1e-12)
    found = kldiv.compare(1.5 * ln[0], ln[1] - 4, space=("logits", "log_probs"), temperature=1.5)
    np.testing.assert_allclose(found.kl, expected.kl, rtol=1e-12)
    with pytest.raises(ValueError, match="temperature"):
        kldiv.compare(*probs, space="probs", temperature=2.0)


def test_negative_probabilities(rng):
    p = softmax(rng.normal(size=(2, 3, 5)))
    p[0, 1, 2], p[1, 2, 4] = -0.25, -0.125
    where = np.ones((2, 3), bool)
    with pytest.raises(ValueError, match=r"q holds the negative probability -0.25 in row \(0, 1\)"):
        kldiv.compare(np.abs(p), p, space="probs", where=where)
    where[0, 1] = False
    with pytest.raises(kldiv.NegativeProbabilityError, match=r"-0.125 in row \(1, 2\)") as caught:
        kldiv.compare(p, p, space="probs", where=where)
    assert (caught.value.argument, caught.value.row, caught.value.value) == ("p", (1, 2), -0.125)
    where[1, 2] = False
    assert np.isfinite(kldiv.compare(p, p, space="probs", where=where).kl).all()


def test_statistics_of_any_magnitude():
    for factor in (1.0, 1e300, 1e-300):
        s = kldiv.Statistic.of(np.array([1.0, 2.0, 4.0, np.inf, np.nan]) * factor)
        assert s.rows == 3
        assert s.mean == pytest.approx(7 / 3 * factor)
        assert s.standard_error == pytest.approx(math.sqrt(7 / 9) * factor)


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
