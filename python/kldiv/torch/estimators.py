"""The estimators of `kldiv.estimators` on tensors, differentiable, on any device.

Autograd, `torch.compile` and `torch.func` go through them. On the CPU they are computed in float64,
on other devices in the dtype of the value.
"""

from kldiv.torch.functional.estimators import FUNCTIONS

globals().update(FUNCTIONS)
__all__ = [*FUNCTIONS]
