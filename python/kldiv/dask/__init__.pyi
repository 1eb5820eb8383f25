"""kldiv on `dask.array`: the divergences and `compare`, by blocks of rows, on any scheduler.

A block is one call of `kldiv` on NumPy arrays. Rows may be in any chunks; their classes are in one,
or brought together (`rechunk`) where they are not. Every number is the same for any chunks.
"""

# Made by `make derived`.
from collections.abc import Callable, Sequence
from typing import Any

import dask.array as da

from kldiv.dask.comparison import LazyComparison as LazyComparison
from kldiv.dask.gradients import value_and_grad as value_and_grad

__all__ = [
    "LazyComparison",
    "adaptive_kl",
    "alpha_divergence",
    "chi_squared",
    "compare",
    "cross_entropy",
    "entropy",
    "gather_log_probs",
    "jeffreys",
    "jensen_shannon",
    "kl",
    "lk_hybrid",
    "log_softmax",
    "logsumexp",
    "neg_log_acceptance",
    "renyi",
    "reverse_kl",
    "skew_kl",
    "skew_reverse_kl",
    "squared_hellinger",
    "total_variation",
    "uld",
    "value_and_grad",
]

def adaptive_kl(
    p: Any,
    q: Any,
    *,
    mu: float = 0.5,
    space: str | tuple[str, str] = "logits",
    normalize: bool = False,
    temperature: float | tuple[float, float] = 1.0,
    axis: int = -1,
    where: Any = None,
    weights: Any = None,
    reduction: str = "none",
    denominator: float | None = None,
    rule: str | tuple[str, float] | None = None,
    temper_after: bool = False,
) -> da.Array:
    r"""Adaptive KL, g·KL(p‖q) + (1 − g)·KL(q‖p) with g = Σ_head \|p − q\| / Σ \|p − q\|."""

def alpha_divergence(
    p: Any,
    q: Any,
    *,
    alpha: float,
    space: str | tuple[str, str] = "logits",
    normalize: bool = False,
    temperature: float | tuple[float, float] = 1.0,
    axis: int = -1,
    where: Any = None,
    weights: Any = None,
    reduction: str = "none",
    denominator: float | None = None,
    rule: str | tuple[str, float] | None = None,
    temper_after: bool = False,
) -> da.Array:
    r"""Alpha-divergence, (Σ p^α q^(1−α) − 1) / (α(α − 1))."""

def chi_squared(
    p: Any,
    q: Any,
    *,
    space: str | tuple[str, str] = "logits",
    normalize: bool = False,
    temperature: float | tuple[float, float] = 1.0,
    axis: int = -1,
    where: Any = None,
    weights: Any = None,
    reduction: str = "none",
    denominator: float | None = None,
    rule: str | tuple[str, float] | None = None,
    temper_after: bool = False,
) -> da.Array:
    r"""Pearson's χ² divergence, Σ (p − q)²/q."""

def compare(
    p: Any,
    q: Any,
    labels: Any = None,
    *,
    ignore_index: int | None = -100,
    space: str | tuple[str, str] = "logits",
    temperature: float = 1.0,
    axis: int = -1,
    where: Any = None,
    extra: Sequence[Callable[..., Any]] = (),
) -> LazyComparison:
    r"""Everything about pairs of rows, each read once; `kldiv.compare` on dask arrays."""

def cross_entropy(
    logits: Any,
    targets: Any,
    *,
    space: str = "logits",
    temperature: float = 1.0,
    ignore_index: int | None = -100,
    label_smoothing: float = 0.0,
    class_weights: Any = None,
    z_loss: float = 0.0,
    softcap: float | None = None,
    axis: int = -1,
    where: Any = None,
    weights: Any = None,
    reduction: str = "none",
    denominator: float | None = None,
    rule: str | tuple[str, float] | None = None,
    temper_after: bool = False,
) -> da.Array:
    r"""Cross-entropy with class indices or distributions; `kldiv.cross_entropy` on dask arrays."""

