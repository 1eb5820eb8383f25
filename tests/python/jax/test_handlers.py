"""Calls that XLA makes of the extension itself: which go that way, and what they refuse."""

import contextlib
import ctypes
import dataclasses
import functools
import inspect
import re
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

jax = pytest.importorskip("jax")
import jax.numpy as jnp  # noqa: E402

import kldiv  # noqa: E402
import kldiv.jax as kj  # noqa: E402
from jax_precision import enable_x64  # noqa: E402
from kldiv.jax import handlers, kept_sets  # noqa: E402
from samples import GENERAL  # noqa: E402

STRUCTURES = Path(__file__).resolve().parents[3] / "src" / "python" / "xla" / "c_api.rs"


@pytest.fixture(scope="module", autouse=True)
def both_precisions():
    with enable_x64(True):
        yield


def logits(dtype="float32", rows=6, classes=40, seed=0):
    rng = np.random.default_rng(seed)
    return [jnp.asarray(2 * rng.normal(size=(rows, classes))).astype(dtype) for _ in range(2)]


def targets(function, *arrays):
    """What a compiled function calls, in the order of its text, but for what computes nothing."""
    text = jax.jit(function).lower(*arrays).compile().as_text()
    found = re.findall(r'custom_call_target="(\w+)"', text)
    return [target for target in found if target != "kldiv_unfused"]


LABELS = jnp.array([3, -100, 0, 39, 7, 1])
P, Q = logits()
CALLS = {
    **{
        name: functools.partial(getattr(kj, name), P, **options)
        for name, options in GENERAL.items()
        if name in kldiv._kldiv.DIVERGENCES
    },
    "spaces": lambda q: kj.kl(P, q, space=("logits", "log_probs"), temperature=2.0),
    "cross_entropy": lambda q: kj.cross_entropy(
        q, LABELS, class_weights=jnp.arange(40.0), label_smoothing=0.1, where=LABELS != 0
    ),
    "distributions": lambda q: kj.cross_entropy(q, jax.nn.softmax(P), weights=jnp.arange(6.0)),
    "entropy": kj.entropy,
    "logsumexp": functools.partial(kj.logsumexp, temperature=2.0),
    "gather_log_probs": lambda q: kj.gather_log_probs(q, LABELS),
    "log_softmax": lambda q: kj.log_softmax(q)[:, 3],
}


@pytest.mark.costly
@pytest.mark.parametrize("name", CALLS)
def test_nothing_calls_back(name):
    """Neither a value nor a gradient, and both are one call but for log-softmax."""
    call = CALLS[name]

    def total(q):
        return call(q).sum()

    def scanned(q):
        return jax.lax.scan(lambda so_far, q: (so_far + total(q), None), 0.0, jnp.stack([q, q]))[0]

    own = {"spaces": "divergence", "distributions": "cross_entropy"}
    own |= dict.fromkeys(kldiv._kldiv.DIVERGENCES, "divergence")
    target = f"kldiv_{own.get(name, name)}"
    assert targets(call, Q) == [target]
    both = [target] * (2 if name == "log_softmax" else 1)
    assert targets(jax.value_and_grad(total), Q) == both
    assert targets(jax.vmap(jax.value_and_grad(total)), jnp.stack([Q, Q])) == both
    assert set(targets(jax.value_and_grad(scanned), Q)) == {target}


