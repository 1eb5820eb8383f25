"""The table of corners through every front end: NumPy, torch, torch's formulas and JAX.

An infinity, a NaN and a zero that follows from the definition have to be exactly that. Other
numbers keep the bounds of docs/numerics.md, and in torch's formulas those of torch's operations.
"""

import functools

import ml_dtypes
import numpy as np
import pytest

import kldiv
from corners import CORNERS, KNOWN
from jax_precision import enable_x64

torch = pytest.importorskip("torch")
jax = pytest.importorskip("jax")

import jax.numpy as jnp  # noqa: E402

import kldiv.jax  # noqa: E402
import kldiv.torch  # noqa: E402
from kldiv.torch.functional.rows import RowOptions  # noqa: E402
from samples import ALL  # noqa: E402

# Rows with a negative number are there to become NaN; the warning of them has its own test.
pytestmark = pytest.mark.filterwarnings("ignore:.*negative:UserWarning")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Threads for rows of four classes only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# --- What each front end gives --------------------------------------------------------------------


def by_numpy(corner):
    function = getattr(kldiv, corner.function)
    if not hasattr(function, "request"):
        return function(*corner.arrays.values(), **corner.options), {}
    value, gradients = kldiv.value_and_grad(
        function, *corner.arrays.values(), wrt=corner.wrt, **corner.options
    )
    return value, dict(zip(corner.wrt, gradients, strict=True))


def _tensor(array):
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(np.uint16).copy()).view(torch.bfloat16)
    return torch.from_numpy(array.copy())


def _array(tensor):
    tensor = tensor.detach()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


def _by_torch(corner, differentiate):
    tensors = {name: _tensor(array) for name, array in corner.arrays.items()}
    options = {
        name: _tensor(option) if isinstance(option, np.ndarray) else option
        for name, option in corner.options.items()
    }

    def call(*own):
        given = {**tensors, **dict(zip(corner.wrt, own, strict=True))}
        if corner.function != "cross_entropy":
            return getattr(kldiv.torch, corner.function)(*given.values(), **options)
        # The drop-in of that name has the rules of torch; this is the loss with those of kldiv.
        more = dict(options)
        rows = RowOptions(
            more.pop("where", None),
            more.pop("weights", None),
            more.pop("reduction", "none"),
            more.pop("denominator", None),
        )
        loss = kldiv.torch.ops.cross_entropy.soft_cross_entropy
        arguments = [given["logits"], given["targets"]]
        if corner.labels is not None:
            loss = kldiv.torch.ops.cross_entropy.cross_entropy
            arguments.append(more.get("ignore_index", -100))
        defaults = {
            "class_weights": None,
            "space": "logits",
            "temperature": 1.0,
            "label_smoothing": 0.0,
            "z_loss": 0.0,
            "softcap": None,
        }
        arguments += [more.get(name, default) for name, default in defaults.items()]
        return rows.run(loss, tuple(arguments))

    value, gradients = differentiate(call, tuple(tensors[name] for name in corner.wrt))
    gradients = [_array(gradient) for gradient in gradients]
    return _array(value), dict(zip(corner.wrt, gradients, strict=True))


def by_torch(corner):
    def differentiate(call, own):
        own = [tensor.requires_grad_() for tensor in own]
        value = call(*own)
        return value, torch.autograd.grad(value, own, torch.ones_like(value))

    return _by_torch(corner, differentiate)


def by_formula(corner):
    def differentiate(call, own):
        value, pull = torch.func.vjp(call, *own)
        return value, pull(torch.ones_like(value))

    return _by_torch(corner, differentiate)


STATIC = ("space", "reduction")
ROWS = max(len(next(iter(corner.arrays.values()))) for corner in CORNERS)


@functools.cache
def _compiled(function, names, wrt, static):
    """The function under `jax.jit`, with all its numbers traced: one compilation for many calls."""

    def run(arrays, traced):
        def call(own):
            given = {**dict(zip(names, arrays, strict=True)), **own}
            return getattr(kldiv.jax, function)(*given.values(), **dict(static), **traced)

        own = {name: arrays[names.index(name)] for name in wrt}
        value, pull = jax.vjp(call, own)
        return value, *pull(jnp.ones_like(value))

    return jax.jit(run)


