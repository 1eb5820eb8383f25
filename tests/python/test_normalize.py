"""`normalize=True`: what becomes of weights that are divided by their sums, in every front end."""

import functools

import numpy as np
import pytest
import scipy.spatial.distance
import scipy.stats

import kldiv
import oracle
from jax_precision import enable_x64
from oracle import INF, NAN, mp
from samples import GENERAL, USUAL, identity

torch = pytest.importorskip("torch")
jax = pytest.importorskip("jax")

import jax.numpy as jnp  # noqa: E402

import kldiv.jax  # noqa: E402
import kldiv.torch  # noqa: E402

FUNCTIONS = [*USUAL, *GENERAL.items(), ("renyi", {"alpha": 1.0}), ("entropy", {})]
FUNCTIONS = {identity(one): one for one in FUNCTIONS}

P = np.array([[3, 1, 4, 1], [2, 0, 5, 4], [2, 6, 5, 3], [5, 0, 0, 8], [1e30, 3e30, 2e30, 5e30]])
Q = np.array([[2, 7, 1, 8], [2, 8, 1, 8], [2, 0, 1, 8], [4, 0, 5, 9], [2e-20, 7e-20, 1e-20, 4e-20]])
"""Counts; with a class that p lacks, that q lacks, that both lack; and sums far from 1."""


# --- What each front end gives: the value of every row, and the gradients -------------------------


def by_numpy(name, arrays, options):
    wrt = ("p", "q")[: len(arrays)]
    return kldiv.value_and_grad(getattr(kldiv, name), *arrays, wrt=wrt, **options)


def by_torch(name, arrays, options):
    tensors = [torch.from_numpy(array.copy()).requires_grad_() for array in arrays]
    value = getattr(kldiv.torch, name)(*tensors, **options)
    return value.detach(), torch.autograd.grad(value.sum(), tensors)


def by_formula(name, arrays, options):
    tensors = map(torch.from_numpy, arrays)
    value, pull = torch.func.vjp(lambda *a: getattr(kldiv.torch, name)(*a, **options), *tensors)
    return value, pull(torch.ones_like(value))


def by_jax(name, arrays, options):
    with enable_x64(True):
        function = getattr(kldiv.jax, name)
        value, pull = jax.vjp(lambda *a: function(*a, **options), *map(jnp.asarray, arrays))
        return value, pull(jnp.ones_like(value))


FRONT_ENDS = {"numpy": by_numpy, "torch": by_torch, "formula": by_formula, "jax": by_jax}
# Relative to the value, and of gradients to the largest of them.
BOUNDS = {"float32": 1e-6, "float64": 1e-13}
FORMULA_BOUNDS = {"float32": 2e-5, "float64": 1e-11}


# --- The definition: divide by hand, and the chain rule -------------------------------------------


def weights_of(row, space):
    exact = [mp.mpf(float(x)) for x in row]
    return exact if space == "probs" else [mp.exp(x) for x in exact]


def by_hand(name, rows, spaces, parameter):
    weights = [weights_of(row, space) for row, space in zip(rows, spaces, strict=True)]
    sums = [mp.fsum(row) for row in weights]
    shares = [[w / total for w in row] for row, total in zip(weights, sums, strict=True)]
    logarithms = [[mp.log(s) for s in share] for share in shares]
    if name == "entropy":
        value = oracle.entropy(*shares, space="probs")
        slopes = [[INF if s == 0 else -mp.log(s) - 1 for s in shares[0]]]
        moments = [oracle.entropy_gradient(*logarithms, space="log_probs")]
        somewhere = [True] * len(shares[0])
    else:
        value = oracle.divergence(name, *shares, space="probs", **parameter)
        slopes, moments = (
            [oracle.gradient(name, *given, wrt, space=space, **parameter) for wrt in "pq"]
            for given, space in ((shares, "probs"), (logarithms, "log_probs"))
        )
        somewhere = [any(column) for column in zip(*shares, strict=True)]
    gradients = []
    for side, space in enumerate(spaces):
        mean = mp.fsum(moments[side])
        gradient = [
            (slope - mean) / sums[side] if there else mp.zero
            for slope, there in zip(slopes[side], somewhere, strict=True)
        ]
        if abs(mean) == INF:
            gradient = [NAN] * len(gradient)
        elif space != "probs":
            # ∂w/∂(ln w) = w; of −p/q that is finite at q = 0.
            gradient = [
                moment - share * mean
                for moment, share in zip(moments[side], shares[side], strict=True)
            ]
        gradients.append(gradient)
    return float(value), [np.array(list(map(float, gradient))) for gradient in gradients]


@functools.cache
def rows_by_hand(function, spaces, dtype):
    """The arrays that every front end gets, and what each row of them gives."""
    name, parameter = FUNCTIONS[function]
    count = 1 if name == "entropy" else 2
    with np.errstate(divide="ignore"):
        arrays = [
            (array if space == "probs" else np.log(array)).astype(dtype)
            for array, space in zip((P, Q)[:count], spaces, strict=False)
        ]
    rows = [by_hand(name, row, spaces[:count], parameter) for row in zip(*arrays, strict=True)]
    return arrays, rows


