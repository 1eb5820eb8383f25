"""The divergences of two arrays of rows."""

from __future__ import annotations

from numpy.typing import ArrayLike

from kldiv._reducer import Value  # noqa: F401  (what `help` shows to be returned)
from kldiv._requests import DivergenceRequest, Space, Temperature, differentiable, divergence

__all__ = ["jeffreys", "jensen_shannon", "kl", "renyi", "reverse_kl", "total_variation"]


@differentiable
def kl(
    p: ArrayLike,
    q: ArrayLike,
    *,
    space: Space = "logits",
    normalize: bool = False,
    temperature: Temperature = 1.0,
    axis: int = -1,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: str = "none",
    denominator: float | None = None,
) -> DivergenceRequest:
    r"""Kullback–Leibler divergence of q from p, Σ p (ln p − ln q).

    A class contributes 0 where p = 0 (even if q = 0), and +inf where p > 0 = q. The value is
    never negative, and exactly 0 on identical rows, for logits. Probabilities and
    log-probabilities are taken as given, as `scipy.special.rel_entr` does: rows that do not sum
    to one follow the formula term by term, and the value may be negative, though not below
    P ln(P/Q) for sums P and Q. `scipy.stats.entropy` divides each row by its sum first, and so does
    `normalize`.

    Gradients: q − p with respect to the logits of q and p (ln p − ln q − KL) with respect to
    those of p (both divided by the temperature); −p and p (ln p − ln q + 1) with respect to
    log-probabilities; −p/q and ln(p/q) + 1 with respect to probabilities, whose limits −inf are
    given at q = 0 < p and at p = 0 < q. With `normalize` a gradient g with respect to
    probabilities becomes (g − Σ p g) / Σw for the weights w that are divided. Where the value is
    infinite the gradient with respect to p is NaN for logits, and with `normalize` in any space;
    that of q is finite for logits.

    Parameters
    ----------
    p, q : array_like
        Reference and approximation, floating arrays of one shape ``[..., classes]``. Their
        dtypes may differ.
    space : {"logits", "log_probs", "probs"} or a pair of them
        What the numbers are; a pair is ``(p_space, q_space)``. A logit of −inf is a masked
        class of probability 0. Logits from 0 to 1 that sum to 1 in a row are taken as they are,
        with a `ProbabilitiesAsLogitsWarning`, once a process.
    normalize : bool
        Divide rows of probabilities (or of exp of log-probabilities) by their sums first, as
        `scipy.stats.entropy` does: any non-negative numbers, such as counts, are a distribution
        then. Nothing to rows of logits, whose softmax is one.
    temperature : float or a pair of floats
        T from 1e-30 to 1e30 with p = softmax(z / T), for logits only. No factor T² is applied.
    axis : int
        The class axis.
    where : array_like of bool, or of integers 0 and 1, optional
        Over the batch shape (broadcast). Rows marked False give 0 and a zero gradient, whatever
        they hold.
    weights : array_like, optional
        Finite non-negative weights w over the batch shape (broadcast). A row of weight 0 counts
        like one that `where` leaves out.
    reduction : {"none", "sum", "mean", "batchmean"}
        w·d for every row; Σ w·d; Σ w·d / Σ w over the rows kept (0 if there are none);
        Σ w·d / length of the first batch axis.
    denominator : float, optional
        Replaces the divisor of ``"mean"``, as gradient accumulation needs it.

    Returns
    -------
    ndarray or scalar
        Batch-shaped for ``"none"``, else a scalar, in nats; float64 if p or q is, else float32.
        A row that holds NaN or +inf, or only masked classes, gives NaN for that row. So does a
        negative probability, with a `NegativeProbabilityWarning` once a process that names the
        first one (unless a gradient was written over it).

    Raises
    ------
    TypeError
        For arrays that are not floating (lists may hold integers), masks that are neither
        booleans nor integers, or options of the wrong type.
    ValueError
        For shapes that differ, rows without classes, an unknown space or reduction, a
        temperature out of range, negative weights, a mask that holds other integers than 0 and
        1, options that do not apply.

    Examples
    --------
    >>> import numpy as np
    >>> import kldiv
    >>> teacher = np.array([[1.0, 2.0, 0.5], [-1.0, 0.0, 3.0]])
    >>> student = np.array([[0.9, 2.1, 0.5], [-1.0, 0.5, 2.0]])
    >>> kldiv.kl(teacher, student).round(6)
    array([0.003424, 0.088361])
    >>> kldiv.kl([0.5, 0.5], [0.9, 0.1], space="probs").round(6)
    np.float64(0.510826)

    References
    ----------
    .. [1] S. Kullback and R. A. Leibler, "On Information and Sufficiency", The Annals of
       Mathematical Statistics 22 (1951). :doi:`10.1214/aoms/1177729694`
    """
    return divergence(
        "kl",
        None,
        p,
        q,
        space,
        normalize,
        temperature,
        axis,
        where,
        weights,
        reduction,
        denominator,
    )