def numpys(function, p, q, dtype, **options):
    """Value and gradients of both, by NumPy, in their dtype."""
    outs = tuple(np.empty(p.shape, dtype) for _ in range(2))
    return kldiv.value_and_grad(
        function, np.asarray(p), np.asarray(q), wrt=("p", "q"), out=outs, **options
    )


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
def test_value_and_gradients_are_one_call(dtype):
    """In 16 bits another one sees whether the gradients are for the upstream gradient."""
    p, q = logits(dtype)

    def mean(p, q):
        return kj.jensen_shannon(p, q, reduction="mean")

    both = jax.value_and_grad(mean, argnums=(0, 1))
    assert targets(both, p, q) == ["kldiv_divergence"] * (2 if p.dtype.itemsize == 2 else 1)
    value, gradients = jax.jit(both)(p, q)
    expected, outs = numpys(kldiv.jensen_shannon, p, q, p.dtype, reduction="mean")
    assert value == expected
    for found, wanted in zip(gradients, outs, strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("axis", [-1, 0])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_an_upstream_gradient_that_was_not_expected(dtype, axis):
    """Whether it is that of the call before or another changes nothing of the gradients."""
    p, q = logits(dtype)
    options = {"reduction": "sum", "axis": axis}

    @jax.jit
    def both(p, q, weight):
        def loss(p, q):
            return weight * kj.reverse_kl(p, q, **options)

        return jax.value_and_grad(loss, argnums=(0, 1))(p, q)

    for weight in (1.0, 0.3, 0.3, 0.7, 0.0, np.inf, np.nan, 0.3, 1.0):
        _, gradients = both(p, q, weight)
        upstream = np.float32(weight)
        _, outs = numpys(kldiv.reverse_kl, p, q, p.dtype, grad_output=upstream, **options)
        for found, wanted in zip(gradients, outs, strict=True):
            # To NumPy, NaN is itself in its own dtypes only.
            np.testing.assert_array_equal(*(np.float32(one) for one in (found, wanted)))


def test_gradients_are_for_the_upstream_gradient_of_the_call_before():
    """Those that are found stay, though they are none: nothing is computed again."""
    p, q = logits("bfloat16", classes=41)
    found = jnp.full(p.shape, 3.0, p.dtype)
    numbers = {"kind": "kl", "parameter": np.float64(0), "rank": 2, "reduction": "mean"}
    sides = {f"{side}_temperature": np.float64(1) for side in "pq"}
    sides |= {f"{side}_space": "logits" for side in "pq"}
    shape, number = OF(p.shape, p.dtype), OF((), jnp.float32)

    @jax.jit
    def first(p, q):
        call = jax.ffi.ffi_call("kldiv_divergence", (number, shape, number))
        return call(p, q, operands="p q", results="value q scale", **numbers, **sides)

    @jax.jit
    def then(*given):
        call = jax.ffi.ffi_call("kldiv_divergence", (shape,), input_output_aliases={0: 0})
        names = "found scale grad_output p q"
        return call(*given, operands=names, results="q", **numbers, **sides)[0]

    assert first(p, q)[2] == 1
    for upstream in (0.3, 0.7):
        upstream = jnp.float32(upstream)
        again = then(found, jnp.float32(1), upstream, p, q)
        np.testing.assert_array_equal(then(found, upstream, upstream, p, q), found)
        _, gradient, scale = first(p, q)
        assert scale == upstream
        np.testing.assert_array_equal(gradient, again)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_gradients_for_many_upstream_gradients(dtype):
    p, q = logits(dtype)
    mean = functools.partial(kj.kl, reduction="mean")
    one = jax.jit(jax.grad(lambda q, w, p: w * mean(p, q)))
    weights = jnp.array([0.3, 1.0, 2.5], jnp.float32)
    ps = jnp.stack([p, q + 1, p * 0.5])
    expected = [one(q, w, p) for w in weights]
    np.testing.assert_array_equal(jax.vmap(one, (None, 0, None))(q, weights, p), expected)
    expected = [[one(q, w, p) for p in ps] for w in weights]
    nested = jax.vmap(jax.vmap(one, (None, None, 0)), (None, 0, None))
    np.testing.assert_array_equal(jax.jit(nested)(q, weights, ps), expected)


@pytest.mark.skipif(sys.platform != "linux", reason="counts page faults")
@pytest.mark.parametrize("shape", [(512, 8192), (8, 64, 8192)])
def test_a_product_that_is_reshaped_takes_no_memory(shape):
    """16 MiB have 4,096 pages, which XLA would touch in memory of the product's own."""
    rng = np.random.default_rng(0)
    p, q = (jnp.asarray(rng.normal(size=shape).astype(np.float32)) for _ in range(2))

    @jax.jit
    def both(p, q):
        def loss(q):
            flat = (x.reshape(-1, 8192) for x in (p, q))
            return 0.3 * kj.kl(*flat, reduction="mean")

        return jax.value_and_grad(loss)(q)

    jax.block_until_ready(both(p, q))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    jax.block_until_ready(both(p, q))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 3000
    assert "kldiv_unfused" in both.lower(p, q).compile().as_text()


def test_a_gradient_has_a_derivative_in_the_upstream_gradient():
    slope = jax.jit(jax.jacfwd(lambda w: jax.grad(lambda q: w * kj.kl(P, q, reduction="mean"))(Q)))
    expected = jax.grad(lambda q: kj.kl(P, q, reduction="mean"))(Q)
    np.testing.assert_allclose(slope(0.3), expected, rtol=1e-6)


@pytest.mark.parametrize("scale", [3000.7, 2.0**15])
@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_gradients_of_half_types_are_rounded_once(dtype, reduction, scale):
    p, q = logits(dtype)
    # In float16 most of the gradient of such a mean is 0, and so is 3,000 times of it.
    upstream = jnp.full((6,) if reduction == "none" else (), scale, jnp.float32)
    out = np.empty(p.shape, p.dtype)
    options = {"reduction": reduction, "denominator": 1e6} if reduction == "mean" else {}
    kldiv.value_and_grad(
        kldiv.kl, np.asarray(p), np.asarray(q), grad_output=np.asarray(upstream), out=out, **options
    )
    pull_back = jax.vjp(lambda q: kj.kl(p, q, **options), q)[1]
    compiled = jax.jit(lambda q, g: jax.vjp(lambda q: kj.kl(p, q, **options), q)[1](g))
    for (found,) in (pull_back(upstream), compiled(q, upstream), jax.jit(pull_back)(upstream)):
        if dtype == "float32":
            np.testing.assert_allclose(found, out, rtol=1e-6)
        else:
            np.testing.assert_array_equal(found, out)


def test_other_devices_call_back():
    text = str(jax.make_jaxpr(jax.grad(lambda q: kj.kl(P, q, reduction="mean")))(Q))
    assert re.search(r"platforms=\(\('cpu',\),", text)
    assert text.index("kldiv_divergence") < text.index("pure_callback")


@pytest.mark.parametrize(
    "call",
    [
        lambda q: kj.uld(P, q),
        lambda q: kj.kl(kldiv.TopK([[1, 2]] * 6, [[-1.0, -2.0]] * 6, classes=40), q, rule="tail"),
        lambda q: kj.cross_entropy(q, jnp.zeros(6, jnp.uint64)),
    ],
)
def test_what_has_no_handler_calls_back(call):
    (target,) = targets(call, Q)
    assert "callback" in target


def test_the_gil_is_not_needed():
    """What is not done when it was begun comes to its end while this thread holds the GIL."""
    hold = ctypes.PyDLL(None).usleep
    interval = sys.getswitchinterval()
    w = jnp.full((600, 600), 1e-3, jnp.float32)

    @jax.jit
    def call(q, w):
        for _ in range(30):
            w = jnp.tanh(w @ w)
        return jax.value_and_grad(lambda q: kj.kl(P, q + w[0, 0], reduction="mean"))(q)

    jax.block_until_ready(call(Q, w))
    sys.setswitchinterval(1000)
    try:
        value, _ = call(Q, w)
        assert not value.is_ready()
        deadline = time.monotonic() + 60
        while not value.is_ready() and time.monotonic() < deadline:
            hold(1000)
        assert value.is_ready()
    finally:
        sys.setswitchinterval(interval)


def test_a_bad_label_is_one_line():
    labels = jnp.array([1, 2, -1, 40, 0, 0])
    mean = functools.partial(kj.cross_entropy, reduction="mean")
    message = (
        "INVALID_ARGUMENT: label -1 in row 2 is out of range for 40 classes "
        "(ignore_index is -100); pass ignore_index=-1 or mask the row with where"
    )
    for run in (jax.jit(mean), jax.jit(jax.value_and_grad(mean))):
        with pytest.raises(jax.errors.JaxRuntimeError) as caught:
            jax.block_until_ready(run(Q, labels))
        assert str(caught.value) == message


def test_integers_as_masks():
    call = jax.jit(lambda where: kj.kl(P, Q, where=where))
    where = np.array([1, 0, 1, 1, 0, 1], np.int32)
    np.testing.assert_array_equal(call(where), kldiv.kl(np.asarray(P), np.asarray(Q), where=where))
    where[3] = 2
    with pytest.raises(ValueError, match=r"where is a mask .* but holds 2 at index 3") as refused:
        kldiv.kl(np.asarray(P), np.asarray(Q), where=where)
    # Of a function that was called before, JAX 0.10 raises what fails as ValueError.
    failures = (jax.errors.JaxRuntimeError, ValueError)
    with pytest.raises(failures, match=re.escape(f"INVALID_ARGUMENT: {refused.value}")):
        jax.block_until_ready(call(where))


def test_subnormal_numbers_are_kept():
    """XLA flushes them in its threads."""
    p, q = logits("float64")
    weights = jnp.full(6, 1e-310)
    expected = kldiv.kl(np.asarray(p), np.asarray(q), weights=np.asarray(weights))
    assert expected.all()
    found = jax.jit(lambda w: kj.kl(p, q, weights=w))(weights)
    np.testing.assert_array_equal(np.asarray(found), expected)
    scaled = jax.jit(lambda w: kj.kl(*logits(), weights=w))(jnp.full(6, 1e-41, jnp.float64))
    assert np.asarray(scaled).all()


def pool_threads():
    """Threads of the extension's pools; others may end meanwhile."""
    found = 0
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found += (task / "comm").read_text().startswith("kldiv-")
    return found


def test_the_number_of_threads_is_that_of_the_process():
    threads, before = kldiv.get_num_threads(), pool_threads()
    p, q = logits(rows=64, classes=5000)
    both = jax.jit(jax.value_and_grad(lambda q: kj.kl(p, q, reduction="mean")))
    try:
        kldiv.set_num_threads(1)
        value, gradient = jax.block_until_ready(both(q))
        assert pool_threads() == before
        kldiv.set_num_threads(17)
        again = jax.block_until_ready(both(q))
    finally:
        kldiv.set_num_threads(threads)
    # Each names itself when it begins to run.
    deadline = time.monotonic() + 30
    while pool_threads() < before + 17 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert pool_threads() == before + 17
    assert value == again[0]
    np.testing.assert_array_equal(gradient, again[1])


def test_a_handler_is_told_everything():
    """What is new in a request, or an option, does not get lost on the way."""
    arrays = {"rows", "labels", "class_weights", "reducer"}
    for request, fields in handlers.FIELDS.items():
        assert {field.name for field in dataclasses.fields(request)} - arrays == set(fields)
    assert set(inspect.signature(kldiv._reducer.Reducer.parse).parameters) == {
        *("rows", "dtype", "where", "weights", "reduction", "denominator")
    }
    for function in (kj.log_softmax, kj.gather_log_probs):
        options = set(inspect.signature(function).parameters) - set(kept_sets.OPTIONS)
        assert options - {"z", "labels", "axis", "where"} <= set(handlers.WITHOUT_REQUEST)


VALID = {
    "operands": "p q",
    "results": "value q",
    "rank": 2,
    "reduction": "none",
    "kind": "kl",
    "parameter": np.float64(0),
    "p_space": "logits",
    "q_space": "logits",
    "p_temperature": np.float64(1),
    "q_temperature": np.float64(1),
}
OF = jax.ShapeDtypeStruct
SHAPES = (OF((6,), jnp.float32), OF((6, 40), jnp.float32))
INVALID = {
    "too few names": ({"operands": "p"}, {}),
    "a name that is not known": ({"operands": "p r"}, {}),
    "no text": ({"operands": 3}, {}),
    "more axes than there are": ({"rank": 5}, {}),
    "no axis": ({"rank": 0}, {}),
    "a rank that is no integer": ({"rank": np.float64(2)}, {}),
    "an attribute of another dtype": ({"parameter": np.float32(0)}, {}),
    "no kind": ({"kind": "hellinger's"}, {}),
    "no space": ({"p_space": "odds"}, {}),
    "no reduction": ({"reduction": "median"}, {}),
    "a value for every row": ({"reduction": "mean"}, {}),
    "integers as rows": ({}, {"q": jnp.zeros((6, 40), jnp.int32)}),
    "rows of other classes": ({}, {"q": jnp.zeros((6, 41), jnp.float32)}),
    "other rows": ({}, {"q": jnp.zeros((7, 40), jnp.float32)}),
    "no rows": ({}, {"q": jnp.zeros((), jnp.float32)}),
    "complex rows": ({}, {"q": jnp.zeros((6, 40), jnp.complex64)}),
    "a smaller gradient": ({}, {"shapes": (SHAPES[0], OF((6, 39), jnp.float32))}),
    "a gradient of fewer rows": ({}, {"shapes": (SHAPES[0], OF((5, 40), jnp.float32))}),
    "a smaller value": ({}, {"shapes": (OF((5,), jnp.float32), SHAPES[1])}),
    "a value of integers": ({}, {"shapes": (OF((6,), jnp.int32), SHAPES[1])}),
    "no result": ({"results": ""}, {"shapes": ()}),
}


@pytest.mark.parametrize("what", INVALID)
def test_nothing_of_a_call_is_believed(what):
    attributes, arrays = INVALID[what]
    arrays = {"p": P, "q": Q, "shapes": SHAPES, **arrays}

    def call(p, q):
        handler = jax.ffi.ffi_call("kldiv_divergence", arrays["shapes"], has_side_effect=True)
        return handler(p, q, **{**VALID, **attributes})

    run = jax.jit(call).lower(arrays["p"], arrays["q"]).compile()
    with pytest.raises(jax.errors.JaxRuntimeError, match=r"^(INTERNAL: kldiv was|INVALID_ARGUM)"):
        jax.block_until_ready((run(arrays["p"], arrays["q"]), jax.effects_barrier()))


def test_structures_are_those_of_the_header(tmp_path):
    """Of the version that jaxlib has, and of the sizes that a C compiler finds."""
    source = STRUCTURES.read_text(encoding="utf-8")
    header = Path(jax.ffi.include_dir()) / "xla" / "ffi" / "api" / "c_api.h"
    text = header.read_text(encoding="utf-8")
    version = [
        int(re.search(rf"#define XLA_FFI_API_{x} (\d+)", text)[1]) for x in ("MAJOR", "MINOR")
    ]
    first, last = map(int, re.search(r"MINORS: .* = (\d+)..=(\d+);", source).groups())
    assert version[0] == int(re.search(r"MAJOR: c_int = (\d+);", source)[1])
    assert first <= version[1] <= last
    sizes = dict(re.findall(r"size_of::<(\w+)>\(\) == (\d+)", source))
    sizes["Args"] = sizes["Rets"] = sizes.pop("Buffers")
    assert len(sizes) > 8
    c_names = {
        name: "XLA_FFI_" + re.sub("(Base|Version|Extension)$", r"_\1", name) for name in sizes
    }
    # The header counts no member behind the attributes.
    measured = {name: f"sizeof({c_name})" for name, c_name in c_names.items()}
    measured["CallFrame"] = "XLA_FFI_CallFrame_STRUCT_SIZE"
    checks = [
        f'_Static_assert({measured[name]} == {size}, "{name}");' for name, size in sizes.items()
    ]
    if (compiler := shutil.which("cc")) is None:
        pytest.skip("no C compiler")
    program = tmp_path / "sizes.c"
    program.write_text("\n".join(["#include <xla/ffi/api/c_api.h>", *checks, ""]))
    include = f"-I{jax.ffi.include_dir()}"
    command = [compiler, "-std=c11", "-fsyntax-only", include, str(program)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
