"""Value and gradient in one go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from numpy.typing import ArrayLike

from kldiv._arrays import Array
from kldiv._kldiv import PlainCalls
from kldiv._probabilities import check_logits
from kldiv._reducer import Value
from kldiv._requests import differentiate


def value_and_grad(
    function: Callable[..., Value],
    *args: Any,
    wrt: str | Sequence[str] | None = None,
    out: Array | Sequence[Array] | None = None,
    grad_output: ArrayLike | None = None,
    **options: Any,
) -> tuple[Value, Array | tuple[Array, ...]]:
    """Value of a function of this module, and its gradient, in one go.

    The gradient is with respect to the array that was passed, in the space it was passed in, of
    the reduced value; for ``reduction="none"``, of the sum of the values, each times its
    `grad_output`.

    Parameters
    ----------
    function : callable
        One with a value a row: a divergence, `cross_entropy`, `entropy` or `logsumexp`.
    *args, **options
        What to call it with.
    wrt : str or sequence of str, optional
        The names of the arguments to differentiate with respect to: "p", "q" or both for a
        divergence (default "q"), "logits" or "targets" for `cross_entropy` (default "logits").
        A sequence gives a tuple of gradients.
    out : ndarray or sequence of ndarrays, optional
        Where to write the gradient: of the shape of the argument, and of its dtype or of the
        result's. It may be the argument itself: the gradient then overwrites it, and nothing is
        allocated. It may overlap any argument in another way, which costs a copy; two outputs
        that overlap are refused. float16 and bfloat16 outputs are rounded to nearest.
    grad_output : array_like, optional
        Upstream gradient: a number, or over the batch shape for ``reduction="none"``. 1 if left
        out.

    Returns
    -------
    value : ndarray or scalar
        What `function` returns.
    gradient : ndarray or tuple of ndarrays
        Of the shape of the argument; `out` if given, else float64 where the value is, and
        float32 otherwise.

    Raises
    ------
    TypeError
        For a function that has no gradient here; and what `function` raises.
    ValueError
        For an unknown `wrt`, an `out` of another shape; and what `function` raises. Nothing is
        written to `out` then.

    Examples
    --------
    >>> import numpy as np
    >>> import kldiv
    >>> teacher = np.array([[1.0, 2.0, 0.5], [-1.0, 0.0, 3.0]])
    >>> student = np.array([[0.9, 2.1, 0.5], [-1.0, 0.5, 2.0]])
    >>> value, gradient = kldiv.value_and_grad(kldiv.kl, teacher, student, reduction="mean")
    >>> value.round(6)
    np.float64(0.045892)
    >>> gradient.round(4)
    array([[-0.0154,  0.0184, -0.003 ],
           [ 0.011 ,  0.0643, -0.0753]])
    >>> loss, _ = kldiv.value_and_grad(kldiv.cross_entropy, student, np.array([1, 2]), out=student)
    >>> student.round(4)  # the gradient now
    array([[ 0.2004, -0.3347,  0.1343],
           [ 0.0391,  0.1753, -0.2144]])
    """
    build = getattr(function, "request", None)
    if build is None:
        name = getattr(function, "__name__", type(function).__name__)
        module = getattr(function, "__module__", "") or ""
        if module.startswith(("kldiv.torch", "kldiv.jax")):
            name = ".".join(
                [*module.split(".")[:2], f"{name}, which has its framework's gradients"]
            )
        raise TypeError(
            f"value_and_grad differentiates kldiv's functions with a value a row, not {name}"
        )
    plain: PlainCalls | None = function.plain  # type: ignore[attr-defined]
    if plain is not None and wrt is None and out is None and grad_output is None:
        found = plain.value_and_grad(args, options)
        if found is not None:
            return found
    request = build(*args, **options)
    check_logits(request.rows, request.spaces)
    return differentiate(request, wrt, out, grad_output)
