"""Losses as modules, one file each."""

from kldiv.torch.modules.cross_entropy import CrossEntropyLoss
from kldiv.torch.modules.distillation import DistillationLoss
from kldiv.torch.modules.kl_div import KLDivLoss

__all__ = ["CrossEntropyLoss", "DistillationLoss", "KLDivLoss"]
