"""Jensen–Shannon divergence."""

from __future__ import annotations

from numpy.typing import ArrayLike

from kldiv._arrays import as_float
from kldiv._reducer import Value  # noqa: F401  (what `help` shows to be returned)
from kldiv._requests import (
    Request,
    Rule,
    Space,
    Temperature,
    at_endpoints,
    differentiable,
    divergence,
)
from kldiv._top_k import TopK


@differentiable
def jensen_shannon(
    p: ArrayLike | TopK,
    q: ArrayLike,
    *,
    beta: float = 0.5,
    endpoints: str = "formula",
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
    r"""Jensen–Shannon divergence, β KL(p‖m) + (1−β) KL(q‖m) with m = βp + (1−β)q.

    The divergence, not its square root. It is never negative, symmetric in p and q for β = ½,
    and 0 for β = 0 and β = 1 by the formula; TRL and Liger switch to `kl` and `reverse_kl` there,
    which is a jump, and so does ``endpoints="trl"``. By the formula it is finite: at most
    −β ln β − (1−β) ln(1−β) for rows that sum to one, which is ln 2 for β = ½, and
    −Pβ ln β − Q(1−β) ln(1−β) for probabilities that sum to P and Q. Those are taken as given;
    `scipy.spatial.distance.jensenshannon` divides each row by its sum first, as `normalize` does,
    and takes the square root.

    Gradients: with a = βp ln(p/m) and b = (1−β)q ln(q/m), a − p Σa and b − q Σb with respect to
    logits (divided by the temperature), a and b with respect to log-probabilities, a/p and b/q
    with respect to probabilities, whose limit −inf is given at probability 0.

    Parameters
    ----------
    p, q : array_like
        As for `kl`.
    beta : float
        Weight of p, from 0 to 1.
    endpoints : {"formula", "trl"}
        What β = 0 and β = 1 give: 0, as the formula has it, or ``kl(p, q)`` and
        ``reverse_kl(p, q)``, as ``generalized_jsd_loss`` of TRL has it with p the teacher and q
        the student [2]_. All other β are the same.
    space, normalize, temperature, axis, classes, where, weights, reduction, denominator,
    rule, temper_after
        As for `kl`, and so are returns and exceptions.

    Examples
    --------
    >>> import kldiv
    >>> kldiv.jensen_shannon([0.5, 0.5], [0.9, 0.1], space="probs").round(6)
    np.float64(0.101749)

    References
    ----------
    .. [1] J. Lin, "Divergence measures based on the Shannon entropy", IEEE Transactions on
       Information Theory 37 (1991). :doi:`10.1109/18.61115`
    .. [2] R. Agarwal et al., "On-Policy Distillation of Language Models: Learning from
       Self-Generated Mistakes", ICLR 2024. :doi:`10.48550/arXiv.2306.13649`
    """
    beta = as_float("beta", beta)
    return divergence(
        at_endpoints(beta, endpoints),
        beta,
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
