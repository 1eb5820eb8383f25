"""KL in both directions, weighed by where the rows differ: among probable classes, or others."""

from __future__ import annotations

from numpy.typing import ArrayLike

from kldiv._reducer import Value  # noqa: F401  (what `help` shows to be returned)
from kldiv._requests import Request, Rule, Space, Temperature, differentiable, divergence
from kldiv._top_k import TopK


@differentiable
def adaptive_kl(
    p: ArrayLike | TopK,
    q: ArrayLike,
    *,
    mu: float = 0.5,
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
    r"""Adaptive KL, g·KL(p‖q) + (1 − g)·KL(q‖p) with g = Σ_head \|p − q\| / Σ \|p − q\|.

    The head are the most probable classes of the teacher p, as few as hold μ of it: those with
    less than μ in all classes that are more probable. Classes that are equally probable are in it,
    or not, together. KL fits the head of a distribution first and reverse KL its tail, and each
    gets the weight of the part in which the rows are further apart [1]_. 0 for identical rows; +inf
    where p > 0 and q = 0 unless g is 0, and where q > 0 and p = 0 unless g is 1. μ = 0 is
    `reverse_kl`, and with μ = 1 the tail are the classes that p lacks. A class at the border makes
    the value jump when it moves from one part to the other.

    Gradients are those of `kl` and of `reverse_kl`, weighed with g and 1 − g: g is taken as a
    constant, as [1]_ does, and nothing is differentiated through it.

    Parameters
    ----------
    mu : float
        μ, the probability that the head holds, from 0 to 1.
    p, q, space, normalize, temperature, axis, classes, where, weights, reduction, denominator,
    rule, temper_after
        As for `kl`; likewise what is returned and raised.

    Examples
    --------
    >>> import kldiv
    >>> kldiv.adaptive_kl([0.6, 0.3, 0.1], [0.4, 0.2, 0.4], space="probs").round(6)
    np.float64(0.282922)

    References
    ----------
    .. [1] T. Wu et al., "Rethinking Kullback–Leibler Divergence in Knowledge Distillation for Large
       Language Models", COLING 2025. :doi:`10.48550/arXiv.2404.02657`
    """
    return divergence(
        "adaptive_kl",
        mu,
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
