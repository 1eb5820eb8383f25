"""The estimators of `kldiv.estimators` on JAX arrays, as operations of JAX on any device.

Unlike the functions of `kldiv.jax` they are no calls of the extension: `jax.jit`, `jax.grad`,
`jax.jvp` and `jax.vmap` go through them, also a second time. They are computed in the dtype of the
value, float32 unless p or q is float64.
"""

# Made by `make derived`.
from typing import Any

import jax

__all__ = [
    "k1",
    "k2",
    "k3",
]

def k1(
    p: Any,
    q: Any,
    *,
    straight_through: bool = False,
    clamp_log_ratio: float | jax.Array | None = None,
    clamp: float | jax.Array | None = None,
    where: Any = None,
    weights: Any = None,
    reduction: str = "none",
    denominator: float | jax.Array | None = None,
) -> jax.Array:
    r"""k1 = r with r = ln q − ln p at tokens sampled from q: an unbiased estimator of KL(q‖p)."""

def k2(
    p: Any,
    q: Any,
    *,
    straight_through: bool = False,
    clamp_log_ratio: float | jax.Array | None = None,
    clamp: float | jax.Array | None = None,
    where: Any = None,
    weights: Any = None,
    reduction: str = "none",
    denominator: float | jax.Array | None = None,
) -> jax.Array:
    r"""k2 = r²/2 with r = ln q − ln p at tokens sampled from q: its gradient is that of KL(q‖p)."""

def k3(
    p: Any,
    q: Any,
    *,
    straight_through: bool = False,
    clamp_log_ratio: float | jax.Array | None = None,
    clamp: float | jax.Array | None = None,
    where: Any = None,
    weights: Any = None,
    reduction: str = "none",
    denominator: float | jax.Array | None = None,
) -> jax.Array:
    r"""k3 = e^(−r) − 1 + r with r = ln q − ln p at tokens sampled from q: unbiased for KL(q‖p)."""
