"""Skew Kullback–Leibler divergence."""

from __future__ import annotations

from numpy.typing import ArrayLike

from kldiv._reducer import Value  # noqa: F401  (what `help` shows to be returned)
from kldiv._requests import Request, Rule, Space, Temperature, differentiable, divergence
from kldiv._top_k import TopK


@differentiable
def skew_kl(
    p: ArrayLike | TopK,
    q: ArrayLike,
    *,
    alpha: float = 0.1,
    space: Space = "logits",
    normalize: bool = False,
    temperature: Temperature = 1.0,
    axis: int = -1,
    classes: int | None = None,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: str = "none",
    denominator: float | None = None,
    rule: Rule | None = None,
    temper_after: bool = False,
) -> Request:
    r"""Skew Kullback–Leibler divergence, Σ p (ln p − ln m) with m = αp + (1−α)q.

    A class contributes 0 where p = 0 (even if q = 0), and −p ln α where p > 0 = q: for α > 0 it is
    finite, at most −ln α for rows that sum to one, which rows without a class in common reach. It
    is never negative for those, not symmetric, `kl` for α = 0, and 0 for α = 1. Probabilities and
    log-probabilities are taken as given. It is a half of `jensen_shannon`, whose value for β is
    that of β ``skew_kl(p, q, alpha=β)`` + (1−β) ``skew_reverse_kl(p, q, alpha=1−β)``. In
    distillation it keeps the gradient of a student finite where the teacher has a class that
    the student lacks [1]_.

    Gradients: with a = p (ln(p/m) + 1 − αp/m) and b = −(1−α)pq/m, a − p Σa and b − q Σb with
    respect to logits (divided by the temperature), a and b with respect to log-probabilities,
    a/p and b/q with respect to probabilities, whose limits −inf at p = 0 < q and −(1−α)/α at
    q = 0 < p are given.

    Parameters
    ----------
    p, q : array_like
        As for `kl`.
    alpha : float
        Weight of p in m, from 0 to 1.
    space, normalize, temperature, axis, classes, where, weights, reduction, denominator,
    rule, temper_after
        As for `kl`, and so are returns and exceptions.

    Examples
    --------
    >>> import kldiv
    >>> kldiv.skew_kl([0.5, 0.5], [0.9, 0.1], alpha=0.1, space="probs").round(6)
    np.float64(0.365321)

    References
    ----------
    .. [1] J. Ko, S. Kim, T. Chen and S.-Y. Yun, "DistiLLM: Towards Streamlined Distillation for
       Large Language Models", ICML 2024. :doi:`10.48550/arXiv.2402.03898`
    .. [2] L. Lee, "On the Effectiveness of the Skew Divergence for Statistical Language
       Analysis", AISTATS 2001.
    """
    return divergence(
        "skew_kl",
        alpha,
        p,
        q,
        space,
        normalize,
        temperature,
        axis,
        classes,
        where,
        weights,
        reduction,
        denominator,
        rule,
        temper_after,
    )
