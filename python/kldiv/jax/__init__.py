"""kldiv in JAX: the functions of `kldiv` under `jax.jit`, `jax.grad` and `jax.vmap`.

Compiled for the CPU they are calls that XLA makes of the extension itself, and elsewhere callbacks
to the host that see NumPy arrays.
"""

from kldiv.jax import estimators as estimators
from kldiv.jax.functional import FUNCTIONS

globals().update(FUNCTIONS)
__all__ = [*FUNCTIONS]
