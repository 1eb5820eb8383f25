"""Reverse Kullback–Leibler divergence."""

from __future__ import annotations

from numpy.typing import ArrayLike

from kldiv._reducer import Value  # noqa: F401  (what `help` shows to be returned)
from kldiv._requests import Request, Rule, Space, Temperature, differentiable, divergence
from kldiv._top_k import TopK


@differentiable
def reverse_kl(
    p: ArrayLike | TopK,
    q: ArrayLike,
    *,
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
    r"""Reverse Kullback–Leibler divergence, Σ q (ln q − ln p) = ``kl(q, p)``.

    A class contributes 0 where q = 0, and +inf where q > 0 = p.

    Gradients: q (ln q − ln p − value) with respect to the logits of q and p − q with respect to
    those of p (both divided by the temperature); otherwise those of `kl` with the roles
    exchanged.

    Parameters, returns and exceptions are those of `kl`.

    Examples
    --------
    >>> import kldiv
    >>> kldiv.reverse_kl([0.5, 0.5], [0.9, 0.1], space="probs").round(6)
    np.float64(0.368064)

    References
    ----------
    .. [1] Y. Gu, L. Dong, F. Wei and M. Huang, "MiniLLM: Knowledge Distillation of Large
       Language Models", ICLR 2024. :doi:`10.48550/arXiv.2306.08543`
    """
    return divergence(
        "reverse_kl",
        None,
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
