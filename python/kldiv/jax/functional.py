"""The functions of `kldiv` on JAX arrays, of their names and signatures."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import jax

from kldiv import functional
from kldiv._kldiv import DIVERGENCES
from kldiv._signatures import NUMPY_ONLY, adopt, adopted, bound, docstring
from kldiv.jax.calls import call

MODULE = "kldiv.jax"

TYPES = {
    "ArrayLike": "Any",
    "ArrayLike | TopK": "Any",
    "IdMap | None": "tuple[Any, Any] | None",
    "Rule | None": "str | tuple[str, float] | None",
    "ArrayLike | None": "Any",
    "float": "float | jax.Array",
    "float | None": "float | jax.Array | None",
    "int | None": "int | jax.Array | None",
    "Temperature": "float | jax.Array | tuple[float | jax.Array, float | jax.Array]",
    "Space": "str | tuple[str, str]",
}
"""What stands for NumPy's types."""

DOCSTRINGS = {
    "kl": r"""
    Kullback–Leibler divergence of q from p, Σ p (ln p − ln q); `kldiv.kl` on JAX arrays.

    Works under `jax.jit`, `jax.vmap` and `jax.grad`, in both arguments. Compiled for the CPU it is
    a call that XLA makes of the extension, without Python's lock and without a copy; for another
    device, or from a `TopK`, a callback to the host. Parameters, values, edge cases and exceptions
    are those of `kldiv.kl`. Gradients are of first order and have the dtypes of p and q. float64
    needs ``jax_enable_x64``, as everywhere in JAX.

    Gradients are found with the value, in one read of p and q, and multiplied by what comes back.
    In float16 and bfloat16 that would round them twice: there it needs a reduction, and what comes
    back to be 1, or a power of 2 in bfloat16; otherwise p and q are read again.

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
    """,
    "uld": r"""
    Universal logit distillation, Σ \|p_(i) − q_(i)\|; `kldiv.uld` on JAX arrays. See `kl`.

    The ids of `id_map` may be traced; they have no gradient.

    Examples
    --------
    >>> import jax
    >>> import kldiv.jax
    >>> teacher, student = jax.numpy.array([1.0, 2.0, 0.5]), jax.numpy.array([0.9, 2.1])
    >>> print(f"{kldiv.jax.uld(teacher, student, id_map=([1], [0])):.6f}")
    0.467568
    """,
    "cross_entropy": """
    Cross-entropy with class indices or distributions; `kldiv.cross_entropy` on JAX arrays.

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
    """,
    "entropy": """
    Shannon entropy, −Σ p ln p; `kldiv.entropy` on JAX arrays. See `kl`.

    Examples
    --------
    >>> import jax
    >>> import kldiv.jax
    >>> print(f"{kldiv.jax.entropy(jax.numpy.zeros(4)):.6f}")
    1.386294
    """,
    "logsumexp": """
    Log-sum-exp, ln Σ e^(z/T); `kldiv.logsumexp` on JAX arrays. See `kl`.

    Examples
    --------
    >>> import jax
    >>> import kldiv.jax
    >>> print(f"{kldiv.jax.logsumexp(jax.numpy.zeros(4)):.6f}")
    1.386294
    """,
    "log_softmax": """
    z/T − ln Σ e^(z/T); `kldiv.log_softmax` on JAX arrays. See `kl`.

    The difference is rounded once, so that large logits keep their digits. What comes back as g
    becomes (g − softmax(z/T) Σg) / T for the logits.

    Examples
    --------
    >>> import jax
    >>> import kldiv.jax
    >>> print(f"{kldiv.jax.log_softmax(jax.numpy.zeros(4))[0]:.6f}")
    -1.386294
    """,
    "gather_log_probs": """
    Ln softmax(z/T) at the label of each row; `kldiv.gather_log_probs` on JAX arrays. See `kl`.

    Examples
    --------
    >>> import jax
    >>> import kldiv.jax
    >>> print(f"{kldiv.jax.gather_log_probs(jax.numpy.zeros(4), 1):.6f}")
    -1.386294
    """,
}
"""Those that say more than where the function comes from."""


def _on_jax_arrays(name: str) -> Callable[..., jax.Array]:
    model = getattr(functional, name)
    signature = adopted(model, TYPES, "jax.Array")

    def function(*args: Any, **kwargs: Any) -> Any:
        return call(name, *bound(name, signature, args, kwargs))

    if name in DOCSTRINGS:
        function.__doc__ = inspect.cleandoc(DOCSTRINGS[name])
    elif name in DIVERGENCES:
        function.__doc__ = docstring(model, MODULE, "JAX arrays", "jax.numpy.array", "{}")
    return adopt(function, model, MODULE, signature)


_NAMES: list[str] = functional.__all__  # type: ignore[attr-defined]  # not shown to type checkers
FUNCTIONS = {name: _on_jax_arrays(name) for name in _NAMES if name not in NUMPY_ONLY}
