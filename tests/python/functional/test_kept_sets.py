"""Log-probabilities and entropy over kept sets, against the masked dense computation."""

import numpy as np
import pytest

import kldiv
from conftest import DTYPES
from oracle import mp

RULES = [
    {"top_k": 1},
    {"top_k": 7},
    {"top_p": 1e-9},
    {"top_p": 0.8},
    {"top_p": 1.0},
    {"min_p": 0.0},
    {"min_p": 0.05},
    {"min_p": 1.0},
    {"top_k": 50, "top_p": 0.9},
    {"min_p": 0.02, "top_k": 30, "top_p": 0.7},
]


def kept_of(z, temperature, *, top_k=None, top_p=None, min_p=None):
    """Which classes of one row a sampler keeps, from the definitions."""
    z = z.astype(np.float64)
    p = np.exp((z - z.max()) / temperature)
    keep = z > -np.inf
    if min_p is not None:
        keep &= p >= min_p * p.max()
    if top_k is not None:
        keep &= z >= np.sort(z)[-top_k]
    if top_p is not None and top_p < 1:
        levels = np.unique(z[keep])[::-1]
        held = np.cumsum([p[keep & (z == level)].sum() for level in levels])
        keep &= z >= levels[np.argmax(held >= top_p * held[-1])]
    return keep


def dense(z, keep, temperature):
    """Log-probabilities over the classes kept, entropy, mass and gradient of the entropy."""
    scaled = z.astype(np.float64) / temperature
    weights = np.exp(scaled - scaled.max())
    survivors = np.where(keep, weights, 0)
    p = survivors / survivors.sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        ln_p = np.where(keep, scaled - scaled.max() - np.log(survivors.sum()), -np.inf)
        entropy = -np.where(p > 0, p * ln_p, 0).sum()
        gradient = np.where(keep & (p > 0), -p * (ln_p + entropy) / temperature, 0)
    return ln_p, entropy, survivors.sum() / weights.sum(), gradient


