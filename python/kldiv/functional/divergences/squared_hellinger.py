"""Squared Hellinger distance."""

from __future__ import annotations

from numpy.typing import ArrayLike

from kldiv._reducer import Value  # noqa: F401  (what `help` shows to be returned)
from kldiv._requests import Request, Rule, Space, Temperature, differentiable, divergence
from kldiv._top_k import TopK


@differentiable
def squared_hellinger(
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
    r"""Squared Hellinger distance, 1 − Σ √(pq).

    A class contributes 0 to the sum where p = 0 or q = 0. For rows that sum to one the value is
    ½ Σ (√p − √q)², symmetric, never negative, and at most 1, of rows without a class in common.
    Its square root is a metric, the Hellinger distance; definitions without the factor ½ have
    twice the value. For probabilities that sum to P and Q, which are taken as given,
    it is between 1 − √(PQ) and 1.

    With H² for the value it bounds `total_variation`, H² ≤ TV ≤ √(H² (2 − H²)) ≤ √(2 H²), and
    `kl` from below, 2 H² ≤ −2 ln(1 − H²) ≤ KL, where the term in the middle is `renyi` of order ½.
    Unlike `kl` it is finite, and its gradients are bounded, whatever the rows: a loss that no
    single class can take over, and a common distance in minimum-distance estimation and tests.

    Gradients: with c = √(pq) and S = Σ c, −½ (c − pS) and −½ (c − qS) with respect to the logits
    of p and q (divided by the temperature), −½ c with respect to log-probabilities, −½ √(q/p) and
    −½ √(p/q) with respect to probabilities, whose limit −inf is given where just one of p and q
    is 0.

    Parameters, returns and exceptions are those of `kl`.

    Examples
    --------
    >>> import kldiv
    >>> kldiv.squared_hellinger([0.5, 0.5], [0.9, 0.1], space="probs").round(6)
    np.float64(0.105573)

    References
    ----------
    .. [1] A. L. Gibbs and F. E. Su, "On Choosing and Bounding Probability Metrics",
       International Statistical Review 70 (2002). :doi:`10.1111/j.1751-5823.2002.tb00178.x`
    .. [2] R. Beran, "Minimum Hellinger Distance Estimates for Parametric Models", The Annals of
       Statistics 5 (1977). :doi:`10.1214/aos/1176343842`
    """
    return divergence(
        "squared_hellinger",
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
