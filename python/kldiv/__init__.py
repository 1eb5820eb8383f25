"""KL divergence, cross-entropy and their relatives, with gradients, straight from logits."""

from kldiv import functional
from kldiv._kldiv import build_info, get_num_threads, isa, set_num_threads
from kldiv._probabilities import NegativeProbabilityWarning, ProbabilitiesAsLogitsWarning
from kldiv.comparison import Comparison, NegativeProbabilityError, compare
from kldiv.functional import *  # noqa: F403
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
    "get_num_threads",
    "isa",
    "set_num_threads",
]
__all__ += functional.__all__
