"""Total variation distance."""

from __future__ import annotations

from numpy.typing import ArrayLike

from kldiv._reducer import Value  # noqa: F401  (what `help` shows to be returned)
from kldiv._requests import Request, Rule, Space, Temperature, differentiable, divergence
from kldiv._top_k import TopK


@differentiable
def total_variation(
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
    r"""Total variation distance, ½ Σ \|p − q\|.

    Symmetric, and between 0 and 1 for rows that sum to one; between ½\|P − Q\| and ½(P + Q) for
    probabilities that sum to P and Q.

    Gradients: with s = ½ sign(p − q), which is 0 at the kink p = q: s·p − p Σ s·p with respect to
    the logits of p (divided by the temperature), s·p with respect to its log-probabilities, s
    with respect to its probabilities; for q the same with −s.

    Parameters, returns and exceptions are those of `kl`.

    Examples
    --------
    >>> import kldiv
    >>> kldiv.total_variation([0.5, 0.5], [0.9, 0.1], space="probs").round(6)
    np.float64(0.4)

    References
    ----------
    .. [1] A. L. Gibbs and F. E. Su, "On Choosing and Bounding Probability Metrics",
       International Statistical Review 70 (2002). :doi:`10.1111/j.1751-5823.2002.tb00178.x`
    """
    return divergence(
        "total_variation",
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
