"""The functions of `kldiv` on `dask.array`, of their names and signatures."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable
from typing import Any

import dask.array as da
import numpy as np

from kldiv import functional
from kldiv._kldiv import DIVERGENCES
from kldiv._reducer import REDUCTIONS
from kldiv._signatures import NUMPY_ONLY, adopt, adopted, bound, docstring
from kldiv.dask.blocks import Call, call_of, numpy_function, values_kernel
from kldiv.dask.exact import exact_sum

MODULE = "kldiv.dask"

TYPES = {
    "ArrayLike": "Any",
    "ArrayLike | None": "Any",
    "ArrayLike | TopK": "Any",
    "IdMap | None": "tuple[Any, Any] | None",
    "Rule | None": "str | tuple[str, float] | None",
    "Space": "str | tuple[str, str]",
    "Temperature": "float | tuple[float, float]",
}
"""What stands for NumPy's types."""

_EXAMPLE = """
    Examples
    --------
    >>> import dask.array
    >>> import kldiv.dask
    >>> print(f"{{kldiv.dask.{call}.compute(){item}:.6f}}")
    1.386294
    """

DOCSTRINGS = {
    "kl": r"""
    Kullback–Leibler divergence of q from p, Σ p (ln p − ln q); `kldiv.kl` on dask arrays.

    Lazy: a block of rows is one call of `kldiv.kl` on NumPy arrays. Parameters, values and edge
    cases are those of `kldiv.kl`, and so are exceptions: shapes, dtypes and options are checked at
    once, numbers when they are computed. Rows may be in any chunks, p and q in different ones;
    classes are brought into one chunk (`rechunk`) where they are in several. Masks, weights and
    labels are dask arrays or any others, and NumPy arrays stand beside dask arrays.

    The values of rows have the bits of `kldiv.kl`. Reductions add those values exactly and round
    once, so that chunks change no bit; `kldiv.kl` adds unrounded values in their order, which is
    another last digit in float64, and up to 6e-8 of the result in float32.

    Examples
    --------
    >>> import dask.array
    >>> import kldiv.dask
    >>> p = dask.array.asarray([[1.0, 2.0, 0.5], [-1.0, 0.0, 3.0]]).rechunk((1, 3))
    >>> q = dask.array.asarray([[0.9, 2.1, 0.5], [-1.0, 0.5, 2.0]])
    >>> kldiv.dask.kl(p, q).compute().round(6)
    array([0.003424, 0.088361])
    >>> print(f"{kldiv.dask.kl(p, q, reduction='mean').compute():.6f}")
    0.045892
    """,
    "uld": r"""
    Universal logit distillation, Σ \|p_(i) − q_(i)\|; `kldiv.uld` on dask arrays. See `kl`.

    p and q may have different numbers of classes. The ids of `id_map` are NumPy arrays or lists,
    the same for all rows.

    Examples
    --------
    >>> import dask.array
    >>> import kldiv.dask
    >>> p, q = dask.array.zeros((1, 4)), dask.array.zeros((1, 2))
    >>> print(f"{kldiv.dask.uld(p, q).compute()[0]:.6f}")
    1.000000
    """,
    "cross_entropy": """
    Cross-entropy with class indices or distributions; `kldiv.cross_entropy` on dask arrays.

    See `kl`; class weights have one number for each class.
    """
    + _EXAMPLE.format(call="cross_entropy(dask.array.zeros((1, 4)), [1])", item="[0]"),
    "entropy": """
    Shannon entropy, −Σ p ln p; `kldiv.entropy` on dask arrays. See `kl`.
    """
    + _EXAMPLE.format(call="entropy(dask.array.zeros(4))", item=""),
    "logsumexp": """
    Log-sum-exp, ln Σ e^(z/T); `kldiv.logsumexp` on dask arrays. See `kl`.
    """
    + _EXAMPLE.format(call="logsumexp(dask.array.zeros(4))", item=""),
    "log_softmax": """
    z/T − ln Σ e^(z/T); `kldiv.log_softmax` on dask arrays, in the chunks of z. See `kl`.
    """
    + _EXAMPLE.format(call="log_softmax(-dask.array.zeros(4))", item="[0] * -1"),
    "gather_log_probs": """
    Ln softmax(z/T) at the label of each row; `kldiv.gather_log_probs` on dask arrays. See `kl`.
    """
    + _EXAMPLE.format(call="gather_log_probs(dask.array.zeros((1, 4)), [1])", item="[0] * -1"),
}
"""Those that say more than where the function comes from."""


