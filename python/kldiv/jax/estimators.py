"""The estimators of `kldiv.estimators` on JAX arrays, as operations of JAX on any device.

Unlike the functions of `kldiv.jax` they are no calls of the extension: `jax.jit`, `jax.grad`,
`jax.jvp` and `jax.vmap` go through them, also a second time. They are computed in the dtype of the
value, float32 unless p or q is float64.
"""

from kldiv.jax.sampled import FUNCTIONS

globals().update(FUNCTIONS)
__all__ = [*FUNCTIONS]
