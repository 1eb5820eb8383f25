"""Losses on tensors, one file a family."""

from kldiv.torch.functional.cross_entropy import cross_entropy
from kldiv.torch.functional.distillation import distillation_loss
from kldiv.torch.functional.divergence import (
    jensen_shannon,
    kl,
    renyi,
    reverse_kl,
    total_variation,
)
from kldiv.torch.functional.kl_div import kl_div
from kldiv.torch.functional.softmax import entropy, gather_log_probs, log_softmax, logsumexp

__all__ = [
    "cross_entropy",
    "distillation_loss",
    "entropy",
    "gather_log_probs",
    "jensen_shannon",
    "kl",
    "kl_div",
    "log_softmax",
    "logsumexp",
    "renyi",
    "reverse_kl",
    "total_variation",
]
