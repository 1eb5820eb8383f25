"""kldiv in PyTorch: drop-ins for torch's losses, and the losses of kldiv, differentiable.

`kl_div`, `KLDivLoss`, `cross_entropy` and `CrossEntropyLoss` have the arguments and the order of
torch. Everything else has p, the reference, first, and takes logits.
"""

from kldiv.torch.functional import (
    cross_entropy,
    distillation_loss,
    entropy,
    gather_log_probs,
    jensen_shannon,
    kl,
    kl_div,
    log_softmax,
    logsumexp,
    renyi,
    reverse_kl,
    total_variation,
)
from kldiv.torch.modules import CrossEntropyLoss, DistillationLoss, KLDivLoss

__all__ = [
    "CrossEntropyLoss",
    "DistillationLoss",
    "KLDivLoss",
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
