"""The most probable classes of rows, and classes drawn from them."""

import numpy as np
import pytest

import kldiv
from conftest import DTYPES, softmax
from oracle import mp


def rows_of(dtype, rng, shape=(5, 4100)):
    """Logits with ties, −inf, and clustered and spread maxima."""
    z = np.round(rng.normal(0, 3, shape), 1)
    z[0, : shape[1] // 2] += 20
    z[1, ::3] = -np.inf
    z[2] = np.where(np.arange(shape[1]) % 2, 0.0, -0.0)
    z[3] = np.arange(shape[1]) * 1e-3
    return z.astype(DTYPES[dtype])


def by_sorting(z, k):
    """Ids by falling logit, and of equal ones by rising id."""
    return np.argsort(-z.astype(np.float64), axis=-1, kind="stable")[..., :k]


@pytest.mark.parametrize("dtype", DTYPES)
def test_classes_and_log_probs_are_those_of_a_sorted_row(dtype, rng, isa):
    z = rows_of(dtype, rng)
    for k in (1, 3, 64, 1000):
        kept = kldiv.top_k(z, k, temperature=0.7)
        assert (kept.ids == by_sorting(z, k)).all()
        expected = np.take_along_axis(kldiv.log_softmax(z.astype(np.float64) / 0.7), kept.ids, -1)
        assert kept.values.dtype == (np.float64 if dtype == "float64" else np.float32)
        np.testing.assert_allclose(kept.values, expected, rtol=1e-6)
        assert kept.batch_shape == (5,)
        assert kept.classes == 4100


def test_whole_rows_and_layouts(rng):
    z = rng.normal(0, 3, (2, 3, 17))
    kept = kldiv.top_k(z, 17)
    assert (kept.ids == by_sorting(z, 17)).all()
    np.testing.assert_allclose(kept.coverage(), 1, rtol=1e-12)
    for layout in (np.asfortranarray(z), z[:, ::-1][:, ::-1], np.moveaxis(z, -1, 0)):
        axis = 0 if layout.shape != z.shape else -1
        assert (kldiv.top_k(layout, 17, axis=axis).values == kept.values).all()
    assert kldiv.top_k(z[0, 0], 2).ids.shape == (2,)


def test_a_log_prob_to_the_last_digit():
    z = [710.0, 709.0, -3.0, 650.5]
    exact = [mp.mpf(x) - mp.log(sum(mp.exp(mp.mpf(y)) for y in z)) for x in (z[0], z[1])]
    np.testing.assert_allclose(
        kldiv.top_k(z, 2).values, [float(x) for x in exact], rtol=1e-15, atol=0
    )


def test_classes_without_probability_are_not_kept():
    z = np.full((2, 6), -np.inf)
    z[0, [4, 1]] = 0.0
    z[1, :] = [0, 1, 2, 3, 4, 5]
    kept = kldiv.top_k(z, 3)
    assert kept.offsets.tolist() == [0, 2, 5]
    assert kept.ids.tolist() == [1, 4, 5, 4, 3]
    np.testing.assert_allclose(kept.values[:2], np.log(0.5))
    for value, message in [(np.nan, "holds NaN or"), (np.inf, "holds NaN or"), (-np.inf, "no fin")]:
        z[1] = value if value == -np.inf else z[1]
        z[1, 3] = value
        for call in (lambda: kldiv.top_k(z, 3), lambda: kldiv.sample_k(z, 3, seed=0)):
            with pytest.raises(ValueError, match=f"row 1 of logits .*{message}"):
                call()
        z[1] = 0.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda z: kldiv.top_k(z, 0), r"k must be from 1 to 4, the number of classes, got 0"),
        (lambda z: kldiv.top_k(z, 5), r"k must be from 1 to 4, the number of classes, got 5"),
        (lambda z: kldiv.sample_k(z, 0, seed=0), r"k must be from 1 to"),
        (lambda z: kldiv.sample_k(z, 2, seed=-1), r"seed must be from 0 to 2\^64"),
        (lambda z: kldiv.sample_k(z, 2, seed=0, first_row=2**64), r"first_row must be from 0"),
        (lambda z: kldiv.sample_k(z, 2, seed=0, power=-0.5), r"power must be from 0 to 1000"),
        (lambda z: kldiv.top_k(z[:, :0], 1), r"without a class"),
    ],
)
def test_bad_options(call, message):
    with pytest.raises(ValueError, match=message):
        call(np.zeros((2, 4)))


