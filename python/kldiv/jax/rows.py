"""Values of rows as JAX functions: callbacks to NumPy, with a derivative.

The extension runs on the host. A callback gets and gives NumPy arrays, and touches nothing of JAX:
that may wait for the very thread that runs the callback.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import kldiv
from kldiv._requests import value_and_grad


@dataclass(frozen=True)
class Rows:
    """A function of `kldiv` with its options, without masks and reductions; hashable."""

    name: str
    options: tuple[tuple[str, Any], ...]
    differentiable: int
    """How many of the arrays have a gradient; they come first."""

    @property
    def function(self) -> Callable[..., Any]:
        """The NumPy function."""
        function: Callable[..., Any] = getattr(kldiv, self.name)
        return function


def _dtype(spec: Rows, arrays: tuple[Any, ...]) -> Any:
    wide = any(array.dtype == jnp.float64 for array in arrays[: spec.differentiable])
    return jnp.float64 if wide else jnp.float32


def _shape(shape: tuple[int, ...], dtype: Any) -> Any:
    return jax.ShapeDtypeStruct(shape, dtype)  # type: ignore[no-untyped-call]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def row_values(spec: Rows, keep: jax.Array, *arrays: jax.Array) -> jax.Array:
    """The value of every row, 0 where `keep` is False."""
    shape = _shape(arrays[0].shape[:-1], _dtype(spec, arrays))

    def compute(keep: Any, *arrays: Any) -> Any:
        keep, *numpy_arrays = (np.asarray(array) for array in (keep, *arrays))
        value = spec.function(*numpy_arrays, where=keep, **dict(spec.options))
        return np.asarray(value, shape.dtype)

    value: jax.Array = jax.pure_callback(compute, shape, keep, *arrays, vmap_method="broadcast_all")
    return value


def _forward(spec: Rows, keep: jax.Array, *arrays: jax.Array) -> tuple[jax.Array, Any]:
    return row_values(spec, keep, *arrays), (keep, arrays)


def _backward(spec: Rows, residuals: Any, grad_output: jax.Array) -> tuple[Any, ...]:
    keep, arrays = residuals
    inputs = arrays[: spec.differentiable]
    shapes = tuple(_shape(array.shape, array.dtype) for array in inputs)

    def compute(grad_output: Any, keep: Any, *arrays: Any) -> Any:
        upstream, keep, *numpy_arrays = (
            np.asarray(array) for array in (grad_output, keep, *arrays)
        )
        given = numpy_arrays[: spec.differentiable]
        gradients = tuple(np.empty_like(array) for array in given)
        build = spec.function.request  # type: ignore[attr-defined]
        request = build(*numpy_arrays, where=keep, **dict(spec.options))
        value_and_grad(request, tuple(request.rows), gradients, upstream)
        return gradients

    gradients = jax.pure_callback(
        compute, shapes, grad_output, keep, *arrays, vmap_method="broadcast_all"
    )
    others = tuple(None for _ in arrays[spec.differentiable :])
    return None, *gradients, *others


row_values.defvjp(_forward, _backward)