def logits(rng, dtype, shape=(6, 700)):
    z = np.round(rng.normal(0, 3, shape), 1)
    z[0] = 0.0
    z[1, ::3] = -np.inf
    z[2, 5] = 40.0
    z[3] *= 0.01
    return z.astype(DTYPES[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_equal_to_the_masked_dense_computation(dtype, rule, rng, isa):
    z, temperature = logits(rng, dtype), 0.8
    keep = np.array([kept_of(row, temperature, **rule) for row in z])
    inside = np.array([np.flatnonzero(row)[-1] for row in keep])
    # The least probable class is seldom kept.
    outside = np.argmin(z.astype(np.float64), axis=-1)
    expected = [dense(row, own, temperature) for row, own in zip(z, keep, strict=True)]
    options = {"temperature": temperature, "return_mass": True, **rule}
    value, mass = kldiv.gather_log_probs(z, inside, **options)
    tolerance = {"rtol": 1e-6, "atol": 1e-7}
    rows = range(len(z))
    np.testing.assert_allclose(value, [expected[i][0][inside[i]] for i in rows], **tolerance)
    np.testing.assert_allclose(mass, [one[2] for one in expected], **tolerance)
    value = kldiv.gather_log_probs(z, outside, temperature=temperature, **rule)
    np.testing.assert_allclose(value, [expected[i][0][outside[i]] for i in rows], **tolerance)
    (value, mass), gradient = kldiv.value_and_grad(kldiv.entropy, z, **options)
    np.testing.assert_allclose(value, [one[1] for one in expected], **tolerance)
    np.testing.assert_allclose(mass, [one[2] for one in expected], **tolerance)
    np.testing.assert_allclose(gradient, [one[3] for one in expected], **tolerance)
    assert (gradient[~keep] == 0).all()
    if rule.get("top_p") == 1.0:
        assert (mass == 1).all()


def test_named_classes_are_a_kept_set(rng):
    z = logits(rng, "float32")
    keep = np.array([kept_of(row, 1.0, top_p=0.8) for row in z])
    lists = [rng.permutation(np.flatnonzero(row)) for row in keep]
    labels = np.array([one[0] for one in lists])
    ids = np.concatenate([np.sort(one) for one in lists])
    offsets = np.cumsum([0, *map(len, lists)])
    values = kldiv.log_softmax(z)[np.repeat(np.arange(6), np.diff(offsets)), ids]
    held = kldiv.TopK(ids, values, classes=700, offsets=offsets)
    expected = kldiv.gather_log_probs(z, labels, top_p=0.8, return_mass=True)
    for support in (lists, held, [one.tolist() for one in lists]):
        found = kldiv.gather_log_probs(z, labels, support=support, return_mass=True)
        for own, wanted in zip(found, expected, strict=True):
            assert (own == wanted).all()
        assert (kldiv.entropy(z, support=support) == kldiv.entropy(z, top_p=0.8)).all()
    # Over batch axes, as an array and as a TopK.
    square = kldiv.top_k(z.reshape(2, 3, 700), 9)
    for support in (square, square.ids, square.ids.astype(np.uint64), square.ids.tolist()):
        found = kldiv.entropy(z.reshape(2, 3, 700), support=support)
        assert found.shape == (2, 3)
        ordered = np.sort(square.ids.reshape(6, 9))
        assert (found.reshape(6) == kldiv.entropy(z, support=ordered)).all()
    row = kldiv.gather_log_probs(z[4], 3, support=[3, 8])
    np.testing.assert_allclose(row, kldiv.log_softmax(z[4, [3, 8]])[0], rtol=1e-6)


def test_to_the_last_digit():
    z, ids = [3.0, 700.25, -2.5, 699.0, 701.0], [1, 3, 4]
    weights = [mp.exp(mp.mpf(z[i])) for i in ids]
    p = [w / sum(weights) for w in weights]
    value, mass = kldiv.gather_log_probs(z, 3, support=ids, return_mass=True)
    np.testing.assert_allclose(value, float(mp.log(p[1])), rtol=1e-15)
    np.testing.assert_allclose(mass, 1, rtol=1e-15)
    np.testing.assert_allclose(
        kldiv.entropy(z, top_k=3), float(-sum(x * mp.log(x) for x in p)), rtol=1e-14
    )


def test_ties_are_kept_together():
    z = [2.0, 1.0, 1.0, 1.0, 0.0]
    for rule in ({"top_k": 2}, {"top_p": 0.5}, {"min_p": np.exp(-1.0) * (1 - 1e-12)}):
        value = kldiv.gather_log_probs([z] * 5, range(5), **rule)
        assert np.isfinite(value).tolist() == [True, True, True, True, False], rule


def test_the_class_that_reaches_top_p_is_kept():
    # Powers of two: sums are exact.
    z = np.log2([0.5, 0.25, 0.125, 0.125]) * np.log(2)
    for top_p, kept in [(0.5, 1), (0.5 + 1e-9, 2), (0.75, 2), (0.75 + 1e-9, 4)]:
        value = kldiv.gather_log_probs([z] * 4, range(4), top_p=top_p)
        assert np.isfinite(value).sum() == kept, top_p


def test_a_row_alone_has_the_bits_it_has_in_a_batch(rng, threads):
    z = rng.normal(0, 1, (5, 140_000)).astype(np.float32)
    labels = z.argmax(-1)
    for rule in ({"top_p": 0.95}, {"top_k": 5000, "top_p": 0.9}, {"min_p": 1e-3}):
        options = {**rule, "return_mass": True}
        threads(2)
        batch = kldiv.gather_log_probs(z, labels, **options)
        (value, _), gradient = kldiv.value_and_grad(kldiv.entropy, z, **options)
        for count in (1, 3):
            threads(count)
            for row in (0, 4):
                alone = kldiv.gather_log_probs(z[row], labels[row], **options)
                assert [one[row] for one in batch] == list(alone)
                (own, _), slope = kldiv.value_and_grad(kldiv.entropy, z[row], **options)
                assert own == value[row]
                assert (slope == gradient[row]).all()


def test_rows_that_cannot_be_computed_with_and_rows_left_out():
    z = np.array([[0.0, 1.0, 2.0], [0.0, np.nan, 1.0], [-np.inf] * 3, [0.0, 5.0, np.inf]])
    value, mass = kldiv.gather_log_probs(z, [2, 2, 2, 1], top_k=2, return_mass=True)
    assert np.isnan(value).tolist() == np.isnan(mass).tolist() == [False, True, True, True]
    # What lies outside of the classes named is not looked at, but for the mass.
    value, mass = kldiv.gather_log_probs(
        z, [2, 2, 2, 1], support=[[0, 2]] * 3 + [[0, 1]], return_mass=True
    )
    assert np.isnan(value).tolist() == [False, False, True, False]
    assert np.isnan(mass).tolist() == [False, True, True, True]
    # Classes without a probability have none of the mass, and no entropy.
    z[1] = [0.0, -np.inf, -np.inf]
    value, mass = kldiv.gather_log_probs(z[1], 1, support=[1, 2], return_mass=True)
    assert np.isnan(value)
    assert mass == 0
    # Of classes named the set is known: what is not a number is theirs alone.
    _, gradient = kldiv.value_and_grad(kldiv.entropy, z[1:2], support=[[1, 2]])
    np.testing.assert_array_equal(gradient, [[0, np.nan, np.nan]])
    z[1] = [0.0, np.nan, 1.0]
    _, gradient = kldiv.value_and_grad(kldiv.entropy, z[1:2], support=[[0, 1]])
    np.testing.assert_array_equal(gradient, [[np.nan, np.nan, 0]])
    _, gradient = kldiv.value_and_grad(kldiv.entropy, z[1:2], top_p=0.5)
    assert np.isnan(gradient).all()
    where = [True, False, False, False]
    bad = [[0, 2], [7, 7], [], [-1]]
    value, mass = kldiv.gather_log_probs(
        z, [2, 9, 9, 9], support=bad, where=where, return_mass=True
    )
    assert (value[1:] == 0).all()
    assert (mass[1:] == 0).all()
    assert mass[0] < 1
    value, mass = kldiv.entropy(z, top_p=0.9, where=where, reduction="mean", return_mass=True)
    assert value == kldiv.entropy(z[0], top_p=0.9)
    assert mass.shape == (4,)
    assert kldiv.gather_log_probs(z[:1], [-100], top_k=1, return_mass=True) == (0, 0)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"support": [[0, 1], [2, 5]]}, ValueError, "class 5 in row 1 of support is out of range"),
        ({"support": [[0, 1], [2, 2]]}, ValueError, "class 2 in row 1 of support is there twice"),
        ({"support": [[0, 1], []]}, ValueError, "row 1 of support has no class"),
        ({"support": [[0, 1]]}, ValueError, r"support has shape \(1, 2\); expected"),
        ({"support": [[0.0], [1.0]]}, TypeError, "support has dtype float64; expected integers"),
        ({"support": [[0], [1]], "top_k": 2}, ValueError, "and top_k would choose others"),
        ({"top_k": 0}, ValueError, "top_k must be from 1 to 4, the number of classes, got 0"),
        ({"top_k": 5}, ValueError, "top_k must be from 1 to 4, the number of classes, got 5"),
        ({"top_k": 2.5}, TypeError, "top_k must be an integer"),
        ({"top_p": 0.0}, ValueError, "top_p must be above 0 and at most 1, got 0"),
        ({"top_p": np.nan}, ValueError, "top_p must be above 0 and at most 1"),
        ({"min_p": 1.5}, ValueError, "min_p must be from 0 to 1, got 1.5"),
        ({"return_mass": True}, ValueError, "goes with support, top_k, top_p or min_p"),
    ],
    ids=str,
)
def test_bad_options(options, error, message):
    z = np.zeros((2, 4))
    for call in (
        lambda: kldiv.entropy(z, **options),
        lambda: kldiv.gather_log_probs(z, [0, 0], **options),
    ):
        with pytest.raises(error, match=message):
            call()
    out = np.ones((2, 4))
    with pytest.raises(error, match=message):
        kldiv.value_and_grad(kldiv.entropy, z, out=out, **options)
    assert (out == 1).all()


