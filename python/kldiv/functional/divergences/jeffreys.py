"""Jeffreys divergence."""

from __future__ import annotations

from numpy.typing import ArrayLike

from kldiv._reducer import Value  # noqa: F401  (what `help` shows to be returned)
from kldiv._requests import Request, Rule, Space, Temperature, differentiable, divergence
from kldiv._top_k import TopK


@differentiable
def jeffreys(
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
    r"""Jeffreys divergence, Σ (p − q)(ln p − ln q) = ``kl(p, q) + reverse_kl(p, q)``.

    Symmetric, never negative, also for probabilities that do not sum to one, and unbounded: +inf
    where one of p and q is 0 and the other is not. At least 8 times `jensen_shannon`, and for rows
    that sum to one at least 2·TV·ln((1 + TV)/(1 − TV)) for their total variation TV. Of the counts
    of a histogram (``normalize=True``) it is the population stability index.

    Gradients: with d = ln p − ln q, a = p d + p − q and b = q − p − q d: a − p Σa and b − q Σb with
    respect to the logits of p and q (divided by the temperature), a and b with respect to
    log-probabilities, a/p and b/q with respect to probabilities, whose limit −inf is given at
    probability 0. Where a class that q lacks makes the value infinite the gradient with respect to
    the logits of p is NaN, and the other way round; that of the other side is finite.

    Parameters, returns and exceptions are those of `kl`.

    Examples
    --------
    >>> import kldiv
    >>> kldiv.jeffreys([0.5, 0.5], [0.9, 0.1], space="probs").round(6)
    np.float64(0.87889)

    References
    ----------
    .. [1] H. Jeffreys, "An Invariant Form for the Prior Probability in Estimation Problems",
       Proceedings of the Royal Society A 186 (1946). :doi:`10.1098/rspa.1946.0056`
    """
    return divergence(
        "jeffreys",
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