def entropy(
    p: Any,
    *,
    space: str = "logits",
    normalize: bool = False,
    temperature: float = 1.0,
    axis: int = -1,
    where: Any = None,
    weights: Any = None,
    reduction: str = "none",
    denominator: float | None = None,
    support: Any = None,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    return_mass: bool = False,
) -> da.Array:
    r"""Shannon entropy, −Σ p ln p; `kldiv.entropy` on dask arrays. See `kl`."""

def gather_log_probs(
    z: Any,
    labels: Any,
    *,
    temperature: float = 1.0,
    ignore_index: int | None = -100,
    axis: int = -1,
    where: Any = None,
    support: Any = None,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    return_mass: bool = False,
) -> da.Array:
    r"""Ln softmax(z/T) at the label of each row; `kldiv.gather_log_probs` on dask arrays. See `kl`."""

def jeffreys(
    p: Any,
    q: Any,
    *,
    space: str | tuple[str, str] = "logits",
    normalize: bool = False,
    temperature: float | tuple[float, float] = 1.0,
    axis: int = -1,
    where: Any = None,
    weights: Any = None,
    reduction: str = "none",
    denominator: float | None = None,
    rule: str | tuple[str, float] | None = None,
    temper_after: bool = False,
) -> da.Array:
    r"""Jeffreys divergence, Σ (p − q)(ln p − ln q) = ``kl(p, q) + reverse_kl(p, q)``."""

def jensen_shannon(
    p: Any,
    q: Any,
    *,
    beta: float = 0.5,
    endpoints: str = "formula",
    space: str | tuple[str, str] = "logits",
    normalize: bool = False,
    temperature: float | tuple[float, float] = 1.0,
    axis: int = -1,
    where: Any = None,
    weights: Any = None,
    reduction: str = "none",
    denominator: float | None = None,
    rule: str | tuple[str, float] | None = None,
    temper_after: bool = False,
) -> da.Array:
    r"""Jensen–Shannon divergence, β KL(p‖m) + (1−β) KL(q‖m) with m = βp + (1−β)q."""

def kl(
    p: Any,
    q: Any,
    *,
    space: str | tuple[str, str] = "logits",
    normalize: bool = False,
    temperature: float | tuple[float, float] = 1.0,
    axis: int = -1,
    where: Any = None,
    weights: Any = None,
    reduction: str = "none",
    denominator: float | None = None,
    rule: str | tuple[str, float] | None = None,
    temper_after: bool = False,
) -> da.Array:
    r"""Kullback–Leibler divergence of q from p, Σ p (ln p − ln q); `kldiv.kl` on dask arrays."""

def lk_hybrid(
    p: Any,
    q: Any,
    *,
    eta: float = 3.0,
    space: str | tuple[str, str] = "logits",
    normalize: bool = False,
    temperature: float | tuple[float, float] = 1.0,
    axis: int = -1,
    where: Any = None,
    weights: Any = None,
    reduction: str = "none",
    denominator: float | None = None,
    rule: str | tuple[str, float] | None = None,
    temper_after: bool = False,
) -> da.Array:
    r"""KL and total variation, λ·KL(p‖q) + (1 − λ)·½ Σ \|p − q\| with λ = e^(−η Σ min(p, q))."""

def log_softmax(
    z: Any,
    *,
    temperature: float = 1.0,
    axis: int = -1,
    where: Any = None,
) -> da.Array:
    r"""z/T − ln Σ e^(z/T); `kldiv.log_softmax` on dask arrays, in the chunks of z. See `kl`."""

def logsumexp(
    z: Any,
    *,
    temperature: float = 1.0,
    axis: int = -1,
    where: Any = None,
    weights: Any = None,
    reduction: str = "none",
    denominator: float | None = None,
) -> da.Array:
    r"""Log-sum-exp, ln Σ e^(z/T); `kldiv.logsumexp` on dask arrays. See `kl`."""

def neg_log_acceptance(
    p: Any,
    q: Any,
    *,
    space: str | tuple[str, str] = "logits",
    normalize: bool = False,
    temperature: float | tuple[float, float] = 1.0,
    axis: int = -1,
    where: Any = None,
    weights: Any = None,
    reduction: str = "none",
    denominator: float | None = None,
    rule: str | tuple[str, float] | None = None,
    temper_after: bool = False,
) -> da.Array:
    r"""Negative logarithm of the acceptance rate of speculative sampling, −ln Σ min(p, q)."""