def rows_of(call: Call, dtype: np.dtype[Any]) -> da.Array:
    """What a function gives for each row."""
    return call.blocks(values_kernel, dtype)


def prepared(call: Call, options: dict[str, Any]) -> tuple[Call, np.dtype[Any]]:
    """A call with its mask and weights, and the dtype of its values, all checked."""
    given = {name: options.pop(name, None) for name in ("where", "weights")}
    more = [call.over_batch(name, value) for name, value in given.items() if value is not None]
    # A stand-in for the mask has its dtype checked; the other numbers are seen in the blocks.
    checked = {one.name: np.zeros((), one.array.dtype) for one in more}
    if not call.batch and "where" in checked:
        checked["where"] = np.zeros((), np.bool_)
    dtype = np.asarray(call.stand_in(**checked)).dtype
    return call.with_operands(*more), dtype


def divisor(call: Call, reduction: str, denominator: float | None) -> da.Array | float | None:
    """What the sum of the values is divided by; None for a sum."""
    if reduction == "sum":
        return None
    if reduction == "batchmean":
        return float(call.batch_shape[0])
    if denominator is not None:
        return denominator
    given = {one.name: one.array for one in call.operands if one.name in ("where", "weights")}
    kept = given.get("weights")
    if (where := given.get("where")) is not None:
        kept = da.where(where != 0, 1.0 if kept is None else kept, 0.0)
    if kept is None:
        return float(np.prod(call.batch_shape, dtype=np.int64))
    return exact_sum(kept)


def check_reduction(call: Call, options: dict[str, Any]) -> tuple[str, float | None]:
    """The reduction and its denominator, taken out of the options once they are checked."""
    reduction = options.get("reduction", "none")
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction must be one of {', '.join(REDUCTIONS)}, got {reduction!r}")
    if reduction == "batchmean" or options.get("denominator") is not None:
        # NumPy's function says what is wrong with these.
        call.stand_in()
    denominator = options.pop("denominator", None)
    options.pop("reduction", None)
    call.options.pop("denominator", None)
    call.options.pop("reduction", None)
    return reduction, None if denominator is None else float(denominator)


def divided(total: da.Array, by: da.Array | float | None) -> da.Array:
    """A sum divided; 0 where no row is kept."""
    if by is None:
        return total
    by = da.asarray(by)
    found: da.Array = da.blockwise(
        _ratio, (), total, (), by, (), dtype=np.float64, meta=np.empty((), np.float64)
    )
    return found


def _ratio(total: Any, by: Any) -> np.float64:
    return np.float64(total / by if by else 0.0)


def _log_softmax(call: Call, dtype: np.dtype[Any], axis: int) -> da.Array:
    z = call.operands[0]
    found = call.blocks(values_kernel, dtype, z.index)
    moved: da.Array = da.moveaxis(found, -1, axis)
    return moved


def _on_dask_arrays(name: str) -> Callable[..., da.Array]:
    model = getattr(functional, name)
    signature = adopted(model, TYPES, "da.Array")

    def function(*args: Any, **kwargs: Any) -> da.Array:
        rows, options = bound(name, signature, args, kwargs)
        for option in ("support", "return_mass"):
            if options.get(option) is not None and options.get(option) is not False:
                raise TypeError(
                    f"{option} is not for dask arrays: dask.array.map_blocks of kldiv.{name} "
                    "takes it"
                )
        axis = operator.index(options["axis"])
        call = call_of(numpy_function(name), rows, _without_marks(options))
        if name == "log_softmax":
            call, dtype = prepared(call, options)
            return _log_softmax(call, dtype, axis)
        reduction, denominator = check_reduction(call, options)
        call, dtype = prepared(call, options)
        values = rows_of(call, dtype)
        if reduction == "none":
            return values
        by = divisor(call, reduction, denominator)
        return divided(exact_sum(values), by).astype(dtype)

    if name in DOCSTRINGS:
        function.__doc__ = inspect.cleandoc(DOCSTRINGS[name])
    elif name in DIVERGENCES:
        function.__doc__ = docstring(
            model, MODULE, "dask arrays", "dask.array.asarray", "{}.compute()", "block by block"
        )
    return adopt(function, model, MODULE, signature)


def _without_marks(options: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if key not in ("where", "weights")}


_NAMES: list[str] = functional.__all__  # type: ignore[attr-defined]  # not shown to type checkers
FUNCTIONS = {name: _on_dask_arrays(name) for name in _NAMES if name not in NUMPY_ONLY}