def by_jax(corner):
    traced = dict(corner.options)
    names = [name for name, value in traced.items() if name in STATIC or value is None]
    static = tuple((name, traced.pop(name)) for name in names)
    arrays, count = list(corner.arrays.values()), None
    if not {"where", "weights", "reduction"} & set(corner.options):
        # As many rows in every batch: JAX compiles for each shape.
        count = len(arrays[0])
        arrays = [np.concatenate([a, np.repeat(a[:1], ROWS - count, axis=0)]) for a in arrays]
    # float64 for the numbers that are traced: the arrays have dtypes of their own.
    with enable_x64(True):
        run = _compiled(corner.function, tuple(corner.arrays), corner.wrt, static)
        if "temperature" in corner.options:
            # Without `jax.jit`: there are too many of these to compile.
            run = run.__wrapped__
        value, gradients = run([jnp.asarray(array) for array in arrays], traced)
    value = np.asarray(value)
    value = value if count is None else value[:count]
    return value, {name: np.asarray(g)[:count] for name, g in gradients.items()}


FRONT_ENDS = {"numpy": by_numpy, "torch": by_torch, "formula": by_formula, "jax": by_jax}

# --- How near that has to be ----------------------------------------------------------------------

# Relative; below the floor, that of the floor (docs/numerics.md). The formulas: torch's own
# log-softmax in float32 is off by some 1e-7, relative to the logits' range, and sums cancel.
VALUE = {"float32": (1e-6, 1e-12), "float64": (1e-13, 1e-24)}
FORMULA = {"float32": (2e-5, 1e-1), "float64": (1e-11, 1e-2)}
ROUNDING = {"float16": 2.0**-11, "bfloat16": 2.0**-8}


def _exactly(numbers, dtype):
    """As the dtype stores them: beyond its range is infinite."""
    with np.errstate(over="ignore", under="ignore"):
        return numbers.astype(dtype).astype(np.float64)


def _faults(found, numbers, bound, floor, *, by_norm=False, zeros=None):
    """Which entries are wrong; `zeros` says which have to be exactly 0."""
    wanted = _exactly(numbers, found.dtype)
    found = found.astype(np.float64)
    usual = np.isfinite(wanted) & np.isfinite(found)
    wrong = ~usual & ~((found == wanted) | (np.isnan(found) & np.isnan(wanted)))
    if zeros is not None:
        wrong |= zeros & (found != 0)
    error = np.abs(np.where(usual, found, 0.0) - np.where(usual, numbers, 0.0))
    size = np.abs(np.where(usual, numbers, 0.0))
    if by_norm:
        # Of rows that sum to 0, in which a class may be any number of digits below the others.
        size = np.full(size.shape, np.linalg.norm(size))
        error = np.where(usual, np.linalg.norm(error), 0.0)
    else:
        # ln p/q + 1 and the like cancel to something of the size of what their terms round to.
        size = np.where(size > 1e-3, np.maximum(size, 1.0), size)
    return wrong | (error > bound * np.maximum(size, floor))


