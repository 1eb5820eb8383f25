"""Matrices of divergences: each number is that of the function of two rows."""

import importlib
import re

import ml_dtypes
import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.special import rel_entr

import kldiv
from conftest import in_space, softmax
from kldiv._kldiv import DIVERGENCES
from samples import ALL, GENERAL, number_of

COMMON = {"space": "logits", "normalize": False, "temperature": 1.0, "axis": -1}


def by_rows(name, p, q, **options):
    """The same by the function of two rows."""
    p, q = np.asarray(p), np.asarray(q)
    shape = p.shape[:1] + q.shape
    left, right = np.broadcast_to(p[:, None], shape), np.broadcast_to(q[None], shape)
    return getattr(kldiv, name)(left, right, **options)


def close_and_far(rng, classes=37):
    """Logits: rows far apart, close by 1e-6 and by 1e-2, the same, and with masked classes."""
    base = rng.normal(0, 2, (9, classes))
    base[1] = base[0] + 1e-6 * rng.normal(size=classes)
    base[2] = base[0] + 1e-2 * rng.normal(size=classes)
    base[3] = base[0]
    base[4, ::3] = -np.inf
    base[5, ::5] = -np.inf
    base[6, 3:] = -np.inf
    base[7] = np.where(np.arange(classes) == 5, 40.0, base[7])
    return base


@pytest.mark.parametrize("name", DIVERGENCES)
def test_each_is_that_of_two_rows(name, rng, isa):
    p = close_and_far(rng)
    q = np.concatenate([p[::2], rng.normal(0, 5, (3, p.shape[1]))])
    for options in ALL[name][:3]:
        found = kldiv.pairwise(getattr(kldiv, name), p, q, **options)
        expected = by_rows(name, p, q, **options)
        np.testing.assert_allclose(found, expected, rtol=2e-13, atol=1e-24)
        alone = kldiv.pairwise(getattr(kldiv, name), p, **options)
        np.testing.assert_allclose(alone, by_rows(name, p, p, **options), rtol=2e-13, atol=1e-24)
        assert (np.diag(alone) == 0).all()


@pytest.mark.parametrize("name", DIVERGENCES)
@pytest.mark.parametrize(
    "spaces", [("probs", "probs"), ("log_probs", "probs"), ("logits", "probs")]
)
@pytest.mark.parametrize("normalize", [False, True])
def test_each_space(name, spaces, normalize, rng):
    options = {"space": spaces, "normalize": normalize, **GENERAL[name]}
    p, q = (in_space(rng.normal(0, 2, (5, 23)), space) for space in spaces)
    q[0] = in_space(np.zeros(23), spaces[1])
    if not normalize:
        # Taken as given, sums and all.
        q[1] *= 1.25
    found = kldiv.pairwise(getattr(kldiv, name), p, q, **options)
    np.testing.assert_allclose(found, by_rows(name, p, q, **options), rtol=2e-12)


@pytest.mark.parametrize("name", ["kl", "jeffreys", "jensen_shannon", "total_variation"])
@pytest.mark.parametrize("normalize", [False, True])
def test_probabilities_that_are_close(name, normalize, rng):
    """As given they are exact, and nothing is lost however close they are."""
    p = rng.dirichlet(np.ones(300), 4)
    near = [p * (1 + step * rng.normal(size=p.shape)) for step in (1e-8, 1e-4, 3e-2)]
    q = np.concatenate([p, *near])
    options = {"space": "probs", "normalize": normalize}
    found = kldiv.pairwise(getattr(kldiv, name), p, q, **options)
    expected = by_rows(name, p, q, **options)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-24)
    assert (np.diag(found[:, :4]) == 0).all()


def test_as_scipy_has_it(rng):
    p, q = rng.dirichlet(np.ones(300), 20), rng.dirichlet(np.full(300, 0.3), 15)
    options = {"space": "probs", "normalize": True}
    found = kldiv.pairwise(kldiv.jensen_shannon, p, q, **options)
    np.testing.assert_allclose(found, cdist(p, q, "jensenshannon") ** 2, rtol=1e-12)
    found = kldiv.pairwise(kldiv.total_variation, p, q, space="probs")
    np.testing.assert_allclose(found, cdist(p, q, "cityblock") / 2, rtol=1e-12)
    found = kldiv.pairwise(kldiv.kl, p, q, space="probs")
    np.testing.assert_allclose(found, rel_entr(p[:, None], q[None]).sum(-1), rtol=1e-12)
    np.testing.assert_allclose(
        kldiv.pairwise(kldiv.squared_hellinger, p, q, **options),
        cdist(np.sqrt(p), np.sqrt(q), "sqeuclidean") / 2,
        rtol=1e-12,
    )


