"""`kldiv.jax`: under jit, grad and vmap the functions of `kldiv`, and equal to optax."""

import functools

import numpy as np
import pytest

jax = pytest.importorskip("jax")
import jax.numpy as jnp  # noqa: E402
from jax.test_util import check_grads  # noqa: E402

import kldiv  # noqa: E402
import kldiv.jax as kj  # noqa: E402
import oracle  # noqa: E402
from jax_precision import enable_x64  # noqa: E402
from samples import GENERAL  # noqa: E402

FUNCTIONS = {**GENERAL, "reverse_kl": {"temperature": 2.0}}


@pytest.fixture(scope="module", autouse=True)
def both_precisions():
    with enable_x64(True):
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


@pytest.mark.costly
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
    with pytest.raises(IndexError, match="label -1 in row 1 is out of range"):
        kj.cross_entropy(q, jnp.array([1, -1, 2]))


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


LABELS = np.array([3, 0, 9])
REFUSED = [
    ("kl", {"temperature": 0.0}, ValueError, "temperature must be"),
    ("kl", {"temperature": np.nan}, ValueError, "temperature must be"),
    ("kl", {"temperature": "hot"}, TypeError, "temperature must be a number"),
    ("kl", {"space": "odds"}, ValueError, "space must be one of"),
    ("kl", {"space": "probs", "temperature": 2.0}, ValueError, "applies to logits only"),
    ("kl", {"reduction": "median"}, ValueError, "reduction must be one of"),
    ("kl", {"axis": 2}, ValueError, "axis 2 is out of bounds"),
    ("kl", {"where": np.ones(3)}, TypeError, "where has dtype float64"),
    ("kl", {"where": np.ones(4, bool)}, ValueError, r"where has shape \(4,\)"),
    ("kl", {"weights": [1.0, 1.0, -1.0]}, ValueError, "weights must be finite .* element 2 is -1"),
    ("kl", {"weights": [np.nan, 1.0, 1.0]}, ValueError, "weights must be finite .* element 0"),
    ("kl", {"reduction": "mean", "denominator": 0}, ValueError, "denominator must be positive"),
    ("kl", {"reduction": "mean", "denominator": np.nan}, ValueError, "denominator must be positi"),
    ("kl", {"reduction": "sum", "denominator": 2}, ValueError, "denominator replaces"),
    ("jensen_shannon", {"beta": 1.5}, ValueError, "beta must be from 0 to 1, got 1.5"),
    ("renyi", {"alpha": 0.0}, ValueError, "alpha must be"),
    ("cross_entropy", {"label_smoothing": 2.0}, ValueError, "label_smoothing must be from 0 to 1"),
    ("cross_entropy", {"z_loss": -1.0}, ValueError, "z_loss must be"),
    ("cross_entropy", {"softcap": 0.0}, ValueError, "softcap must be from 1e-30 to 1e30"),
    ("cross_entropy", {"class_weights": np.ones(9)}, ValueError, r"class_weights has shape \(9,\)"),
    ("cross_entropy", {"class_weights": -np.ones(10)}, ValueError, "class_weights must be finite"),
    ("log_softmax", {"temperature": -1.0}, ValueError, "temperature must be"),
    ("gather_log_probs", {"axis": 5}, ValueError, "axis 5 is out of bounds"),
]
SECOND = {"cross_entropy": (LABELS,), "gather_log_probs": (LABELS,), "log_softmax": ()}


@pytest.mark.parametrize(("name", "options", "error", "message"), REFUSED)
def test_what_numpy_refuses_is_refused_alike(name, options, error, message):
    p, q = logits("float32", 3, 10)
    second = SECOND.get(name, (p,))

    def call(q):
        return getattr(kj, name)(q, *second, **options).sum()

    for run in (call, jax.grad(call), jax.jit(call)):
        with pytest.raises(error, match=message):
            run(q)
    with pytest.raises(error, match=message):
        getattr(kldiv, name)(np.asarray(q), *map(np.asarray, second), **options)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda q: kj.kl(q, q[:, :5]), ValueError, r"\(3, 10\).*\(3, 5\)"),
        (lambda q: kj.kl(q.astype(int), q), TypeError, "p has dtype int64"),
        (
            lambda q: kj.kl(np.ma.masked_array(np.ones((3, 10))), q),
            TypeError,
            "p is a masked array",
        ),
        (lambda q: kj.cross_entropy(q, jnp.zeros(4, int)), ValueError, r"\(4,\).*\(3, 10\)"),
        (lambda q: kj.cross_entropy(q, [True] * 3), TypeError, "targets has dtype bool"),
    ],
)
def test_arrays_refused(call, error, message):
    for run in (call, jax.jit(call)):
        with pytest.raises(error, match=message):
            run(logits("float32", 3, 10)[1])


