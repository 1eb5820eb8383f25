"""kldiv in JAX: the functions of `kldiv` under `jax.jit`, `jax.grad` and `jax.vmap`.

They run on the host, by callbacks that see NumPy arrays.
"""

from kldiv.jax import estimators as estimators
from kldiv.jax.functional import FUNCTIONS

globals().update(FUNCTIONS)
__all__ = [*FUNCTIONS]