@pytest.mark.parametrize("name", DIVERGENCES)
def test_symmetric_to_the_last_bit_and_nothing_on_the_diagonal(name, rng):
    """Of the parameters at which the table says so."""
    described = DIVERGENCES[name]
    # Beside logits, probabilities that sum to 1 within their rounding only.
    rows = softmax(rng.normal(0, 1, (70, 50)))
    for options in ALL[name]:
        at = described.parameter is not None and number_of(options) == described.symmetric_at
        for numbers, space in [(np.log(rows), "logits"), (rows, "probs")]:
            found = kldiv.pairwise(getattr(kldiv, name), numbers, space=space, **options)
            assert (np.diag(found) == 0).all()
            if described.symmetric or at:
                np.testing.assert_array_equal(found, found.T)


@pytest.mark.parametrize("name", ["jensen_shannon", "reverse_kl", "renyi", "lk_hybrid"])
def test_tiles_and_blocks_meet(name, rng, threads):
    """More rows than a tile, and classes than a block; the same bits for any number of threads."""
    p, q = rng.normal(0, 1, (70, 4100)), rng.normal(0, 2, (33, 4100))
    function, options = getattr(kldiv, name), GENERAL[name]
    threads(1)
    matrix, alone = (
        kldiv.pairwise(function, p, q, **options),
        kldiv.pairwise(function, q, **options),
    )
    np.testing.assert_allclose(matrix, by_rows(name, p, q, **options), rtol=2e-13)
    for number in (2, 5):
        threads(number)
        np.testing.assert_array_equal(kldiv.pairwise(function, p, q, **options), matrix)
        np.testing.assert_array_equal(kldiv.pairwise(function, q, **options), alone)


def test_rows_that_are_none_are_nan(rng):
    p = rng.normal(0, 1, (5, 9))
    p[1, 3], p[2, 0], p[3] = np.nan, np.inf, -np.inf
    found = kldiv.pairwise(kldiv.jensen_shannon, p)
    bad = np.array([False, True, True, True, False])
    np.testing.assert_array_equal(np.isnan(found), bad[:, None] | bad[None, :])
    q = rng.normal(0, 1, (2, 9))
    np.testing.assert_array_equal(np.isnan(kldiv.pairwise(kldiv.kl, q, p)), [bad, bad])


@pytest.mark.parametrize("smallest", [1e-140, 1e-300, 5e-324])
def test_probabilities_next_to_nothing(smallest, rng):
    p = softmax(rng.normal(0, 1, (3, 8)))
    p[0, 2] = smallest
    for name in DIVERGENCES:
        options = {"space": "probs", **GENERAL[name]}
        found = kldiv.pairwise(getattr(kldiv, name), p, p[:2], **options)
        np.testing.assert_allclose(
            found, by_rows(name, p, p[:2], **options), rtol=2e-12, atol=1e-15
        )


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
def test_dtypes_and_layouts(dtype, rng):
    p, q = rng.normal(0, 2, (4, 31)).astype(dtype), rng.normal(0, 2, (3, 31)).astype(dtype)
    found = kldiv.pairwise(kldiv.jeffreys, p, q, temperature=0.5)
    expected = by_rows("jeffreys", p, q, temperature=0.5)
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, rtol=1e-6 if dtype != np.float64 else 2e-13)
    for same in (p[::-1, ::2], np.asfortranarray(p[:, ::2])[::-1]):
        np.testing.assert_array_equal(
            kldiv.pairwise(kldiv.jeffreys, same, temperature=0.5),
            kldiv.pairwise(kldiv.jeffreys, np.ascontiguousarray(p[::-1, ::2]), temperature=0.5),
        )
    np.testing.assert_array_equal(
        kldiv.pairwise(kldiv.jeffreys, p.T, q.T, axis=0, temperature=0.5), found
    )


