"""What is asked for: checked as the NumPy functions check it, then computed at once or traced."""

from __future__ import annotations

import functools
import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import kldiv
from kldiv._arrays import as_array
from kldiv._requests import Request
from kldiv._top_k import TopK
from kldiv.jax import kept_sets
from kldiv.jax.handlers import Place, handler_of
from kldiv.jax.rows import Call, evaluate, is_traced
from kldiv.jax.top_k import Constant, arrays_of, stand_in

LABELS = ("targets", "labels")
SIDE_ARRAYS = ("where", "weights", "class_weights")


def call(name: str, rows: dict[str, Any], options: dict[str, Any]) -> Any:
    """A function of `kldiv`: `rows` are its arguments with a row or a label for each row."""
    rows = {
        argument: value if type(value) is TopK else as_rows(argument, value)
        for argument, value in rows.items()
    }
    function = getattr(kldiv, name)
    if not _has_traced((rows, options)):
        # The very call that a user of NumPy makes, and its exceptions.
        return jax.tree.map(jnp.asarray, function(**rows, **options))
    if kept := kept_sets.taken(options):
        return _of_kept(name, rows, options, kept)
    request = _check(name, rows, options)
    first = next(argument for argument, value in rows.items() if type(value) is not TopK)
    axis = operator.index(options["axis"])
    options = {**options, "axis": axis if axis < 0 else axis - rows[first].ndim}
    arrays: dict[Place, jax.Array] = {}
    constants: dict[str, Any] = {}
    for argument, value in rows.items():
        if type(value) is not TopK:
            arrays[argument, None] = as_jax(argument, value)
        elif _has_traced(value):
            constants[argument] = (value.kind, value.classes)
            fields = arrays_of(value)
            arrays |= {(argument, name): jnp.asarray(array) for name, array in fields.items()}
        else:
            constants[argument] = Constant(value)
    for option, value in options.items():
        if option in SIDE_ARRAYS:
            if value is not None:
                arrays[option, None] = as_jax(option, value)
        elif option == "id_map" and value is not None:
            constants[option] = (None, None)
            arrays |= {(option, at): as_jax(option, ids) for at, ids in enumerate(value)}
        elif is_traced(value):
            arrays[option, None] = value
        else:
            constants[option] = _constant(value)
            if isinstance(value, tuple | list):
                arrays |= {(option, at): one for at, one in enumerate(value) if is_traced(one)}
    floating = tuple(
        argument
        for argument in rows
        if (argument, None) in arrays and jnp.issubdtype(arrays[argument, None].dtype, jnp.floating)
    )
    handler = handler_of(name, request, options, arrays)
    asked = Call(name, first, floating, tuple(arrays), tuple(constants.items()), handler)
    return evaluate(asked, *arrays.values())


def _of_kept(name: str, rows: dict[str, Any], options: dict[str, Any], kept: dict[str, Any]) -> Any:
    """The call on rows whose other classes are masked, with their mass where that is asked for."""
    if options.get("space", "logits") != "logits":
        raise ValueError(f"kept sets are of logits, and space is {options['space']!r}")
    first = next(iter(rows))
    z = as_jax(first, rows[first])
    axis = operator.index(options["axis"])
    survivors = kept_sets.masked(z, axis, options["temperature"], kept)
    value = call(name, {**rows, first: survivors}, options)
    if not kept["return_mass"]:
        return value
    counted = _counted(rows, options)
    same = {"temperature": options["temperature"], "axis": axis, "where": counted}
    # Of log-probabilities, which large logits do not round as they round a log-sum-exp.
    p = jnp.exp(call("log_softmax", {"z": z}, same))
    # Where a row is NaN throughout, 0 times it is, too.
    mass = jnp.where(jnp.isneginf(survivors), 0.0 * p, p).sum(axis)
    # Above 1 by rounding, which is no reason to have no gradient.
    mass = mass - jnp.maximum(jax.lax.stop_gradient(mass) - 1.0, 0.0)
    # Rows that are left out have the logarithm 0.
    return value, mass if counted is None else jnp.where(counted, mass, 0.0)


def _counted(rows: dict[str, Any], options: dict[str, Any]) -> jax.Array | None:
    """Which rows count, by mask, weights and labels; None where all do."""
    given = {option: options.get(option) for option in ("where", "weights")}
    found = [as_jax(option, one) != 0 for option, one in given.items() if one is not None]
    if "labels" in rows and options["ignore_index"] is not None:
        found.append(~_is_ignored(rows["labels"], options["ignore_index"]))
    return functools.reduce(jnp.logical_and, found) if found else None


