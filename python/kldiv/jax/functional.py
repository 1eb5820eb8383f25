"""The functions of `kldiv` on JAX arrays."""

from __future__ import annotations

from typing import Any

import jax

from kldiv.jax.calls import call

Space = str | tuple[str, str]
Temperature = float | tuple[float, float]

_OF_SIDES = ("space", "normalize", "temperature")
_OVER_ROWS = ("axis", "where", "weights", "reduction", "denominator")


def _divergence(
    name: str, p: Any, q: Any, sides: tuple[Any, ...], rest: Any, **parameter: float
) -> jax.Array:
    options = dict(zip((*_OF_SIDES, *_OVER_ROWS), (*sides, *rest), strict=True)) | parameter
    return call(name, {"p": p, "q": q}, options)


def kl(
    p: Any,
    q: Any,
    *,
    space: Space = "logits",
    normalize: bool = False,
    temperature: Temperature = 1.0,
    axis: int = -1,
    where: Any = None,
    weights: Any = None,
    reduction: str = "none",
    denominator: Any = None,
) -> jax.Array:
    r"""Kullback–Leibler divergence of q from p, Σ p (ln p − ln q); `kldiv.kl` on JAX arrays.

    Works under `jax.jit`, `jax.vmap` and `jax.grad`, in both arguments, by a callback to the host.
    Parameters, values, edge cases and exceptions are those of `kldiv.kl`. Gradients are of first
    order and have the dtypes of p and q. float64 needs ``jax_enable_x64``, as everywhere in JAX.

    Mask, weights, denominator and temperature may be traced, like p and q, but have no gradient:
    differentiating with respect to one of them raises ValueError. `jax.vmap` of a reduction, or
    over a temperature, makes one call of the extension for each element.

    Under `jax.jit` and `jax.vmap` shapes, dtypes and constants are checked while JAX traces, with
    NumPy's exceptions; numbers that JAX hides then (a negative weight, a label out of range) are
    checked when the function runs, and raise JAX's own error with the message inside.

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
    rest = (axis, where, weights, reduction, denominator)
    return _divergence("kl", p, q, (space, normalize, temperature), rest)


def reverse_kl(
    p: Any,
    q: Any,
    *,
    space: Space = "logits",
    normalize: bool = False,
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
    rest = (axis, where, weights, reduction, denominator)
    return _divergence("reverse_kl", p, q, (space, normalize, temperature), rest)


def jensen_shannon(
    p: Any,
    q: Any,
    *,
    beta: float = 0.5,
    space: Space = "logits",
    normalize: bool = False,
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
    rest = (axis, where, weights, reduction, denominator)
    return _divergence("jensen_shannon", p, q, (space, normalize, temperature), rest, beta=beta)


def total_variation(
    p: Any,
    q: Any,
    *,
    space: Space = "logits",
    normalize: bool = False,
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
    rest = (axis, where, weights, reduction, denominator)
    return _divergence("total_variation", p, q, (space, normalize, temperature), rest)


def renyi(
    p: Any,
    q: Any,
    *,
    alpha: float,
    space: Space = "logits",
    normalize: bool = False,
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
    rest = (axis, where, weights, reduction, denominator)
    return _divergence("renyi", p, q, (space, normalize, temperature), rest, alpha=alpha)


def cross_entropy(
    logits: Any,
    targets: Any,
    *,
    space: str = "logits",
    temperature: float = 1.0,
    ignore_index: int | None = -100,
    label_smoothing: float = 0.0,
    class_weights: Any = None,
    z_loss: float = 0.0,
    softcap: float | None = None,
    axis: int = -1,
    where: Any = None,
    weights: Any = None,
    reduction: str = "none",
    denominator: Any = None,
) -> jax.Array:
    """Cross-entropy with class indices or distributions; `kldiv.cross_entropy` on JAX arrays.

    Differentiable in the logits, and in target distributions. See `kl` for what happens under
    `jax.jit`.

    Differs from ``optax.losses.softmax_cross_entropy_with_integer_labels`` for labels outside the
    classes: optax takes −1 for the last class and gives NaN for others; here the label
    `ignore_index` gives 0, and any other, −1 too, raises.

    Examples
    --------
    >>> import jax
    >>> import kldiv.jax
    >>> print(f"{kldiv.jax.cross_entropy(jax.numpy.zeros(4), 1):.6f}")
    1.386294
    """
    options = {
        "space": space,
        "temperature": temperature,
        "ignore_index": ignore_index,
        "label_smoothing": label_smoothing,
        "class_weights": class_weights,
        "z_loss": z_loss,
        "softcap": softcap,
        "axis": axis,
        "where": where,
        "weights": weights,
        "reduction": reduction,
        "denominator": denominator,
    }
    return call("cross_entropy", {"logits": logits, "targets": targets}, options)


def entropy(
    p: Any,
    *,
    space: str = "logits",
    normalize: bool = False,
    temperature: float = 1.0,
    axis: int = -1,
    where: Any = None,
    weights: Any = None,
    reduction: str = "none",
    denominator: Any = None,
) -> jax.Array:
    """Shannon entropy, −Σ p ln p; `kldiv.entropy` on JAX arrays. See `kl`.

    Examples
    --------
    >>> import jax
    >>> import kldiv.jax
    >>> print(f"{kldiv.jax.entropy(jax.numpy.zeros(4)):.6f}")
    1.386294
    """
    options = dict(
        zip(_OVER_ROWS, (axis, where, weights, reduction, denominator), strict=True),
        space=space,
        normalize=normalize,
        temperature=temperature,
    )
    return call("entropy", {"p": p}, options)


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
    """Log-sum-exp, ln Σ e^(z/T); `kldiv.logsumexp` on JAX arrays. See `kl`.

    Examples
    --------
    >>> import jax
    >>> import kldiv.jax
    >>> print(f"{kldiv.jax.logsumexp(jax.numpy.zeros(4)):.6f}")
    1.386294
    """
    options = dict(
        zip(_OVER_ROWS, (axis, where, weights, reduction, denominator), strict=True),
        temperature=temperature,
    )
    return call("logsumexp", {"z": z}, options)


def log_softmax(
    z: Any, *, temperature: float = 1.0, axis: int = -1, where: Any = None
) -> jax.Array:
    """z/T − ln Σ e^(z/T); `kldiv.log_softmax` on JAX arrays. See `kl`.

    The difference is rounded once, so that large logits keep their digits. What comes back as g
    becomes (g − softmax(z/T) Σg) / T for the logits.

    Examples
    --------
    >>> import jax
    >>> import kldiv.jax
    >>> print(f"{kldiv.jax.log_softmax(jax.numpy.zeros(4))[0]:.6f}")
    -1.386294
    """
    options = {"temperature": temperature, "axis": axis, "where": where}
    return call("log_softmax", {"z": z}, options)


def gather_log_probs(
    z: Any,
    labels: Any,
    *,
    temperature: float = 1.0,
    ignore_index: int | None = -100,
    axis: int = -1,
    where: Any = None,
) -> jax.Array:
    """Ln softmax(z/T) at the label of each row; `kldiv.gather_log_probs` on JAX arrays. See `kl`.

    Examples
    --------
    >>> import jax
    >>> import kldiv.jax
    >>> print(f"{kldiv.jax.gather_log_probs(jax.numpy.zeros(4), 1):.6f}")
    -1.386294
    """
    options = {
        "temperature": temperature,
        "ignore_index": ignore_index,
        "axis": axis,
        "where": where,
    }
    return call("gather_log_probs", {"z": z, "labels": labels}, options)
