"""Bounds of divergences of top-k rows: the formulas, and the truth within them."""

import doctest
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kldiv
import kldiv.evaluation.bounds
from kldiv.evaluation.bounds import ROUNDING, bounds
from kldiv.evaluation.dumps.protocol import TopKBlock
from kldiv.evaluation.dumps.server_json.texts import id_of_token

DEMO = Path(kldiv.__file__).parent / "demo"
BOUNDS = ("kl_lower", "reverse_kl_lower", "total_variation_lower", "total_variation_upper")


def listed(*rows, at_most=None):
    """Rows of {id: probability}, with nothing known of what they do not list unless it is given."""
    width = max(map(len, rows))
    ids = np.full((len(rows), width), -1)
    probs = np.zeros((len(rows), width))
    for row, entries in enumerate(rows):
        ids[row, : len(entries)] = list(entries)
        probs[row, : len(entries)] = list(entries.values())
    with np.errstate(divide="ignore"):
        log_probs = np.log(probs)
    cap = None if at_most is None else np.log(np.full(len(rows), at_most))
    return TopKBlock(ids, log_probs, ids[:, 0], cap)


def served(logits, k, labels=None):
    """What a server lists: the k most probable classes and the label, in float32."""
    log_probs = np.float32(kldiv.log_softmax(np.float64(logits))).astype(np.float64)
    ids = np.argsort(-log_probs, axis=1, kind="stable")[:, :k]
    if labels is not None:
        again = (ids == labels[:, None]).any(axis=1)
        ids = np.concatenate([ids, np.where(again, -1, labels)[:, None]], axis=1)
    values = np.take_along_axis(log_probs, np.maximum(ids, 0), axis=1)
    values[ids < 0] = -np.inf
    return TopKBlock(ids, values, ids[:, 0], values[:, k - 1])


def within(found, truth, slack=1e-12):
    """Whether bounds hold in every row, with the truth in float64."""
    tv = truth["total_variation"]
    return bool(
        (found["kl_lower"] <= truth["kl"] * (1 + 1e-9) + slack).all()
        and (found["reverse_kl_lower"] <= truth["reverse_kl"] * (1 + 1e-9) + slack).all()
        and (found["total_variation_lower"] <= tv + slack).all()
        and (found["total_variation_upper"] >= tv - slack).all()
    )


def truth_of(p, q):
    """The divergences of rows of logits, by their definitions."""
    p, q = (kldiv.log_softmax(np.float64(x)) for x in (p, q))
    with np.errstate(invalid="ignore"):
        terms = np.where(p > -np.inf, np.exp(p) * (p - q), 0.0)
        reverse = np.where(q > -np.inf, np.exp(q) * (q - p), 0.0)
    return {
        "kl": terms.sum(axis=1),
        "reverse_kl": reverse.sum(axis=1),
        "total_variation": 0.5 * np.abs(np.exp(p) - np.exp(q)).sum(axis=1),
    }


def test_the_example():
    assert doctest.testmod(kldiv.evaluation.bounds).failed == 0


def test_the_formulas_of_classes_listed_on_both_sides():
    p = {7: 0.5, 1: 0.2, 4: 0.1}
    q = {1: 0.3, 7: 0.25, 4: 0.05}
    found = bounds(listed(p), listed(q), np.array([1]))
    rest_p, rest_q = 0.2, 0.4
    kl = sum(p[i] * np.log(p[i] / q[i]) for i in p) + rest_p * np.log(rest_p / rest_q)
    reverse = sum(q[i] * np.log(q[i] / p[i]) for i in p) + rest_q * np.log(rest_q / rest_p)
    gaps = sum(abs(p[i] - q[i]) for i in p)
    expected = {
        "kl_lower": kl,
        "reverse_kl_lower": reverse,
        "total_variation_lower": (gaps + abs(rest_p - rest_q)) / 2,
        "total_variation_upper": (gaps + rest_p + rest_q) / 2,
        "coverage_p": 0.8,
        "coverage_q": 0.6,
        "top1_p": 7,
        "top1_q": 1,
        "nll_p": -np.log(0.2),
        "nll_q": -np.log(0.3),
    }
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        # What float32 leaves open.
        assert found[name].item() == pytest.approx(value, abs=3 * ROUNDING)
    assert found["kl_lower"] < kl
    assert found["total_variation_upper"] > expected["total_variation_upper"]


