"""Kept sets of rows that JAX traces: the rows with the other classes masked, and the mass kept.

The set is a constant to JAX: what is computed of the masked rows is the masked dense computation,
and so is its gradient.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kldiv._requests import as_rules, check_shape, ids_of

OPTIONS = ("support", "top_k", "top_p", "min_p", "return_mass")


def taken(options: dict[str, Any]) -> dict[str, Any]:
    """The options of kept sets, taken out of others; none where they ask for nothing."""
    given = {name: options.pop(name) for name in OPTIONS if name in options}
    asked = any(value is not None and value is not False for value in given.values())
    return given if asked else {}


def masked(z: jax.Array, axis: int, temperature: Any, given: dict[str, Any]) -> jax.Array:
    """Rows with the logit −∞ for classes that are not kept."""
    rows = jnp.moveaxis(z, axis, -1)
    support = given["support"]
    for name in OPTIONS[1:]:
        if isinstance(given[name], jax.core.Tracer):
            raise TypeError(f"{name} chooses what is computed, and cannot be traced")
    kept = as_rules(rows.shape[-1], *(given[name] for name in OPTIONS))
    assert kept is not None
    if support is None:
        lowest = _lowest(rows, temperature, kept.top_k, kept.top_p, kept.min_p)
        # All of a row in which no logit is the lowest, so that it is NaN throughout.
        keep = ~(jax.lax.stop_gradient(rows) < lowest)
    else:
        count = math.prod(rows.shape[:-1])
        if isinstance(support, jax.Array):
            check_shape("z", rows.shape[:-1], support.shape)
            if not jnp.issubdtype(support.dtype, jnp.integer):
                raise TypeError(f"support has dtype {support.dtype}; expected integers")
            flat = support.reshape(count, -1)
            index = jnp.arange(count)[:, None]
        else:
            ids, offsets = ids_of("z", rows.shape[:-1], rows.shape[-1], support)
            flat = jnp.asarray(_checked(ids, offsets, rows.shape[-1]))
            index = jnp.asarray(np.repeat(np.arange(count), np.diff(offsets)))
        keep = jnp.zeros((count, rows.shape[-1]), bool).at[index, flat].set(True)
        keep = keep.reshape(rows.shape)
    return jnp.moveaxis(jnp.where(keep, rows, -jnp.inf), -1, axis)


def _checked(ids: Any, offsets: Any, classes: int) -> Any:
    """Classes that are in range, and of which every row has one."""
    if (counts := np.diff(offsets) == 0).any():
        raise ValueError(f"row {int(counts.argmax())} of support has no class")
    outside = (ids < 0) | (ids >= classes)
    if outside.any():
        at = int(outside.argmax())
        row = int(np.searchsorted(offsets, at, side="right")) - 1
        raise ValueError(
            f"class {ids[at]} in row {row} of support is out of range; rows have {classes} classes"
        )
    return ids


def _lowest(
    rows: jax.Array, temperature: Any, top_k: int | None, top_p: float | None, min_p: float | None
) -> jax.Array:
    """The lowest logit of every row that a sampler keeps."""
    rows = jax.lax.stop_gradient(rows)
    wide = rows.astype(jnp.promote_types(rows.dtype, jnp.float32))
    largest = wide.max(-1, keepdims=True)
    lowest = jnp.full_like(largest, -jnp.inf)
    if min_p is not None and min_p > 0:
        lowest = largest + math.log(min_p) * temperature
    if top_k is not None and top_k < rows.shape[-1]:
        lowest = jnp.maximum(lowest, jax.lax.top_k(wide, top_k)[0][..., -1:])
    if top_p is not None and top_p < 1:
        falling = -jnp.sort(-wide, axis=-1)
        weights = jnp.where(falling >= lowest, jnp.exp((falling - largest) / temperature), 0.0)
        held = jnp.cumsum(weights, axis=-1)
        inside = (held - weights < top_p * held[..., -1:]) & (falling >= lowest)
        lowest = jnp.where(inside, falling, jnp.inf).min(-1, keepdims=True)
    return jnp.where(jnp.isfinite(largest), lowest, jnp.nan)
