"""Plain calls: the bits of a request, and nothing that one would convert, warn of or refuse."""

import re
import shutil
import subprocess
import sysconfig
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import kldiv
from conftest import DTYPES, PLAIN
from kldiv._kldiv import DIVERGENCES
from samples import GENERAL

pytestmark = pytest.mark.skipif(
    bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
    reason="free-threaded Pythons make no plain calls",
)

FUNCTIONS = {one.__name__: one for one in PLAIN}
OF_ONE = ("entropy", "logsumexp")


def arguments(name, shape=(2, 3, 5), dtype=np.float32):
    rng = np.random.default_rng(5)
    p, q = (2 + 3 * rng.standard_normal((2, *shape))).astype(dtype)
    if name in OF_ONE:
        return (q,)
    return (q, rng.integers(shape[-1], size=shape[:-1])) if name == "cross_entropy" else (p, q)


def as_tensors(arrays):
    torch = pytest.importorskip("torch")
    bits = (torch.from_numpy(x.view(np.int16) if x.itemsize == 2 else x) for x in arrays)
    dtypes = {"bfloat16": torch.bfloat16, "float16": torch.float16}
    return tuple(
        one.view(dtypes[array.dtype.name]) if array.itemsize == 2 else one
        for one, array in zip(bits, arrays, strict=True)
    )


def same(found, expected):
    assert type(found) is type(expected)
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    assert found.tobytes() == expected.tobytes()


def asked(name, given, options, monkeypatch):
    """Value and gradient by a request."""
    with monkeypatch.context() as patched:
        patched.setattr(FUNCTIONS[name], "plain", None)
        return kldiv.value_and_grad(FUNCTIONS[name], *given, **options)


def test_which_functions_have_plain_calls():
    assert FUNCTIONS.keys() == {*DIVERGENCES, "cross_entropy", *OF_ONE}
    assert kldiv.uld.plain is kldiv.estimators.k3.plain is None


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_results_are_those_of_a_request(name, dtype, monkeypatch):
    plain = FUNCTIONS[name].plain
    options = [{"reduction": one, "temperature": 0.7} for one in ("none", "sum", "mean")]
    options += [{}, {"reduction": "batchmean", "where": None, "axis": -1}]
    if name == "cross_entropy":
        options += [{"ignore_index": 3}, {"ignore_index": None, "reduction": "mean"}]
        options += [{"ignore_index": 3, "reduction": "mean"}]
    for shape in ((5,), (1, 5), (2, 3, 5), (2, 1000)):
        arrays = arguments(name, shape, dtype)
        for one in options:
            if len(shape) == 1 and one.get("reduction") == "batchmean":
                continue
            given = {**one, **GENERAL.get(name, {})}
            value, gradient = asked(name, arrays, given, monkeypatch)
            for rows in (arrays, as_tensors(arrays)):
                same(plain.value(rows, given), value)
                found = plain.value_and_grad(rows, given)
                same(found[0], value)
                same(found[1], gradient)