def test_kept_sets_of_other_classes_or_spaces():
    z = np.zeros((2, 4))
    kept = kldiv.TopK([[0, 4], [1, 2]], logits=np.zeros((2, 2)), classes=5)
    with pytest.raises(ValueError, match="support is of 5 classes, but p of 4"):
        kldiv.entropy(z, support=kept)
    with pytest.raises(ValueError, match="kept sets are of logits, and space is 'probs'"):
        kldiv.entropy(z + 0.25, space="probs", top_k=2)
    assert kldiv.entropy([[0.0, -0.5, -9.0]], space="log_probs", normalize=True, top_k=1) == 0


def test_the_gradient_may_overwrite_the_logits_and_the_support(rng):
    z = rng.normal(0, 2, (3, 50))
    _, expected = kldiv.value_and_grad(kldiv.entropy, z, top_p=0.7, grad_output=[1.0, -2.0, 0.5])
    out = z.copy()
    kldiv.value_and_grad(kldiv.entropy, out, top_p=0.7, grad_output=[1.0, -2.0, 0.5], out=out)
    assert (out == expected).all()
    ids = np.tile(np.arange(50), (3, 1))
    _, expected = kldiv.value_and_grad(kldiv.entropy, z, support=ids)
    kldiv.value_and_grad(kldiv.entropy, z, support=ids, out=ids.view(np.float64))
    assert (ids.view(np.float64) == expected).all()