def test_classes_listed_on_one_side():
    # Without a common class the formula says nothing; but q has at most 0.1 left for p's classes.
    p, q = {1: 0.6, 2: 0.3}, {3: 0.9}
    for first, second, tv, kl in (
        # All of p's mass outside of q's class, at least 0.9, against 0.1 of q.
        (listed(p), listed(q), 0.8, 0.9 * np.log(0.9 / 0.1) + 0.1 * np.log(0.1 / 0.9)),
        # q's unlisted classes have no more than 0.01 each.
        (listed(p), listed(q, at_most=0.01), 0.88, None),
    ):
        found = bounds(first, second)
        assert found["total_variation_lower"].item() == pytest.approx(tv, abs=1e-5)
        if kl is None:
            kl = sum(x * np.log(x / 0.01) - x + 0.01 for x in (0.6, 0.3))
            kl += 0.1 * np.log(0.1 / 0.9) - 0.1 + 0.9
        assert found["kl_lower"].item() == pytest.approx(kl, abs=1e-5)
        assert found["total_variation_upper"] == 1.0
        assert found["coverage_p"] == found["coverage_q"] == 0.0


def test_no_mass_left_and_none_at_all():
    half = {1: 0.5, 2: 0.5}
    # p's other half may be where q has its own.
    assert bounds(listed({1: 0.5}), listed(half))["kl_lower"] == 0.0
    # Rounding may be what makes a rest 0: large, but not infinite.
    found = bounds(listed({1: 0.5}), listed({1: 1.0}))
    assert 3.0 < found["kl_lower"] < np.inf
    assert found["reverse_kl_lower"].item() == pytest.approx(np.log(2), abs=1e-5)
    # A probability that is said to be 0.
    found = bounds(listed(half), listed({1: 1.0, 2: 0.0}))
    assert found["kl_lower"] == np.inf
    assert found["reverse_kl_lower"].item() == pytest.approx(np.log(2), abs=1e-5)
    assert found["total_variation_lower"].item() == pytest.approx(0.5, abs=1e-5)
    # Nothing is known of a row.
    found = bounds(listed({}, {1: 1.0}), listed({1: 1.0}, {}), np.array([1, 1]))
    assert found["kl_lower"].tolist() == found["reverse_kl_lower"].tolist() == [0.0, 0.0]
    assert found["total_variation_lower"].tolist() == [0.0, 0.0]
    assert found["total_variation_upper"].tolist() == [1.0, 1.0]
    np.testing.assert_array_equal(found["nll_p"], [np.nan, 0.0])


def test_sums_above_one_by_rounding():
    p = listed({1: 0.7 * 1.003, 2: 0.3 * 1.003})
    found = bounds(p, listed({1: 0.7, 2: 0.3}))
    assert found["kl_lower"] == found["total_variation_lower"] == 0.0
    assert found["coverage_p"] == 1.0
    above = TopKBlock(np.array([[1]]), np.array([[1e-4]]), np.array([1]))
    found = bounds(above, listed({1: 1.0}), np.array([1]))
    assert found["kl_lower"] == found["total_variation_lower"] == found["nll_p"] == 0.0


def test_a_model_against_itself(rng):
    logits = rng.normal(0, 4, (50, 40)).astype(np.float32)
    rows = served(logits, 5)
    for p, q in ((rows, rows), (logits, rows), (rows, logits), (served(logits, 3), rows)):
        found = bounds(p, q)
        for name in BOUNDS[:3]:
            assert (found[name] == 0.0).all()
        np.testing.assert_array_equal(found["top1_p"], found["top1_q"])