def test_a_result_owns_its_memory():
    rows = arguments("kl")
    first, second = (kldiv.value_and_grad(kldiv.kl, *rows) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert one.flags.owndata
        assert one.flags.writeable
        assert one.flags.c_contiguous
        assert not np.shares_memory(one, other)


class Own(np.ndarray):
    """An array that may mean something else."""


def unaligned(array):
    bits = np.zeros(array.nbytes + 1, np.uint8)[1:]
    found = bits.view(array.dtype).reshape(array.shape)
    found[...] = array
    return found


NOT_PLAIN = {
    "a list": lambda z, y: (z.tolist(), y),
    "labels in a list": lambda z, y: (z, y.tolist()),
    "integers": lambda z, y: (z.astype(int), y),
    "longdouble": lambda z, y: (z.astype(np.longdouble), y),
    "complex": lambda z, y: (z.astype(complex), y),
    "another dtype of ml_dtypes": lambda z, y: (z.astype(ml_dtypes.float8_e4m3fn), y),
    "another order of bytes": lambda z, y: (z.astype(">f4"), y),
    "another order of axes": lambda z, y: (np.asfortranarray(z), y),
    "a view": lambda z, y: (z[:, ::2], y),
    "unaligned": lambda z, y: (unaligned(z), y),
    "unaligned labels": lambda z, y: (z, unaligned(y)),
    "labels of another order of bytes": lambda z, y: (z, y.astype(">i8")),
    "labels of another dtype": lambda z, y: (z, y.astype(np.int32)),
    "labels without a sign": lambda z, y: (z, y.astype(np.uint64)),
    "times for labels": lambda z, y: (z, y.astype("m8[s]")),
    "labels of another shape": lambda z, y: (z, y[:, None]),
    "labels out of range": lambda z, y: (z, y + 6),
    "distributions": lambda z, y: (z, np.full_like(z, 1 / 6)),
    "a masked array": lambda z, y: (np.ma.masked_array(z), y),
    "an array of another type": lambda z, y: (z.view(Own), y),
    "a number": lambda z, y: (np.float32(1), y),
    "no axis": lambda z, y: (z[0, 0].reshape(()), y),
    "no rows": lambda z, y: (z[:0], y[:0]),
    "no classes": lambda z, y: (z[:, :0], y),
    "probabilities": lambda z, y: (np.full_like(z, 1 / 6), y),
    "nothing": lambda z, y: (None, y),
    "one argument": lambda z, y: (z,),
    "three arguments": lambda z, y: (z, y, y),
    "many rows": lambda z, y: (np.tile(z, (1000, 1)), np.tile(y, 1000)),
}


@pytest.mark.parametrize("change", NOT_PLAIN.values(), ids=NOT_PLAIN)
def test_other_arrays_are_declined(change):
    z, y = arguments("cross_entropy", (4, 6))
    plain = kldiv.cross_entropy.plain
    assert plain.value((z, y), {}) is not None
    given = change(z, y)
    assert plain.value(given, {}) is None
    assert plain.value_and_grad(given, {}) is None


@pytest.mark.parametrize(
    "option",
    [
        {"temperature": 1},
        {"temperature": np.float64(1.0)},
        {"temperature": True},
        {"temperature": -1.0},
        {"temperature": float("nan")},
        {"reduction": "median"},
        {"reduction": None},
        {"reduction": np.str_("mean")},
        {"ignore_index": True},
        {"ignore_index": 1.0},
        {"ignore_index": np.int64(1)},
        {"ignore_index": 2**63},
        {"axis": 0},
        {"space": "probs"},
        {"where": True},
        {"weights": np.ones(4)},
        {"denominator": 3.0},
        {"label_smoothing": 0.1},
        {"z_loss": 1e-4},
        {"softcap": 30.0},
        {"class_weights": np.ones(6)},
        {"rule": "tail"},
        {"unknown": None},
        {"parameter": 0.0},
        {"logits": None},
    ],
    ids=str,
)
def test_other_options_are_declined(option):
    rows = arguments("cross_entropy", (4, 6))
    plain = kldiv.cross_entropy.plain
    assert plain.value(rows, option) is None
    assert plain.value_and_grad(rows, option) is None


def test_what_divergences_decline():
    p, q = arguments("kl", (4, 6))
    others = [(p, q[:3]), (p, q[:, :5]), (p, np.full_like(q, 1 / 6)), (kldiv.top_k(p, 2), q)]
    assert all(kldiv.kl.plain.value(given, {}) is None for given in others)
    assert kldiv.renyi.plain.value((p, q), {}) is None  # its order has no default
    assert kldiv.renyi.plain.value((p, q), {"alpha": 0.5}) is not None
    for alpha in (2, -1.0, np.float64(2.0)):
        assert kldiv.renyi.plain.value((p, q), {"alpha": alpha}) is None
    assert kldiv.kl.plain.value((p, q), {"alpha": 0.5}) is None
    assert kldiv.jensen_shannon.plain.value((p, q), {"endpoints": "trl"}) is None
    assert kldiv.kl.plain.value((p[0], q[0]), {"reduction": "batchmean"}) is None


def test_what_tensors_are_declined():
    torch = pytest.importorskip("torch")
    z, y = as_tensors(arguments("cross_entropy", (4, 6)))
    plain = kldiv.cross_entropy.plain
    assert plain.value((z, y), {}) is not None

    class Own(torch.Tensor):
        pass

    negative = torch.complex(torch.zeros_like(z), -z).conj().imag.contiguous()
    whole = torch._neg_view(z)
    assert whole.is_neg()
    assert whole.is_contiguous()
    assert not negative.is_neg()
    others = [
        z.clone().requires_grad_(),
        torch.nn.Parameter(z),
        z.as_subclass(Own),
        whole,
        z.to("meta"),
        z.to_sparse(),
        z.t().contiguous().t(),
        z[:, ::2],
        z.expand(1, 4, 6)[:, :1].expand(3, 4, 6),
        z[:0],
        z[:, :0],
        z[0, 0],
        z.to(torch.int32),
        z.to(torch.complex64),
        torch._efficientzerotensor((4, 6)),
    ]
    assert [plain.value((other, y), {}) for other in others] == [None] * len(others)
    labels = [y.int(), y.to(torch.uint64), y[:, None], y + 6, z, torch.stack([y, y], 1)[:, 0]]
    assert [plain.value((z, other), {}) for other in labels] == [None] * len(labels)
    # A view of what is contiguous is as it is.
    both = torch.stack([z, -z])
    assert (
        plain.value((both[1], y), {}).tobytes()
        == kldiv.cross_entropy(-z.numpy(), y.numpy()).tobytes()
    )


def test_structures_are_those_of_the_header_of_dlpack(tmp_path):
    """Of the version that torch has, and laid out as a C compiler does."""
    torch = pytest.importorskip("torch")
    header = Path(torch.__file__).parent / "include" / "ATen" / "dlpack.h"
    text = header.read_text(encoding="utf-8")
    assert re.search(r"#define DLPACK_MAJOR_VERSION (\d+)", text)[1] == "1"
    if (compiler := shutil.which("cc")) is None:
        pytest.skip("no C compiler")
    checks = (
        "sizeof(DLTensor) == 48",
        "offsetof(DLTensor, strides) == 32",
        "offsetof(DLPackExchangeAPI, dltensor_from_py_object_no_sync) == 40",
        *("kDLCPU == 1", "kDLInt == 0", "kDLFloat == 2", "kDLBfloat == 4"),
    )
    program = tmp_path / "sizes.c"
    lines = ["#include <stddef.h>", f'#include "{header}"']
    program.write_text("\n".join([*lines, *(f'_Static_assert({x}, "{x}");' for x in checks), ""]))
    command = [compiler, "-std=c11", "-fsyntax-only", str(program)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_under_transforms_tensors_are_refused_as_ever():
    torch = pytest.importorskip("torch")
    z, y = as_tensors(arguments("cross_entropy", (4, 6)))
    seen = []

    def watched(row):
        seen.append(kldiv.cross_entropy.plain.value((row, y), {}))
        return row.sum()

    torch.func.grad(watched)(z)
    torch.vmap(watched)(torch.stack([z, z]))
    assert seen == [None, None]
