"""Skew reverse Kullback–Leibler divergence."""

from __future__ import annotations

from numpy.typing import ArrayLike

from kldiv._reducer import Value  # noqa: F401  (what `help` shows to be returned)
from kldiv._requests import Request, Rule, Space, Temperature, differentiable, divergence
from kldiv._top_k import TopK


@differentiable
def skew_reverse_kl(
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
    r"""Skew reverse Kullback–Leibler divergence, Σ q (ln q − ln m) with m = (1−α)p + αq.

    It is ``skew_kl(q, p)``: a class contributes 0 where q = 0, and −q ln α where q > 0 = p, for
    rows that sum to one it is never negative and at most −ln α. It is `reverse_kl` for α = 0, and
    0 for α = 1. The student's own samples are of q, so that on-policy distillation estimates it;
    it does so with less variance than `reverse_kl` [1]_.

    Gradients: those of `skew_kl` with the roles exchanged.

    Parameters
    ----------
    p, q : array_like
        As for `kl`.
    alpha : float
        Weight of q in m, from 0 to 1.
    space, normalize, temperature, axis, classes, where, weights, reduction, denominator,
    rule, temper_after
        As for `kl`, and so are returns and exceptions.

    Examples
    --------
    >>> import kldiv
    >>> kldiv.skew_reverse_kl([0.5, 0.5], [0.9, 0.1], alpha=0.1, space="probs").round(6)
    np.float64(0.307137)

    References
    ----------
    .. [1] J. Ko, S. Kim, T. Chen and S.-Y. Yun, "DistiLLM: Towards Streamlined Distillation for
       Large Language Models", ICML 2024. :doi:`10.48550/arXiv.2402.03898`
    """
    return divergence(
        "skew_reverse_kl",
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