HIDDEN = [
    (lambda x, q: kj.kl(q, q, weights=x), [1.0, np.nan, 1.0], "weights must be finite"),
    (lambda x, q: kj.kl(q, q, weights=x), [1.0, 1.0, -2.0], "element 2 is -2"),
    (lambda x, q: kj.kl(q, q, reduction="mean", denominator=x), -1.0, "denominator must be posi"),
    (lambda x, q: kj.kl(q, q, temperature=x), 0.0, "temperature must be"),
    (lambda x, q: kj.cross_entropy(q, LABELS, class_weights=x), [-1.0] * 10, "class_weights must"),
    (lambda x, q: kj.cross_entropy(q, x), [1, -1, 2], "label -1 in row 1 is out of range"),
    (lambda x, q: kj.gather_log_probs(q, x), [1, 2, 10], "label 10 in row 2 is out of range"),
]


@pytest.mark.parametrize(("call", "hidden", "message"), HIDDEN)
def test_numbers_hidden_by_jit_are_checked_when_it_runs(call, hidden, message):
    q, x = logits("float32", 3, 10)[1], jnp.asarray(hidden)
    with pytest.raises((ValueError, IndexError), match=message):
        call(x, q)
    for run in (jax.jit(call), jax.jit(jax.grad(lambda q, x: call(x, q).sum()))):
        args = (x, q) if run.__wrapped__ is call else (q, x)
        with pytest.raises(jax.errors.JaxRuntimeError, match=message):
            jax.block_until_ready(run(*args))


@pytest.mark.parametrize("name", ["weights", "denominator", "temperature", "class_weights"])
def test_what_has_no_gradient_says_so(name):
    _, q = logits("float32", 3, 10)
    x = jnp.ones({"weights": 3, "class_weights": 10}.get(name, ()))

    def loss(x):
        return kj.cross_entropy(q, LABELS, reduction="mean", **{name: x})

    for run in (jax.grad(loss), jax.jit(jax.grad(loss))):
        with pytest.raises(ValueError, match=f"{name} has no gradient in kldiv.jax.cross_entropy"):
            run(x)
    assert jax.grad(lambda x: loss(jax.lax.stop_gradient(x)))(x).sum() == 0


