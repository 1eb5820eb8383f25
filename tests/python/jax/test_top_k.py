"""Losses from a `TopK` in JAX: those of NumPy under jit, grad and vmap."""

import numpy as np
import pytest

jax = pytest.importorskip("jax")
import jax.numpy as jnp  # noqa: E402

import kldiv  # noqa: E402
import kldiv.jax as kj  # noqa: E402
from jax_precision import enable_x64  # noqa: E402

CLASSES, K = 12, 5


@pytest.fixture(scope="module", autouse=True)
def both_precisions():
    with enable_x64(True):
        yield


def kept(*batch, drawn=False):
    rng = np.random.default_rng(3)
    log_probs = kldiv.log_softmax(2 * rng.normal(size=(*batch, CLASSES)))
    ids = np.argsort(-log_probs, axis=-1)[..., :K]
    weights = rng.uniform(size=ids.shape) if drawn else None
    values = np.take_along_axis(log_probs, ids, axis=-1)
    return kldiv.TopK(ids, values, classes=CLASSES, weights=weights)


def ragged():
    return kldiv.TopK([1, 4, 2], [-1.0, -2.0, -0.5], offsets=[0, 2, 3, 3], classes=CLASSES)


Z = 2 * np.random.default_rng(4).normal(size=(3, CLASSES))


@pytest.mark.parametrize("top_k", [kept(3), ragged(), kept(3, drawn=True)], ids=repr)
def test_an_argument_and_a_constant(top_k):
    rule = "tail" if top_k.weights is None else "sampled"
    options = {"rule": rule, "temperature": (1.0, 1.5), "reduction": "sum"}
    expected, gradient = kldiv.value_and_grad(kldiv.kl, top_k, Z, **options)

    def loss(teacher, z):
        return kj.kl(teacher, z, **options)

    for found in (
        jax.value_and_grad(loss, argnums=1)(top_k, jnp.asarray(Z)),
        jax.jit(jax.value_and_grad(loss, argnums=1))(top_k, jnp.asarray(Z)),
        jax.jit(jax.value_and_grad(lambda z: loss(top_k, z)))(jnp.asarray(Z)),
    ):
        assert found[0] == expected
        assert found[0].dtype == expected.dtype
        np.testing.assert_array_equal(found[1], gradient)


def test_vmap_over_teachers_and_over_students():
    top_k = kept(4, 3)
    z = 2 * np.random.default_rng(5).normal(size=(4, 3, CLASSES))
    for reduction in ("none", "mean"):
        expected = [
            kldiv.kl(
                kldiv.TopK(ids, values, classes=CLASSES), one, rule="tail", reduction=reduction
            )
            for ids, values, one in zip(top_k.ids, top_k.values, z, strict=True)
        ]
        loss = jax.vmap(
            lambda teacher, z, by=reduction: kj.kl(teacher, z, rule="tail", reduction=by)
        )
        np.testing.assert_array_equal(jax.jit(loss)(top_k, jnp.asarray(z)), expected)
    over_students = jax.vmap(lambda z: kj.kl(ragged(), z, rule="tail"))
    expected = [kldiv.kl(ragged(), one, rule="tail") for one in z]
    np.testing.assert_array_equal(over_students(jnp.asarray(z)), expected)


def test_cross_entropy():
    expected = kldiv.cross_entropy(Z, kept(3), rule="renormalize")
    loss = jax.jit(lambda z, teacher: kj.cross_entropy(z, teacher, rule="renormalize"))
    np.testing.assert_array_equal(loss(jnp.asarray(Z), kept(3)), expected)


def test_what_is_refused():
    loss = jax.jit(kj.kl, static_argnames="rule")
    with pytest.raises(ValueError, match="rule says what its other classes are taken for"):
        loss(kept(3), jnp.asarray(Z))
    with pytest.raises(ValueError, match="the teacher has no weights"):
        loss(kept(3), jnp.asarray(Z), rule="sampled")
    with pytest.raises(ValueError, match="has 11"):
        loss(kept(3), jnp.asarray(Z[:, :11]), rule="tail")
