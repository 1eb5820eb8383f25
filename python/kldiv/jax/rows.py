"""Calls of `kldiv` as JAX functions: callbacks to NumPy, with a derivative.

The extension runs on the host. A callback gets and gives NumPy arrays, and touches nothing of JAX:
that may wait for the very thread that runs the callback. It makes the whole call, mask, weights and
reduction included, so that every check and every rule is that of the NumPy function. Where JAX
hides no numbers there is no callback: the call is made at once, and raises what NumPy's raises.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import kldiv
from kldiv._requests import differentiate
from kldiv.jax.top_k import Constant, checked

Arrays = tuple[Any, ...]
Place = tuple[str, int | str | None]
"""A parameter, and which one of a pair, or of the arrays of a `TopK`, an array stands for."""

ROWS = ("p", "q", "logits", "targets", "z", "labels")
"""Arguments that have a row, or an entry, for each row."""
OVER_BATCH = ("where", "weights", "grad_output")
"""Arguments that broadcast over the batch shape."""


@dataclass(frozen=True)
class Call:
    """A function of `kldiv` with its options; hashable, as JAX wants it."""

    name: str
    rows: str
    """The first argument, whose shape the others follow."""
    differentiable: tuple[str, ...]
    places: tuple[Place, ...]
    """What arrays are passed for, in their order."""
    options: tuple[tuple[str, Any], ...]
    """All else; the axis counts from the end."""

    @property
    def function(self) -> Callable[..., Any]:
        """The NumPy function."""
        function: Callable[..., Any] = getattr(kldiv, self.name)
        return function

    @property
    def reduces(self) -> bool:
        """Whether the rows become one number."""
        return any(name == "reduction" and value != "none" for name, value in self.options)

    @property
    def has_own_batch(self) -> bool:
        """Whether a `TopK` knows no other batch than its own: ragged, or of known numbers."""
        known = any(isinstance(value, Constant) for _, value in self.options)
        return known or any(at == "offsets" for _, at in self.places)

    def arguments(self, arrays: Arrays) -> dict[str, Any]:
        """All arguments of the NumPy function."""
        found: dict[str, Any] = {
            name: value.top_k if isinstance(value, Constant) else value
            for name, value in self.options
        }
        kept: dict[str, dict[str, Any]] = {}
        for (name, at), array in zip(self.places, arrays, strict=True):
            if at is None:
                found[name] = array
            elif isinstance(at, str):
                kept.setdefault(name, {})[at] = array
            else:
                pair = list(found[name])
                pair[at] = array
                found[name] = tuple(pair)
        for name, fields in kept.items():
            # While JAX hides the numbers, shapes of the others are all that is asked for.
            if not any(map(is_traced, fields.values())):
                kind, classes = found[name]
                found[name] = checked(kind, classes, fields)
        return found

    def result(self, arrays: Arrays) -> Any:
        """Shape and dtype of the value."""
        given = self.arguments(arrays)
        wide = any(given[name].dtype == jnp.float64 for name in self.differentiable)
        kept = [value.top_k.values for _, value in self.options if isinstance(value, Constant)]
        kept += [one for (_, at), one in zip(self.places, arrays, strict=True) if at == "values"]
        wide |= (
            any(one.dtype == jnp.float64 for one in kept) and jnp.result_type(float) == jnp.float64
        )
        shape = list(given[self.rows].shape)
        if self.name != "log_softmax":
            del shape[given["axis"]]
        return _shape([] if self.reduces else shape, jnp.float64 if wide else jnp.float32)

    def value(self, arrays: Arrays) -> Any:
        """What the NumPy function returns."""
        return self.function(**self.arguments(arrays))

    def gradients(self, wrt: tuple[str, ...], grad_output: Any, arrays: Arrays) -> Arrays:
        """What `grad_output` becomes for the arguments `wrt`, in their dtypes."""
        given = self.arguments(arrays)
        outs = tuple(np.empty(given[name].shape, given[name].dtype) for name in wrt)
        function = self.function
        if self.name == "log_softmax":
            # −Σ t ln softmax(z) has the gradient softmax(z) Σt − t: here with t = −grad_output.
            given = {"logits": given.pop("z"), "targets": -grad_output, **given}
            function, wrt, grad_output = kldiv.cross_entropy, ("logits",), None
        elif self.name == "gather_log_probs":
            given = {"logits": given.pop("z"), "targets": given.pop("labels"), **given}
            function, wrt, grad_output = kldiv.cross_entropy, ("logits",), -grad_output
        request = function.request(**given)  # type: ignore[attr-defined]
        differentiate(request, wrt, outs, grad_output)
        return outs


def _shape(shape: Sequence[int], dtype: Any) -> Any:
    return jax.ShapeDtypeStruct(tuple(shape), dtype)  # type: ignore[no-untyped-call]


def is_traced(value: Any) -> bool:
    """Whether JAX hides the numbers of a value."""
    return isinstance(value, jax.core.Tracer)


def _on_host(
    call: Call, compute: Callable[..., Arrays], shapes: Arrays, names: Sequence[str], arrays: Arrays
) -> Arrays:
    """`compute` on NumPy arrays of the names given: at once where that can be, or by a callback."""
    if not any(map(is_traced, arrays)):
        at_once = compute(*(np.asarray(array) for array in arrays))
        return tuple(
            jnp.asarray(array, shape.dtype) for array, shape in zip(at_once, shapes, strict=True)
        )
    ranks = [array.ndim for array in arrays]
    batch_rank = ranks[names.index(call.rows)] - 1

    def mapped(*arrays: Any) -> Arrays:
        arrays = tuple(np.asarray(array) for array in arrays)
        # The axes that `jax.vmap` put before those of the call, of length 1 where it had none.
        leads = [
            array.shape[: array.ndim - rank] for array, rank in zip(arrays, ranks, strict=True)
        ]
        lead = np.broadcast_shapes(*leads)
        if (
            not call.reduces
            and not call.has_own_batch
            and all(
                name in ROWS + OVER_BATCH or set(own) <= {1}
                for name, own in zip(names, leads, strict=True)
            )
        ):
            # All rows are one batch.
            one = [
                _in_batch(name, array, own, lead, batch_rank)
                for name, array, own in zip(names, arrays, leads, strict=True)
            ]
            found = compute(*one)
        else:
            found = tuple(np.empty(lead + shape.shape, shape.dtype) for shape in shapes)
            for index in np.ndindex(lead):
                each = compute(*(_at(a, index, own) for a, own in zip(arrays, leads, strict=True)))
                for out, value in zip(found, each, strict=True):
                    out[index] = value
        return tuple(
            np.asarray(array, shape.dtype) for array, shape in zip(found, shapes, strict=True)
        )

    results: Arrays = jax.pure_callback(mapped, shapes, *arrays, vmap_method="expand_dims")
    return results


def _at(array: Any, index: tuple[int, ...], own: tuple[int, ...]) -> Any:
    return array[tuple(0 if n == 1 else i for i, n in zip(index, own, strict=True))]


def _in_batch(
    name: str, array: Any, own: tuple[int, ...], lead: tuple[int, ...], batch_rank: int
) -> Any:
    shape = array.shape[len(own) :]
    if name in ROWS:
        return np.broadcast_to(array, lead + shape)
    if name in OVER_BATCH:
        # A mask that broadcasts over the batch keeps doing so behind the new axes.
        missing = (1,) * max(0, batch_rank - len(shape))
        return array.reshape(own + missing + shape)
    return array[(0,) * len(own)]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def evaluate(call: Call, *arrays: jax.Array) -> jax.Array:
    """The value of a call."""
    names = [name for name, _ in call.places]
    shape = call.result(arrays)
    (value,) = _on_host(call, lambda *a: (call.value(a),), (shape,), names, arrays)
    return value  # type: ignore[no-any-return]


def _forward(call: Call, *given: Any) -> tuple[jax.Array, Any]:
    wrt = []
    for (name, _), argument in zip(call.places, given, strict=True):
        if not argument.perturbed:
            continue
        if name not in call.differentiable:
            raise ValueError(
                f"{name} has no gradient in kldiv.jax.{call.name}; pass "
                f"jax.lax.stop_gradient({name})"
            )
        wrt.append(name)
    arrays = tuple(argument.value for argument in given)
    # Keys are part of the structure of a residual, which JAX takes for static.
    return evaluate(call, *arrays), (arrays, dict.fromkeys(wrt))


def _backward(call: Call, residuals: Any, grad_output: Any) -> Arrays:
    arrays, keys = residuals
    names = [name for name, _ in call.places]
    wrt = tuple(name for name in names if name in keys)
    gradients: dict[str, Any] = {}
    if wrt and not isinstance(grad_output, jax.custom_derivatives.SymbolicZero):
        given = call.arguments(arrays)
        shapes = tuple(_shape(given[name].shape, given[name].dtype) for name in wrt)

        def compute(grad_output: Any, *arrays: Any) -> Arrays:
            return call.gradients(wrt, grad_output, arrays)

        # The upstream gradient of a log-softmax has the classes too.
        upstream = "targets" if call.name == "log_softmax" else "grad_output"
        inputs = (grad_output, *arrays)
        found = _on_host(call, compute, shapes, [upstream, *names], inputs)
        gradients = dict(zip(wrt, found, strict=True))
    return tuple(gradients.get(name) for name in names)


evaluate.defvjp(_forward, _backward, symbolic_zeros=True)
