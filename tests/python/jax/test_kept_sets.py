"""Kept sets on JAX arrays: NumPy's numbers, traced or not."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kldiv
import kldiv.jax as kj

IDS = np.array([[0, 3, 7], [1, 2, 9]])
RULES = [
    {"top_k": 4},
    {"top_p": 0.8},
    {"min_p": 0.1},
    {"min_p": 0.01, "top_k": 9, "top_p": 0.7},
    {"support": IDS},
    {"support": [[0, 3], [1, 2, 9]]},
]


def repeated(options):
    """The same for thirty of each row."""
    if "support" not in options:
        return options
    return {**options, "support": [ids for ids in options["support"] for _ in range(30)]}


def _of_rows(name, more, options, z):
    return getattr(kj, name)(z, *more, **options)


@pytest.mark.costly
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_numbers_and_gradients_are_those_of_numpy(rule):
    z = np.random.default_rng(3).normal(0, 2, (2, 30)).astype(np.float32)
    # The most probable classes, which every rule keeps.
    z[0, 3], z[1, 2] = 6.0, 5.5
    labels = np.array([3, 2])
    where = np.array([True, False])
    options = {"temperature": 0.8, **rule}
    for name, more in (("gather_log_probs", (labels,)), ("entropy", ())):
        expected = getattr(kldiv, name)(z, *more, where=where, return_mass=True, **options)
        given = {"where": where, "return_mass": True, **options}
        function = functools.partial(_of_rows, name, more, given)
        for found in (function(jnp.asarray(z)), jax.jit(function)(z)):
            for own, wanted in zip(found, expected, strict=True):
                np.testing.assert_allclose(own, wanted, rtol=1e-5, atol=1e-7)
    _, expected = kldiv.value_and_grad(kldiv.entropy, z, **options)
    found = jax.grad(lambda z: kj.entropy(z, **options).sum())(z)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    slope = jax.jit(jax.grad(lambda z: kj.gather_log_probs(z, labels, **options).sum()))(z)
    every = np.tile(np.arange(30), (2, 1))
    ln_p = kldiv.gather_log_probs(np.repeat(z[:, None], 30, 1), every, **repeated(options))
    wanted = (np.eye(30)[labels] - np.exp(ln_p)) / 0.8
    np.testing.assert_allclose(slope, wanted, rtol=1e-4, atol=1e-6)


def test_a_constant_added_to_the_logits_does_not_round_the_mass():
    z = np.float32([[14.0, 0.0, 0.5]])
    _, expected = kldiv.entropy(z, top_k=1, return_mass=True)
    for offset in (0.0, 1e4, -3e5):

        def mass(z):
            return kj.entropy(z, top_k=1, return_mass=True)[1].sum()

        value, slope = jax.value_and_grad(mass)(z + np.float32(offset))
        np.testing.assert_allclose(value, expected[0], rtol=1e-7)
        np.testing.assert_allclose(slope.sum(), 0, atol=1e-7)
        assert (slope != 0).all()


def test_masses_of_rows_without_a_class():
    z = np.float32([[-np.inf, -np.inf], [0.0, -np.inf]])
    for options in ({"top_p": 0.9}, {"support": [[0], [1]]}):
        given = {"return_mass": True, **options}
        expected = kldiv.entropy(z, **given)
        found = jax.jit(lambda z: kj.entropy(z, **given))(z)  # noqa: B023
        for own, wanted in zip(found, expected, strict=True):
            np.testing.assert_array_equal(own, wanted)


@pytest.mark.costly
def test_nothing_comes_from_rows_that_are_left_out():
    z, labels = np.float32([[np.nan, 1.0], [2.0, 1.0]]), np.array([0, 1])

    def of_labels(z):
        return kj.gather_log_probs(z, labels, top_k=1, ignore_index=0, return_mass=True)[1].sum()

    def of_weights(z):
        return kj.entropy(z, top_k=1, weights=np.float32([0, 1]), return_mass=True)[1].sum()

    for mass in (of_labels, of_weights):
        slope = jax.grad(mass)(z)
        np.testing.assert_array_equal(slope[0], 0)
        assert (slope[1] != 0).all()


def test_an_index_to_ignore_that_labels_cannot_hold():
    z, labels = np.float32([[3.0, 2.0, 1.0], [0.0, 2.0, 1.0]]), np.array([1, 2], np.uint8)
    for ignore_index, left in ((258, [True, True]), (-254, [True, True]), (2, [True, False])):
        options = {"top_k": 2, "return_mass": True, "ignore_index": ignore_index}
        expected = kldiv.gather_log_probs(z, labels, **options)
        found = jax.jit(lambda z: kj.gather_log_probs(z, labels, **options))(z)  # noqa: B023
        for own, wanted in zip(found, expected, strict=True):
            np.testing.assert_allclose(own, wanted, rtol=1e-6)
            np.testing.assert_array_equal(own != 0, left)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("rule", RULES[:4], ids=str)
def test_gradients_of_rows_that_cannot_be_computed_with(rule, bad):
    z = np.float32([[0.0, bad, *range(8)], [*range(10)], [-np.inf] * 10])
    slope = jax.grad(lambda z: kj.entropy(z, **rule).sum())(z)
    assert np.isnan(slope[::2]).all()
    assert np.isfinite(slope[1]).all()


def test_bad_options_are_refused_while_tracing():
    z = jnp.zeros((2, 4))
    for options, error, message in [
        ({"support": [[0], [1]], "top_k": 2}, ValueError, "would choose others"),
        ({"support": [[0], [9]]}, ValueError, "class 9 in row 1 of support is out of range"),
        ({"top_k": 5}, ValueError, "top_k must be from 1 to 4"),
        ({"top_p": 2.0}, ValueError, "top_p must be above 0 and at most 1"),
        ({"return_mass": True}, ValueError, "goes with support"),
    ]:
        with pytest.raises(error, match=message):
            jax.jit(lambda z: kj.entropy(z, **options))(z)  # noqa: B023
    with pytest.raises(TypeError, match="cannot be traced"):
        jax.jit(lambda z, p: kj.entropy(z, top_p=p))(z, 0.5)
