"""kldiv in PyTorch: drop-ins for torch's losses, and the losses of kldiv, differentiable.

`kl_div`, `KLDivLoss`, `cross_entropy` and `CrossEntropyLoss` have the arguments and the order of
torch. Everything else has p, the reference, first, and takes logits.
"""

# Made by `make derived`.
from typing import Any

from torch import Tensor

from kldiv import TopK
from kldiv.torch import estimators as estimators
from kldiv.torch.functional.cross_entropy import cross_entropy as cross_entropy
from kldiv.torch.functional.distillation import distillation_loss as distillation_loss
from kldiv.torch.functional.kl_div import kl_div as kl_div
from kldiv.torch.functional.top_k import TopKTensors as TopKTensors
from kldiv.torch.functional.top_k import top_k_tensors as top_k_tensors
from kldiv.torch.modules.cross_entropy import CrossEntropyLoss as CrossEntropyLoss
from kldiv.torch.modules.distillation import DistillationLoss as DistillationLoss
from kldiv.torch.modules.kl_div import KLDivLoss as KLDivLoss

__all__ = [
    "CrossEntropyLoss",
    "DistillationLoss",
    "KLDivLoss",
    "TopKTensors",
    "adaptive_kl",
    "alpha_divergence",
    "chi_squared",
    "cross_entropy",
    "distillation_loss",
    "entropy",
    "gather_log_probs",
    "jeffreys",
    "jensen_shannon",
    "kl",
    "kl_div",
    "lk_hybrid",
    "log_softmax",
    "logsumexp",
    "neg_log_acceptance",
    "renyi",
    "reverse_kl",
    "skew_kl",
    "skew_reverse_kl",
    "squared_hellinger",
    "top_k_tensors",
    "total_variation",
    "uld",
]

def adaptive_kl(
    p: Tensor | TopK | TopKTensors,
    q: Tensor,
    *,
    mu: float | Tensor = 0.5,
    space: str | tuple[str, str] = "logits",
    normalize: bool = False,
    temperature: float | Tensor | tuple[float | Tensor, float | Tensor] = 1.0,
    axis: int = -1,
    where: Tensor | None = None,
    weights: Tensor | None = None,
    reduction: str = "none",
    denominator: float | Tensor | None = None,
    rule: str | tuple[str, float] | None = None,
    temper_after: bool = False,
) -> Tensor:
    r"""Adaptive KL, g·KL(p‖q) + (1 − g)·KL(q‖p) with g = Σ_head \|p − q\| / Σ \|p − q\|."""

def alpha_divergence(
    p: Tensor | TopK | TopKTensors,
    q: Tensor,
    *,
    alpha: float | Tensor,
    space: str | tuple[str, str] = "logits",
    normalize: bool = False,
    temperature: float | Tensor | tuple[float | Tensor, float | Tensor] = 1.0,
    axis: int = -1,
    where: Tensor | None = None,
    weights: Tensor | None = None,
    reduction: str = "none",
    denominator: float | Tensor | None = None,
    rule: str | tuple[str, float] | None = None,
    temper_after: bool = False,
) -> Tensor:
    r"""Alpha-divergence, (Σ p^α q^(1−α) − 1) / (α(α − 1))."""

def chi_squared(
    p: Tensor | TopK | TopKTensors,
    q: Tensor,
    *,
    space: str | tuple[str, str] = "logits",
    normalize: bool = False,
    temperature: float | Tensor | tuple[float | Tensor, float | Tensor] = 1.0,
    axis: int = -1,
    where: Tensor | None = None,
    weights: Tensor | None = None,
    reduction: str = "none",
    denominator: float | Tensor | None = None,
    rule: str | tuple[str, float] | None = None,
    temper_after: bool = False,
) -> Tensor:
    r"""Pearson's χ² divergence, Σ (p − q)²/q."""

def entropy(
    p: Tensor,
    *,
    space: str = "logits",
    normalize: bool = False,
    temperature: float | Tensor = 1.0,
    axis: int = -1,
    where: Tensor | None = None,
    weights: Tensor | None = None,
    reduction: str = "none",
    denominator: float | Tensor | None = None,
    support: Any = None,
    top_k: int | None = None,
    top_p: float | Tensor | None = None,
    min_p: float | Tensor | None = None,
    return_mass: bool = False,
) -> Tensor:
    r"""Shannon entropy, −Σ p ln p; `kldiv.entropy` on tensors, differentiable."""