def counts_of(drawn, row, p, power, k):
    """How often classes of a row were drawn, by its weights."""
    part = slice(*drawn.offsets[row : row + 2])
    pi = p**power / (p**power).sum()
    ids = drawn.ids[part]
    return ids, drawn.weights[part] * k * pi[ids] / p[ids]


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 2.0])
def test_draws_are_those_of_the_definition(power, rng, isa):
    """Uniform numbers of NumPy's Philox, looked up in cumulative sums."""
    z = rng.normal(0, 2, (3, 5000))
    z[1, ::2] = -np.inf
    k, seed = 50, 2**63 + 5
    drawn = kldiv.sample_k(z, k, power=power, seed=seed, first_row=7)
    for row, p in enumerate(softmax(z)):
        u = np.random.Generator(np.random.Philox(key=seed, counter=(7 + row) << 64)).random(k)
        chances = np.where(p > 0, p**power, 0)
        found = np.searchsorted(np.cumsum(chances), u * chances.sum(), side="right")
        ids, times = np.unique(found, return_counts=True)
        own, own_times = counts_of(drawn, row, p, power, k) if power else (None, None)
        if power:
            order = np.argsort(own)
            assert (own[order] == ids).all()
            np.testing.assert_allclose(own_times[order], times, rtol=1e-9)
        else:
            part = slice(*drawn.offsets[row : row + 2])
            assert set(drawn.ids[part]) == set(ids)
        assert (np.diff(drawn.values[slice(*drawn.offsets[row : row + 2])]) <= 0).all()


@pytest.mark.parametrize("power", [0.6, 1.0, 1.3])
def test_weighted_sums_are_unbiased(power, rng):
    z, f = rng.normal(0, 2, 40), rng.normal(0, 1, 40)
    p = softmax(z)
    # A row for each of many streams.
    drawn = kldiv.sample_k(np.tile(z, (20_000, 1)), 8, power=power, seed=3)
    sums = np.add.reduceat(drawn.weights * f[drawn.ids], drawn.offsets[:-1])
    error = sums.std() / np.sqrt(len(sums))
    assert abs(sums.mean() - (p * f).sum()) < 5 * error
    assert error < 0.01
    if power == 1.0:
        np.testing.assert_allclose(np.add.reduceat(drawn.weights, drawn.offsets[:-1]), 1)


def test_draws_depend_on_seed_and_row_alone(rng, threads):
    z = rng.normal(0, 2, (6, 9000)).astype(np.float32)
    threads(1)
    whole = kldiv.sample_k(z, 40, power=0.9, seed=11)
    ragged = [part.tolist() for part in np.split(whole.ids, whole.offsets[1:-1])]
    for count in (1, 3):
        threads(count)
        for row in range(6):
            alone = kldiv.sample_k(z[row : row + 1], 40, power=0.9, seed=11, first_row=row)
            assert alone.ids.tolist() == ragged[row]
            part = slice(*whole.offsets[row : row + 2])
            assert (alone.weights == whole.weights[part]).all()
    assert kldiv.sample_k(z, 40, power=0.9, seed=12).ids.tolist() != whole.ids.tolist()


def test_draws_are_the_same_on_every_instruction_set(rng):
    z = rng.normal(0, 3, (4, 9000)).astype(np.float32)
    from kldiv import _kldiv
    from kldiv._arrays import as_rows

    found = [
        _kldiv.sample_k(as_rows("z", z, -1), 3000, 0.7, 5, 0, 1.3, isa=isa)["ids"]
        for isa in kldiv.build_info()["isas"]
    ]
    for other in found[1:]:
        assert (other == found[0]).all()
