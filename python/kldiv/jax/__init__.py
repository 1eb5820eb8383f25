"""kldiv in JAX: the functions of `kldiv` under `jax.jit`, `jax.grad` and `jax.vmap`.

They run on the host, by callbacks that see NumPy arrays.
"""

from kldiv.jax.functional import (
    cross_entropy,
    entropy,
    gather_log_probs,
    jensen_shannon,
    kl,
    log_softmax,
    logsumexp,
    renyi,
    reverse_kl,
    total_variation,
)

__all__ = [
    "cross_entropy",
    "entropy",
    "gather_log_probs",
    "jensen_shannon",
    "kl",
    "log_softmax",
    "logsumexp",
    "renyi",
    "reverse_kl",
    "total_variation",
]
