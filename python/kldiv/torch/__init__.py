"""kldiv in PyTorch: drop-ins for torch's losses, and the losses of kldiv, differentiable.

`kl_div`, `KLDivLoss`, `cross_entropy` and `CrossEntropyLoss` have the arguments and the order of
torch. Everything else has p, the reference, first, and takes logits.
"""

from kldiv.torch import estimators as estimators
from kldiv.torch.functional.cross_entropy import cross_entropy
from kldiv.torch.functional.distillation import distillation_loss
from kldiv.torch.functional.divergence import FUNCTIONS
from kldiv.torch.functional.kl_div import kl_div
from kldiv.torch.functional.softmax import entropy, gather_log_probs, log_softmax, logsumexp
from kldiv.torch.functional.top_k import TopKTensors, top_k_tensors
from kldiv.torch.functional.uld import uld
from kldiv.torch.modules.cross_entropy import CrossEntropyLoss
from kldiv.torch.modules.distillation import DistillationLoss
from kldiv.torch.modules.kl_div import KLDivLoss

globals().update(FUNCTIONS)
__all__ = [
    "CrossEntropyLoss",
    "DistillationLoss",
    "KLDivLoss",
    "TopKTensors",
    "cross_entropy",
    "distillation_loss",
    "entropy",
    "gather_log_probs",
    "kl_div",
    "log_softmax",
    "logsumexp",
    "top_k_tensors",
    "uld",
    *FUNCTIONS,
]