OPTIONS = {
    "kl": {"weights": [1.0, 0.0, 2.5], "reduction": "mean", "temperature": (2.0, 0.5)},
    "reverse_kl": {"space": ("logits", "log_probs"), "temperature": 3.0},
    "renyi": {"alpha": 2.0, "reduction": "mean", "denominator": 7.0},
    "cross_entropy": {
        "class_weights": np.arange(10.0),
        "label_smoothing": 0.1,
        "z_loss": 0.2,
        "softcap": 5.0,
        "weights": [1.0, 2.0, 3.0],
        "ignore_index": 0,
        "reduction": "mean",
    },
    "log_softmax": {"temperature": 0.5, "where": [True, False, True]},
    "gather_log_probs": {"temperature": 0.5, "ignore_index": 3, "where": [True, True, False]},
    "entropy": {"space": "log_probs", "weights": [1.0, 2.0, 0.5], "reduction": "batchmean"},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_traced_or_not(name):
    """Every option gives NumPy's number, as a constant and as an argument of a compiled call."""
    options = OPTIONS[name]
    p, q = logits("float64", 3, 10)
    arrays = {"cross_entropy": (q, LABELS), "gather_log_probs": (q, LABELS)}.get(name, (p, q))
    arrays = arrays[:1] if name in ("entropy", "log_softmax") else arrays
    expected = getattr(kldiv, name)(*map(np.asarray, arrays), **options)
    words = ("space", "reduction")
    fixed = {key: value for key, value in options.items() if key in words}
    traced = {
        key: jax.tree.map(jnp.asarray, value) if isinstance(value, tuple) else jnp.asarray(value)
        for key, value in options.items()
        if key not in words
    }
    mine = functools.partial(getattr(kj, name), **fixed)
    for found in (mine(*arrays, **options), jax.jit(mine)(*arrays, **traced)):
        np.testing.assert_allclose(found, expected, rtol=1e-14)
    vmapped = jax.vmap(lambda arrays, given: mine(*arrays, **given), in_axes=(None, 0))
    twice = jax.tree.map(lambda x: jnp.stack([x, x]), traced)
    np.testing.assert_allclose(vmapped(arrays, twice)[1], expected, rtol=1e-14)


def test_vmap_of_masks_and_gradients():
    """One batch of all rows, and one call for each element, give the same."""
    p, q = logits("float64", 4, 3, 5)
    where = jnp.arange(12).reshape(4, 3) % 5 != 0
    options = {"where": where, "weights": jnp.arange(3.0)}
    axes = {"where": 0, "weights": None}
    both = jax.vmap(lambda p, q, o: kj.kl(p, q, **o), in_axes=(0, 0, axes))(p, q, options)
    np.testing.assert_allclose(both, kj.kl(p, q, **options), rtol=1e-15)

    def mean(p, q, where):
        return kj.kl(p, q, where=where, weights=options["weights"], axis=0, reduction="mean")

    p, q = (jnp.swapaxes(x, 1, 2) for x in (p, q))
    nested = jax.vmap(jax.vmap(jax.grad(mean, 1), (None, 0, None)), (0, None, 0))(p, q, where)
    assert nested.shape == (4, 4, 5, 3)
    for i in range(4):
        for j in range(4):
            np.testing.assert_array_equal(nested[i, j], jax.grad(mean, 1)(p[i], q[j], where[i]))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_log_softmax_keeps_digits(dtype):
    """Of values with large logits, and of the gradient of a row that one class dominates."""
    z = logits(dtype, 2, 50)[0] + 10_000
    z = z.at[1, 7].add(20)
    eps = float(jnp.finfo(dtype).eps)
    upstream = jnp.zeros_like(z).at[:, 7].set(1)
    for run in (lambda f, *a: f(*a), lambda f, *a: jax.jit(f)(*a)):
        value, pull = jax.vjp(functools.partial(run, kj.log_softmax), z)
        (gradient,) = pull(upstream)
        for row in range(2):
            exact = oracle.log_softmax(z[row])
            np.testing.assert_allclose(value[row], np.array(exact, float), rtol=2 * eps)
            p = [oracle.mp.exp(x) for x in exact]
            wanted = np.array([float((i == 7) - x) for i, x in enumerate(p)])
            error = np.linalg.norm(np.asarray(gradient[row], float) - wanted)
            # A float64 row that one class dominates loses digits (docs/numerics.md, Limits).
            if row == 0 or dtype == "float32":
                assert error <= 8 * eps * np.linalg.norm(wanted)


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.uint64, np.int64])
def test_labels_of_any_integer_dtype(dtype, wide):
    z = np.random.default_rng(0).normal(size=(3, 256)).astype(np.float32)
    # In eight bits 156 is −100 and 44 is 300.
    labels = np.array([44, 100, 156 if dtype != np.int8 else 7], dtype)
    for ignore_index in (-100, 300, 100):
        expected = kldiv.cross_entropy(z, labels.astype(np.int64), ignore_index=ignore_index)
        with enable_x64(wide):
            call = functools.partial(kj.cross_entropy, ignore_index=ignore_index)
            for found in (call(z, labels), jax.jit(call)(z, jnp.asarray(labels))):
                np.testing.assert_array_equal(found, expected)
            gathered = kj.gather_log_probs(z, jnp.asarray(labels), ignore_index=ignore_index)
            np.testing.assert_array_equal(gathered, -expected)


def test_labels_that_jax_would_narrow():
    z, labels = jnp.zeros((1, 3)), np.array([2**32 + 1])
    with enable_x64(False):
        with pytest.raises(IndexError, match="label 4294967297 in row 0 is out of range"):
            kj.cross_entropy(z, labels)
        with pytest.raises(ValueError, match="targets holds 4294967297, which int32 cannot hold"):
            jax.jit(lambda z: kj.cross_entropy(z, labels))(z)
