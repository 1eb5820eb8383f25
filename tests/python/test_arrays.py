"""Arrays of every kind: strides, axes, byte orders, subclasses, foreign arrays, outputs."""

import sys

import ml_dtypes
import numpy as np
import pytest

import kldiv
from conftest import DTYPES


@pytest.fixture
def pair(rng):
    return rng.normal(0, 2, (2, 4, 3, 50)).astype(np.float32)


def results(p, q, **options):
    value, gradient = kldiv.value_and_grad(kldiv.kl, p, q, **options)
    return np.asarray(value), gradient


def assert_same(actual, expected):
    for a, b in zip(actual, expected, strict=True):
        assert np.array_equal(a, b)


def test_any_number_of_batch_axes(pair):
    p, q = pair
    value, gradient = results(p, q)
    assert value.shape == (4, 3)
    assert_same(results(p[1, 2], q[1, 2]), (value[1, 2], gradient[1, 2]))
    assert isinstance(kldiv.kl(p[0, 0], q[0, 0]), np.float32)
    deep = (1, 4, 1, 3, 50)
    assert_same(
        results(p.reshape(deep), q.reshape(deep)),
        (value.reshape(deep[:-1]), gradient.reshape(deep)),
    )


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2, -3])
def test_axes(pair, axis):
    p, q = pair
    value, gradient = results(p, q)
    moved = results(np.moveaxis(p, -1, axis), np.moveaxis(q, -1, axis), axis=axis)
    assert_same(moved, (value, np.moveaxis(gradient, -1, axis)))
    copied = (np.ascontiguousarray(np.moveaxis(x, -1, axis)) for x in pair)
    assert_same(results(*copied, axis=axis), (value, np.moveaxis(gradient, -1, axis)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "view",
    [
        lambda x: x[::-1],
        lambda x: x[:, ::-1],
        lambda x: x[..., ::-1],
        lambda x: x[..., ::3],
        lambda x: x[..., 5:6],
        lambda x: x.transpose(1, 0, 2),
        lambda x: np.asfortranarray(x),
        lambda x: np.broadcast_to(x[:1], x.shape),
        lambda x: x[::2, 1:2, 3:],
    ],
    ids=[
        "reversed",
        "reversed-1",
        "reversed-classes",
        "strided-classes",
        "one-class",
        "transposed",
        "fortran",
        "broadcast",
        "sliced",
    ],
)
def test_strides(pair, dtype, view):
    p, q = (view(x.astype(DTYPES[dtype])) for x in pair)
    expected = results(np.ascontiguousarray(p), np.ascontiguousarray(q))
    assert_same(results(p, q), expected)


def test_read_only_and_memory_mapped(pair, tmp_path):
    p, q = pair
    expected = results(p, q)
    np.save(tmp_path / "p.npy", p)
    mapped = np.load(tmp_path / "p.npy", mmap_mode="r")
    assert_same(results(mapped, q), expected)
    p.flags.writeable = False
    assert_same(results(p, q), expected)


def test_byte_swapped_and_unaligned(pair):
    p, q = pair
    expected = results(p, q)
    assert_same(results(p.astype(">f4"), q), expected)
    buffer = np.empty(p.nbytes + 1, np.uint8)
    unaligned = buffer[1:].view(np.float32).reshape(p.shape)
    unaligned[...] = p
    assert_same(results(unaligned, q), expected)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_byte_swapped_rows_with_outputs_of_their_dtype(pair, dtype):
    p, q = pair.astype(dtype)
    expected = results(p, q, out=np.empty_like(q))
    swapped = q.astype(q.dtype.newbyteorder())
    out = np.empty_like(q)
    assert results(p, swapped, out=out)[1] is out
    assert_same(results(p, swapped, out=out), expected)
    with pytest.raises(TypeError, match=r"out has dtype .* in native byte order"):
        results(p, swapped, out=swapped)


def test_subclasses_lists_and_masked_arrays(pair):
    p, q = pair[:, 0]
    expected = results(p, q)
    assert_same(results(p.view(np.matrix), q), expected)
    assert type(kldiv.kl(p.view(np.matrix), q)) is np.ndarray
    assert_same(
        results(p.astype(float).tolist(), q.astype(float).tolist()),
        results(p.astype(float), q.astype(float)),
    )
    with pytest.raises(TypeError, match="where"):
        kldiv.kl(np.ma.masked_array(p, mask=p > 0), q)


def test_zero_dimensions_and_zero_classes():
    with pytest.raises(ValueError, match=r"p has shape \(\)"):
        kldiv.kl(np.float64(1), np.float64(1))
    with pytest.raises(ValueError, match=r"\(2, 0\)"):
        kldiv.kl(np.empty((2, 0)), np.empty((2, 0)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_result_dtypes(rng, dtype):
    p, q = rng.normal(0, 1, (2, 3, 20)).astype(DTYPES[dtype])
    wide = np.float64 if dtype == "float64" else np.float32
    value, gradient = kldiv.value_and_grad(kldiv.kl, p, q)
    assert value.dtype == gradient.dtype == wide
    assert kldiv.kl(p, q, reduction="mean").dtype == wide
    assert kldiv.log_softmax(p).dtype == wide
    assert kldiv.compare(p, q).kl.dtype == wide
    assert kldiv.kl(p, q.astype(np.float64)).dtype == np.float64


def test_bfloat16_is_read_in_place(rng):
    p = rng.normal(0, 1, (3, 33)).astype(ml_dtypes.bfloat16)
    q = rng.normal(0, 1, (3, 33)).astype(ml_dtypes.bfloat16)
    expected = results(p.astype(np.float32), q.astype(np.float32))
    assert_same(results(p, q), expected)


def test_torch_tensors(pair):
    torch = pytest.importorskip("torch")
    p = pair[0]
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        tensors = [torch.from_numpy(x).to(dtype) for x in pair]
        arrays = [t.to(torch.float64).numpy().astype(DTYPES[str(dtype)[6:]]) for t in tensors]
        assert_same(results(*tensors), results(*arrays))
        assert_same(
            results(tensors[0].transpose(0, 1), tensors[1].transpose(0, 1)),
            results(arrays[0].swapaxes(0, 1), arrays[1].swapaxes(0, 1)),
        )
    labels = torch.zeros(4, 3, dtype=torch.int64)
    assert np.array_equal(kldiv.cross_entropy(p, labels), kldiv.cross_entropy(p, labels.numpy()))


def test_foreign_arrays_by_protocol(pair):
    class Foreign:
        def __init__(self, array):
            self.array = array

        def __array__(self, dtype=None, copy=None):
            return self.array

    class Capsule:
        def __init__(self, array):
            self.array = array

        def __dlpack__(self, **options):
            return self.array.__dlpack__(**options)

        def __dlpack_device__(self):
            return self.array.__dlpack_device__()

    p, q = pair
    assert_same(results(Foreign(p), q), results(p, q))
    assert_same(results(Capsule(p), q), results(p, q))


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradient_over_the_logits(rng, dtype):
    p, q = rng.normal(0, 2, (2, 5, 777)).astype(DTYPES[dtype])
    for function, options in (
        (kldiv.kl, {}),
        (kldiv.jensen_shannon, {}),
        (kldiv.cross_entropy, {}),
        (kldiv.entropy, {}),
        (kldiv.logsumexp, {}),
    ):
        arguments = {
            kldiv.cross_entropy: (q, np.arange(5)),
            kldiv.entropy: (q,),
            kldiv.logsumexp: (q,),
        }.get(function, (p, q))
        value, gradient = kldiv.value_and_grad(function, *arguments, **options)
        target = q.copy()
        arguments = tuple(target if x is q else x for x in arguments)
        again, out = kldiv.value_and_grad(function, *arguments, out=target, **options)
        assert out is target
        assert np.array_equal(again, value)
        # Rounded once, to nearest; float64 lanes pass through float32 on their way to half.
        expected = gradient.astype(target.dtype)
        np.testing.assert_array_max_ulp(
            out.view(np.uint16).astype(np.int64) if out.itemsize == 2 else out,
            expected.view(np.uint16).astype(np.int64) if out.itemsize == 2 else expected,
            0,
        ) if out.itemsize > 2 else np.testing.assert_array_equal(out, expected)


def test_outputs_of_every_layout(pair):
    p, q = pair
    value, gradient = results(p, q)
    for out in (
        np.empty(p.shape[::-1], np.float32).T,
        np.empty((4, 3, 100), np.float32)[..., ::2],
        np.empty((8, 3, 50), np.float32)[::-2],
        np.empty(p.shape, np.float32).view(np.recarray),
    ):
        again, result = kldiv.value_and_grad(kldiv.kl, p, q, out=out)
        assert result is out
        assert np.array_equal(again, value)
        assert np.array_equal(result, gradient)


def test_both_gradients_in_place(pair):
    p, q = pair
    value, gradients = kldiv.value_and_grad(kldiv.renyi, p, q, alpha=0.5, wrt=("q", "p"))
    out = (q.copy(), p.copy())
    again, result = kldiv.value_and_grad(
        kldiv.renyi, out[1], out[0], alpha=0.5, wrt=("q", "p"), out=out
    )
    assert np.array_equal(again, value)
    assert_same(result, gradients)


def test_outputs_that_overlap_inputs_otherwise(pair):
    _, gradient = results(*pair)
    memory = np.zeros(4 * 3 * 50 + 25, np.float32)
    q = memory[25:].reshape(4, 3, 50)
    q[...] = pair[1]
    out = memory[:-25].reshape(4, 3, 50)
    kldiv.value_and_grad(kldiv.kl, pair[0], q, out=out)
    assert np.array_equal(out, gradient)


def test_outputs_that_overlap_inputs_along_another_axis(rng):
    memory = np.zeros(225, np.float32)
    p, q = rng.normal(0, 2, (50, 4)).astype(np.float32), memory[25:].reshape(50, 4)
    q[...] = rng.normal(0, 2, (50, 4))
    _, gradient = results(p, q, axis=0)
    out = memory[:-25].reshape(50, 4)
    kldiv.value_and_grad(kldiv.kl, p, q, axis=0, out=out)
    assert np.array_equal(out, gradient)


def test_log_softmax_over_its_input(pair):
    z = pair[0].copy()
    expected = kldiv.log_softmax(z)
    assert kldiv.log_softmax(z, out=z) is z
    assert np.array_equal(z, expected)


def test_nothing_is_copied(rng):
    # 64 MiB an array; a copy of either, or a second output, would show in the peak.
    resource = pytest.importorskip("resource")
    if sys.platform != "linux":
        pytest.skip("ru_maxrss is in KiB on Linux")
    rows, classes = 128, 131_072
    p = np.zeros((rows, classes), np.float32)
    p[:, :100] = rng.normal(0, 1, (rows, 100))
    q = p + np.float32(0.5)
    q[:, 3] = 0
    kldiv.kl(p[:1], q[:1])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    kldiv.value_and_grad(kldiv.kl, p, q, out=q)
    kldiv.value_and_grad(kldiv.jensen_shannon, p, q, out=q)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert after - before < 8 * 1024
