"""Universal logit distillation: rows whose classes are not the same."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

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
    first_classes,
    result_dtype,
)
from kldiv._reducer import Reducer, Value
from kldiv._requests.negative import PROBABILITIES, check_probabilities
from kldiv._requests.options import at_endpoints, normalized, pair_of, sides_of

IdMap = tuple[ArrayLike, ArrayLike]
"""Ids of classes of p, and of those of q that stand for the same."""
BETA = 0.5


def uld(
    p: Any,
    q: Any,
    id_map: Any,
    beta: Any,
    matched_weight: Any,
    unmatched_weight: Any,
    space: Any,
    normalize: Any,
    temperature: Any,
    axis: int,
    classes: Any,
    where: Any,
    weights: Any,
    reduction: str,
    denominator: Any,
) -> UldRequest:
    """The distance of two arrays of rows by rank, and by name where there are ids."""
    (p_space, q_space), temperatures = sides_of(space, temperature)
    spaces = normalized(p_space, normalize), normalized(q_space, normalize)
    p_rows, q_rows = as_rows("p", p, axis), as_rows("q", q, axis)
    if classes is not None:
        p_classes, q_classes = pair_of("classes", classes, lambda _, count: count)
        p_rows, q_rows = first_classes(p_rows, p_classes), first_classes(q_rows, q_classes)
    ids = as_id_map(id_map)
    shared = None if ids is None else len(ids[0])
    parts = parts_of(shared, p_rows.memory.shape[-1], matched_weight, unmatched_weight, as_part)
    kind, parameter = shared_divergence(shared, as_float("beta", beta))
    return uld_of_sides(
        p_rows,
        q_rows,
        ids,
        kind,
        parameter,
        parts,
        spaces,
        temperatures,
        where,
        weights,
        reduction,
        denominator,
    )


def uld_of_sides(
    p: Rows,
    q: Rows,
    ids: tuple[Array, Array] | None,
    kind: str,
    parameter: float,
    parts: tuple[float, float],
    spaces: tuple[str, str],
    temperatures: tuple[float, float],
    where: Any,
    weights: Any,
    reduction: str,
    denominator: Any,
) -> UldRequest:
    """The same of rows whose spaces are named as the extension names them."""
    check_same_batch(p.batch_shape, q.batch_shape)
    reducer = Reducer.parse(p, result_dtype(p, q), where, weights, reduction, denominator)
    p_ids, q_ids = (None, None) if ids is None else ids
    rows = {"p": p, "q": q}
    return UldRequest(rows, p_ids, q_ids, kind, parameter, *parts, spaces, temperatures, reducer)


def as_id_map(id_map: Any) -> tuple[Array, Array] | None:
    """Two arrays of class ids as int64; the extension looks at the ids."""
    if id_map is None:
        return None
    pair = as_pair(id_map)
    p_ids, q_ids = _as_ids("p_ids", pair[0]), _as_ids("q_ids", pair[1])
    check_same_length(p_ids.shape, q_ids.shape)
    return p_ids, q_ids


def as_pair(id_map: Any) -> tuple[Any, Any]:
    """Two things; `TypeError` for an array, whose axes may be meant either way."""
    if not isinstance(id_map, (tuple, list)) or len(id_map) != 2:
        found = f"{type(id_map).__name__} of shape {np.shape(id_map)}"
        if isinstance(id_map, (tuple, list, dict)):
            found = f"{type(id_map).__name__} of length {len(id_map)}"
        raise TypeError(
            f"id_map must be a pair (p_ids, q_ids), got {found}; of an array of pairs pass "
            "(pairs[:, 0], pairs[:, 1])"
        )
    return id_map[0], id_map[1]


def check_same_length(p_ids: tuple[int, ...], q_ids: tuple[int, ...]) -> None:
    """Raise `ValueError` for ids of other shapes than one length."""
    if len(p_ids) != 1 or p_ids != q_ids:
        raise ValueError(
            "p_ids and q_ids of id_map must have one axis of one length, but have the shapes "
            f"{tuple(p_ids)} and {tuple(q_ids)}"
        )


def check_same_batch(p: tuple[int, ...], q: tuple[int, ...]) -> None:
    """Raise `ValueError` where rows do not come in pairs."""
    if tuple(p) != tuple(q):
        raise ValueError(
            f"p has the batch shape {tuple(p)} but q {tuple(q)}; only their classes may differ "
            "in number"
        )


def parts_of(
    shared: int | None,
    classes: Any,
    matched_weight: Any,
    unmatched_weight: Any,
    check: Callable[[str, Any], Any],
) -> tuple[Any, Any]:
    """What the shared classes, and the others, are multiplied by: numbers that were checked.

    `classes` are those of p.
    """
    given = matched_weight, unmatched_weight
    if shared is None:
        if given != (None, None):
            raise ValueError("matched_weight and unmatched_weight apply with id_map only")
        return 0.0, 1.0
    if given == (None, None):
        if not classes:
            return 0.0, 1.0
        return share_of(shared, classes), share_of(classes - shared, classes)
    if None in given:
        raise ValueError(
            "matched_weight and unmatched_weight are given together, got "
            f"{matched_weight!r} and {unmatched_weight!r}"
        )
    return check("matched_weight", matched_weight), check("unmatched_weight", unmatched_weight)


def share_of(count: Any, whole: Any) -> Any:
    """The quotient of two counts, rounded to nearest whatever the rounding mode of the thread.

    What is larger than a float's mantissa Python divides as integers.
    """
    if type(count) is int and type(whole) is int:
        return (count << 64) / (whole << 64)
    return count / whole


def as_part(name: str, value: Any) -> float:
    """What a part of the loss is multiplied by."""
    number = as_float(name, value)
    if not 0.0 <= number < math.inf:
        raise ValueError(f"{name} must be finite and not negative, got {number}")
    return number


def shared_divergence(shared: int | None, beta: float) -> tuple[str, float]:
    """The divergence of shared classes, and its parameter: TRL's, also for β of 0 and 1."""
    if shared is None and beta != BETA:
        raise ValueError("beta applies with id_map only")
    kind = at_endpoints(beta, "trl")
    if kind != "jensen_shannon":
        return kind, 0.0
    if not 0.0 < beta < 1.0:
        raise ValueError(f"beta must be from 0 to 1, got {beta}")
    return kind, beta


