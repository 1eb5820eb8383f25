"""A divergence of each of some rows from each of others."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from kldiv import _kldiv
from kldiv._arrays import (
    Array,
    Operand,
    Rows,
    as_array,
    as_float,
    as_rows,
    classes_last,
    result_dtype,
)
from kldiv._outputs import new_array
from kldiv._probabilities import NegativeProbabilityWarning, check_logits, was_shown
from kldiv._reducer import Value
from kldiv._requests import (
    SPACES,
    Space,
    Temperature,
    normalized,
    pair_of,
    sides_of,
    warn_of_negative,
)
from kldiv._side_inputs import as_real
from kldiv.functional.kind_of import kind_of


def pairwise(
    function: Callable[..., Value],
    p: ArrayLike,
    q: ArrayLike | None = None,
    *,
    space: Space = "logits",
    normalize: bool = False,
    temperature: Temperature = 1.0,
    axis: int = -1,
    pseudocount: float = 0.0,
    **parameters: Any,
) -> Array:
    r"""Matrix of a divergence of every row of p from every row of q, or of p itself.

    ``pairwise(kldiv.kl, P, Q)[i, j]`` is ``kldiv.kl(P[i], Q[j])``, found without an array of
    M·N·V numbers, nor of M·V: each thread has memory of its own of one MiB. Every value has the
    accuracy of the function called on the two rows. Of a divergence that is symmetric (`jeffreys`,
    `jensen_shannon` with β = ½, `total_variation`, `squared_hellinger`, …), with q left out, each
    two rows are taken once, and the matrix is symmetric to the last bit.

    With q left out the diagonal is exactly 0, the divergence of a row from itself, also of
    probabilities that do not sum to one. The results are the divergences and not their square
    roots: `scipy.spatial.distance.cdist` with ``"jensenshannon"`` gives the root of
    `jensen_shannon` with ``space="probs", normalize=True``.

    The value only: no gradient is computed. Tensors of torch on the CPU without a gradient
    (``tensor.detach()``) and arrays of JAX are read where they are; the result is a NumPy array,
    which ``torch.from_numpy`` takes without a copy.

    Parameters
    ----------
    function : callable
        A divergence of `kldiv`, such as ``kldiv.kl``; those of `kldiv.torch` and `kldiv.jax`,
        whose results are tensors, and names are refused.
    p : array_like
        The rows of the matrix, shape ``[M, classes]``; or any shape with a class axis, whose other
        axes come first in the result.
    q : array_like, optional
        The columns of the matrix, shape ``[N, classes]``, or any with as many classes. If it is
        left out, they are the rows of p.
    space : {"logits", "log_probs", "probs", "counts"} or a pair of them
        What the numbers are; a pair is ``(p_space, q_space)``, for two arrays. The first three are
        those of `kl`. ``"counts"`` are histograms: integers of any dtype, none negative, that are
        divided by the sum of their row.
    normalize : bool
        As for `kl`. Counts are normalised anyway.
    temperature : float or a pair of floats
        As for `kl`; one number where q is left out.
    axis : int
        The class axis of both arrays.
    pseudocount : float
        Added to every count, finite and not negative, so that no class is impossible. With 0 a
        class that was not counted has probability 0: `kl` is +inf against it, `jensen_shannon`
        finite.
    **parameters
        Those of the function: ``beta`` and ``endpoints`` of `jensen_shannon`, ``alpha`` of
        `renyi`, and so on, with its defaults.

    Returns
    -------
    ndarray
        Shape ``[M, N]``, in nats; of several batch axes ``[*batch of p, *batch of q]``. float64 if
        p or q is, or holds counts, else float32. A row that holds NaN or +inf, or only masked
        classes, or no count at all, gives NaN in all of its row or column, the diagonal included.
        So does a negative probability, with a `NegativeProbabilityWarning` once a process.

    Raises
    ------
    TypeError
        For a function that is no divergence of `kldiv`, a parameter that it does not have, arrays
        that are not floating, or not integers with ``space="counts"``.
    ValueError
        For numbers of classes that differ, a negative count (the first is named), a `pseudocount`
        that is negative or not finite, or given without counts, a pair of spaces or temperatures
        without q, and what the function raises.
    MemoryError
        For a matrix that is larger than memory.

    Notes
    -----
    The time is proportional to M·N·V, half of it for a symmetric divergence of rows from
    themselves. Rows of logits that are close (Σ \|p−q\| below 0.05), rows with probabilities below
    1e-130, and those of which a sum cancels, are computed as two rows are, in up to seven times
    the time; so are all pairs of `lk_hybrid` and `adaptive_kl`, whose weights are found from the
    two rows first.

    Examples
    --------
    >>> import numpy as np
    >>> import kldiv
    >>> rows = np.array([[0.5, 0.5], [0.9, 0.1], [0.2, 0.8]])
    >>> kldiv.pairwise(kldiv.jensen_shannon, rows, space="probs").round(4)
    array([[0.    , 0.1017, 0.0507],
           [0.1017, 0.    , 0.2754],
           [0.0507, 0.2754, 0.    ]])

    The population stability index (PSI) of a model's scores, by which drift is watched for, is the
    divergence of Jeffreys of two histograms. Of the months against the one of development, with
    half a count added for bins that are empty:

    >>> months = np.array([[120, 310, 402, 168], [118, 305, 410, 167], [40, 210, 520, 230]])
    >>> psi = kldiv.pairwise(kldiv.jeffreys, months, months[0], space="counts", pseudocount=0.5)
    >>> psi.round(4)
    array([0.    , 0.0003, 0.1755])

    References
    ----------
    .. [1] J. Lin, "Divergence measures based on the Shannon entropy", IEEE Transactions on
       Information Theory 37 (1991). :doi:`10.1109/18.61115`
    .. [2] B. Yurdakul and J. Naranjo, "Statistical properties of the population stability index",
       Journal of Risk Model Validation 14 (2020). :doi:`10.21314/JRMV.2020.227`
    """
    kind, parameter = kind_of("pairwise", function, parameters)
    given, spaces, temperatures = _sides(space, normalize, temperature, alone=q is None)
    pseudocount = _as_pseudocount(pseudocount, given)
    p_rows = _as_rows("p", p, axis, given[0], pseudocount)
    arguments = {"p": p_rows}
    columns = p_rows
    if q is not None:
        columns = arguments["q"] = _as_rows("q", q, axis, given[1], pseudocount)
        classes = p_rows.memory.shape[-1], columns.memory.shape[-1]
        if classes[0] != classes[1]:
            raise ValueError(
                f"p has shape {p_rows.shape} but q has shape {columns.shape}: "
                f"{classes[0]} and {classes[1]} classes along axis {axis}"
            )
    check_logits(arguments, spaces[: len(arguments)])
    counts = math.prod(p_rows.batch_shape), math.prod(columns.batch_shape)
    dtype = result_dtype(p_rows, columns)
    out = new_array(counts, dtype)
    q_operand = None if q is None else columns
    _kldiv.pairwise(
        kind, parameter, p_rows, q_operand, spaces, temperatures, Operand(out, dtype.name)
    )
    _warn_of_negative(arguments, given, out)
    return out.reshape(p_rows.batch_shape + columns.batch_shape)


def _warn_of_negative(arguments: dict[str, Rows], spaces: tuple[str, str], found: Array) -> None:
    """Warn of a negative probability, if one may have made a number NaN."""
    given = [one for one, space in zip(arguments.items(), spaces, strict=False) if space == "probs"]
    if not given or was_shown(NegativeProbabilityWarning) or not np.isnan(found).any():
        return
    for name, rows in given:
        if warn_of_negative(name, rows.memory, None):
            return


def _sides(
    space: Any, normalize: Any, temperature: Any, *, alone: bool
) -> tuple[tuple[str, str], tuple[str, str], tuple[float, float]]:
    """Spaces as given and as the extension names them, and temperatures, of p and of q."""
    for name, option in (("space", space), ("temperature", temperature)):
        if alone and isinstance(option, (tuple, list)):
            raise ValueError(f"{name} is one value where q is left out, got {option!r}")
    given = pair_of("space", space, _as_space)
    if "counts" not in given:
        _, temperatures = sides_of(space, temperature)
    elif "logits" in given:
        floating = tuple("probs" if side == "counts" else side for side in given)
        _, temperatures = sides_of(floating, temperature)
    else:
        temperatures = pair_of("temperature", temperature, as_float)
        if temperatures != (1.0, 1.0):
            raise ValueError(f"temperature applies to logits only, and space is {space!r}")
    p_space, q_space = (
        normalized("probs", True) if side == "counts" else normalized(side, normalize)
        for side in given
    )
    return given, (p_space, q_space), temperatures


def _as_space(name: str, value: Any) -> str:
    spaces = (*SPACES, "counts")
    if value not in spaces:
        raise ValueError(f"{name} must be one of {', '.join(spaces)}, got {value!r}")
    return str(value)


def _as_pseudocount(value: Any, spaces: tuple[str, str]) -> float:
    pseudocount = as_float("pseudocount", value)
    if not 0.0 <= pseudocount < math.inf:
        raise ValueError(f"pseudocount must be finite and not negative, got {pseudocount}")
    if pseudocount and "counts" not in spaces:
        raise ValueError(f'pseudocount applies to space="counts" only, and space is {spaces[0]!r}')
    return pseudocount


def _as_rows(name: str, value: Any, axis: int, space: str, pseudocount: float) -> Rows:
    if space != "counts":
        return as_rows(name, value, axis)
    array = as_array(name, value)
    if array.dtype.kind == "O" and all(type(number) is int for number in array.flat):
        # Integers beyond the dtypes of NumPy.
        counts = as_real(name, array)
    elif array.dtype.kind in "iu":
        counts = array.astype(np.float64)
    else:
        raise TypeError(
            f"{name} has dtype {array.dtype}; counts are integers, and weights of floating dtypes "
            'go with space="probs", normalize=True'
        )
    rows = as_rows(name, counts, axis)
    by_row = classes_last(counts, rows.axis)
    negative = by_row < 0
    if negative.any():
        *row, _ = index = np.unravel_index(int(negative.argmax()), negative.shape)
        position = tuple(map(int, row))
        where = f" in row {position[0] if len(position) == 1 else position}" if row else ""
        raise ValueError(f"{name} holds the negative count {by_row[index]:.0f}{where}")
    # The operand may be a copy, or be `counts` itself.
    rows.memory[...] += pseudocount
    return rows
