"""Calls that XLA makes of the extension itself, on its own memory: no Python, no copy.

The other side is ``src/python/xla/``. A call passes arrays and numbers by the names there: what JAX
may hide as an operand, what is known while it traces as an attribute.

======================================================  =====================
goes by a handler, on the CPU                           stays a callback
======================================================  =====================
divergences, `cross_entropy`, `entropy`, `logsumexp`,   `uld`; losses from a
`log_softmax`, `gather_log_probs`, with every option    `TopK`
labels and an `ignore_index` of any other integers      of uint64
a parameter that is traced                              with ``endpoints="trl"``
======================================================  =====================
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kldiv import _kldiv
from kldiv._arrays import as_float, as_integer
from kldiv._kldiv import DIVERGENCES
from kldiv._requests import (
    CrossEntropyRequest,
    DivergenceRequest,
    EntropyRequest,
    LogSumExpRequest,
    as_space,
    pair_of,
)

Place = tuple[str, int | str | None]
"""A parameter, and which one of a pair, or of the arrays of a `TopK`, an array stands for."""

ROWS = ("p", "q", "logits", "targets", "z", "upstream")
"""What has the classes; `upstream` is an upstream gradient of as many."""
OVER_BATCH = ("where", "weights")
"""What is broadcast over the batch, like upstream gradients of rows."""
NUMBERS = ("value", "scale")
"""Results without classes; `scale` is the upstream gradient that gradients are for."""
PASSED = (
    *ROWS,
    *OVER_BATCH,
    "labels",
    "class_weights",
    "ignore_index",
    "denominator",
    "label_smoothing",
    "z_loss",
    "softcap",
)
"""What handlers know by the name that it has in Python."""
SIDES = ("p_temperature", "q_temperature")
FIELDS = {
    DivergenceRequest: ("kind", "parameter", "spaces", "temperatures"),
    CrossEntropyRequest: (
        "space",
        "temperature",
        "ignore_index",
        "label_smoothing",
        "z_loss",
        "softcap",
    ),
    EntropyRequest: ("space", "temperature"),
    LogSumExpRequest: ("temperature",),
}
"""What is constant in a request, beside its reducer; a pair is one of p and one of q."""
WITHOUT_REQUEST = ("temperature", "ignore_index")
"""The same in the options of `log_softmax` and `gather_log_probs`."""

for _name, _handler in _kldiv.xla_handlers().items():
    jax.ffi.register_ffi_target(f"kldiv_{_name}", _handler, platform="cpu")


def shape_of(shape: Sequence[int], dtype: Any) -> Any:
    """A shape and a dtype, as JAX has them."""
    return jax.ShapeDtypeStruct(tuple(shape), dtype)  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class Handler:
    """A handler with all that is constant of its calls; hashable, as JAX wants it."""

    function: str
    attributes: tuple[tuple[str, Any], ...]
    names: tuple[tuple[str, ...], ...]
    """What each array of a call is passed as."""
    axis: int
    """The class axis, counted from the end."""

    def __call__(
        self,
        results: Mapping[str, jax.ShapeDtypeStruct],
        upstream: Mapping[str, jax.Array],
        arrays: tuple[jax.Array, ...],
        found: tuple[jax.Array, ...] = (),
    ) -> tuple[jax.Array, ...]:
        """Results by name, for upstream gradients by name and the arrays of a call.

        `found` are the results of another such call, which they are written over.
        """
        given = dict(upstream)
        for names, array in zip(self.names, arrays, strict=True):
            given |= dict.fromkeys(names, array)
        rows = next(array for name, array in given.items() if name in ROWS)
        batch_shape = self._classes_last(rows).shape[:-1]
        reduces = ("reduction", "none") not in self.attributes
        for name, array in given.items():
            if name in ROWS:
                given[name] = self._classes_last(array)
            elif name in OVER_BATCH or (name == "grad_output" and not reduces):
                given[name] = jnp.broadcast_to(array, batch_shape)
        shape = (*batch_shape, rows.shape[self.axis])
        shapes = [
            one if name in NUMBERS else shape_of(shape, one.dtype) for name, one in results.items()
        ]
        attributes = {
            "operands": " ".join(["found"] * len(found) + list(given)),
            "results": " ".join(results),
            "rank": rows.ndim,
            **dict(self.attributes),
        }
        over = tuple(map(self._classes_last, found))
        call = _foreign(f"kldiv_{self.function}", shapes, attributes, in_place=len(over))
        return tuple(
            one if name in NUMBERS or self.axis == -1 else jnp.moveaxis(one, -1, self.axis)
            for name, one in zip(results, call(*over, *given.values()), strict=True)
        )

    def _classes_last(self, array: jax.Array) -> jax.Array:
        return array if self.axis == -1 else jnp.moveaxis(array, self.axis, -1)


def _foreign(
    target: str, shapes: Sequence[jax.ShapeDtypeStruct], attributes: dict[str, Any], in_place: int
) -> Callable[..., Sequence[jax.Array]]:
    """A call of a handler, whose first results are written over the first operands."""
    aliases = {position: position for position in range(in_place)}
    call = functools.partial(
        jax.ffi.ffi_call(
            target, shapes, vmap_method="expand_dims", input_output_aliases=aliases or None
        ),
        **attributes,
    )
    if not in_place:
        return call
    mapped = jax.custom_batching.custom_vmap(lambda *given: tuple(call(*given)))

    @mapped.def_vmap
    def _(size: int, batched: Sequence[bool], *given: jax.Array) -> Any:
        # Each element has results of its own, and so it has operands that these are written over.
        wide = [
            array
            if is_batched
            else jnp.broadcast_to(array, (size if position < in_place else 1, *array.shape))
            for position, (array, is_batched) in enumerate(zip(given, batched, strict=True))
        ]
        of_all = [shape_of((size, *one.shape), one.dtype) for one in shapes]
        found = _foreign(target, of_all, attributes, in_place)(*wide)
        return found, (True,) * len(found)

    return mapped


@jax.custom_jvp
def unfused(array: jax.Array) -> jax.Array:
    """The array itself, in its own memory, where XLA would write what comes after it elsewhere.

    A product that is reshaped is one loop to XLA, which then has no operand of the same shape to
    write over: new memory, whose pages take four times as long as the product.
    """

    def by_handler(array: jax.Array) -> jax.Array:
        call = jax.ffi.ffi_call(
            "kldiv_unfused",
            (shape_of(array.shape, array.dtype),),
            vmap_method="expand_dims",
            input_output_aliases={0: 0},
        )
        attributes = {"operands": "found", "results": "same", "rank": array.ndim}
        (found,) = call(array, reduction="none", **attributes)
        return found

    same: jax.Array = jax.lax.platform_dependent(array, cpu=by_handler, default=lambda one: one)
    return same


@unfused.defjvp
def _(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    return unfused(*primals), tangents[0]


def handler_of(
    name: str, request: Any, options: Mapping[str, Any], arrays: Mapping[Place, jax.Array]
) -> Handler | None:
    """The handler of a function, if there is one for these arguments.

    `request` is what NumPy's function makes of them, with some number for one that JAX hides;
    `None` for functions without.
    """
    if any(array.dtype == jnp.uint64 for array in arrays.values()):
        return None
    attributes = _attributes(request, options)
    if attributes is None:
        return None
    names = tuple(
        _passed(argument, at, array, request, options) for (argument, at), array in arrays.items()
    )
    if not all(names):
        return None
    operands = {one for passed in names for one in passed}
    constants = (
        (one, _constant(one, value)) for one, value in attributes.items() if one not in operands
    )
    known = tuple((one, value) for one, value in constants if value is not None)
    function = "divergence" if type(request) is DivergenceRequest else name
    return Handler(function, known, names, options["axis"])


def _attributes(request: Any, options: Mapping[str, Any]) -> dict[str, Any] | None:
    """All that is no array of a call; `None` of what has no handler."""
    if request is None:
        # Without rows that are added up.
        own = {option: options[option] for option in WITHOUT_REQUEST if option in options}
        return {"reduction": "none"} | own
    if type(request) not in FIELDS:
        return None
    reducer = request.reducer
    found = {"reduction": reducer.reduction, "denominator": reducer.denominator}
    for field in FIELDS[type(request)]:
        value = getattr(request, field)
        if isinstance(value, tuple):
            of_side = field.removesuffix("s")
            found[f"p_{of_side}"], found[f"q_{of_side}"] = value
        else:
            found[field] = value
    return found


def _constant(name: str, value: Any) -> Any:
    """A number or a name as an attribute; `None` for one that there is not."""
    if value is None or isinstance(value, str):
        return value
    if name == "ignore_index":
        # Beyond int64 there is no label of an array that JAX has.
        index = as_integer(name, value)
        return np.int64(index) if -(2**63) <= index < 2**63 else None
    return np.float64(as_float(name, value))


def _passed(
    argument: str, at: int | str | None, array: jax.Array, request: Any, options: Mapping[str, Any]
) -> tuple[str, ...]:
    """The names that an array is passed under; none of what no handler knows."""
    if argument == "temperature":
        if type(request) is not DivergenceRequest:
            return (argument,)
        if isinstance(at, int):
            return (SIDES[at],)
        # One temperature is for those sides that have one.
        spaces = pair_of("space", options["space"], as_space)
        logits = [one for one, space in zip(SIDES, spaces, strict=True) if space == "logits"]
        return tuple(logits) or SIDES
    if at is not None:
        return ()
    if argument == "targets" and jnp.issubdtype(array.dtype, jnp.integer):
        return ("labels",)
    if type(request) is DivergenceRequest:
        described = DIVERGENCES[request.kind].parameter
        if described is not None and argument == described.name:
            return () if options.get("endpoints", "formula") != "formula" else ("parameter",)
    return (argument,) if argument in PASSED else ()
