"""KL divergence, cross-entropy and their relatives, with gradients, straight from logits."""

from typing import TYPE_CHECKING, Any

from kldiv import _optional, functional
from kldiv import estimators as estimators
from kldiv._kldiv import build_info as build_info
from kldiv._kldiv import empty_cache as empty_cache
from kldiv._kldiv import get_num_threads as get_num_threads
from kldiv._kldiv import isa as isa
from kldiv._kldiv import set_num_threads as set_num_threads
from kldiv._probabilities import NegativeProbabilityWarning as NegativeProbabilityWarning
from kldiv._probabilities import ProbabilitiesAsLogitsWarning as ProbabilitiesAsLogitsWarning
from kldiv._top_k import TopK as TopK
from kldiv.comparison import Comparison as Comparison
from kldiv.comparison import NegativeProbabilityError as NegativeProbabilityError
from kldiv.comparison import compare as compare
from kldiv.functional import *  # noqa: F403
from kldiv.summary import Statistic as Statistic
from kldiv.summary import Summary as Summary

__version__: str = build_info()["version"]

if TYPE_CHECKING:
    from kldiv.evaluation import Evaluation as Evaluation
    from kldiv.evaluation import evaluate as evaluate
    from kldiv.evaluation import evaluate_models as evaluate_models

_EVALUATION = ("Evaluation", "evaluate", "evaluate_models")


def __getattr__(name: str) -> Any:
    # What needs Polars is imported when it is asked for.
    if name not in _EVALUATION:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(_optional.module("kldiv.evaluation"), name)


# Type checkers take the imports for the list: one that is put together is none to them.
if not TYPE_CHECKING:
    __all__ = [
        "Comparison",
        "NegativeProbabilityError",
        "NegativeProbabilityWarning",
        "ProbabilitiesAsLogitsWarning",
        "Statistic",
        "Summary",
        "TopK",
        "build_info",
        "compare",
        "empty_cache",
        "estimators",
        "get_num_threads",
        "isa",
        "set_num_threads",
        *functional.__all__,
    ]
