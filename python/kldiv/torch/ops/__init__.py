"""Operators registered with `torch.library`, one file each."""

from kldiv.torch.ops.cross_entropy import cross_entropy, soft_cross_entropy
from kldiv.torch.ops.distillation import DistillationInPlace, distillation
from kldiv.torch.ops.divergence import divergence
from kldiv.torch.ops.kl_div import kl_div
from kldiv.torch.ops.softmax import entropy, log_softmax, logsumexp

__all__ = [
    "DistillationInPlace",
    "cross_entropy",
    "distillation",
    "divergence",
    "entropy",
    "kl_div",
    "log_softmax",
    "logsumexp",
    "soft_cross_entropy",
]
