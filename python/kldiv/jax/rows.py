"""Calls of `kldiv` as JAX functions, with a derivative.

Where JAX hides no numbers, NumPy's function is called at once, and raises what it raises. Elsewhere
XLA calls the extension by a handler (`kldiv.jax.handlers`); what has none, and what is compiled for
another device, is a callback to NumPy's function. All three make the whole call, mask, weights and
reduction included, so that every check and every rule is the same.

A callback gets and gives NumPy arrays, and touches nothing of JAX: that may wait for the very
thread that runs the callback.

The gradients for an upstream gradient of 1 are found with the value, in one read of the rows, and
multiplied by the upstream gradient later. In 16 bits that would round them twice, and lose what a
scale of the loss is to keep. There they are found for the upstream gradient that such a call had
last (``src/python/xla/upstream.rs``), and computed again, in the same memory, where it is another.
A callback does not guess: it finds those for 1, which are computed again unless the upstream
gradient is 1, or a power of 2 in bfloat16.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import kldiv
from kldiv._outputs import new_array
from kldiv._requests import Request, differentiate
from kldiv.jax.handlers import Handler, Place, shape_of, unfused
from kldiv.jax.top_k import Constant, checked

Arrays = tuple[Any, ...]

ROWS = ("p", "q", "logits", "targets", "z", "labels", "upstream")
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
    handler: Handler | None

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
    def axis(self) -> int:
        """The class axis."""
        axis: int = dict(self.options)["axis"]
        return axis

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
        return shape_of([] if self.reduces else shape, jnp.float64 if wide else jnp.float32)

    def value(self, arrays: Arrays) -> Any:
        """What the NumPy function returns."""
        return self.function(**self.arguments(arrays))

    def differentiated(self, wrt: tuple[str, ...], grad_output: Any, arrays: Arrays) -> Arrays:
        """The value, and what `grad_output` becomes for the arguments `wrt`, in their dtypes.

        Of `log_softmax`, whose upstream gradient has classes, the value is left out.
        """
        given = self.arguments(arrays)
        outs = tuple(new_array(given[name].shape, given[name].dtype) for name in wrt)
        if self.name == "log_softmax":
            # −Σ t ln softmax(z) has the gradient softmax(z) Σt − t: here with t = −grad_output.
            given = {"logits": given.pop("z"), "targets": -grad_output, **given}
            differentiate(_request(kldiv.cross_entropy, given), ("logits",), outs, None)
            return outs
        if self.name == "gather_log_probs":
            # The negative of cross-entropy, and so is its upstream gradient.
            given = {"logits": given.pop("z"), "targets": given.pop("labels"), **given}
            upstream = -np.float64(1) if grad_output is None else -grad_output
            request = _request(kldiv.cross_entropy, given)
            value, _ = differentiate(request, ("logits",), outs, upstream)
            return 0 - value, *outs
        value, _ = differentiate(_request(self.function, given), wrt, outs, grad_output)
        return value, *outs

    def gradients(self, wrt: tuple[str, ...], grad_output: Any, arrays: Arrays) -> Arrays:
        """What `grad_output` becomes for the arguments `wrt`, in their dtypes."""
        return self.differentiated(wrt, grad_output, arrays)[-len(wrt) :]

    def gradient_shapes(self, wrt: tuple[str, ...], arrays: Arrays) -> dict[str, Any]:
        """Shapes and dtypes of gradients by name."""
        given = self.arguments(arrays)
        return {name: shape_of(given[name].shape, given[name].dtype) for name in wrt}


def _request(function: Callable[..., Any], given: dict[str, Any]) -> Request:
    """What a NumPy function makes of its arguments."""
    request: Request = function.request(**given)  # type: ignore[attr-defined]
    return request


def is_traced(value: Any) -> bool:
    """Whether JAX hides the numbers of a value."""
    return isinstance(value, jax.core.Tracer)


def _run(
    call: Call,
    compute: Callable[..., Arrays],
    results: Mapping[str, Any],
    upstream: Mapping[str, Any],
    arrays: Arrays,
) -> Arrays:
    """Results by name, which `compute` gives on NumPy arrays, of upstream gradients and arrays."""
    given = (*upstream.values(), *arrays)
    shapes = tuple(results.values())
    names = (*upstream, *(name for name, _ in call.places))
    if not any(map(is_traced, given)):
        at_once = compute(*(np.asarray(array) for array in given))
        return tuple(
            jnp.asarray(array, shape.dtype) for array, shape in zip(at_once, shapes, strict=True)
        )
    by_callback = functools.partial(_by_callback, call, compute, shapes, names)
    if (handler := call.handler) is None:
        return by_callback(*given)

    def by_handler(*given: Any) -> Arrays:
        count = len(upstream)
        return handler(results, dict(zip(upstream, given, strict=False)), given[count:])

    found: Arrays = jax.lax.platform_dependent(*given, cpu=by_handler, default=by_callback)
    return found


def _by_callback(
    call: Call, compute: Callable[..., Arrays], shapes: Arrays, names: Sequence[str], *arrays: Any
) -> Arrays:
    """`compute` on NumPy arrays of the names given."""
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
            found = tuple(new_array(lead + shape.shape, shape.dtype) for shape in shapes)
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
    results = {"out" if call.name == "log_softmax" else "value": call.result(arrays)}
    (value,) = _run(call, lambda *a: (call.value(a),), results, {}, arrays)
    return value  # type: ignore[no-any-return]


def _forward(call: Call, *given: Any) -> tuple[jax.Array, Any]:
    wrt: tuple[str, ...] = ()
    for (name, _), argument in zip(call.places, given, strict=True):
        if not argument.perturbed:
            continue
        if name not in call.differentiable:
            raise ValueError(
                f"{name} has no gradient in kldiv.jax.{call.name}; pass "
                f"jax.lax.stop_gradient({name})"
            )
        wrt += (name,)
    arrays = tuple(argument.value for argument in given)
    shapes = call.gradient_shapes(wrt, arrays)
    exact = any(map(is_traced, arrays)) and all(one.dtype.itemsize > 2 for one in shapes.values())
    if not wrt or call.name == "log_softmax" or not (call.reduces or exact):
        # The upstream gradient has classes, or is one number a row, which is seldom 1.
        return evaluate(call, *arrays), (arrays, dict.fromkeys(wrt), None)

    of_value = call.result(arrays)
    results = {"value": of_value, **shapes}
    guesses = not exact and call.handler is not None
    if guesses:
        results["scale"] = shape_of((), of_value.dtype)

    def compute(*arrays: Any) -> Arrays:
        found = call.differentiated(wrt, None, arrays)
        return (*found, np.ones((), of_value.dtype)) if guesses else found

    value, *found = _run(call, compute, results, {}, arrays)
    scale = found.pop() if guesses else None
    # Keys are part of the structure of a residual, which JAX takes for static.
    return value, (() if exact else arrays, dict(zip(wrt, found, strict=True)), scale)


def _backward(call: Call, residuals: Any, grad_output: Any) -> Arrays:
    arrays, saved, scale = residuals
    wrt = tuple(name for name, _ in call.places if name in saved)
    gradients: dict[str, Any] = {}
    if wrt and not isinstance(grad_output, jax.custom_derivatives.SymbolicZero):
        found = tuple(saved[name] for name in wrt)
        if not arrays:
            factor = grad_output if call.reduces else jnp.expand_dims(grad_output, call.axis)
            found = tuple(map(unfused, _multiplied(found, factor)))
        elif found[0] is None:
            found = _gradients(call, wrt, grad_output, arrays)
        elif not any(map(is_traced, (grad_output, *found, *arrays))):
            if grad_output != 1:
                found = _gradients(call, wrt, grad_output, arrays)
        elif scale is None:
            found = _exact_or_again(call, wrt, found, grad_output, arrays)
        else:
            found = _found_or_again(call, wrt, found, scale, grad_output, arrays)
        gradients = dict(zip(wrt, found, strict=True))
    return tuple(gradients.get(name) for name, _ in call.places)


def _exact_or_again(
    call: Call, wrt: tuple[str, ...], found: Arrays, grad_output: Any, arrays: Arrays
) -> Arrays:
    """The gradients for an upstream gradient of 1, multiplied if that is exact."""
    result: Arrays = jax.lax.cond(
        _is_exact(found, grad_output),
        lambda found, grad_output, _: _multiplied(found, grad_output),
        lambda _, *given: _gradients(call, wrt, *given),
        found,
        grad_output,
        arrays,
    )
    return result


def _found_or_again(
    call: Call, wrt: tuple[str, ...], found: Arrays, scale: Any, grad_output: Any, arrays: Arrays
) -> Arrays:
    """The gradients found for an upstream gradient of `scale`, computed again if it is another."""
    handler = call.handler
    assert handler is not None

    def on_cpu(found: Arrays, scale: Any, grad_output: Any, arrays: Arrays) -> Arrays:
        results = call.gradient_shapes(wrt, arrays)
        return handler(results, {"scale": scale, "grad_output": grad_output}, arrays, found)

    def elsewhere(found: Arrays, _: Any, grad_output: Any, arrays: Arrays) -> Arrays:
        # Those of a callback are for 1.
        return _exact_or_again(call, wrt, found, grad_output, arrays)

    result: Arrays = jax.lax.platform_dependent(
        found, scale, grad_output, arrays, cpu=on_cpu, default=elsewhere
    )
    return result


def _multiplied(found: Arrays, factor: Any) -> Arrays:
    return tuple((one * factor).astype(one.dtype) for one in found)


def _is_exact(found: Arrays, factor: Any) -> Any:
    """Whether products with a number need no rounding: with 1, and the range of float32 with 2ⁿ."""
    if any(one.dtype == jnp.float16 for one in found):
        return factor == 1
    mantissa, exponent = jnp.frexp(factor)
    return (jnp.abs(mantissa) == 0.5) & (jnp.abs(exponent) <= 32)


def _gradients(call: Call, wrt: tuple[str, ...], grad_output: Any, arrays: Arrays) -> Arrays:
    """What `grad_output` becomes for the arguments `wrt`."""

    def compute(grad_output: Any, *arrays: Any) -> Arrays:
        return call.gradients(wrt, grad_output, arrays)

    upstream = "upstream" if call.name == "log_softmax" else "grad_output"
    return _run(call, compute, call.gradient_shapes(wrt, arrays), {upstream: grad_output}, arrays)


evaluate.defvjp(_forward, _backward, symbolic_zeros=True)