def _is_ignored(labels: Any, ignore_index: Any) -> jax.Array:
    """Which labels are the index to ignore; none are one that their dtype cannot hold."""
    labels = as_jax("labels", labels)
    if not is_traced(ignore_index):
        limits = np.iinfo(labels.dtype)
        if not limits.min <= operator.index(ignore_index) <= limits.max:
            return jnp.zeros(labels.shape, bool)
        ignore_index = jnp.asarray(operator.index(ignore_index), labels.dtype)
    return jnp.equal(labels, ignore_index)


def _has_traced(values: Any) -> bool:
    return any(map(is_traced, jax.tree.leaves(values)))


def as_rows(name: str, value: Any) -> Any:
    """Floating numbers as a JAX array; integers, which JAX may narrow, as they are."""
    if isinstance(value, jax.Array):
        return value
    if _has_traced(value):
        return jnp.asarray(value)
    array = as_array(name, value)
    if array.dtype.kind in "iu" and name not in LABELS and not hasattr(value, "dtype"):
        array = array.astype(np.float64)
    if array.dtype.kind in "iu" or array.dtype == np.bool_:
        return array
    return jnp.asarray(
        array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
    )


def as_jax(name: str, value: Any) -> jax.Array:
    """An array that JAX can trace, of the same numbers."""
    if isinstance(value, jax.Array) or _has_traced(value):
        return jnp.asarray(value)
    array = as_array(name, value)
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    found = jnp.asarray(array)
    if array.dtype.kind in "iu" and found.dtype != array.dtype:
        changed = array.astype(found.dtype) != array
        if changed.any():
            raise ValueError(
                f"{name} holds {array[changed][0]}, which {found.dtype} cannot hold; "
                f"jax_enable_x64 keeps {array.dtype}"
            )
    return found


def _constant(value: Any) -> Any:
    """An option that can be hashed; what cannot be was refused."""
    if isinstance(value, tuple | list):
        return tuple(_constant(None if is_traced(one) else one) for one in value)
    return value.item() if hasattr(value, "item") else value


def _check(name: str, rows: dict[str, Any], options: dict[str, Any]) -> Request | None:
    """Let NumPy's function refuse what can be seen of the arguments: shapes, dtypes, constants.

    The request it made, if it makes one.
    """
    axis = options["axis"]
    stand_ins: dict[str, Any] = {
        argument: (
            stand_in(value) if type(value) is TopK else _zeros(value.shape, value.dtype, axis)
        )
        for argument, value in rows.items()
    }
    given = {option: stand_in_of_option(option, value) for option, value in options.items()}
    # Rows that are left out are not computed, so that nothing reads what the stand-ins hold.
    where = options["where"]
    if where is None:
        given["where"] = False
    else:
        where = where if isinstance(where, jax.Array) else as_array("where", where)
        given["where"] = np.zeros(where.shape, where.dtype)
    function = kldiv.logsumexp if name == "log_softmax" else getattr(kldiv, name)
    function(**stand_ins, **given)
    build = getattr(getattr(kldiv, name), "request", None)
    return None if build is None else build(**stand_ins, **given)


def _zeros(shape: tuple[int, ...], dtype: Any, axis: Any) -> Any:
    """Zeros, which take no memory before they are read; laid out so that no copy is made."""
    if not (isinstance(axis, int) and -len(shape) <= axis < len(shape)):
        return np.zeros(shape, dtype)
    sizes = [*shape]
    classes = sizes.pop(axis)
    return np.moveaxis(np.zeros((*sizes, classes), dtype), -1, axis)


def stand_in_of_option(name: str, value: Any) -> Any:
    """An option as it is, or some numbers of its shape and dtype where JAX hides them."""
    if name == "id_map" and value is not None:
        # Ids that are all different, of those that are hidden.
        return tuple(np.arange(len(ids)) if is_traced(ids) else ids for ids in value)
    if isinstance(value, tuple | list):
        return tuple(stand_in_of_option(name, one) for one in value)
    if not is_traced(value):
        return value
    return np.full(value.shape, -100 if name == "ignore_index" else 1, value.dtype)