def gather_log_probs(
    z: Tensor,
    labels: Tensor,
    *,
    temperature: float | Tensor = 1.0,
    ignore_index: int | None = -100,
    axis: int = -1,
    where: Tensor | None = None,
    support: Any = None,
    top_k: int | None = None,
    top_p: float | Tensor | None = None,
    min_p: float | Tensor | None = None,
    return_mass: bool = False,
) -> Tensor:
    r"""The log-probability of the label of each row; `kldiv.gather_log_probs` on tensors."""

def jeffreys(
    p: Tensor | TopK | TopKTensors,
    q: Tensor,
    *,
    space: str | tuple[str, str] = "logits",
    normalize: bool = False,
    temperature: float | Tensor | tuple[float | Tensor, float | Tensor] = 1.0,
    axis: int = -1,
    where: Tensor | None = None,
    weights: Tensor | None = None,
    reduction: str = "none",
    denominator: float | Tensor | None = None,
    rule: str | tuple[str, float] | None = None,
    temper_after: bool = False,
) -> Tensor:
    r"""Jeffreys divergence, Σ (p − q)(ln p − ln q) = ``kl(p, q) + reverse_kl(p, q)``."""

def jensen_shannon(
    p: Tensor | TopK | TopKTensors,
    q: Tensor,
    *,
    beta: float | Tensor = 0.5,
    endpoints: str = "formula",
    space: str | tuple[str, str] = "logits",
    normalize: bool = False,
    temperature: float | Tensor | tuple[float | Tensor, float | Tensor] = 1.0,
    axis: int = -1,
    where: Tensor | None = None,
    weights: Tensor | None = None,
    reduction: str = "none",
    denominator: float | Tensor | None = None,
    rule: str | tuple[str, float] | None = None,
    temper_after: bool = False,
) -> Tensor:
    r"""Jensen–Shannon divergence, β KL(p‖m) + (1−β) KL(q‖m) with m = βp + (1−β)q."""

def kl(
    p: Tensor | TopK | TopKTensors,
    q: Tensor,
    *,
    space: str | tuple[str, str] = "logits",
    normalize: bool = False,
    temperature: float | Tensor | tuple[float | Tensor, float | Tensor] = 1.0,
    axis: int = -1,
    where: Tensor | None = None,
    weights: Tensor | None = None,
    reduction: str = "none",
    denominator: float | Tensor | None = None,
    rule: str | tuple[str, float] | None = None,
    temper_after: bool = False,
) -> Tensor:
    r"""Kullback–Leibler divergence of q from p, Σ p (ln p − ln q), differentiable in both."""

def lk_hybrid(
    p: Tensor | TopK | TopKTensors,
    q: Tensor,
    *,
    eta: float | Tensor = 3.0,
    space: str | tuple[str, str] = "logits",
    normalize: bool = False,
    temperature: float | Tensor | tuple[float | Tensor, float | Tensor] = 1.0,
    axis: int = -1,
    where: Tensor | None = None,
    weights: Tensor | None = None,
    reduction: str = "none",
    denominator: float | Tensor | None = None,
    rule: str | tuple[str, float] | None = None,
    temper_after: bool = False,
) -> Tensor:
    r"""KL and total variation, λ·KL(p‖q) + (1 − λ)·½ Σ \|p − q\| with λ = e^(−η Σ min(p, q))."""

def log_softmax(
    z: Tensor,
    *,
    temperature: float | Tensor = 1.0,
    axis: int = -1,
    where: Tensor | None = None,
) -> Tensor:
    r"""z/T − ln Σ e^(z/T); `kldiv.log_softmax` on tensors, differentiable."""

def logsumexp(
    z: Tensor,
    *,
    temperature: float | Tensor = 1.0,
    axis: int = -1,
    where: Tensor | None = None,
    weights: Tensor | None = None,
    reduction: str = "none",
    denominator: float | Tensor | None = None,
) -> Tensor:
    r"""Log-sum-exp, ln Σ e^(z/T); `kldiv.logsumexp` on tensors, differentiable."""

def neg_log_acceptance(
    p: Tensor | TopK | TopKTensors,
    q: Tensor,
    *,
    space: str | tuple[str, str] = "logits",
    normalize: bool = False,
    temperature: float | Tensor | tuple[float | Tensor, float | Tensor] = 1.0,
    axis: int = -1,
    where: Tensor | None = None,
    weights: Tensor | None = None,
    reduction: str = "none",
    denominator: float | Tensor | None = None,
    rule: str | tuple[str, float] | None = None,
    temper_after: bool = False,
) -> Tensor:
    r"""Negative logarithm of the acceptance rate of speculative sampling, −ln Σ min(p, q)."""

