"""What is measured, as one writes it in torch: a value for each row of logits, in their dtype."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional


def kl(p: Tensor, q: Tensor) -> Tensor:
    """KL(p‖q)."""
    ln_p, ln_q = p.log_softmax(-1), q.log_softmax(-1)
    return functional.kl_div(ln_q, ln_p, reduction="none", log_target=True).sum(-1)


def reverse_kl(p: Tensor, q: Tensor) -> Tensor:
    """KL(q‖p)."""
    return kl(q, p)


def jensen_shannon(p: Tensor, q: Tensor) -> Tensor:
    """Jensen–Shannon divergence, β = ½."""
    return jensen_shannon_of_logs(p.log_softmax(-1), q.log_softmax(-1))


def jensen_shannon_of_logs(ln_p: Tensor, ln_q: Tensor) -> Tensor:
    """The same of log-probabilities."""
    ln_m = torch.logaddexp(ln_p, ln_q) - math.log(2)
    to_p, to_q = (
        functional.kl_div(ln_m, ln, reduction="none", log_target=True).sum(-1)
        for ln in (ln_p, ln_q)
    )
    return (to_p + to_q) / 2


def total_variation(p: Tensor, q: Tensor) -> Tensor:
    """Total variation."""
    return (p.softmax(-1) - q.softmax(-1)).abs().sum(-1) / 2


def renyi(alpha: float) -> Callable[[Tensor, Tensor], Tensor]:
    """Rényi divergence of order α."""

    def divergence(p: Tensor, q: Tensor) -> Tensor:
        ln_p, ln_q = p.log_softmax(-1), q.log_softmax(-1)
        return (alpha * ln_p + (1 - alpha) * ln_q).logsumexp(-1) / (alpha - 1)

    return divergence


def kl_of_probabilities(p: Tensor, q: Tensor) -> Tensor:
    """KL(p‖q) of probabilities."""
    return functional.kl_div(q.log(), p, reduction="none").sum(-1)


def cross_entropy(labels: Tensor, z: Tensor) -> Tensor:
    """Cross-entropy of labels."""
    return functional.cross_entropy(z, labels, reduction="none")


def compare(p: Tensor, q: Tensor) -> Tensor:
    """Four divergences and both entropies; the likeliest classes are found too."""
    ln_p, ln_q = p.log_softmax(-1), q.log_softmax(-1)
    p, q, d = ln_p.exp(), ln_q.exp(), ln_p - ln_q
    p.argmax(-1), q.argmax(-1)
    variation = (p - q).abs().sum(-1) / 2
    entropies = (-(p * ln_p).sum(-1), -(q * ln_q).sum(-1))
    shared = jensen_shannon_of_logs(ln_p, ln_q)
    return torch.stack([(p * d).sum(-1), -(q * d).sum(-1), shared, variation, *entropies])
