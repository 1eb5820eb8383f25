"""Pearson's χ² divergence."""

from __future__ import annotations

from numpy.typing import ArrayLike

from kldiv._reducer import Value  # noqa: F401  (what `help` shows to be returned)
from kldiv._requests import Request, Rule, Space, Temperature, differentiable, divergence
from kldiv._top_k import TopK


@differentiable
def chi_squared(
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
    r"""Pearson's χ² divergence, Σ (p − q)²/q.

    A class contributes q where p = 0, 0 where q = 0 too, and +inf where p > 0 = q. It is never
    negative, 0 for p = q alone, not symmetric, and without a bound; Neyman's, Σ (p − q)²/p, is
    ``chi_squared(q, p)``. Where the number exceeds the range of floats the value is +inf.
    Probabilities are taken as given: n times the value, for frequencies p of n draws and those q
    expected, is the statistic of the χ² test, `scipy.stats.chisquare`.

    For rows that sum to one it is Σ p²/q − 1, the variance of the weights p/q of importance
    sampling, twice `alpha_divergence` of order 2, and e^R − 1 for `renyi` R of order 2. It bounds
    `kl` ≤ ln(1 + χ²) ≤ χ², `total_variation` ≤ ½ √χ², and 2 `squared_hellinger` ≤ ln(1 + χ²).

    Gradients: with r = p/q, a = 2p (r − 1) and b = q (1 − r²), a − p Σa and b − q Σb with respect
    to the logits of p and q (divided by the temperature), a and b with respect to
    log-probabilities, 2 (r − 1) and 1 − r² with respect to probabilities, whose limits are −2 at
    p = 0 and −inf at q = 0 < p. Where the value is infinite those of logits are NaN.

    Parameters, returns and exceptions are those of `kl`.

    Examples
    --------
    >>> import kldiv
    >>> kldiv.chi_squared([0.5, 0.5], [0.9, 0.1], space="probs").round(6)
    np.float64(1.777778)

    References
    ----------
    .. [1] A. L. Gibbs and F. E. Su, "On Choosing and Bounding Probability Metrics",
       International Statistical Review 70 (2002). :doi:`10.1111/j.1751-5823.2002.tb00178.x`
    .. [2] F. Nielsen and R. Nock, "On the Chi Square and Higher-Order Chi Distances for
       Approximating f-Divergences", IEEE Signal Processing Letters 21 (2014).
       :doi:`10.1109/LSP.2013.2288355`
    """
    return divergence(
        "chi_squared",
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
