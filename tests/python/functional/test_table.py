"""What the table says of each divergence is so."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
jax = pytest.importorskip("jax")

import kldiv  # noqa: E402
import kldiv.jax  # noqa: E402
import kldiv.torch  # noqa: E402
from conftest import softmax  # noqa: E402
from kldiv._kldiv import DIVERGENCES, infinite_where  # noqa: E402
from kldiv.torch.functional.distillation import OPTIONS  # noqa: E402
from samples import ALL, MORE, PARAMETERS, identity, number_of  # noqa: E402

PARAMETRIC = [name for name, one in DIVERGENCES.items() if one.parameter is not None]


def of(name, p, q, **options):
    """The divergence of probabilities."""
    return getattr(kldiv, name)(p, q, space="probs", **options)


def described(name, options):
    """What is known of it, or of what it is at a special value of its parameter."""
    special = dict(DIVERGENCES[name].special)
    return DIVERGENCES[special.get(number_of(options), name)]


@pytest.fixture
def pair(rng):
    return softmax(rng.normal(0, 1, (20, 6))), softmax(rng.normal(0, 1, (20, 6)))


def test_every_divergence_is_everywhere():
    for module in (kldiv, kldiv.torch, kldiv.jax):
        assert DIVERGENCES.keys() <= set(module.__all__)
    assert PARAMETERS.keys() == set(PARAMETRIC)


@pytest.mark.parametrize("name", DIVERGENCES)
def test_symmetric(name, pair):
    one, (p, q) = DIVERGENCES[name], pair
    assert (one.exchanged is None) or not one.symmetric
    for options in ALL[name]:
        at = one.parameter is not None and number_of(options) == one.symmetric_at
        forth, back = of(name, p, q, **options), of(name, q, p, **options)
        if name == "lk_hybrid" and options["eta"] > 20:
            # Total variation, but for rounding.
            continue
        # Beyond, p and q are summed as if they were one.
        if np.isfinite(forth).all() and forth.min() > 1e-6:
            assert np.allclose(forth, back, rtol=1e-10) is (one.symmetric or at), options
    if one.exchanged is not None:
        np.testing.assert_allclose(of(name, p, q), of(one.exchanged, q, p), rtol=1e-12)


@pytest.mark.parametrize("sample", MORE, ids=identity)
def test_bounded(sample):
    """Rows with nothing in common are as far apart as can be."""
    name, options = sample
    bound = DIVERGENCES[name].bound
    farthest = of(name, np.array([0.5, 0.5, 0, 0]), np.array([0, 0, 0.25, 0.75]), **options)
    assert farthest <= (np.inf if bound is None else bound)
    if options == ALL[name][0] and (
        bound is not None or any(infinite_where(name, number_of(options)))
    ):
        assert farthest == pytest.approx(np.inf if bound is None else bound, rel=1e-14, abs=0)


@pytest.mark.parametrize("sample", MORE, ids=identity)
def test_f_divergence(sample, pair):
    """Of a mixture of two pairs without a class in common it is the mean; of no other function."""
    name, options = sample
    ps, qs = (np.concatenate([0.25 * x[:10], 0.75 * x[10:]], -1) for x in pair)
    each = of(name, *pair, **options)
    mean = 0.25 * each[:10] + 0.75 * each[10:]
    same = np.allclose(of(name, ps, qs, **options), mean, rtol=1e-10, atol=1e-300)
    assert same is described(name, options).f_divergence


@pytest.mark.parametrize("sample", MORE, ids=identity)
def test_kinked(sample):
    """Half as far away, half of it or a quarter is left."""
    name, options = sample
    p, step = np.array([0.2, 0.3, 0.5]), 1e-6 * np.array([1.0, 2.0, -3.0])
    whole, half = of(name, p, p + step, **options), of(name, p, p + step / 2, **options)
    if whole > 0:
        kinked = described(name, options).kinked
        assert whole / half == pytest.approx(2 if kinked else 4, rel=1e-3, abs=0)


@pytest.mark.parametrize("sample", MORE, ids=identity)
def test_infinite_where_a_row_lacks_a_class(sample):
    name, options = sample
    both, lacks = np.array([0.25, 0.25, 0.5]), np.array([0.5, 0.5, 0.0])
    found = np.isinf(of(name, both, lacks, **options)), np.isinf(of(name, lacks, both, **options))
    assert found == infinite_where(name, number_of(options))


ROWS = np.array([[0.1, 2.0, -1.0]]), np.array([[1.0, 0.5, 0.0]])
TENSORS = [torch.tensor(row) for row in ROWS]


def front_ends(name, word):
    """Calls of a divergence with one value of its parameter, by how it is called there."""
    on_tensors = getattr(kldiv.torch, name)
    elsewhere = [tensor.to("meta") for tensor in TENSORS]
    on_jax = getattr(kldiv.jax, name)
    option = OPTIONS[word]
    yield word, lambda x: getattr(kldiv, name)(*ROWS, **{word: x})
    yield word, lambda x: on_tensors(*TENSORS, **{word: x})
    yield word, lambda x: on_tensors(*elsewhere, **{word: x})
    yield word, lambda x: torch.vmap(lambda p, q: on_tensors(p, q, **{word: x}))(*TENSORS)
    yield word, lambda x: on_jax(*ROWS, **{word: x})
    yield word, lambda x: jax.jit(lambda p, q: on_jax(p, q, **{word: x}))(*ROWS)
    yield (
        option,
        lambda x: kldiv.torch.distillation_loss(
            *reversed(TENSORS), divergence=name, alpha=1, reduction="none", **{option: x}
        ),
    )


@pytest.mark.parametrize("name", PARAMETRIC)
def test_every_front_end_has_the_range_of_the_table(name):
    described = DIVERGENCES[name].parameter
    low, high = described.low, described.high
    for word, call in front_ends(name, described.name):
        call(low)
        call(high)
        beyond_all = [np.nextafter(low, -np.inf), np.nextafter(high, np.inf), np.nan, -np.inf]
        if low < 0 < described.smallest:
            call(described.smallest)
            beyond_all += [described.smallest / 2, -described.smallest / 2]
        for beyond in beyond_all:
            with pytest.raises(ValueError, match=f"{word} must be {described.domain}, got"):
                call(float(beyond))


@pytest.mark.parametrize("name", PARAMETRIC)
def test_special_values_are_another_divergence_everywhere(name):
    described = DIVERGENCES[name]
    for value, other in described.special:
        expected = getattr(kldiv, other)(*ROWS)
        for _, call in front_ends(name, described.parameter.name):
            if getattr(found := call(value), "is_meta", False):
                continue
            np.testing.assert_allclose(np.asarray(found), expected, rtol=1e-6)
