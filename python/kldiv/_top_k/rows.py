"""Rows of a `TopK`, fewer of their classes, and all of them: what makes one of another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kldiv._arrays import Array
from kldiv._top_k import checks

if TYPE_CHECKING:
    from kldiv._top_k.container import TopK


def chosen(top_k: TopK, index: Any) -> dict[str, Any]:
    """The rows that an index of the batch chooses, as arguments of `TopK._of`."""
    rows = np.arange(top_k.rows).reshape(top_k.batch_shape)[index]
    normalizer = None if top_k.normalizer is None else _copy(top_k.normalizer[index])
    rest = {"kind": top_k.kind, "classes": top_k.classes, "normalizer": normalizer}
    if top_k.offsets is None:
        width = top_k.ids.shape[-1]
        for name in ("ids", "values", "weights"):
            array = getattr(top_k, name)
            rest[name] = None if array is None else _copy(array.reshape(top_k.rows, width)[rows])
        return rest
    if np.ndim(rows) > 1:
        raise IndexError(
            f"rows of different lengths have one axis, and the index gives {np.ndim(rows)}"
        )
    elements, offsets = _elements(top_k.offsets, np.atleast_1d(rows))
    if np.ndim(rows) == 1:
        rest["offsets"] = offsets
    for name in ("ids", "values", "weights"):
        array = getattr(top_k, name)
        rest[name] = None if array is None else array[elements]
    return rest


def _copy(array: Any) -> Array:
    return np.array(array, order="C")


def _elements(offsets: Array, rows: Array) -> tuple[Array, Array]:
    """Where the elements of some rows are, and the offsets of these rows by themselves."""
    counts = offsets[rows + 1] - offsets[rows]
    new = np.zeros(len(rows) + 1, np.int64)
    np.cumsum(counts, out=new[1:])
    return np.arange(new[-1]) + np.repeat(offsets[rows] - new[:-1], counts), new


def most_probable(top_k: TopK, k: int) -> dict[str, Any]:
    """The `k` most probable classes of each row, as arguments of `TopK._of`."""
    rest: dict[str, Any] = {
        "kind": top_k.kind,
        "classes": top_k.classes,
        "normalizer": top_k.normalizer,
    }
    begins = top_k.begins
    if top_k.offsets is None:
        width = top_k.ids.shape[-1]
        shape = (*top_k.batch_shape, min(k, width))
        rest["ids"] = np.empty(shape, top_k.ids.dtype)
        rest["values"] = np.empty(shape, top_k.values.dtype)
        parts = {name: rest[name].reshape(top_k.rows, shape[-1]) for name in ("ids", "values")}
        given = {name: getattr(top_k, name).reshape(top_k.rows, width) for name in parts}
        for start, stop in checks.chunks(begins):
            ids, values = given["ids"][start:stop], given["values"][start:stop]
            order = _order(ids, values)[:, : shape[-1]]
            parts["ids"][start:stop] = np.take_along_axis(ids, order, axis=1)
            parts["values"][start:stop] = np.take_along_axis(values, order, axis=1)
        return rest
    counts = np.minimum(np.diff(begins), k)
    offsets = np.zeros(len(begins), np.int64)
    np.cumsum(counts, out=offsets[1:])
    rest |= {
        "ids": np.empty(offsets[-1], top_k.ids.dtype),
        "values": np.empty(offsets[-1], top_k.values.dtype),
        "offsets": offsets,
    }
    for start, stop in checks.chunks(begins):
        piece = slice(begins[start], begins[stop])
        row = np.repeat(np.arange(stop - start), np.diff(begins[start : stop + 1]))
        ids, values = top_k.ids[piece], top_k.values[piece]
        order = np.lexsort((ids, -_wide(values), row))
        place = np.arange(len(row)) - (begins[start:stop] - begins[start])[row]
        order = order[place < k]
        target = slice(offsets[start], offsets[stop])
        rest["ids"][target], rest["values"][target] = ids[order], values[order]
    return rest


def _order(ids: Array, values: Array) -> Array:
    """By falling value, of equal ones by rising id."""
    wide = _wide(values)
    step, ids_rise = wide[:, 1:] - wide[:, :-1], ids[:, 1:] > ids[:, :-1]
    if ((step < 0) | (step == 0) & ids_rise).all():
        return np.broadcast_to(np.arange(ids.shape[1]), ids.shape)
    return np.lexsort((ids, -wide), axis=-1)


def _wide(values: Array) -> Array:
    """Numbers that NumPy sorts and negates fast: of 16 bits in float32."""
    return values if values.dtype.itemsize > 2 else values.astype(np.float32)


def dense(top_k: TopK, fill: float, dtype: np.dtype[Any]) -> Array:
    """Rows of all classes, `fill` where none is kept."""
    found = np.full((top_k.rows, top_k.classes), fill, dtype)
    begins = top_k.begins
    for start, stop in checks.chunks(begins):
        piece = slice(begins[start], begins[stop])
        rows = np.repeat(np.arange(start, stop), np.diff(begins[start : stop + 1]))
        found[rows, top_k.ids.reshape(-1)[piece]] = top_k.values.reshape(-1)[piece]
    return found.reshape((*top_k.batch_shape, top_k.classes))


def joined(parts: Sequence[TopK]) -> dict[str, Any]:
    """The rows of several, one after the other, as arguments of `TopK._of`.

    Raises
    ------
    ValueError
        For parts that do not fit.
    """
    if not parts:
        raise ValueError("there is no TopK to concatenate")
    first = parts[0]
    for number, part in enumerate(parts):
        for name, of_first, found in (
            ("classes", first.classes, part.classes),
            ("kind", first.kind, part.kind),
            ("a normalizer", first.normalizer is not None, part.normalizer is not None),
            ("weights", first.weights is not None, part.weights is not None),
        ):
            if of_first != found:
                raise ValueError(
                    f"part {number} and the first are not of one kind: {name}, "
                    f"{found!r} and {of_first!r}"
                )
        if not part.batch_shape:
            raise ValueError(f"part {number} is one row without a batch; expected rows")
    rest: dict[str, Any] = {"kind": first.kind, "classes": first.classes}
    alike = all(
        part.offsets is None and part.ids.shape[1:] == first.ids.shape[1:] for part in parts
    )
    if not alike and any(len(part.batch_shape) > 1 for part in parts):
        shapes = ", ".join(str(part.batch_shape) for part in parts)
        raise ValueError(
            f"parts of batch shapes {shapes} keep different numbers of classes; such rows have "
            "one axis"
        )
    for name in ("ids", "values", "normalizer", "weights"):
        arrays = [getattr(part, name) for part in parts]
        if arrays[0] is None:
            rest[name] = None
            continue
        if not alike and name != "normalizer":
            arrays = [array.reshape(-1) for array in arrays]
        rest[name] = np.concatenate(arrays)
    if rest["ids"].dtype.kind == "f":
        # What NumPy makes of int64 and uint64.
        rest["ids"] = np.concatenate([part.ids.astype(np.int64).reshape(-1) for part in parts])
        rest["ids"] = rest["ids"].reshape(rest["values"].shape)
    if not alike:
        counts = np.concatenate([part.counts for part in parts])
        rest["offsets"] = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return rest


def equal(one: TopK, other: TopK) -> bool:
    """Whether the same classes are kept with the same numbers, of whatever dtype."""
    names = ("kind", "classes", "batch_shape")
    if any(getattr(one, name) != getattr(other, name) for name in names):
        return False
    for name in ("begins", "ids", "values", "normalizer", "weights"):
        mine, theirs = getattr(one, name), getattr(other, name)
        if mine is None or theirs is None:
            if mine is not theirs:
                return False
        elif not np.array_equal(mine.reshape(-1), theirs.reshape(-1)):
            return False
    return True