@differentiable
def reverse_kl(
    p: ArrayLike,
    q: ArrayLike,
    *,
    space: Space = "logits",
    normalize: bool = False,
    temperature: Temperature = 1.0,
    axis: int = -1,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: str = "none",
    denominator: float | None = None,
) -> DivergenceRequest:
    r"""Reverse Kullback–Leibler divergence, Σ q (ln q − ln p) = ``kl(q, p)``.

    A class contributes 0 where q = 0, and +inf where q > 0 = p.

    Gradients: q (ln q − ln p − value) with respect to the logits of q and p − q with respect to
    those of p (both divided by the temperature); otherwise those of `kl` with the roles
    exchanged.

    Parameters, returns and exceptions are those of `kl`.

    Examples
    --------
    >>> import kldiv
    >>> kldiv.reverse_kl([0.5, 0.5], [0.9, 0.1], space="probs").round(6)
    np.float64(0.368064)

    References
    ----------
    .. [1] Y. Gu, L. Dong, F. Wei and M. Huang, "MiniLLM: Knowledge Distillation of Large
       Language Models", ICLR 2024. :doi:`10.48550/arXiv.2306.08543`
    """
    return divergence(
        "reverse_kl",
        None,
        p,
        q,
        space,
        normalize,
        temperature,
        axis,
        where,
        weights,
        reduction,
        denominator,
    )


@differentiable
def jeffreys(
    p: ArrayLike,
    q: ArrayLike,
    *,
    space: Space = "logits",
    normalize: bool = False,
    temperature: Temperature = 1.0,
    axis: int = -1,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: str = "none",
    denominator: float | None = None,
) -> DivergenceRequest:
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
        where,
        weights,
        reduction,
        denominator,
    )


@differentiable
def jensen_shannon(
    p: ArrayLike,
    q: ArrayLike,
    *,
    beta: float = 0.5,
    space: Space = "logits",
    normalize: bool = False,
    temperature: Temperature = 1.0,
    axis: int = -1,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: str = "none",
    denominator: float | None = None,
) -> DivergenceRequest:
    r"""Jensen–Shannon divergence, β KL(p‖m) + (1−β) KL(q‖m) with m = βp + (1−β)q.

    The divergence, not its square root. It is never negative, symmetric in p and q for β = ½,
    and 0 for β = 0 and β = 1 by the formula (implementations that switch to forward and reverse
    KL there make a jump). It is finite: at most −β ln β − (1−β) ln(1−β) for rows that sum to one,
    which is ln 2 for β = ½, and −Pβ ln β − Q(1−β) ln(1−β) for probabilities that sum to P and Q.
    Those are taken as given; `scipy.spatial.distance.jensenshannon` divides each row by its sum
    first, as `normalize` does, and takes the square root.

    Gradients: with a = βp ln(p/m) and b = (1−β)q ln(q/m), a − p Σa and b − q Σb with respect to
    logits (divided by the temperature), a and b with respect to log-probabilities, a/p and b/q
    with respect to probabilities, whose limit −inf is given at probability 0.

    Parameters
    ----------
    p, q : array_like
        As for `kl`.
    beta : float
        Weight of p, from 0 to 1.
    space, normalize, temperature, axis, where, weights, reduction, denominator
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
    return divergence(
        "jensen_shannon",
        beta,
        p,
        q,
        space,
        normalize,
        temperature,
        axis,
        where,
        weights,
        reduction,
        denominator,
    )


@differentiable
def total_variation(
    p: ArrayLike,
    q: ArrayLike,
    *,
    space: Space = "logits",
    normalize: bool = False,
    temperature: Temperature = 1.0,
    axis: int = -1,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: str = "none",
    denominator: float | None = None,
) -> DivergenceRequest:
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
        where,
        weights,
        reduction,
        denominator,
    )


@differentiable
def renyi(
    p: ArrayLike,
    q: ArrayLike,
    *,
    alpha: float,
    space: Space = "logits",
    normalize: bool = False,
    temperature: Temperature = 1.0,
    axis: int = -1,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduction: str = "none",
    denominator: float | None = None,
) -> DivergenceRequest:
    r"""Rényi divergence of order α, ln(S) / (α − 1) with S = Σ p^α q^(1−α).

    A class contributes 0 to S where p = 0, and where q = 0 if α < 1; for α > 1 the value is +inf
    where p > 0 = q. The value is +inf for α < 1 where no class has both p > 0 and q > 0. α = 1
    is the limit, `kl`; for probabilities it is the limit only where p sums to one.

    Gradients: with c = p^α q^(1−α) / ((α − 1) S), αc − pα/(α − 1) and (1−α)c + q with respect to
    the logits of p and q (divided by the temperature), αc and (1−α)c with respect to
    log-probabilities, αc/p and (1−α)c/q with respect to probabilities, with their limits at
    probability 0. They are NaN where the value is infinite.

    Parameters
    ----------
    p, q : array_like
        As for `kl`.
    alpha : float
        The order, from 1e-300 to 1e300.
    space, normalize, temperature, axis, where, weights, reduction, denominator
        As for `kl`, and so are returns and exceptions.

    Examples
    --------
    >>> import kldiv
    >>> kldiv.renyi([0.5, 0.5], [0.9, 0.1], alpha=2, space="probs").round(6)
    np.float64(1.021651)

    References
    ----------
    .. [1] T. van Erven and P. Harremoës, "Rényi Divergence and Kullback–Leibler Divergence",
       IEEE Transactions on Information Theory 60 (2014). :doi:`10.1109/TIT.2014.2320500`
    """
    return divergence(
        "renyi",
        alpha,
        p,
        q,
        space,
        normalize,
        temperature,
        axis,
        where,
        weights,
        reduction,
        denominator,
    )
