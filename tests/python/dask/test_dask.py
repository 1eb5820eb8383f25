"""`kldiv.dask`: the functions of `kldiv` on dask arrays, in any chunks."""

import functools
import inspect
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest

da = pytest.importorskip("dask.array")

import dask  # noqa: E402 - comes with an extra

import kldiv  # noqa: E402
import kldiv.dask  # noqa: E402
from kldiv._kldiv import DIVERGENCES  # noqa: E402
from kldiv.dask.exact import Exact, exact_sum  # noqa: E402
from kldiv.dask.functional import FUNCTIONS  # noqa: E402

SHAPE = (5, 6, 40)
CHUNKS = [(5, 6, 40), (2, 4, 40), (1, 1, 40), (2, 3, 17), ((1, 4), (6,), (39, 1))]


@pytest.fixture(autouse=True)
def threads_of_dask():
    with dask.config.set(scheduler="threads", num_workers=2):
        yield


@pytest.fixture
def rows(rng):
    p = rng.normal(0, 2, SHAPE)
    return p, p + rng.normal(0, 0.5, SHAPE)


def parameter_of(name):
    parameter = DIVERGENCES[name].parameter
    return {} if parameter is None or parameter.default is not None else {parameter.name: 0.3}


@pytest.mark.parametrize("chunks", CHUNKS, ids=range(len(CHUNKS)))
@pytest.mark.parametrize("dtype", [np.float32, np.float64, ml_dtypes.bfloat16])
def test_rows_have_the_bits_of_numpy(rows, chunks, dtype):
    p, q = (one.astype(dtype) for one in rows)
    for name in DIVERGENCES:
        options = parameter_of(name)
        expected = getattr(kldiv, name)(p, q, **options)
        found = getattr(kldiv.dask, name)(
            da.from_array(p, chunks), da.from_array(q, SHAPE), **options
        )
        assert isinstance(found, da.Array)
        assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
        assert np.array_equal(found.compute(), expected), name


@pytest.mark.parametrize("reduction", ["sum", "mean", "batchmean"])
def test_reductions_are_the_same_bits_for_any_chunks(rows, rng, reduction):
    p, q = rows
    where = rng.random(SHAPE[:2]) < 0.7
    weights = rng.random(SHAPE[1])
    options = {"where": where, "weights": weights, "reduction": reduction}
    expected = kldiv.kl(p, q, **options)
    found = {
        kldiv.dask.kl(da.from_array(p, chunks), da.from_array(q, chunks), **options).compute()
        for chunks in CHUNKS
    }
    assert len(found) == 1
    assert found.pop() == pytest.approx(expected, rel=1e-15)
    nothing = kldiv.dask.kl(da.from_array(p), q, where=np.zeros(SHAPE[:2], bool), reduction="mean")
    assert nothing.compute() == 0.0
    halved = kldiv.dask.kl(da.from_array(p), q, reduction="mean", denominator=2.0).compute()
    assert halved == pytest.approx(kldiv.kl(p, q, reduction="mean", denominator=2.0), rel=1e-15)


def test_the_other_functions(rows, rng):
    z = rows[0]
    labels = rng.integers(0, SHAPE[-1], SHAPE[:2])
    targets = np.exp(kldiv.log_softmax(rows[1]))
    class_weights = rng.random(SHAPE[-1])
    lazy = da.from_array(z, (2, 4, 17))
    calls = {
        "cross_entropy": [
            ((labels,), {"class_weights": class_weights, "label_smoothing": 0.1}),
            ((da.from_array(labels, (1, 6)),), {"reduction": "mean"}),
            ((da.from_array(targets, (3, 3, 40)),), {}),
        ],
        "entropy": [((), {"temperature": 2.0})],
        "logsumexp": [((), {"where": labels > 5})],
        "log_softmax": [((), {"where": labels > 5}), ((), {"axis": 1})],
        "gather_log_probs": [((labels,), {})],
    }
    # Of rows of different classes: see its own tests.
    assert calls.keys() | DIVERGENCES.keys() | {"uld"} == FUNCTIONS.keys()
    for name, several in calls.items():
        for more, options in several:
            expected = getattr(kldiv, name)(z, *map(np.asarray, more), **options)
            found = getattr(kldiv.dask, name)(lazy, *more, **options)
            assert found.shape == np.shape(expected)
            if "reduction" in options:
                assert found.compute() == pytest.approx(expected, rel=1e-15)
            else:
                assert np.array_equal(found.compute(), expected), (name, options)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_axes(rows, axis):
    p, q = rows
    expected = kldiv.kl(p, q, axis=axis)
    lazy = [da.from_array(one, (2, 4, 17)) for one in rows]
    assert np.array_equal(kldiv.dask.kl(*lazy, axis=axis).compute(), expected)
    one = kldiv.dask.kl(lazy[0][0, 0], lazy[1][0, 0], where=True)
    assert one.compute() == kldiv.kl(p[0, 0], q[0, 0])