@pytest.mark.parametrize("candidate", ["int8", "int4"])
@pytest.mark.parametrize("k", [1, 5, 20, 100])
def test_real_rows(candidate, k):
    p, q = (np.load(DEMO / f"{name}.npy").astype(np.float64) for name in ("reference", candidate))
    labels = np.load(DEMO / "labels.npy")
    truth = truth_of(p, q)
    first, second = served(p, k, labels), served(q, k, labels)
    if k > 1:
        assert (np.sort(first.ids) != np.sort(second.ids)).any()
    dense = kldiv.compare(p, q, labels)
    for one, other in ((first, second), (p, second), (first, q)):
        found = bounds(one, other, labels)
        assert within(found, truth)
        assert (found["kl_lower"] > 0.0).mean() > 0.9
        np.testing.assert_array_equal(found["top1_p"], dense.top1_p)
        np.testing.assert_array_equal(found["top1_q"], dense.top1_q)
        np.testing.assert_allclose(found["nll_p"], dense.nll_p, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(found["nll_q"], dense.nll_q, rtol=1e-6, atol=1e-9)
    # What all classes of one side add is not less.
    assert (bounds(p, second)["kl_lower"] >= bounds(first, second)["kl_lower"] - 1e-6).all()


@settings(max_examples=150, deadline=None)
@given(
    classes=st.integers(2, 12),
    k_p=st.integers(1, 12),
    k_q=st.integers(1, 12),
    seed=st.integers(0, 2**32),
    scale=st.sampled_from([0.01, 1.0, 5.0, 50.0]),
    apart=st.sampled_from([1e-7, 1e-3, 1.0, 30.0]),
)
def test_any_rows(classes, k_p, k_q, seed, scale, apart):
    rng = np.random.default_rng(seed)
    p = rng.normal(0, scale, (8, classes))
    q = p + rng.normal(0, apart, p.shape)
    p[rng.random(p.shape) < 0.05] = -np.inf
    q[rng.random(q.shape) < 0.05] = -np.inf
    p[:, 0], q[:, -1] = 0.0, 0.0
    labels = rng.integers(-1, classes, 8)
    truth = truth_of(p, q)
    first, second = (
        served(x, min(k, classes), np.maximum(labels, 0)) for x, k in ((p, k_p), (q, k_q))
    )
    for one, other in ((first, second), (p, second), (first, q)):
        found = bounds(one, other, labels)
        assert within(found, truth)
        assert (found["total_variation_lower"] <= found["total_variation_upper"] + 1e-6).all()


def test_rows_do_not_depend_on_each_other(rng):
    p, q = rng.normal(0, 3, (2, 9, 300)).astype(np.float32)
    labels = rng.integers(300, size=9)
    first, second = served(p, 20, labels), served(q, 20, labels)
    wide = TopKBlock(
        np.pad(second.ids, ((0, 0), (0, 37)), constant_values=-1),
        np.pad(second.log_probs, ((0, 0), (0, 37)), constant_values=-np.inf),
        second.top1,
        second.at_most,
    )
    for one, other, padded in ((first, second, wide), (p, second, wide)):
        whole = bounds(one, other, labels)
        single = [bounds(one[i : i + 1], padded[i : i + 1], labels[i : i + 1]) for i in range(9)]
        for name, column in whole.items():
            np.testing.assert_array_equal(column, [x[name].item() for x in single])


def test_dense_spaces_and_dtypes(rng):
    import ml_dtypes

    logits = rng.normal(0, 3, (6, 50)).astype(ml_dtypes.bfloat16)
    rows = served(rng.normal(0, 3, (6, 50)), 5)
    log_probs = kldiv.log_softmax(logits.astype(np.float64))
    expected = bounds(logits, rows)
    for p, space in ((log_probs, "log_probs"), (np.exp(log_probs), "probs")):
        found = bounds(p, rows, space=space)
        for name in BOUNDS:
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-9, atol=1e-12)


def test_rows_without_a_distribution(rng):
    p = rng.normal(0, 3, (4, 30))
    rows = served(p, 5)
    p[0, 3], p[1, 4], p[2] = np.nan, np.inf, -np.inf
    for one, other, side in ((p, rows, "p"), (rows, p, "q")):
        found = bounds(one, other, rows.top1)
        for name in (*BOUNDS, "coverage_p", "coverage_q", f"nll_{side}"):
            assert np.isnan(found[name]).tolist() == [True, True, True, False]
        assert (found[f"top1_{side}"] < 0).tolist() == [True, True, True, False]


def test_what_is_refused(rng):
    p = rng.normal(size=(2, 10))
    rows = served(p, 3)
    texts = TopKBlock(np.full((2, 1), id_of_token(" the")), np.full((2, 1), -1.0), np.zeros(2, int))

    def changed(**fields):
        values = {"ids": rows.ids.copy(), "log_probs": rows.log_probs.copy(), "top1": rows.top1}
        for name, (place, value) in fields.items():
            values[name][place] = value
        return TopKBlock(**values)

    for one, other, message in (
        (p, p, "both have every class"),
        (p[:1], rows, "p has 1 rows and q has 2"),
        (p[0], rows, "p has 10 rows"),
        (rows, changed(log_probs=((1, 2), np.nan)), "row 1 of q: a log-probability is NaN"),
        (changed(log_probs=((1, 0), 0.5)), p, "row 1 of p: 0.5 is no log-probability"),
        (changed(log_probs=((1, 0), -0.001)), rows, "row 1 of p: probabilities add up to"),
        (changed(ids=((0, 1), rows.ids[0, 0])), rows, "row 0 of p: id .* is there twice"),
        (p[:, :4], changed(ids=((1, 0), 7)), r"row \d has token \d; the other side has 4 classes"),
        (rows, texts, "q has tokens by their text and p by their ids"),
        (p, texts, "row 0 has a token by its text; the other side has 10 classes by id"),
    ):
        with pytest.raises(ValueError, match=message):
            bounds(one, other)
    with pytest.raises(ValueError, match="label 10 of row 1 is not below 10 classes"):
        bounds(p, rows, np.array([1, 10]))
    with pytest.raises(ValueError, match=r"labels has shape \(1,\); expected \(2,\)"):
        bounds(rows, rows, np.array([1]))