def test_batch_axes_come_one_after_the_other(rng):
    p, q = rng.normal(0, 1, (2, 3, 5)), rng.normal(0, 1, (4, 5))
    matrix = kldiv.pairwise(kldiv.kl, p, q)
    assert matrix.shape == (2, 3, 4)
    assert matrix[1, 2, 3] == kldiv.pairwise(kldiv.kl, p.reshape(6, 5), q)[5, 3]
    assert kldiv.pairwise(kldiv.kl, p, q[0]).shape == (2, 3)
    assert kldiv.pairwise(kldiv.kl, q[0], q[1]).shape == ()
    assert kldiv.pairwise(kldiv.kl, q[:0]).shape == (0, 0)
    assert kldiv.pairwise(kldiv.kl, q, q[:0]).shape == (4, 0)


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", ">i4"])
def test_counts(dtype, rng):
    counts = rng.integers(0, 100, (6, 12)).astype(dtype)
    counts[2, 3:] = 0
    exact = counts.astype(np.float64)
    for pseudocount in (0, 0.5):
        found = kldiv.pairwise(
            kldiv.jeffreys, counts, counts[::2], space="counts", pseudocount=pseudocount
        )
        assert found.dtype == np.float64
        expected = by_rows(
            "jeffreys",
            exact + pseudocount,
            exact[::2] + pseudocount,
            space="probs",
            normalize=True,
        )
        np.testing.assert_allclose(found, expected, rtol=2e-13, atol=1e-24)


def test_counts_against_probabilities_and_without_any():
    counts = np.array([[1, 1, 2], [0, 0, 0]])
    pair = ("counts", "probs")
    found = kldiv.pairwise(kldiv.kl, counts, [[0.25, 0.25, 0.5]], space=pair)
    np.testing.assert_array_equal(found, [[0.0], [np.nan]])
    pair = ("counts", "logits")
    found = kldiv.pairwise(kldiv.kl, counts[:1], [np.log([1.0, 1.0, 2.0])], space=pair)
    np.testing.assert_allclose(found, [[0.0]], rtol=0, atol=1e-15)
    # Integers beyond all dtypes.
    found = kldiv.pairwise(kldiv.kl, [[2**70, 2**70]], [[1, 1]], space="counts")
    assert 0 <= found.item() < 1e-30


def test_population_stability_index():
    """Σ (a − e) ln(a/e) of shares, as credit scoring defines it."""
    expected, actual = np.array([100, 200, 300, 400]), np.array([150, 150, 350, 350])
    a, e = actual / 1000, expected / 1000
    found = kldiv.pairwise(kldiv.jeffreys, actual, expected, space="counts")
    assert found == pytest.approx(((a - e) * np.log(a / e)).sum(), rel=1e-13, abs=0)


def test_negative_probabilities_are_warned_of(monkeypatch):
    monkeypatch.setattr("kldiv._probabilities._shown", set())
    with pytest.warns(kldiv.NegativeProbabilityWarning, match=r"q holds .* -0\.1 in row 1"):
        found = kldiv.pairwise(kldiv.kl, [[0.5, 0.5]], [[0.5, 0.5], [-0.1, 1.1]], space="probs")
    np.testing.assert_array_equal(np.isnan(found), [[False, True]])