def renyi(
    p: Any,
    q: Any,
    *,
    alpha: float,
    space: str | tuple[str, str] = "logits",
    normalize: bool = False,
    temperature: float | tuple[float, float] = 1.0,
    axis: int = -1,
    where: Any = None,
    weights: Any = None,
    reduction: str = "none",
    denominator: float | None = None,
    rule: str | tuple[str, float] | None = None,
    temper_after: bool = False,
) -> da.Array:
    r"""Rényi divergence of order α, ln(S) / (α − 1) with S = Σ p^α q^(1−α)."""

def reverse_kl(
    p: Any,
    q: Any,
    *,
    space: str | tuple[str, str] = "logits",
    normalize: bool = False,
    temperature: float | tuple[float, float] = 1.0,
    axis: int = -1,
    where: Any = None,
    weights: Any = None,
    reduction: str = "none",
    denominator: float | None = None,
    rule: str | tuple[str, float] | None = None,
    temper_after: bool = False,
) -> da.Array:
    r"""Reverse Kullback–Leibler divergence, Σ q (ln q − ln p) = ``kl(q, p)``."""

def skew_kl(
    p: Any,
    q: Any,
    *,
    alpha: float = 0.1,
    space: str | tuple[str, str] = "logits",
    normalize: bool = False,
    temperature: float | tuple[float, float] = 1.0,
    axis: int = -1,
    where: Any = None,
    weights: Any = None,
    reduction: str = "none",
    denominator: float | None = None,
    rule: str | tuple[str, float] | None = None,
    temper_after: bool = False,
) -> da.Array:
    r"""Skew Kullback–Leibler divergence, Σ p (ln p − ln m) with m = αp + (1−α)q."""

def skew_reverse_kl(
    p: Any,
    q: Any,
    *,
    alpha: float = 0.1,
    space: str | tuple[str, str] = "logits",
    normalize: bool = False,
    temperature: float | tuple[float, float] = 1.0,
    axis: int = -1,
    where: Any = None,
    weights: Any = None,
    reduction: str = "none",
    denominator: float | None = None,
    rule: str | tuple[str, float] | None = None,
    temper_after: bool = False,
) -> da.Array:
    r"""Skew reverse Kullback–Leibler divergence, Σ q (ln q − ln m) with m = (1−α)p + αq."""

def squared_hellinger(
    p: Any,
    q: Any,
    *,
    space: str | tuple[str, str] = "logits",
    normalize: bool = False,
    temperature: float | tuple[float, float] = 1.0,
    axis: int = -1,
    where: Any = None,
    weights: Any = None,
    reduction: str = "none",
    denominator: float | None = None,
    rule: str | tuple[str, float] | None = None,
    temper_after: bool = False,
) -> da.Array:
    r"""Squared Hellinger distance, 1 − Σ √(pq)."""

def total_variation(
    p: Any,
    q: Any,
    *,
    space: str | tuple[str, str] = "logits",
    normalize: bool = False,
    temperature: float | tuple[float, float] = 1.0,
    axis: int = -1,
    where: Any = None,
    weights: Any = None,
    reduction: str = "none",
    denominator: float | None = None,
    rule: str | tuple[str, float] | None = None,
    temper_after: bool = False,
) -> da.Array:
    r"""Total variation distance, ½ Σ \|p − q\|."""

def uld(
    p: Any,
    q: Any,
    *,
    id_map: tuple[Any, Any] | None = None,
    beta: float = 0.5,
    matched_weight: float | None = None,
    unmatched_weight: float | None = None,
    space: str | tuple[str, str] = "logits",
    normalize: bool = False,
    temperature: float | tuple[float, float] = 1.0,
    axis: int = -1,
    where: Any = None,
    weights: Any = None,
    reduction: str = "none",
    denominator: float | None = None,
) -> da.Array:
    r"""Universal logit distillation, Σ \|p_(i) − q_(i)\|; `kldiv.uld` on dask arrays. See `kl`."""