@pytest.mark.parametrize("reduction", ["none", "sum", "mean", "batchmean"])
def test_value_and_grad(rows, rng, reduction):
    p, q = (one.astype(np.float32) for one in rows)
    upstream = rng.random(SHAPE[:2]) if reduction == "none" else 3.0
    options = {"where": rng.random(SHAPE[:2]) < 0.7, "reduction": reduction}
    more = {"wrt": ("p", "q"), "grad_output": upstream}
    expected = kldiv.value_and_grad(kldiv.kl, p, q, **more, **options)
    lazy = [da.from_array(one, (2, 4, 17)) for one in (p, q)]
    value, gradients = kldiv.dask.value_and_grad(kldiv.dask.kl, *lazy, **more, **options)
    assert value.compute() == pytest.approx(expected[0], rel=1e-6)
    for found, wanted in zip(gradients, expected[1], strict=True):
        assert (found.shape, found.dtype) == (wanted.shape, wanted.dtype)
        assert found.compute() == pytest.approx(wanted, rel=1e-6, abs=1e-9)
    _, gradient = kldiv.dask.value_and_grad(kldiv.dask.entropy, lazy[0], axis=1, reduction="sum")
    _, wanted = kldiv.value_and_grad(kldiv.entropy, p, axis=1, reduction="sum")
    assert gradient.compute() == pytest.approx(wanted, rel=1e-6)
    with pytest.raises(TypeError, match="log_softmax"):
        kldiv.dask.value_and_grad(kldiv.dask.log_softmax, lazy[0])
    with pytest.raises(ValueError, match="one or several of 'p', 'q', got 'r'"):
        kldiv.dask.value_and_grad(kldiv.dask.kl, *lazy, wrt="r")


def test_compare(rows, rng):
    p, q = rows
    labels = rng.integers(0, SHAPE[-1], SHAPE[:2])
    where = rng.random(SHAPE[:2]) < 0.7
    extra = [kldiv.chi_squared, functools.partial(kldiv.renyi, alpha=2)]
    expected = kldiv.compare(p, q, labels, where=where, extra=extra)
    lazy = da.from_array(p, (2, 4, 17)), da.from_array(q, (5, 1, 40))
    found = kldiv.dask.compare(*lazy, labels, where=where, extra=extra)
    computed = found.compute()
    for name, values in expected.extra.items():
        assert np.array_equal(found.extra[name].compute(), values), name
        assert np.array_equal(computed.extra[name], values), name
    for name in found.columns:
        wanted = getattr(expected, name)
        assert getattr(found, name).dtype == wanted.dtype
        assert np.array_equal(getattr(computed, name), wanted, equal_nan=True), name
    assert computed.summary().kl == expected.summary().kl
    assert "kl" in repr(found)
    with pytest.raises(AttributeError, match="no field 'x'"):
        _ = found.x
    assert "labels" not in kldiv.dask.compare(p, q).columns


def test_what_is_wrong_is_said_at_once(rows):
    p, q = (da.from_array(one, (2, 4, 17)) for one in rows)
    for arguments, options, error, message in (
        ((p, q[:, :5]), {}, ValueError, "batch shape"),
        ((p, q[..., :39]), {}, ValueError, "shape"),
        ((p, q), {"temperature": 0.0}, ValueError, "temperature"),
        ((p, q), {"reduction": "max"}, ValueError, "reduction must be one of"),
        ((p, q), {"where": np.ones(7, bool)}, ValueError, "where has shape"),
        ((p, q), {"where": np.ones(6)}, TypeError, "where"),
        ((p, q), {"axis": 3}, ValueError, "axis 3"),
        ((p.astype(int), q), {}, TypeError, "p has dtype int64"),
        ((p[p[:, 0, 0] > 0], q), {}, ValueError, "compute_chunk_sizes"),
        ((p,), {}, TypeError, "missing a required argument"),
    ):
        with pytest.raises(error, match=message):
            kldiv.dask.kl(*arguments, **options)
    with pytest.raises(ValueError, match="batchmean"):
        kldiv.dask.kl(p[0, 0], q[0, 0], reduction="batchmean")


def test_classes_in_several_chunks_are_brought_together_and_rows_stay_apart():
    """Without a chunk that is larger than dask's own."""
    with dask.config.set({"array.chunk-size": "1 MiB"}):
        p = da.zeros((4096, 1024), chunks=(4096, 16), dtype=np.float32)
        found = kldiv.dask.kl(p, p)
    assert max(found.chunks[0]) * 1024 * 4 <= 1 << 20
    assert found.sum().compute() == 0


def test_exact_sums(rng):
    values = rng.normal(size=10_000) * 10.0 ** rng.integers(-300, 300, 10_000)
    values[::7] = 5e-324
    truth = float(sum(map(Fraction, values.tolist())))
    assert float(Exact.of(values)) == truth
    for chunk in (10_000, 1234, 17):
        assert exact_sum(da.from_array(values, chunk)).compute() == truth
    assert float(Exact.of(np.array([1e308, 1e308]))) == np.inf
    assert float(Exact.of(np.array([1.0, -np.inf]))) == -np.inf
    assert np.isnan(float(Exact.of(np.array([np.inf, -np.inf]))))
    assert float(Exact.of(np.array([]))) == 0.0


@pytest.mark.parametrize("name", FUNCTIONS)
def test_docstrings_say_what_is_of_dask(name):
    text = inspect.getdoc(getattr(kldiv.dask, name))
    assert "kldiv.dask" in text
