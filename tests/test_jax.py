"""`kldiv.jax`: under jit, grad and vmap the functions of `kldiv`, and equal to optax."""

import functools

import numpy as np
import pytest

jax = pytest.importorskip("jax")
import jax.numpy as jnp  # noqa: E402
from jax.test_util import check_grads  # noqa: E402

import kldiv  # noqa: E402
import kldiv.jax as kj  # noqa: E402

FUNCTIONS = {
    "kl": {},
    "reverse_kl": {"temperature": 2.0},
    "jensen_shannon": {"beta": 0.3},
    "total_variation": {},
    "renyi": {"alpha": 0.5},
}


@pytest.fixture(scope="module", autouse=True)
def both_precisions():
    with jax.enable_x64(True):
        yield


def logits(dtype, *shape, seed=0):
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.normal(0, 2, shape)).astype(dtype) for _ in range(2)]


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_values_and_gradients(name, dtype):
    p, q = logits(dtype, 4, 300)
    mine = functools.partial(getattr(kj, name), **FUNCTIONS[name], reduction="mean")
    value, (of_p, of_q) = jax.jit(jax.value_and_grad(mine, argnums=(0, 1)))(p, q)
    expected, gradients = kldiv.value_and_grad(
        getattr(kldiv, name),
        np.asarray(p),
        np.asarray(q),
        wrt=("p", "q"),
        reduction="mean",
        **FUNCTIONS[name],
    )
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    assert value.dtype == expected.dtype
    bound = {"float64": 1e-9, "float32": 1e-6, "float16": 2e-3, "bfloat16": 1e-2}[dtype]
    for found, wanted in zip((of_p, of_q), gradients, strict=True):
        assert found.dtype == p.dtype
        error = np.linalg.norm(np.asarray(found, np.float64) - wanted) / np.linalg.norm(wanted)
        assert error < bound


def test_masks_weights_reductions_and_axes():
    p, q = logits("float64", 5, 7, 3)
    where = np.array([[True, False, True]] * 5)
    weights = np.arange(15.0).reshape(5, 3)
    for options in (
        {},
        {"where": where},
        {"where": where, "weights": weights, "reduction": "mean"},
        {"weights": weights, "reduction": "batchmean"},
        {"reduction": "mean", "denominator": 11.0},
        {"where": np.zeros((5, 3), bool), "reduction": "mean"},
    ):
        expected = kldiv.kl(np.asarray(p), np.asarray(q), axis=1, **options)
        np.testing.assert_allclose(kj.kl(p, q, axis=1, **options), expected, rtol=1e-12)
        _, gradient = kldiv.value_and_grad(
            kldiv.kl, np.asarray(p), np.asarray(q), axis=1, **options
        )
        found = jax.grad(lambda q, o=options: kj.kl(p, q, axis=1, **o).sum())(q)
        np.testing.assert_allclose(found, gradient, rtol=1e-9, atol=1e-15)


def test_rows_that_do_not_count_may_hold_nan():
    p, q = logits("float32", 3, 10)
    q = q.at[1].set(jnp.nan)
    where = jnp.array([True, False, True])
    value, gradient = jax.value_and_grad(lambda q: kj.kl(p, q, where=where, reduction="sum"))(q)
    assert jnp.isfinite(value)
    assert jnp.isfinite(gradient).all()
    assert (gradient[1] == 0).all()


def test_vmap():
    p, q = logits("float64", 6, 4, 9)
    expected = kj.kl(p, q, reduction="none").mean(-1)
    mean = functools.partial(kj.kl, reduction="mean")
    np.testing.assert_allclose(jax.vmap(mean)(p, q), expected, rtol=1e-12)
    shared = jax.jit(jax.vmap(mean, in_axes=(None, 0)))(p[0], q)
    np.testing.assert_allclose(shared, [mean(p[0], one) for one in q], rtol=1e-12)
    per_sample = jax.vmap(jax.grad(mean, argnums=1))(p, q)
    for at in range(6):
        np.testing.assert_allclose(per_sample[at], jax.grad(mean, 1)(p[at], q[at]), rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_equal_to_optax(dtype):
    optax = pytest.importorskip("optax")
    p, q = logits(dtype, 8, 50)
    labels = jnp.arange(8) * 6
    wide = [x.astype("float64") for x in (p, q)]
    ln_q, ln_p = (jax.nn.log_softmax(x) for x in reversed(wide))
    pairs = [
        (kj.kl(p, q), optax.losses.kl_divergence_with_log_targets(ln_q, ln_p)),
        (kj.kl(wide[0], wide[1]), optax.losses.kl_divergence(ln_q, jnp.exp(ln_p))),
        (
            kj.cross_entropy(q, labels),
            optax.losses.softmax_cross_entropy_with_integer_labels(wide[1], labels),
        ),
        (
            kj.cross_entropy(wide[1], jnp.exp(ln_p)),
            optax.losses.softmax_cross_entropy(wide[1], jnp.exp(ln_p)),
        ),
    ]
    for mine, expected in pairs:
        np.testing.assert_allclose(mine, expected, rtol=1e-6)


def test_labels_outside_the_classes():
    optax = pytest.importorskip("optax")
    _, q = logits("float32", 3, 10)
    theirs = optax.losses.softmax_cross_entropy_with_integer_labels
    assert kj.cross_entropy(q, jnp.array([1, -100, 2]))[1] == 0
    # optax counts −1 from the end.
    assert theirs(q, jnp.array([1, -1, 2]))[1] == pytest.approx(theirs(q, jnp.array([1, 9, 2]))[1])
    with pytest.raises(Exception, match="label -1 in row 1 is out of range"):
        kj.cross_entropy(q, jnp.array([1, -1, 2])).block_until_ready()


def test_other_functions():
    _, q = logits("float64", 3, 10)
    z, labels = np.asarray(q), jnp.array([3, -100, 9])
    for mine, expected in [
        (kj.entropy(q), kldiv.entropy(z)),
        (kj.logsumexp(q, temperature=2.0), kldiv.logsumexp(z, temperature=2.0)),
        (kj.log_softmax(q, temperature=2.0), kldiv.log_softmax(z, temperature=2.0)),
        (kj.gather_log_probs(q, labels), kldiv.gather_log_probs(z, np.asarray(labels))),
    ]:
        np.testing.assert_allclose(mine, expected, rtol=1e-12)
    check_grads(lambda q: kj.log_softmax(q).sum(), (q,), order=1, modes=["rev"])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda q: kj.kl(q, q[:, :5]), ValueError, r"\(3, 10\).*\(3, 5\)"),
        (lambda q: kj.kl(q.astype(int), q), TypeError, "expected a floating"),
        (lambda q: kj.kl(q, q, reduction="median"), ValueError, "reduction must be one of"),
        (lambda q: kj.kl(q, q, where=jnp.ones(3)), TypeError, "expected bool"),
        (lambda q: kj.cross_entropy(q, jnp.zeros(4, int)), ValueError, r"\(4,\).*\(3, 10\)"),
    ],
)
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call(logits("float32", 3, 10)[1])