ROWS = np.zeros((2, 3))
COUNTS = np.array([[1, 2, 3], [4, -5, -6]])
MISTAKES = {
    "a name": (TypeError, "got 'kl'; pass kldiv.kl", lambda: kldiv.pairwise("kl", ROWS)),
    "no divergence": (
        TypeError,
        "takes a divergence of kldiv",
        lambda: kldiv.pairwise(kldiv.entropy, ROWS),
    ),
    "another's parameter": (
        TypeError,
        "'alpha' for jensen_shannon, whose parameters are: beta, endpoints",
        lambda: kldiv.pairwise(kldiv.jensen_shannon, ROWS, alpha=0.5),
    ),
    "an option of rows": (
        TypeError,
        "'reduction' for kl, whose parameters are: none",
        lambda: kldiv.pairwise(kldiv.kl, ROWS, reduction="sum"),
    ),
    "a parameter that is missing": (
        TypeError,
        "alpha",
        lambda: kldiv.pairwise(kldiv.renyi, ROWS),
    ),
    "a parameter out of range": (
        ValueError,
        "beta must be from 0 to 1, got 2",
        lambda: kldiv.pairwise(kldiv.jensen_shannon, ROWS, beta=2.0),
    ),
    "classes that differ": (
        ValueError,
        "p has shape (2, 3) but q has shape (2, 2): 3 and 2 classes",
        lambda: kldiv.pairwise(kldiv.kl, ROWS, ROWS[:, :2]),
    ),
    "no class": (
        ValueError,
        "without a class",
        lambda: kldiv.pairwise(kldiv.kl, ROWS[:, :0]),
    ),
    "two spaces of one array": (
        ValueError,
        "space is one value where q is left out",
        lambda: kldiv.pairwise(kldiv.kl, ROWS, space=("logits", "logits")),
    ),
    "two temperatures of one array": (
        ValueError,
        "temperature is one value where q is left out",
        lambda: kldiv.pairwise(kldiv.kl, ROWS, temperature=(1.0, 2.0)),
    ),
    "an unknown space": (
        ValueError,
        "space must be one of logits, log_probs, probs, counts, got 'count'",
        lambda: kldiv.pairwise(kldiv.kl, ROWS, space="count"),
    ),
    "a temperature of counts": (
        ValueError,
        "temperature applies to logits only, and space is 'counts'",
        lambda: kldiv.pairwise(kldiv.kl, abs(COUNTS), space="counts", temperature=2.0),
    ),
    "a negative count": (
        ValueError,
        "p holds the negative count -5 in row 1",
        lambda: kldiv.pairwise(kldiv.kl, COUNTS, space="counts"),
    ),
    "a negative count along another axis": (
        ValueError,
        "q holds the negative count -5 in row 1",
        lambda: kldiv.pairwise(kldiv.kl, abs(COUNTS).T, COUNTS.T, axis=0, space="counts"),
    ),
    "counts that are floats": (
        TypeError,
        "p has dtype float64; counts are integers",
        lambda: kldiv.pairwise(kldiv.kl, ROWS, space="counts"),
    ),
    "counts that are booleans": (
        TypeError,
        "p has dtype bool; counts are integers",
        lambda: kldiv.pairwise(kldiv.kl, ROWS == 0, space="counts"),
    ),
    "integers that are no counts": (
        TypeError,
        "p has dtype int64; expected float64",
        lambda: kldiv.pairwise(kldiv.kl, COUNTS),
    ),
    "a negative pseudocount": (
        ValueError,
        "pseudocount must be finite and not negative, got -1.0",
        lambda: kldiv.pairwise(kldiv.kl, COUNTS, space="counts", pseudocount=-1),
    ),
    "an infinite pseudocount": (
        ValueError,
        "pseudocount must be finite",
        lambda: kldiv.pairwise(kldiv.kl, COUNTS, space="counts", pseudocount=np.inf),
    ),
    "a pseudocount of logits": (
        ValueError,
        'pseudocount applies to space="counts" only',
        lambda: kldiv.pairwise(kldiv.kl, ROWS, pseudocount=1),
    ),
    "more than memory": (
        MemoryError,
        "Unable to allocate",
        lambda: kldiv.pairwise(kldiv.kl, np.broadcast_to(ROWS[0], (10**8, 3))),
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes(mistake):
    error, message, call = MISTAKES[mistake]
    with pytest.raises(error, match=re.escape(message)):
        call()


def test_functions_of_tensors_are_refused_and_tensors_read():
    torch = pytest.importorskip("torch")
    on_tensors = importlib.import_module("kldiv.torch").kl
    with pytest.raises(TypeError, match=r"pass kldiv\.kl, and detached tensors"):
        kldiv.pairwise(on_tensors, ROWS)
    tensor = torch.tensor(abs(COUNTS), dtype=torch.float64)
    found = kldiv.pairwise(kldiv.kl, tensor)
    np.testing.assert_array_equal(found, kldiv.pairwise(kldiv.kl, tensor.numpy()))
    with pytest.raises(TypeError, match="requires a gradient"):
        kldiv.pairwise(kldiv.kl, tensor.requires_grad_())


def test_counts_stay_as_they_are():
    counts = np.array([[1, 2], [3, 4]])
    kldiv.pairwise(kldiv.kl, counts, space="counts", pseudocount=1)
    np.testing.assert_array_equal(counts, [[1, 2], [3, 4]])


def test_endpoints_of_jensen_shannon(rng):
    p, q = rng.normal(0, 1, (3, 7)), rng.normal(0, 1, (2, 7))
    found = kldiv.pairwise(kldiv.jensen_shannon, p, q, beta=0.0, endpoints="trl")
    np.testing.assert_array_equal(found, kldiv.pairwise(kldiv.kl, p, q))
    assert (kldiv.pairwise(kldiv.jensen_shannon, p, q, beta=0.0) == 0).all()
