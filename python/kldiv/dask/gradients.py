"""Value and gradient of a function of this package, by blocks of rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import dask.array as da
import numpy as np

import kldiv
from kldiv.dask.blocks import Call, as_given, call_of, nth, numpy_function, plain
from kldiv.dask.exact import exact_sum
from kldiv.dask.functional import FUNCTIONS, check_reduction, divided, divisor, prepared

DEFAULT_WRT = {"cross_entropy": "logits", "entropy": "p", "logsumexp": "z"}


def value_and_grad(
    function: Callable[..., da.Array],
    *args: Any,
    wrt: str | Sequence[str] | None = None,
    grad_output: Any = None,
    **options: Any,
) -> tuple[da.Array, da.Array | tuple[da.Array, ...]]:
    """Value of a function of this package, and its gradient, in one pass over each block.

    Parameters
    ----------
    function : callable
        One with a value a row, of `kldiv.dask`: a divergence, `cross_entropy`, `entropy` or
        `logsumexp`.
    *args, **options
        What to call it with.
    wrt : str or sequence of str, optional
        As for `kldiv.value_and_grad`; a sequence gives a tuple of gradients.
    grad_output : array_like, optional
        Upstream gradient: a number, or over the batch shape for ``reduction="none"``.

    Returns
    -------
    value : dask.array.Array
        What `function` returns.
    gradient : dask.array.Array or tuple of them
        Of the shape of the argument, in chunks of rows. A mean needs the sum of all weights first,
        no row twice.

    Raises
    ------
    TypeError
        For a function that has no gradient here.
    ValueError
        For an unknown `wrt`; and what `function` raises.

    Examples
    --------
    >>> import dask.array
    >>> import kldiv.dask
    >>> p = dask.array.asarray([[1.0, 2.0, 0.5], [-1.0, 0.0, 3.0]]).rechunk((1, 3))
    >>> q = dask.array.asarray([[0.9, 2.1, 0.5], [-1.0, 0.5, 2.0]])
    >>> value, gradient = kldiv.dask.value_and_grad(kldiv.dask.kl, p, q, reduction="mean")
    >>> gradient.compute().round(4)
    array([[-0.0154,  0.0184, -0.003 ],
           [ 0.011 ,  0.0643, -0.0753]])
    """
    name = getattr(function, "__name__", repr(function))
    if FUNCTIONS.get(name) is not function or name in ("log_softmax", "gather_log_probs"):
        raise TypeError(
            f"value_and_grad differentiates kldiv.dask's functions with a value a row, not {name}"
        )
    signature = function.__signature__  # type: ignore[attr-defined]
    bound = signature.bind(*args, **options)
    bound.apply_defaults()
    parameters = signature.parameters.values()
    optional = {one.name for one in parameters if one.kind is one.KEYWORD_ONLY}
    rows = {key: value for key, value in bound.arguments.items() if key not in optional}
    given = {key: value for key, value in bound.arguments.items() if key in optional}
    axis = given["axis"]
    names = wrt if wrt is not None else DEFAULT_WRT.get(name, "q")
    wanted = (names,) if isinstance(names, str) else tuple(names)
    marks = ("where", "weights")
    call = call_of(numpy_function(name), rows, {k: v for k, v in given.items() if k not in marks})
    reduction, denominator = check_reduction(call, given)
    _check_wrt(call, wanted, wrt)
    call, dtype = prepared(call, given)
    by = divisor(call, reduction, denominator) if reduction != "none" else None
    scaled = _with_upstream(call, reduction, grad_output, by)
    scaled.options["wrt"] = wanted
    pairs = scaled.blocks(_kernel, object)
    values = as_given(pairs, 0, dtype)
    if reduction != "none":
        values = divided(exact_sum(values), by).astype(dtype)
    gradients = tuple(
        _gradient(call, pairs, place, one, dtype, axis) for place, one in enumerate(wanted, 1)
    )
    return values, gradients[0] if isinstance(names, str) else gradients


def _check_wrt(call: Call, wanted: tuple[str, ...], wrt: Any) -> None:
    known = [one.name for one in call.operands if _has_classes(one.index, one.name)]
    if not wanted or len(set(wanted)) != len(wanted) or not set(wanted) <= set(known):
        listed = ", ".join(repr(name) for name in known)
        raise ValueError(f"wrt must be one or several of {listed}, got {wrt!r}")


def _has_classes(index: tuple[str, ...], name: str) -> bool:
    return bool(index) and index[-1] == f"classes of {name}"


def _with_upstream(
    call: Call, reduction: str, grad_output: Any, by: da.Array | float | None
) -> Call:
    """The call with the upstream gradient of each row; a mean divides it."""
    call = Call(call.function, call.operands, dict(call.options), call.batch_shape)
    if reduction == "none":
        if grad_output is None:
            return call
        return call.with_operands(call.over_batch("grad_output", grad_output))
    upstream = da.asarray(1.0 if grad_output is None else grad_output)
    if upstream.ndim:
        raise ValueError(
            f"grad_output has shape {upstream.shape}, but the result of "
            f"reduction={reduction!r} has shape ()"
        )
    return call.with_operands(call.over_batch("grad_output", divided(upstream, by)))


def _kernel(
    function: Callable[..., Any], names: tuple[str, ...], options: dict[str, Any], *blocks: Any
) -> tuple[Any, ...]:
    given: dict[str, Any] = dict(zip(names, map(plain, blocks), strict=True))
    value, gradients = kldiv.value_and_grad(function, **given, **options)
    return (np.asarray(value), *gradients)


def _gradient(
    call: Call, pairs: da.Array, place: int, name: str, dtype: np.dtype[Any], axis: int
) -> da.Array:
    operand = next(one for one in call.operands if one.name == name)
    label = operand.index[-1]
    found = da.blockwise(
        nth,
        operand.index,
        pairs,
        call.batch,
        place,
        None,
        new_axes={label: operand.array.shape[-1]},
        dtype=dtype,
        meta=np.empty((0,) * operand.array.ndim, dtype),
    )
    moved: da.Array = da.moveaxis(found, -1, axis)
    return moved