@pytest.mark.parametrize("front_end", FRONT_ENDS)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(
    "spaces",
    [("probs", "probs"), ("log_probs", "log_probs"), ("probs", "log_probs"), ("logits", "probs")],
    ids="-".join,
)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_equals_division_by_hand(function, spaces, dtype, front_end):
    name, parameter = FUNCTIONS[function]
    arrays, rows = rows_by_hand(function, spaces, dtype)
    arrays = [array.copy() for array in arrays]
    count = len(arrays)
    space = spaces[0] if count == 1 else spaces
    options = {"space": space, "normalize": True, **parameter}
    found, gradients = FRONT_ENDS[front_end](name, arrays, options)
    found, gradients = np.asarray(found), [np.asarray(gradient) for gradient in gradients]
    assert found.dtype == dtype
    bound = (FORMULA_BOUNDS if front_end == "formula" else BOUNDS)[found.dtype.name]
    for row, (value, wanted) in enumerate(rows):
        np.testing.assert_allclose(found[row], value, rtol=bound)
        for gradient, one in zip(gradients, wanted, strict=True):
            size = np.abs(one, where=np.isfinite(one), out=np.zeros_like(one)).max()
            if front_end == "formula" and name == "neg_log_acceptance":
                # The difference of probabilities up to 1, where the slopes of all classes are −1.
                size = 1.0
            np.testing.assert_allclose(gradient[row], one, rtol=bound, atol=bound * size)


def test_equals_scipy(rng):
    p, q = rng.integers(0, 50, (2, 20, 300)).astype(np.float64)
    q += 1
    options = {"space": "probs", "normalize": True}
    for ours, theirs in (
        (kldiv.kl(p, q, **options), scipy.stats.entropy(p, q, axis=-1)),
        (kldiv.entropy(p, **options), scipy.stats.entropy(p, axis=-1)),
        (
            kldiv.jensen_shannon(p, q, **options),
            scipy.spatial.distance.jensenshannon(p, q, axis=-1) ** 2,
        ),
        (kldiv.kl(p, q, axis=0, **options), scipy.stats.entropy(p, q, axis=0)),
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)


@pytest.mark.filterwarnings("ignore:.*negative probability:UserWarning")
@pytest.mark.parametrize("front_end", FRONT_ENDS)
def test_rows_that_cannot_be_divided(front_end):
    good = [1.0, 2.0, 3.0]
    p = np.array([good, [0, 0, 0], [1, -1, 2], [1, np.nan, 0], [1, np.inf, 0]])
    options = {"space": "probs", "normalize": True}
    value, (gradient, _) = FRONT_ENDS[front_end]("kl", [p, np.array([good] * 5)], options)
    nothing = [False, True, True, True, True]
    np.testing.assert_array_equal(np.isnan(np.asarray(value)), nothing)
    np.testing.assert_array_equal(np.isnan(np.asarray(gradient)).all(-1), nothing)


@pytest.mark.parametrize("front_end", FRONT_ENDS)
def test_normalised_log_probabilities_are_logits(front_end, rng):
    arrays = list(rng.normal(size=(2, 3, 7)))
    run = FRONT_ENDS[front_end]
    ours = run("jensen_shannon", arrays, {"space": "log_probs", "normalize": True})
    theirs = run("jensen_shannon", arrays, {"space": "logits", "normalize": True})
    plain = run("jensen_shannon", arrays, {"space": "logits"})
    for one in (ours, theirs):
        np.testing.assert_array_equal(np.asarray(one[0]), np.asarray(plain[0]))
        for gradient, other in zip(one[1], plain[1], strict=True):
            np.testing.assert_array_equal(np.asarray(gradient), np.asarray(other))


@pytest.mark.parametrize("front_end", FRONT_ENDS)
@pytest.mark.parametrize("name", ["kl", "entropy"])
def test_is_true_or_false(name, front_end):
    arrays = [P, Q][: 1 if name == "entropy" else 2]
    with pytest.raises(TypeError, match="normalize must be True or False, got 1"):
        FRONT_ENDS[front_end](name, arrays, {"space": "probs", "normalize": 1})


def test_compiled_and_reduced():
    """One graph, and one call with the gradient of a reduced value."""
    p, q = torch.from_numpy(P[:2]), torch.from_numpy(Q[:2]).requires_grad_()

    def loss(p, q):
        options = {"space": "probs", "normalize": True}
        return kldiv.torch.kl(p, q, reduction="mean", **options) + kldiv.torch.entropy(
            q, reduction="mean", **options
        )

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    value, eager = compiled(p, q), loss(p, q)
    torch.testing.assert_close(value, eager, rtol=1e-14, atol=0)
    found = torch.autograd.grad(value, q)
    torch.testing.assert_close(found, torch.autograd.grad(eager, q), rtol=1e-14, atol=0)