@pytest.mark.parametrize(
    "front_end",
    [
        pytest.param(name, marks=[pytest.mark.costly] * (name in ("formula", "jax")))
        for name in FRONT_ENDS
    ],
)
@pytest.mark.parametrize("corner", CORNERS, ids=lambda corner: corner.name)
def test_corner(corner, front_end):
    expected = corner.expected
    value, gradients = FRONT_ENDS[front_end](corner)
    value = np.asarray(value)
    floating = [a for a in corner.arrays.values() if a.dtype.kind not in "iu"]
    wide = np.float64 if any(array.dtype == np.float64 for array in floating) else np.float32
    assert value.dtype == wide
    assert value.shape == expected.value.shape
    formula = front_end == "formula"
    bound, floor = (FORMULA if formula else VALUE)[value.dtype.name]
    floor = max(floor, _tiniest(value.dtype) / bound)
    numbers = expected.value
    zeros = None
    if not formula and set(corner.arrays) == {"p", "q"}:
        # Of other functions the oracle's 0 may be what 60 digits leave of a surprise.
        zeros = numbers == 0
    if corner.function.startswith("skew") and corner.options.get("space", "logits") != "logits":
        # (1 − α)Σ(p − q) is rounded: docs/numerics.md.
        zeros, floor = None, max(floor, 1e-15 / bound)
    faults = [
        f"value{_place(corner, value.shape, at)}: {value.flat[at]!r}, not {numbers.flat[at]!r}"
        for at in np.flatnonzero(_faults(value, numbers, bound, floor, zeros=zeros))
    ]
    space = corner.options.get("space", "logits")
    scale = max(1.0, 1.0 / np.min(corner.options.get("temperature", 1.0)))
    # Slopes of that size round off the others in the formulas, or leave their range.
    powers = formula and corner.function in ("alpha_divergence", "chi_squared")
    rounded_off = np.full(len(next(iter(corner.arrays.values()))), False)
    if powers and space == "logits" and expected.value.shape == rounded_off.shape:
        rounded_off = (expected.value > 1e15) & np.isfinite(expected.value)
    for name, gradient in gradients.items():
        numbers, given = expected.gradients[name], corner.arrays[name]
        assert gradient.shape == numbers.shape
        assert gradient.dtype == (wide if front_end == "numpy" else given.dtype)
        mine = bound + ROUNDING.get(gradient.dtype.name, 0.0)
        least = max((floor if formula else np.sqrt(floor)) * scale, _tiniest(gradient.dtype) / mine)
        if corner.function == "log_softmax":
            # 1 − V p is the difference of terms of size 1.
            least = max(least, 1 / corner.options.get("temperature", 1.0))
        if corner.function == "lk_hybrid":
            # The slopes of total variation, which agree, round off small ones of KL.
            least = max(least, 1e-15 / bound / np.max(corner.options.get("temperature", 1.0)))
        for row, (one, right) in enumerate(zip(gradient, numbers, strict=True)):
            if rounded_off[row]:
                continue
            zeros = np.full(right.shape, expected.left_out[row])
            if not formula:
                zeros |= _zero_by_definition(corner, given, row)
            zeros &= right == 0
            wrong = _faults(one, right, mine, least, by_norm=space == "logits", zeros=zeros)
            if wrong.any():
                place = _place(corner, gradient.shape, row * gradient.shape[1])
                faults.append(f"∂/∂{name}{place}: {one}, not {right}")
    assert not faults, "\n".join(faults)


def _zero_by_definition(corner, given, row):
    """Where a gradient of 0 is no rounded one, as the oracle's is far below the other classes."""
    rows = [array[row] for array in corner.arrays.values() if array.ndim == 2]
    absent = (given[row] == 0) | np.isneginf(given[row])
    identical = len(rows) == 2 and np.array_equal(*rows)
    return absent | identical | (np.count_nonzero(~absent) <= 1)


def _tiniest(dtype):
    return float(np.nextafter(dtype.type(0), dtype.type(1)))


def _place(corner, shape, at):
    if not shape:
        return ""
    row = np.unravel_index(at, shape)[0]
    return f" of {corner.rows[row]!r}" if corner.rows else f" of row {row}"


@pytest.mark.parametrize(("function", "row"), KNOWN)
def test_the_table_says_what_is_known(function, row):
    """Values in closed form, in every corner that has such a row and default parameters."""
    parameter = ALL[function][0]
    seen = 0
    for corner in CORNERS:
        options = {k: v for k, v in corner.options.items() if k != "space"}
        if corner.function == function and options == parameter and row in corner.rows:
            seen += 1
            found = corner.expected.value[corner.rows.index(row)]
            np.testing.assert_allclose(found, float(KNOWN[function, row]), rtol=1e-15)
    assert seen