def renyi(
    p: Tensor | TopK | TopKTensors,
    q: Tensor,
    *,
    alpha: float | Tensor,
    space: str | tuple[str, str] = "logits",
    normalize: bool = False,
    temperature: float | Tensor | tuple[float | Tensor, float | Tensor] = 1.0,
    axis: int = -1,
    where: Tensor | None = None,
    weights: Tensor | None = None,
    reduction: str = "none",
    denominator: float | Tensor | None = None,
    rule: str | tuple[str, float] | None = None,
    temper_after: bool = False,
) -> Tensor:
    r"""Rényi divergence of order α, ln(S) / (α − 1) with S = Σ p^α q^(1−α)."""

def reverse_kl(
    p: Tensor | TopK | TopKTensors,
    q: Tensor,
    *,
    space: str | tuple[str, str] = "logits",
    normalize: bool = False,
    temperature: float | Tensor | tuple[float | Tensor, float | Tensor] = 1.0,
    axis: int = -1,
    where: Tensor | None = None,
    weights: Tensor | None = None,
    reduction: str = "none",
    denominator: float | Tensor | None = None,
    rule: str | tuple[str, float] | None = None,
    temper_after: bool = False,
) -> Tensor:
    r"""Reverse Kullback–Leibler divergence, Σ q (ln q − ln p) = ``kl(q, p)``."""

def skew_kl(
    p: Tensor | TopK | TopKTensors,
    q: Tensor,
    *,
    alpha: float | Tensor = 0.1,
    space: str | tuple[str, str] = "logits",
    normalize: bool = False,
    temperature: float | Tensor | tuple[float | Tensor, float | Tensor] = 1.0,
    axis: int = -1,
    where: Tensor | None = None,
    weights: Tensor | None = None,
    reduction: str = "none",
    denominator: float | Tensor | None = None,
    rule: str | tuple[str, float] | None = None,
    temper_after: bool = False,
) -> Tensor:
    r"""Skew Kullback–Leibler divergence, Σ p (ln p − ln m) with m = αp + (1−α)q."""

def skew_reverse_kl(
    p: Tensor | TopK | TopKTensors,
    q: Tensor,
    *,
    alpha: float | Tensor = 0.1,
    space: str | tuple[str, str] = "logits",
    normalize: bool = False,
    temperature: float | Tensor | tuple[float | Tensor, float | Tensor] = 1.0,
    axis: int = -1,
    where: Tensor | None = None,
    weights: Tensor | None = None,
    reduction: str = "none",
    denominator: float | Tensor | None = None,
    rule: str | tuple[str, float] | None = None,
    temper_after: bool = False,
) -> Tensor:
    r"""Skew reverse Kullback–Leibler divergence, Σ q (ln q − ln m) with m = (1−α)p + αq."""

def squared_hellinger(
    p: Tensor | TopK | TopKTensors,
    q: Tensor,
    *,
    space: str | tuple[str, str] = "logits",
    normalize: bool = False,
    temperature: float | Tensor | tuple[float | Tensor, float | Tensor] = 1.0,
    axis: int = -1,
    where: Tensor | None = None,
    weights: Tensor | None = None,
    reduction: str = "none",
    denominator: float | Tensor | None = None,
    rule: str | tuple[str, float] | None = None,
    temper_after: bool = False,
) -> Tensor:
    r"""Squared Hellinger distance, 1 − Σ √(pq)."""

def total_variation(
    p: Tensor | TopK | TopKTensors,
    q: Tensor,
    *,
    space: str | tuple[str, str] = "logits",
    normalize: bool = False,
    temperature: float | Tensor | tuple[float | Tensor, float | Tensor] = 1.0,
    axis: int = -1,
    where: Tensor | None = None,
    weights: Tensor | None = None,
    reduction: str = "none",
    denominator: float | Tensor | None = None,
    rule: str | tuple[str, float] | None = None,
    temper_after: bool = False,
) -> Tensor:
    r"""Total variation distance, ½ Σ \|p − q\|."""

def uld(
    p: Tensor,
    q: Tensor,
    *,
    id_map: tuple[Tensor | list[int], Tensor | list[int]] | None = None,
    beta: float | Tensor = 0.5,
    matched_weight: float | Tensor | None = None,
    unmatched_weight: float | Tensor | None = None,
    space: str | tuple[str, str] = "logits",
    normalize: bool = False,
    temperature: float | Tensor | tuple[float | Tensor, float | Tensor] = 1.0,
    axis: int = -1,
    where: Tensor | None = None,
    weights: Tensor | None = None,
    reduction: str = "none",
    denominator: float | Tensor | None = None,
) -> Tensor:
    r"""Universal logit distillation, Σ \|p_(i) − q_(i)\| of probabilities in falling order."""