@dataclass(slots=True)
class UldRequest:
    """See `uld_of_sides`."""

    rows: dict[str, Rows]
    p_ids: Array | None
    q_ids: Array | None
    kind: str
    parameter: float
    matched_weight: float
    unmatched_weight: float
    spaces: tuple[str, str]
    temperatures: tuple[float, float]
    reducer: Reducer
    default_wrt: ClassVar[str] = "q"
    gradients_at_once: ClassVar[bool] = True
    side_inputs: ClassVar[tuple[str, ...]] = ("p_ids", "q_ids")

    def call(self, grad_output: Array | None, outputs: Mapping[str, Operand]) -> Value:
        """Compute the value, and write the gradients asked for."""
        values: Value = _kldiv.uld(
            self.rows["p"],
            self.rows["q"],
            self,
            self.reducer,
            grad_output,
            outputs.get("p"),
            outputs.get("q"),
        )
        if not PROBABILITIES.isdisjoint(self.spaces):
            check_probabilities(self, values, outputs)
        return values


def _as_ids(name: str, value: Any) -> Array:
    array = as_array(f"{name} of id_map", value)
    if not array.size and isinstance(value, (list, tuple)):
        array = array.astype(np.int64)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} of id_map has dtype {array.dtype}; expected integers")
    if array.dtype.kind == "u" and array.dtype.itemsize == 8:
        # Beyond int64 an id is out of range, whatever it is.
        array = np.minimum(array, np.iinfo(np.int64).max)
    return np.ascontiguousarray(array, np.int64) if array.ndim else array.astype(np.int64)
