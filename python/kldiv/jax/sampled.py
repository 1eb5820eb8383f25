"""The estimators of `kldiv.estimators` on JAX arrays, of their names and signatures."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kldiv import estimators
from kldiv._signatures import adopt, adopted, bound, docstring
from kldiv.estimators.formulas import log_ratio
from kldiv.estimators.table import ESTIMATORS, STRAIGHT_THROUGH
from kldiv.jax.calls import as_jax, as_rows, stand_in_of_option
from kldiv.jax.functional import TYPES

MODULE = "kldiv.jax.estimators"
NUMBERS = ("weights", "denominator", "clamp_log_ratio", "clamp")
"""Options that are numbers, which may be traced and have no gradient."""


def _on_jax_arrays(name: str) -> Callable[..., jax.Array]:
    """The estimator of a name."""
    model = getattr(estimators, name)
    signature = adopted(model, TYPES, "jax.Array")

    def function(*args: Any, **kwargs: Any) -> jax.Array:
        rows, options = bound(name, signature, args, kwargs)
        p, q = (as_rows(argument, value) for argument, value in rows.items())
        # NumPy's function refuses what can be seen of the arguments: it is given zeros for numbers
        # that may be hidden.
        stand_ins = (np.zeros(one.shape, one.dtype) for one in (p, q))
        model(
            *stand_ins,
            **{option: stand_in_of_option(option, one) for option, one in options.items()},
        )
        return _estimate(name, jnp.asarray(p), jnp.asarray(q), **_as_arrays(options))

    function.__doc__ = docstring(
        model, MODULE, "JAX arrays", "jax.numpy.array", "{}", source="kldiv.estimators"
    )
    return adopt(function, model, MODULE, signature)


def _as_arrays(options: dict[str, Any]) -> dict[str, Any]:
    """Mask and numbers as JAX has them."""
    found = dict(options)
    if (where := options["where"]) is not None:
        found["where"] = as_jax("where", where) != 0
    for name in NUMBERS:
        if options[name] is not None:
            found[name] = _without_gradient(name, as_jax(name, options[name]))
    return found


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _without_gradient(name: str, number: jax.Array) -> jax.Array:
    """A number, with respect to which a derivative is refused."""
    return number


def _refuse(name: str, primals: Any, tangents: Any) -> Any:
    if not isinstance(tangents[0], jax.custom_derivatives.SymbolicZero):
        raise ValueError(f"{name} has no gradient in {MODULE}; pass jax.lax.stop_gradient({name})")
    return primals[0], jnp.zeros_like(primals[0])


_without_gradient.defjvp(_refuse, symbolic_zeros=True)


@jax.custom_jvp
def _straight_through(values: jax.Array, r: jax.Array) -> jax.Array:
    """Values of one estimator with the derivative of another one."""
    return values


@_straight_through.defjvp
def _through(primals: Any, tangents: Any) -> Any:
    values, r = primals
    return _straight_through(values, r), tangents[1] * STRAIGHT_THROUGH.differentiate(jnp, r)


def _estimate(
    name: str,
    p: jax.Array,
    q: jax.Array,
    *,
    straight_through: bool,
    clamp_log_ratio: Any,
    clamp: Any,
    where: jax.Array | None,
    weights: jax.Array | None,
    reduction: str,
    denominator: Any,
) -> jax.Array:
    """The values of checked arguments, reduced."""
    dtype = jnp.float64 if jnp.float64 in (p.dtype, q.dtype) else jnp.float32
    p, q = p.astype(dtype), q.astype(dtype)
    clamp_log_ratio, clamp = (
        None if bound is None else bound.astype(dtype) for bound in (clamp_log_ratio, clamp)
    )
    keep = jnp.ones(p.shape, jnp.bool_)
    weight = jnp.ones((), dtype)
    if where is not None:
        keep = keep & where
    if weights is not None:
        keep = keep & (weights != 0)
        weight = weights.astype(dtype)
    r = log_ratio(jnp, jnp.where(keep, p, 0.0), jnp.where(keep, q, 0.0))
    # Where JAX keeps float64, a bound is such a number.
    values = ESTIMATORS[name].estimate(jnp, r, clamp_log_ratio, clamp).astype(dtype)
    if straight_through:
        values = _straight_through(jax.lax.stop_gradient(values), r)
    weight = jnp.where(keep, weight, 0.0)
    values = jnp.where(keep, values * weight, 0.0)
    if reduction == "none":
        reduced = values
    elif reduction == "sum":
        reduced = values.sum()
    elif reduction == "batchmean":
        reduced = values.sum() / max(p.shape[0], 1)
    elif denominator is not None:
        reduced = values.sum() / denominator
    else:
        total = weight.sum()
        # A mean over nothing is 0.
        reduced = jnp.where(total == 0, 0.0, values.sum() / jnp.where(total == 0, 1.0, total))
    return reduced.astype(dtype)


FUNCTIONS = {name: _on_jax_arrays(name) for name in ESTIMATORS}
