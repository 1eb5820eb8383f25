"""Negative logarithm of the acceptance rate of speculative sampling."""

from __future__ import annotations

from numpy.typing import ArrayLike

from kldiv._reducer import Value  # noqa: F401  (what `help` shows to be returned)
from kldiv._requests import Request, Rule, Space, Temperature, differentiable, divergence
from kldiv._top_k import TopK


@differentiable
def neg_log_acceptance(
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
    r"""Negative logarithm of the acceptance rate of speculative sampling, −ln Σ min(p, q).

    The rate at which a token drawn from one of p and q is accepted as one of the other [1]_;
    for rows that sum to one it is 1 − `total_variation`. Symmetric; 0 for identical rows, and +inf
    where no class has both p > 0 and q > 0. Probabilities that sum to more than one may make it
    negative. At most `kl` or `reverse_kl`, whichever is less, plus ln 2.

    Gradients: with S = Σ min(p, q) and s = 1 where p < q, ½ where p = q, 0 elsewhere:
    p (Σ s·p − s)/S with respect to the logits of p (divided by the temperature), −s·p/S with
    respect to its log-probabilities, −s/S with respect to its probabilities; for q the same with
    the roles exchanged. They stay of the size of p as S → 0, and are NaN at S = 0.

    Parameters, returns and exceptions are those of `kl`.

    Examples
    --------
    >>> import kldiv
    >>> kldiv.neg_log_acceptance([0.5, 0.5], [0.9, 0.1], space="probs").round(6)
    np.float64(0.510826)

    References
    ----------
    .. [1] Y. Leviathan, M. Kalman and Y. Matias, "Fast Inference from Transformers via Speculative
       Decoding", ICML 2023. :doi:`10.48550/arXiv.2211.17192`
    """
    return divergence(
        "neg_log_acceptance",
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
