"""The functions of `kldiv` on JAX arrays."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from kldiv._requests import REDUCTIONS
from kldiv.jax.rows import Rows, row_values

Space = str | tuple[str, str]
Temperature = float | tuple[float, float]


def _reduced(
    spec: Rows,
    arrays: tuple[jax.Array, ...],
    where: Any,
    weights: Any,
    reduction: str,
    denominator: Any,
    share: jax.Array | None = None,
) -> jax.Array:
    """The values of the rows, masked, weighted and reduced."""
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction must be one of {', '.join(REDUCTIONS)}, got {reduction!r}")
    if denominator is not None and reduction != "mean":
        raise ValueError("denominator replaces the divisor of reduction='mean' and of no other")
    batch_shape = arrays[0].shape[:-1]
    keep = jnp.broadcast_to(True if where is None else jnp.asarray(where), batch_shape)
    if keep.dtype != jnp.bool_:
        raise TypeError(f"where has dtype {keep.dtype}; expected bool")
    if weights is not None:
        weights = jnp.broadcast_to(jnp.asarray(weights), batch_shape)
        keep = keep & (weights != 0)
    rows = row_values(spec, keep, *arrays)
    weight = keep.astype(rows.dtype)
    if weights is not None:
        weight = jnp.where(keep, weights.astype(rows.dtype), weight)
    rows = rows * weight
    if reduction == "none":
        return rows
    total = rows.sum()
    if reduction == "sum":
        return total
    if reduction == "batchmean":
        if not batch_shape:
            raise ValueError(
                "reduction='batchmean' divides by the first batch axis, and there is none"
            )
        return total / batch_shape[0]
    if denominator is not None:
        return total / jnp.asarray(denominator).astype(rows.dtype)
    divisor = (weight if share is None else weight * share).sum()
    # A mean over nothing is 0.
    return jnp.where(divisor == 0, 0.0, total / jnp.where(divisor == 0, 1.0, divisor))


def _floating(**arrays: Any) -> tuple[jax.Array, ...]:
    found = []
    for name, array in arrays.items():
        array = jnp.asarray(array)
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise TypeError(f"{name} has dtype {array.dtype}; expected a floating one")
        found.append(array)
    return tuple(found)


def _divergence(
    name: str,
    p: Any,
    q: Any,
    space: Space,
    temperature: Temperature,
    axis: int,
    rest: Any,
    **more: float,
) -> jax.Array:
    p, q = _floating(p=p, q=q)
    if p.shape != q.shape:
        raise ValueError(f"p has shape {p.shape} but q has shape {q.shape}")
    spaces = tuple(space) if isinstance(space, list) else space
    temperatures = tuple(temperature) if isinstance(temperature, list) else temperature
    options = (("space", spaces), ("temperature", temperatures), *more.items())
    rows = jnp.moveaxis(p, axis, -1), jnp.moveaxis(q, axis, -1)
    return _reduced(Rows(name, options, 2), rows, *rest)


def kl(
    p: Any,
    q: Any,
    *,
    space: Space = "logits",
    temperature: Temperature = 1.0,
    axis: int = -1,
    where: Any = None,
    weights: Any = None,
    reduction: str = "none",
    denominator: Any = None,
) -> jax.Array:
    r"""Kullback–Leibler divergence of q from p, Σ p (ln p − ln q); `kldiv.kl` on JAX arrays.

    Works under `jax.jit`, `jax.vmap` and `jax.grad`, in both arguments, by a callback to the host.
    Parameters, values and edge cases are those of `kldiv.kl`. Gradients have the dtypes of p and q.

    Examples
    --------
    >>> import jax
    >>> import kldiv.jax
    >>> teacher, student = jax.numpy.array([1.0, 2.0, 0.5]), jax.numpy.array([0.9, 2.1, 0.5])
    >>> print(f"{kldiv.jax.kl(teacher, student):.6f}")
    0.003424
    >>> jax.grad(kldiv.jax.kl, argnums=1)(teacher, student).round(4)
    Array([-0.0308,  0.0368, -0.0059], dtype=float32)
    """
    rest = (where, weights, reduction, denominator)
    return _divergence("kl", p, q, space, temperature, axis, rest)


def reverse_kl(
    p: Any,
    q: Any,
    *,
    space: Space = "logits",
    temperature: Temperature = 1.0,
    axis: int = -1,
    where: Any = None,
    weights: Any = None,
    reduction: str = "none",
    denominator: Any = None,
) -> jax.Array:
    """Reverse KL divergence, Σ q (ln q − ln p); `kldiv.reverse_kl` on JAX arrays. See `kl`.

    Examples
    --------
    >>> import jax
    >>> import kldiv.jax
    >>> p, q = jax.numpy.array([0.5, 0.5]), jax.numpy.array([0.9, 0.1])
    >>> print(f"{kldiv.jax.reverse_kl(p, q, space='probs'):.6f}")
    0.368064
    """
    rest = (where, weights, reduction, denominator)
    return _divergence("reverse_kl", p, q, space, temperature, axis, rest)


def jensen_shannon(
    p: Any,
    q: Any,
    *,
    beta: float = 0.5,
    space: Space = "logits",
    temperature: Temperature = 1.0,
    axis: int = -1,
    where: Any = None,
    weights: Any = None,
    reduction: str = "none",
    denominator: Any = None,
) -> jax.Array:
    """Jensen–Shannon divergence; `kldiv.jensen_shannon` on JAX arrays. See `kl`.

    Examples
    --------
    >>> import jax
    >>> import kldiv.jax
    >>> p, q = jax.numpy.array([0.5, 0.5]), jax.numpy.array([0.9, 0.1])
    >>> print(f"{kldiv.jax.jensen_shannon(p, q, space='probs'):.6f}")
    0.101749
    """
    rest = (where, weights, reduction, denominator)
    return _divergence("jensen_shannon", p, q, space, temperature, axis, rest, beta=beta)


def total_variation(
    p: Any,
    q: Any,
    *,
    space: Space = "logits",
    temperature: Temperature = 1.0,
    axis: int = -1,
    where: Any = None,
    weights: Any = None,
    reduction: str = "none",
    denominator: Any = None,
) -> jax.Array:
    """Total variation distance; `kldiv.total_variation` on JAX arrays. See `kl`.

    Examples
    --------
    >>> import jax
    >>> import kldiv.jax
    >>> p, q = jax.numpy.array([0.5, 0.5]), jax.numpy.array([0.9, 0.1])
    >>> print(f"{kldiv.jax.total_variation(p, q, space='probs'):.6f}")
    0.400000
    """
    rest = (where, weights, reduction, denominator)
    return _divergence("total_variation", p, q, space, temperature, axis, rest)


def renyi(
    p: Any,
    q: Any,
    *,
    alpha: float,
    space: Space = "logits",
    temperature: Temperature = 1.0,
    axis: int = -1,
    where: Any = None,
    weights: Any = None,
    reduction: str = "none",
    denominator: Any = None,
) -> jax.Array:
    """Rényi divergence of order α; `kldiv.renyi` on JAX arrays. See `kl`.

    Examples
    --------
    >>> import jax
    >>> import kldiv.jax
    >>> p, q = jax.numpy.array([0.5, 0.5]), jax.numpy.array([0.9, 0.1])
    >>> print(f"{kldiv.jax.renyi(p, q, alpha=2.0, space='probs'):.6f}")
    1.021651
    """
    rest = (where, weights, reduction, denominator)
    return _divergence("renyi", p, q, space, temperature, axis, rest, alpha=alpha)


def cross_entropy(
    logits: Any,
    targets: Any,
    *,
    space: str = "logits",
    temperature: float = 1.0,
    ignore_index: int | None = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
    axis: int = -1,
    where: Any = None,
    weights: Any = None,
    reduction: str = "none",
    denominator: Any = None,
) -> jax.Array:
    """Cross-entropy with class indices or distributions; `kldiv.cross_entropy` on JAX arrays.

    Differs from ``optax.losses.softmax_cross_entropy_with_integer_labels`` for labels outside the
    classes: optax takes −1 for the last class and gives NaN for others; here the label
    `ignore_index` gives 0, and any other, −1 too, raises (under `jax.jit` as JAX's own error with
    the message inside).

    Examples
    --------
    >>> import jax
    >>> import kldiv.jax
    >>> print(f"{kldiv.jax.cross_entropy(jax.numpy.zeros(4), 1):.6f}")
    1.386294
    """
    (z,) = _floating(logits=logits)
    z, targets = jnp.moveaxis(z, axis, -1), jnp.asarray(targets)
    options: tuple[tuple[str, Any], ...] = (
        ("space", space),
        ("temperature", temperature),
        ("label_smoothing", label_smoothing),
        ("z_loss", z_loss),
        ("softcap", softcap),
    )
    rest = (weights, reduction, denominator)
    if jnp.issubdtype(targets.dtype, jnp.floating):
        rows = Rows("cross_entropy", options, 2)
        return _reduced(rows, (z, jnp.moveaxis(targets, axis, -1)), where, *rest)
    if not jnp.issubdtype(targets.dtype, jnp.integer):
        raise TypeError(f"targets has dtype {targets.dtype}; expected integers or a floating one")
    if targets.shape != z.shape[:-1]:
        raise ValueError(f"targets has shape {targets.shape} but logits has shape {logits.shape}")
    if ignore_index is not None:
        kept = targets != ignore_index
        where = kept if where is None else kept & jnp.asarray(where)
    rows = Rows("cross_entropy", (*options, ("ignore_index", None)), 1)
    return _reduced(rows, (z, targets), where, *rest)


def entropy(
    p: Any,
    *,
    space: str = "logits",
    temperature: float = 1.0,
    axis: int = -1,
    where: Any = None,
    weights: Any = None,
    reduction: str = "none",
    denominator: Any = None,
) -> jax.Array:
    """Shannon entropy, −Σ p ln p; `kldiv.entropy` on JAX arrays.

    Examples
    --------
    >>> import jax
    >>> import kldiv.jax
    >>> print(f"{kldiv.jax.entropy(jax.numpy.zeros(4)):.6f}")
    1.386294
    """
    (p,) = _floating(p=p)
    spec = Rows("entropy", (("space", space), ("temperature", temperature)), 1)
    rows = (jnp.moveaxis(p, axis, -1),)
    return _reduced(spec, rows, where, weights, reduction, denominator)


def logsumexp(
    z: Any,
    *,
    temperature: float = 1.0,
    axis: int = -1,
    where: Any = None,
    weights: Any = None,
    reduction: str = "none",
    denominator: Any = None,
) -> jax.Array:
    """Log-sum-exp, ln Σ e^(z/T); `kldiv.logsumexp` on JAX arrays.

    Examples
    --------
    >>> import jax
    >>> import kldiv.jax
    >>> print(f"{kldiv.jax.logsumexp(jax.numpy.zeros(4)):.6f}")
    1.386294
    """
    (z,) = _floating(z=z)
    rows = (jnp.moveaxis(z, axis, -1),)
    spec = Rows("logsumexp", (("temperature", temperature),), 1)
    return _reduced(spec, rows, where, weights, reduction, denominator)


def log_softmax(z: Any, *, temperature: float = 1.0, axis: int = -1) -> jax.Array:
    """z/T − ln Σ e^(z/T); `kldiv.log_softmax` on JAX arrays.

    Examples
    --------
    >>> import jax
    >>> import kldiv.jax
    >>> print(f"{kldiv.jax.log_softmax(jax.numpy.zeros(4))[0]:.6f}")
    -1.386294
    """
    (z,) = _floating(z=z)
    lse = logsumexp(z, temperature=temperature, axis=axis)
    ln_p: jax.Array = z.astype(lse.dtype) / temperature - jnp.expand_dims(lse, axis)
    return ln_p


def gather_log_probs(
    z: Any,
    labels: Any,
    *,
    temperature: float = 1.0,
    ignore_index: int | None = -100,
    axis: int = -1,
    where: Any = None,
) -> jax.Array:
    """Ln softmax(z/T) at the label of each row; `kldiv.gather_log_probs` on JAX arrays.

    Examples
    --------
    >>> import jax
    >>> import kldiv.jax
    >>> print(f"{kldiv.jax.gather_log_probs(jax.numpy.zeros(4), 1):.6f}")
    -1.386294
    """
    return -cross_entropy(
        z, labels, temperature=temperature, ignore_index=ignore_index, axis=axis, where=where
    )
