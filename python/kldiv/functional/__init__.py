"""Divergences, cross-entropy and their relatives on NumPy arrays, with gradients.

Throughout: a row is one categorical distribution, along `axis`; the other axes are the batch
shape. p is the reference (teacher, truth) and q the approximation (student, model). Everything
is in nats. Array-likes are NumPy arrays of float64, float32, float16 or ``ml_dtypes.bfloat16``,
and whatever shares its memory with NumPy (torch CPU tensors, JAX CPU arrays, memory maps); lists
may hold integers.
Nothing is copied unless the class axis has another stride than 1.
"""

from typing import TYPE_CHECKING

from kldiv._kldiv import DIVERGENCES
from kldiv.functional.cross_entropy import cross_entropy as cross_entropy
from kldiv.functional.divergences import *  # noqa: F403
from kldiv.functional.pairwise import pairwise as pairwise
from kldiv.functional.softmax import entropy as entropy
from kldiv.functional.softmax import gather_log_probs as gather_log_probs
from kldiv.functional.softmax import log_softmax as log_softmax
from kldiv.functional.softmax import logsumexp as logsumexp
from kldiv.functional.top_k import sample_k as sample_k
from kldiv.functional.top_k import top_k as top_k
from kldiv.functional.uld import uld as uld
from kldiv.functional.value_and_grad import value_and_grad as value_and_grad

# Type checkers take the imports for the list: one that is put together is none to them.
if not TYPE_CHECKING:
    __all__ = [
        "cross_entropy",
        "entropy",
        "gather_log_probs",
        "log_softmax",
        "logsumexp",
        "pairwise",
        "sample_k",
        "top_k",
        "uld",
        "value_and_grad",
        *DIVERGENCES,
    ]
