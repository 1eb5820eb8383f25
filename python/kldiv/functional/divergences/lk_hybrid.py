"""KL and total variation, mixed by the acceptance rate of speculative sampling."""

from __future__ import annotations

from numpy.typing import ArrayLike

from kldiv._reducer import Value  # noqa: F401  (what `help` shows to be returned)
from kldiv._requests import Request, Rule, Space, Temperature, differentiable, divergence
from kldiv._top_k import TopK


@differentiable
def lk_hybrid(
    p: ArrayLike | TopK,
    q: ArrayLike,
    *,
    eta: float = 3.0,
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
    r"""KL and total variation, λ·KL(p‖q) + (1 − λ)·½ Σ \|p − q\| with λ = e^(−η Σ min(p, q)).

    What drafts of speculative decoding are trained with [1]_: `kl` where they are far from their
    teacher p, and the more tokens are accepted, the more `total_variation`, which is one less the
    rate of acceptance. η = 0 is `kl`; for η → ∞ it is `total_variation` where p and q have
    anything in common. 0 for identical rows, and +inf where p > 0 and q = 0, for any η.

    Gradients are those of `kl` and of `total_variation`, weighed with λ and 1 − λ: λ is taken as a
    constant, as [1]_ does, and nothing is differentiated through it.

    Parameters
    ----------
    eta : float
        η, from 0 to 1e300.
    p, q, space, normalize, temperature, axis, classes, where, weights, reduction, denominator,
    rule, temper_after
        As for `kl`; likewise what is returned and raised.

    Examples
    --------
    >>> import kldiv
    >>> kldiv.lk_hybrid([0.5, 0.5], [0.9, 0.1], space="probs").round(6)
    np.float64(0.418319)

    References
    ----------
    .. [1] A. Samarin et al., "LK Losses: Direct Acceptance Rate Optimization for Speculative
       Decoding", 2026. :doi:`10.48550/arXiv.2602.23881`
    """
    return divergence(
        "lk_hybrid",
        eta,
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
