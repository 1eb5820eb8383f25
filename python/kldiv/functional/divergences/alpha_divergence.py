"""Alpha-divergence."""

from __future__ import annotations

from numpy.typing import ArrayLike

from kldiv._reducer import Value  # noqa: F401  (what `help` shows to be returned)
from kldiv._requests import Request, Rule, Space, Temperature, differentiable, divergence
from kldiv._top_k import TopK


@differentiable
def alpha_divergence(
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
    r"""Alpha-divergence, (Σ p^α q^(1−α) − 1) / (α(α − 1)).

    A class contributes 0 to the sum where p = 0 and where q = 0, except that the value is +inf
    where p > 0 = q for α > 1, and where q > 0 = p for α < 0. α = 1 is the limit `kl`, and α = 0
    is `reverse_kl`. For rows that sum to one it is never negative, 0 for p = q alone, and for
    0 < α < 1 at most 1/(α(1 − α)), of rows without a class in common. Orders α and 1 − α are each
    other's with p and q exchanged, so that it is symmetric for α = ½. Where the number exceeds the
    range of floats the value is +inf.

    Twice it is the power divergence 2 Σ p ((p/q)^λ − 1) / (λ(λ + 1)) of Cressie and Read with
    λ = α − 1. Of order ½ it is 4 `squared_hellinger`, of order 2 half of `chi_squared`, and `renyi`
    of the same order is ln(1 + α(α − 1) D) / (α − 1). As a loss for q, in variational inference and
    distillation, it goes from mode-seeking (for α ≤ 0 q may have no class that p lacks) to
    mass-covering (for α ≥ 1 it must have all of p's).

    Probabilities are taken as given: of rows that do not sum to one it is the formula, which has no
    limit for α → 0 or 1; `kl` and `reverse_kl` are what it gives there.

    Gradients: with f = p^α q^(1−α), S = Σ f, (f − pS) / (α − 1) and −(f − qS) / α with respect to
    the logits of p and q (divided by the temperature), f / (α − 1) and −f / α with respect to
    log-probabilities, f / (p (α − 1)) and −f / (q α) with respect to probabilities, with their
    limits at probability 0. Where the value is infinite those of logits are NaN.

    Parameters
    ----------
    p, q : array_like
        As for `kl`.
    alpha : float
        The order, 0 or of a magnitude from 1e-300 to 1e300.
    space, normalize, temperature, axis, classes, where, weights, reduction, denominator,
    rule, temper_after
        As for `kl`, and so are returns and exceptions.

    Examples
    --------
    >>> import kldiv
    >>> kldiv.alpha_divergence([0.5, 0.5], [0.9, 0.1], alpha=0.5, space="probs").round(6)
    np.float64(0.422291)
    >>> kldiv.alpha_divergence([0.5, 0.5], [0.9, 0.1], alpha=2, space="probs").round(6)
    np.float64(0.888889)

    References
    ----------
    .. [1] S. Amari, "α-Divergence Is Unique, Belonging to Both f-Divergence and Bregman Divergence
       Classes", IEEE Transactions on Information Theory 55 (2009). :doi:`10.1109/TIT.2009.2030485`
    .. [2] N. Cressie and T. R. C. Read, "Multinomial Goodness-of-Fit Tests", Journal of the Royal
       Statistical Society B 46 (1984). :doi:`10.1111/j.2517-6161.1984.tb01318.x`
    """
    return divergence(
        "alpha_divergence",
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
