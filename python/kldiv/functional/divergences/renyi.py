"""Rényi divergence."""

from __future__ import annotations

from numpy.typing import ArrayLike

from kldiv._reducer import Value  # noqa: F401  (what `help` shows to be returned)
from kldiv._requests import Request, Rule, Space, Temperature, differentiable, divergence
from kldiv._top_k import TopK


@differentiable
def renyi(
    p: ArrayLike | TopK,
    q: ArrayLike,
    *,
    alpha: float,
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
    r"""Rényi divergence of order α, ln(S) / (α − 1) with S = Σ p^α q^(1−α).

    A class contributes 0 to S where p = 0, and where q = 0 if α < 1; for α > 1 the value is +inf
    where p > 0 = q. The value is +inf for α < 1 where no class has both p > 0 and q > 0. α = 1
    is the limit, `kl`; for probabilities it is the limit only where p sums to one.

    Gradients: with c = p^α q^(1−α) / ((α − 1) S), αc − pα/(α − 1) and (1−α)c + q with respect to
    the logits of p and q (divided by the temperature), αc and (1−α)c with respect to
    log-probabilities, αc/p and (1−α)c/q with respect to probabilities, with their limits at
    probability 0. They are NaN where the value is infinite.

    Parameters
    ----------
    p, q : array_like
        As for `kl`.
    alpha : float
        The order, from 1e-300 to 1e300.
    space, normalize, temperature, axis, classes, where, weights, reduction, denominator,
    rule, temper_after
        As for `kl`, and so are returns and exceptions.

    Examples
    --------
    >>> import kldiv
    >>> kldiv.renyi([0.5, 0.5], [0.9, 0.1], alpha=2, space="probs").round(6)
    np.float64(1.021651)

    References
    ----------
    .. [1] T. van Erven and P. Harremoës, "Rényi Divergence and Kullback–Leibler Divergence",
       IEEE Transactions on Information Theory 60 (2014). :doi:`10.1109/TIT.2014.2320500`
    """
    return divergence(
        "renyi",
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
