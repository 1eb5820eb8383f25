"""Universal logit distillation."""

from __future__ import annotations

from numpy.typing import ArrayLike

from kldiv import _requests
from kldiv._reducer import Value  # noqa: F401  (what `help` shows to be returned)
from kldiv._requests import IdMap, Request, Space, Temperature, differentiable


@differentiable
def uld(
    p: ArrayLike,
    q: ArrayLike,
    *,
    id_map: IdMap | None = None,
    beta: float = 0.5,
    matched_weight: float | None = None,
    unmatched_weight: float | None = None,
    space: Space = "logits",
    normalize: bool = False,
    temperature: Temperature = 1.0,
    axis: int = -1,
    classes: int | tuple[int, int] | None = None,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: str = "none",
    denominator: float | None = None,
) -> Request:
    r"""Universal logit distillation, Σ \|p_(i) − q_(i)\| of probabilities in falling order.

    For models with different vocabularies: p_(i) is the i-th largest probability of a row, and the
    row with fewer classes is padded with probabilities of 0. It is between 0 and 2, and 0 for a
    row in any other order; of rows of as many classes it is the least that 2 `total_variation` is
    for any order of either.

    With `id_map`, the classes that both vocabularies have are compared by name and only all
    others by rank, as the hybrid loss of TRL's ``GOLDTrainer`` does: with S the pairs of ids,

        m · Σ_S [β p ln(p/m_β) + (1−β) q ln(q/m_β)] + u · Σ \|p_(i) − q_(i)\| of the others,

    m_β = βp + (1−β)q, where `beta` 0 stands for Σ_S p ln(p/q) and 1 for Σ_S q ln(q/p). All
    probabilities are those of the whole row: nothing is divided by what S has of it, so that a sum
    over S with `beta` 0 or 1 may be negative. Two things are not as in TRL, which takes
    probabilities below 1e-8 in the first sum for 1e-8, and leaves the second out where either
    side has no other classes; here the padding holds for these too.

    Gradients: with s = sign(p_(i) − q_(i)) for the class that is the i-th largest, s·p − p Σ s·p
    with respect to the logits of p (divided by the temperature), s·p with respect to its
    log-probabilities, s with respect to its probabilities; for q the same with −s. Where classes
    of a row tie, the lower index comes first, and s is 0 where p_(i) = q_(i): a subgradient. The
    gradients of the shared classes are those of `jensen_shannon`, `kl` and `reverse_kl`.

    Accuracy: probabilities and differences are float64 whatever the dtype. Without `id_map`
    p_(i) − q_(i) is taken from ln p_(i) − ln q_(i), so that rows may be close to each other. With
    it, ln p and ln q are rounded first: terms are right to about 1e-15/\|ln p − ln q\|.

    Parameters
    ----------
    p, q : array_like
        Teacher and student, floating arrays of one batch shape; their numbers of classes, and
        their dtypes, may differ.
    id_map : (array_like, array_like), optional
        ``(p_ids, q_ids)``: integers of one length, of which ``p_ids[k]`` and ``q_ids[k]`` stand
        for the same. No id may be there twice on a side.
    beta : float
        β from 0 to 1, with `id_map` only.
    matched_weight, unmatched_weight : float, optional
        m and u, finite and not negative, with `id_map` only; both or none. Unless given, m is
        the share of p's classes that are in `id_map`, and u is 1 − m. A part of weight 0 is left
        out.
    space, normalize, temperature
        As for `kl`. No factor T² is applied.
    axis : int
        The class axis.
    classes : int or (int, int), optional
        The real classes of vocabularies that are padded, of p and of q: later ones are left out
        before anything else, whatever they hold, and have a gradient of 0.
    where, weights, reduction, denominator
        As for `kl`.

    Returns
    -------
    ndarray or scalar
        Batch-shaped for ``"none"``, else a scalar; float64 if p or q is, else float32. Rows that
        hold NaN or +inf, or only masked classes, or a negative probability, give NaN, as for
        `kl`.

    Raises
    ------
    TypeError
        For an `id_map` that is no pair of arrays of integers; and what `kl` raises.
    ValueError
        For batch shapes that differ, ids that are out of range or there twice, weights of parts
        without `id_map`, or only one; and what `kl` raises.

    Examples
    --------
    >>> import kldiv
    >>> teacher, student = [0.5, 0.3, 0.2], [0.1, 0.9]
    >>> kldiv.uld(teacher, student, space="probs").round(6)
    np.float64(0.8)
    >>> kldiv.uld(teacher, student, space="probs", id_map=([0, 2], [1, 0])).round(6)
    np.float64(0.124979)

    References
    ----------
    .. [1] N. Boizard, K. El Haddad, C. Hudelot and P. Colombo, "Towards Cross-Tokenizer
       Distillation: the Universal Logit Distillation Loss for LLMs" (2024).
       :arxiv:`2402.12030`
    .. [2] C. M. Patiño et al., "Unlocking On-Policy Distillation for Any Model Family" (2025):
       TRL's ``GOLDTrainer``.
    """
    return _requests.uld(
        p,
        q,
        id_map,
        beta,
        matched_weight,
        unmatched_weight,
        space,
        normalize,
        temperature,
        axis,
        classes,
        where,
        weights,
        reduction,
        denominator,
    )
