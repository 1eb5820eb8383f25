"""KL divergence, cross-entropy and their relatives, with gradients, straight from logits."""

from kldiv._kldiv import build_info, get_num_threads, isa, set_num_threads
from kldiv._probabilities import NegativeProbabilityWarning, ProbabilitiesAsLogitsWarning
from kldiv.comparison import Comparison, NegativeProbabilityError, compare
from kldiv.functional import (
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
    value_and_grad,
)
from kldiv.summary import Statistic, Summary

__version__: str = build_info()["version"]

__all__ = [
    "Comparison",
    "NegativeProbabilityError",
    "NegativeProbabilityWarning",
    "ProbabilitiesAsLogitsWarning",
    "Statistic",
    "Summary",
    "build_info",
    "compare",
    "cross_entropy",
    "entropy",
    "gather_log_probs",
    "get_num_threads",
    "isa",
    "jensen_shannon",
    "kl",
    "log_softmax",
    "logsumexp",
    "renyi",
    "reverse_kl",
    "set_num_threads",
    "total_variation",
    "value_and_grad",
]
