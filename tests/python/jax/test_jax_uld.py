"""Universal logit distillation on JAX arrays, also where JAX hides the numbers."""

import numpy as np
import pytest

jax = pytest.importorskip("jax")

import jax.numpy as jnp  # noqa: E402

import kldiv  # noqa: E402
import kldiv.jax  # noqa: E402

IDS = [4, 0, 7, 2], [1, 3, 8, 0]
OPTIONS = {
    "by rank": {"temperature": (0.5, 2.0)},
    "shared": {"id_map": IDS, "beta": 0.2},
    "weights": {"id_map": IDS, "matched_weight": 0.7, "unmatched_weight": 1.9},
}


def rows():
    rng = np.random.default_rng(3)
    return tuple((2 * rng.normal(size=(3, n))).astype(np.float32) for n in (9, 14))


@pytest.mark.parametrize("name", OPTIONS)
def test_values_and_gradients_are_those_of_numpy(name):
    p, q = rows()
    options = OPTIONS[name]

    def of(p, q):
        return kldiv.jax.uld(p, q, reduction="mean", **options)

    expected, gradients = kldiv.value_and_grad(
        kldiv.uld, p, q, reduction="mean", wrt=("p", "q"), **options
    )
    assert of(p, q) == expected
    assert jax.jit(of)(p, q) == expected
    for run in (jax.grad(of, argnums=(0, 1)), jax.jit(jax.grad(of, argnums=(0, 1)))):
        for found, gradient in zip(run(p, q), gradients, strict=True):
            np.testing.assert_array_equal(found, gradient)
    mapped = jax.vmap(lambda p, q: kldiv.jax.uld(p, q, **options))(p, q)
    np.testing.assert_array_equal(mapped, kldiv.uld(p, q, **options))


def test_ids_may_be_traced():
    p, q = rows()
    ids = tuple(jnp.array(side) for side in IDS)
    found = jax.jit(lambda p, q, ids: kldiv.jax.uld(p, q, id_map=ids))(p, q, ids)
    np.testing.assert_array_equal(found, kldiv.uld(p, q, id_map=IDS))
    each = tuple(jnp.stack([side, side[::-1]]) for side in ids)
    mapped = jax.vmap(lambda ids: kldiv.jax.uld(p, q, id_map=ids))(each)
    turned = tuple(side[::-1] for side in IDS)
    expected = [kldiv.uld(p, q, id_map=pair) for pair in (IDS, turned)]
    np.testing.assert_array_equal(mapped, expected)
    with pytest.raises(ValueError, match="one axis of one length"):
        jax.jit(lambda ids: kldiv.jax.uld(p, q, id_map=(ids, ids[1:])))(ids[0])


def test_dask():
    da = pytest.importorskip("dask.array")
    import kldiv.dask

    p, q = rows()
    chunks = da.from_array(p, (2, 5)), da.from_array(q, (1, 14))
    for options in OPTIONS.values():
        found = kldiv.dask.uld(*chunks, **options).compute()
        np.testing.assert_array_equal(found, kldiv.uld(p, q, **options))
        value, gradient = kldiv.dask.value_and_grad(kldiv.dask.uld, *chunks, **options)
        expected, slopes = kldiv.value_and_grad(kldiv.uld, p, q, **options)
        np.testing.assert_array_equal(value.compute(), expected)
        np.testing.assert_array_equal(gradient.compute(), slopes)
